"""A dataset's images on a device: pairs to train on in their views, and images to evaluate on as they are.

Not for: making a dataset (prepared.py) or the low-resolution side of a pair (cameras.py, degradation.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfd_tune.data.degradation import normalise
from dfd_tune.data.prepared import Dataset, Split
from dfd_tune.data.views import ViewSpace


@dataclass(frozen=True)
class Draw:
    """Which images a step takes, and in which views: on their device, and on the host, where a bank may lie."""

    epoch: int
    """From 0."""
    indices: Tensor
    """int64 (B,), on the device."""
    ids: Tensor
    """The view of each: int64 (B,), on the device."""
    host_indices: np.ndarray
    host_ids: np.ndarray
    mixed: Mix | None = None
    """What its images are mixed with, if they are."""

    def __len__(self) -> int:
        return len(self.host_indices)


@dataclass(frozen=True)
class Mix:
    """The images that a draw's are mixed with, one each: share · own + (1 − share) · other."""

    share: float
    """In 0..1."""
    others: Draw

    def of(self, own: Tensor, others: Tensor) -> Tensor:
        """Values of both, mixed."""
        return torch.lerp(others, own, self.share)


@dataclass(frozen=True)
class TrainingImages:
    """One side of the training pairs, high or low resolution, ready to be cut into views."""

    images: Tensor
    """uint8 (N, C, S, S); never written to, as it may be a file's pages."""
    labels: Tensor
    """int64 (N,)."""
    space: ViewSpace
    augment_seed: int
    mean: Tensor
    """float32 (C,), of values scaled to 0..1; on the images' device, as a batch that sends it there waits for that."""
    std: Tensor
    """Likewise."""

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, epoch: int, indices: np.ndarray) -> Draw:
        """The images `indices`, int64 (B,), in the views that they get in `epoch` (from 0)."""
        return self.draws(epoch, [indices])[0]

    def draws(self, epoch: int, batches: Sequence[np.ndarray]) -> list[Draw]:
        """Likewise for all batches of an epoch, which are sent to the device at once."""
        whole = np.concatenate(batches)
        return self.draws_of_views(epoch, batches, self.space.draw(self.augment_seed, epoch, whole))

    def draws_of_views(self, epoch: int, batches: Sequence[np.ndarray], ids: np.ndarray) -> list[Draw]:
        """Likewise in the views `ids`, int64, of all batches' images one after the other."""
        sizes = [len(batch) for batch in batches]
        sent = torch.from_numpy(np.stack([np.concatenate(batches), ids])).to(self.images.device)
        on_host = np.split(ids, np.cumsum(sizes)[:-1])
        parts = zip(*(row.split(sizes) for row in sent), batches, on_host, strict=True)
        return [Draw(epoch, *part) for part in parts]

    def views(self, draw: Draw) -> Tensor:
        """What a draw sees, standardised, then mixed if it is: float32 (B, C, S, S)."""
        crops = self.space.cut(self.images, draw.indices, draw.ids)
        views = _laid_out(normalise(crops, self.mean, self.std))
        return views if draw.mixed is None else draw.mixed.of(views, self.views(draw.mixed.others))

    def labels_of(self, draw: Draw) -> Tensor:
        """The labels of a draw's own images: int64 (B,)."""
        return self.labels[draw.indices]


def looked_at_once(device: torch.device) -> int:
    """How many images go through a network at once where it is not trained: on CPUs what stays in a core's cache."""
    return 128 if device.type == "cpu" else 500


@dataclass(frozen=True)
class EvaluationImages:
    """Images to measure accuracy on: uncropped, unflipped."""

    images: Tensor
    """uint8 (N, C, S, S)."""
    labels: Tensor
    """int64 (N,)."""
    mean: Tensor
    """float32 (C,), of values scaled to 0..1, on the images' device."""
    std: Tensor
    """Likewise."""

    def batches(self, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Standardised images, float32 (B, C, S, S), and labels, int64 (B,), in order; B is what suits the device."""
        size = looked_at_once(self.images.device) if size is None else size
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield _laid_out(normalise(images, self.mean, self.std)), labels


def training_images(
    dataset: Dataset, side: Tensor, space: ViewSpace, augment_seed: int, device: torch.device
) -> TrainingImages:
    """One side of the training split: `side` has its images, uint8 (N, C, S, S), high or low resolution."""
    assert side.shape == dataset.train.images.shape
    return TrainingImages(
        images=side.to(device),
        labels=torch.tensor(dataset.train.labels).to(device),
        space=space,
        augment_seed=augment_seed,
        mean=torch.tensor(dataset.mean, device=device),
        std=torch.tensor(dataset.std, device=device),
    )


def evaluation_images(dataset: Dataset, split: Split, side: Tensor, device: torch.device) -> EvaluationImages:
    """One side of a split: `side` has its images, uint8 (N, C, S, S), high or low resolution."""
    assert side.shape == split.images.shape
    return EvaluationImages(
        images=side.to(device),
        labels=torch.tensor(split.labels).to(device),
        mean=torch.tensor(dataset.mean, device=device),
        std=torch.tensor(dataset.std, device=device),
    )


def as_tensor(images: np.ndarray) -> Tensor:
    """The same memory as a tensor; where it is a file's pages, without torch's warning that none must be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)


def _laid_out(images: Tensor) -> Tensor:
    """The same images, channels last in memory: convolutions are quicker so (benchmarks/memory_layout.py)."""
    return images.contiguous(memory_format=torch.channels_last)
