"""A dataset's images on a device: pairs to train on in their views, and images to evaluate on as they are.

Not for: making a dataset (prepared.py) or the low-resolution side of a pair (cameras.py, degradation.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfd_tune.data.degradation import normalise
from dfd_tune.data.prepared import Dataset, Split
from dfd_tune.data.views import ViewSpace


@dataclass(frozen=True)
class TrainingImages:
    """One side of the training pairs, high or low resolution, ready to be cut into views."""

    padded: Tensor
    """uint8 (N, C, S + 2p, S + 2p)."""
    labels: Tensor
    """int64 (N,)."""
    space: ViewSpace
    augment_seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def view_ids(self, epoch: int, indices: np.ndarray) -> np.ndarray:
        """Which views the images `indices`, int64 (B,), get in `epoch` (from 0): int64 (B,)."""
        return self.space.draw(self.augment_seed, epoch, indices)

    def views(self, indices: np.ndarray, ids: np.ndarray) -> Tensor:
        """The views `ids` of the images `indices`, both int64 (B,), standardised: float32 (B, C, S, S)."""
        device = self.padded.device
        where = torch.from_numpy(indices).to(device)
        crops = self.space.cut(self.padded, where, torch.from_numpy(ids).to(device))
        return _laid_out(normalise(crops, self.mean, self.std))

    def batch(self, epoch: int, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """The images `indices`, int64 (B,), as `epoch` sees them, float32 (B, C, S, S), and their labels."""
        labels = self.labels[torch.from_numpy(indices).to(self.labels.device)]
        return self.views(indices, self.view_ids(epoch, indices)), labels


@dataclass(frozen=True)
class EvaluationImages:
    """Images to measure accuracy on: uncropped, unflipped."""

    images: Tensor
    """uint8 (N, C, S, S)."""
    labels: Tensor
    """int64 (N,)."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def batches(self, size: int = 500) -> list[tuple[Tensor, Tensor]]:
        """Standardised images, float32 (B, C, S, S), and labels, int64 (B,), in order."""
        return [
            (_laid_out(normalise(images, self.mean, self.std)), labels)
            for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True)
        ]


def training_images(
    dataset: Dataset, side: Tensor, space: ViewSpace, augment_seed: int, device: torch.device
) -> TrainingImages:
    """One side of the training split: `side` has its images, uint8 (N, C, S, S), high or low resolution."""
    assert side.shape == dataset.train.images.shape
    return TrainingImages(
        padded=space.pad(side).to(device),
        labels=torch.tensor(dataset.train.labels).to(device),
        space=space,
        augment_seed=augment_seed,
        mean=dataset.mean,
        std=dataset.std,
    )


def evaluation_images(dataset: Dataset, split: Split, side: Tensor, device: torch.device) -> EvaluationImages:
    """One side of a split: `side` has its images, uint8 (N, C, S, S), high or low resolution."""
    assert side.shape == split.images.shape
    return EvaluationImages(
        images=side.to(device),
        labels=torch.tensor(split.labels).to(device),
        mean=dataset.mean,
        std=dataset.std,
    )


def _laid_out(images: Tensor) -> Tensor:
    """The same images, channels last in memory: convolutions are quicker so (benchmarks/memory_layout.py)."""
    return images.contiguous(memory_format=torch.channels_last)
