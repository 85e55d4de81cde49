"""The paper's own numbers, to stand beside ours: Tables 1 and 2, top-1 accuracy in per cent, one run each.

Zhu, Han, Zhang, Lin, Wang: "Low-resolution visual recognition via deep feature distillation". Not for: ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DATASETS = ("cifar10", "svhn")
"""In the order of the paper's columns; each at 8×8 and at 16×16."""
BACKBONES = ("alexnet", "vgg16", "resnet18")
"""In the order of the paper's rows."""
FRONTENDS = ("none", "vdsr", "espcn", "srgan")
"""In the order of Table 2."""
TITLES = {"alexnet": "AlexNet", "vgg16": "VGG-16", "resnet18": "ResNet-18", "cifar10": "CIFAR-10", "svhn": "SVHN"}

TABLE_1: dict[tuple[str, int, str], tuple[float, float]] = {
    ("cifar10", 8, "alexnet"): (64.08, 66.23),
    ("cifar10", 16, "alexnet"): (69.10, 71.60),
    ("svhn", 8, "alexnet"): (81.81, 81.97),
    ("svhn", 16, "alexnet"): (87.77, 88.35),
    ("cifar10", 8, "vgg16"): (78.41, 79.97),
    ("cifar10", 16, "vgg16"): (88.02, 89.35),
    ("svhn", 8, "vgg16"): (90.40, 91.11),
    ("svhn", 16, "vgg16"): (95.52, 95.90),
    ("cifar10", 8, "resnet18"): (79.86, 81.26),
    ("cifar10", 16, "resnet18"): (89.12, 90.41),
    ("svhn", 8, "resnet18"): (90.45, 92.07),
    ("svhn", 16, "resnet18"): (95.55, 96.02),
}
"""(dataset, resolution, backbone) -> (base network, DFD)."""

TABLE_2: dict[str, float] = {
    "high_res": 93.38,
    "none": 79.86,
    "vdsr": 80.00,
    "espcn": 79.41,
    "srgan": 79.05,
    "dfd": 81.26,
}
"""Row -> accuracy, of ResNet-18 on CIFAR-10 at 8×8: HR baseline, LR baseline, behind each front end, DFD."""


def is_table_2(dataset: str, resolution: int, backbone: str) -> bool:
    """Whether this is what the paper's Table 2 was measured on."""
    return (dataset, resolution, backbone) == ("cifar10", 8, "resnet18")


PROTOCOL = {"student_start": "scratch", "width": 1.0, "epochs": 100, "batch_size": 128, "teacher_sees": "high_res"}
"""Settings of the paper's own base networks and students."""
NEARLY_ALL = 40_000
"""With fewer training images, a number is of another task."""


def is_papers_protocol(dataset: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether what was trained so may stand beside the paper's numbers.

    Args:
        dataset: facts of the dataset.
        config: settings of a trial.
    """
    return dataset["train_images"] >= NEARLY_ALL and all(config.get(name) == value for name, value in PROTOCOL.items())


def title_of(name: str) -> str:
    """A name as the paper writes it."""
    return TITLES.get(name, name)
