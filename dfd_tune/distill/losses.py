"""The losses of deep feature distillation, Eq. 1 to 4 of Zhu et al., "Low-resolution visual recognition via
deep feature distillation".

Not for: where features come from (features.py) or how they are minimised (training.py).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from dfd_tune.config import Reduction


class Losses(NamedTuple):
    """Scalars, float32, each a mean over the batch."""

    total: Tensor
    cross_entropy: Tensor
    distillation: Tensor


def distillation_loss(student: Tensor, teacher: Tensor, reduction: Reduction) -> Tensor:
    """Eq. 1: half the squared distance of two feature vectors, averaged over the batch.

    The paper's norm is the sum over the feature dimension; with `mean`, that sum is divided by the dimension D,
    which makes λ mean the same for networks of different widths.

    Args:
        student: features f_s of the low-resolution images, float (B, D).
        teacher: features f_t of the high-resolution images, float (B, D); no gradient flows into them.
        reduction: over the feature dimension.
    """
    squared = (student.float() - teacher.detach().float()).square()
    per_image = squared.sum(1) if reduction == "sum" else squared.mean(1)
    return 0.5 * per_image.mean()


def recognition_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 2 and 3: cross entropy of softmax(logits), float (B, K), with labels, int64 (B,)."""
    return F.cross_entropy(logits.float(), labels)


def dfd_loss(
    logits: Tensor,
    labels: Tensor,
    student: Tensor,
    teacher: Tensor | None,
    *,
    lambda_: float,
    reduction: Reduction,
) -> Losses:
    """Eq. 4: L = cross entropy + λ · distillation. Without teacher features, λ is 0 and so is the second term.

    Args:
        logits: of the student on low-resolution images, float (B, K).
        labels: int64 (B,).
        student: the student's features, float (B, D).
        teacher: the teacher's features of the same views, float (B, D), or None for plain training.
        lambda_: λ, at least 0.
        reduction: over the feature dimension.
    """
    recognition = recognition_loss(logits, labels)
    if teacher is None:
        assert lambda_ == 0, "distillation without a teacher's features"
        return Losses(recognition, recognition.detach(), recognition.new_zeros(()))
    distillation = distillation_loss(student, teacher, reduction)
    return Losses(recognition + lambda_ * distillation, recognition.detach(), distillation.detach())
