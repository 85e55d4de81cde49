"""What all sides of a comparison train: images, networks, the weights they start from, recipe; read from a folder.

    work.json                 sizes and recipe
    images.npz                {train, validation, test}_images, uint8 (N, C, S, S), high resolution; likewise
                              …_labels, int64 (N,)
    student-SEED.safetensors  the weights that a student starts from
    teacher-start.safetensors, teacher.safetensors     a teacher's first weights; and a trained one

Also the few lines by which a script hears what to do and says what it did. Making such a folder is product.py's. Not
for: how anything is trained, which is each baseline's own.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from dfd_tune.models import Network, build_network

WORK_FILE, IMAGES_FILE = "work.json", "images.npz"
TEACHER_START, TEACHER = "teacher-start.safetensors", "teacher.safetensors"


@dataclass(frozen=True, kw_only=True)
class Work:
    """Sizes and recipe, the same for all sides; teacher and student share the recipe."""

    dataset: str
    classes: int
    channels: int
    image_size: int
    mean: tuple[float, ...]
    """Per channel, of values scaled to 0..1; likewise `std`."""
    std: tuple[float, ...]
    resolution: int
    """Side in pixels of what the student sees, before it is enlarged to `image_size`; both ways bicubic."""
    crop_padding: int
    flip: bool
    backbone: str
    width: float
    epochs: int
    batch_size: int
    learning_rate: float
    """Peak of one cycle, stepped once a batch."""
    momentum: float
    weight_decay: float

    def write(self, folder: Path) -> None:
        """Put this into `folder`."""
        (folder / WORK_FILE).write_text(json.dumps(dataclasses.asdict(self), indent=1))

    def network(self, weights: Path) -> Network:
        """The network of teacher and student, on the CPU, with the weights of a safetensors file."""
        network = build_network(
            self.backbone,
            width=self.width,
            dropout=0.0,
            channels=self.channels,
            image_size=self.image_size,
            num_classes=self.classes,
            seed=0,
        )
        network.load_state_dict(load_file(weights))
        return network


def read_work(folder: Path) -> Work:
    """The work that lies in `folder`."""
    values = json.loads((folder / WORK_FILE).read_text())
    return Work(**values | {"mean": tuple(values["mean"]), "std": tuple(values["std"])})


def read_images(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images of `split`, uint8 (N, C, S, S), and their labels, int64 (N,)."""
    with np.load(folder / IMAGES_FILE) as arrays:
        return arrays[f"{split}_images"], arrays[f"{split}_labels"]


def student_start(folder: Path, seed: int) -> Path:
    """Where the weights lie that a student of that seed starts from."""
    return folder / f"student-{seed}.safetensors"


def save_weights(network: torch.nn.Module, file: Path) -> None:
    """Write a network's state dict."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, file)


def warm_up(
    student: torch.nn.Module,
    teacher: torch.nn.Module | None,
    work: Work,
    *,
    trained: Iterable[int],
    evaluated: Iterable[int],
    layout: torch.memory_format,
    precision: str = "float32",
) -> None:
    """Have the kernels of a training compiled, which a process does once, for each shape, and which takes seconds.

    Args:
        student: of which a copy is trained, and thrown away.
        teacher: in evaluation mode; None if it is not looked at.
        work: the side and channels of its images.
        trained: sizes of the batches that will be trained on.
        evaluated: likewise of those that are only looked at.
        layout: of weights and images in memory.
        precision: float32 or bf16.
    """
    device = next(student.parameters()).device
    trial = copy.deepcopy(student).to(memory_format=layout)

    def images(count: int) -> torch.Tensor:
        shape = (count, work.channels, work.image_size, work.image_size)
        return torch.zeros(shape, device=device).contiguous(memory_format=layout)

    for count in sorted(set(trained)):
        trial.train()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            trial(images(count)).float().logsumexp(1).mean().backward()
            if teacher is not None:
                with torch.no_grad():
                    teacher(images(count))
    trial.eval()
    with torch.no_grad():
        for count in sorted(set(evaluated)):
            trial(images(count))


def parts(count: int, size: int) -> set[int]:
    """Sizes of the parts that so many images are cut into, all of `size` but for the last."""
    return {min(size, count), count % size} - {0}


def script_arguments(description: str | None) -> argparse.ArgumentParser:
    """What every script that trains one network takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the work (work.py)")
    parser.add_argument("--lambda", dest="lambda_", type=float, default=0.5, help="λ; 0 is plain training")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batch order")
    parser.add_argument("--epochs", type=int, help="in the place of the work's")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--loaders", type=int, default=0, help="processes of each DataLoader, where there is one")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--teacher", type=Path, help="weights of the trained teacher; the work's where not given")
    parser.add_argument("--save", type=Path, help="where the trained weights go")
    parser.add_argument("--wait", action="store_true", help="begin to train when a line comes in")
    return parser


def begin(wait: bool) -> None:
    """Say that all is set up; then, if asked to, wait until a line comes in."""
    print(json.dumps({"ready": True}), flush=True)
    if wait:
        sys.stdin.readline()


def done(history: list[dict[str, float]], **facts: Any) -> None:
    """Say how it ended: the last epoch's metrics, and more facts, as a line of JSON."""
    print(json.dumps(history[-1] | facts | {"done": True}), flush=True)
