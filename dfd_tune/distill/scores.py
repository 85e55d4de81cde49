"""How well images are classified, class by class: recall, balanced accuracy and macro F1, from one confusion matrix.

Balanced accuracy is the mean of recall, macro F1 the mean of F1, both over the classes that occur among the labels. Not
for: losses (losses.py), or which of these a search chooses by (dfd_tune/criteria.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ClassCounts(NamedTuple):
    """Of each class, int64 (K,): its images, those of them told right, and all that were taken for it."""

    images: Tensor
    right: Tensor
    predicted: Tensor


def class_counts(labels: Tensor, predicted: Tensor, classes: int) -> ClassCounts:
    """The margins and the diagonal of the confusion matrix, on the device of the labels.

    Args:
        labels: int64 (N,).
        predicted: int64 (N,).
        classes: K, above every label.
    """
    # Not bincount, which has a GPU wait for the length of its answer.
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=labels.device)
    confusion.index_add_(0, labels * classes + predicted, torch.ones_like(labels))
    matrix = confusion.view(classes, classes)
    return ClassCounts(matrix.sum(1), matrix.diagonal(), matrix.sum(0))


def balanced_accuracy(counts: ClassCounts) -> Tensor:
    """The mean of right / images over the classes that occur: a scalar, float64."""
    return _mean_over_occurring(counts.right.double() / counts.images.clamp(min=1), counts)


def macro_f1(counts: ClassCounts) -> Tensor:
    """The mean over the classes that occur of F1 = 2 · right / (images + predicted), which is 0 for a class of which
    none was told right: a scalar, float64."""
    return _mean_over_occurring(2.0 * counts.right.double() / (counts.images + counts.predicted).clamp(min=1), counts)


def _mean_over_occurring(values: Tensor, counts: ClassCounts) -> Tensor:
    """Of a class without images the value is 0, as none of them is right."""
    return values.sum() / (counts.images > 0).sum().clamp(min=1)
