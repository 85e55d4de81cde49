"""What the test images say of stored networks. Each question is asked once, when a search is concluded.

Not for: choosing anything by the answer (analysis/cells.py says which trials are tested).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfd_tune.config import TrialConfig
from dfd_tune.distill.scores import balanced_accuracy, class_counts, macro_f1
from dfd_tune.distill.workbench import Workbench
from dfd_tune.models.deployed import load_deployed
from dfd_tune.parts import Guide


@torch.no_grad()
def probabilities_on_test_images(file: Path, config: TrialConfig, bench: Workbench) -> tuple[np.ndarray, np.ndarray]:
    """What a stored student makes of the low-resolution test images.

    Args:
        file: a finished trial's student.
        config: of that trial; says what its low-resolution images are.
        bench: the dataset's workbench, whose store holds the front end, if the trial has one.

    Returns:
        Class probabilities, float32 (N, K), and labels, int64 (N,).
    """
    network = load_deployed(file)[0].network.to(bench.device).eval()
    images = bench.test_images(config.low_res)
    parts = [torch.softmax(network(inputs).float(), dim=1).cpu().numpy() for inputs, _ in images.batches()]
    return np.concatenate(parts), images.labels.cpu().numpy()


def accuracy_on_test_images(file: Path, config: TrialConfig, bench: Workbench) -> float:
    """Accuracy of a stored student on the low-resolution test images, a fraction; arguments as above."""
    probabilities, labels = probabilities_on_test_images(file, config, bench)
    return float((probabilities.argmax(1) == labels).mean())


@torch.no_grad()
def network_on_test_images(config: Guide, bench: Workbench) -> tuple[np.ndarray, np.ndarray]:
    """What a network from the store takes each test image for, of the side it was trained on: of a teacher, in high
    resolution, the HR baseline.

    Returns:
        Predicted classes and labels, int64 (N,).
    """
    network = bench.pretrained(config).network.eval()
    images = bench.test_images_for(config)
    told = [network(inputs).argmax(1).cpu().numpy() for inputs, _ in images.batches()]
    return np.concatenate(told), images.labels.cpu().numpy()


def network_right_on_test_images(config: Guide, bench: Workbench) -> np.ndarray:
    """bool (N,), whether that network is right on each test image."""
    predicted, labels = network_on_test_images(config, bench)
    right: np.ndarray = predicted == labels
    return right


def by_class(predicted: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, Any]:
    """What a TestRecord says beside accuracy: balanced accuracy, macro F1, and each class's images and those told
    right.

    Args:
        predicted: int64 (N,).
        labels: int64 (N,).
        classes: how many there are, K.
    """
    counts = class_counts(torch.from_numpy(labels), torch.from_numpy(predicted), classes)
    return {
        "balanced_accuracy": balanced_accuracy(counts).item(),
        "macro_f1": macro_f1(counts).item(),
        "class_images": counts.images.tolist(),
        "class_right": counts.right.tolist(),
    }
