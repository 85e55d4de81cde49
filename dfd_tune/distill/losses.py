"""Losses: deep feature distillation, Eq. 1 to 4 of Zhu et al., "Low-resolution visual recognition via deep feature
distillation", and of the related methods that the paper names.

Not for: which of a network's outputs they compare (dfd_tune/methods.py), or how they are minimised (training.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dfd_tune.config import Reduction
from dfd_tune.parts import ClassWeights


class Losses(NamedTuple):
    """Scalars, float32, each a mean over the batch."""

    total: Tensor
    cross_entropy: Tensor
    distillation: Tensor


def distillation_loss(student: Tensor, teacher: Tensor, reduction: Reduction) -> Tensor:
    """Eq. 1: half the squared distance of two feature vectors, averaged over the batch.

    The paper's norm is the sum over the feature dimension; with `mean`, that sum is divided by the dimension D.

    Args:
        student: features f_s of the low-resolution images, float (B, D).
        teacher: features f_t of the high-resolution images, float (B, D); no gradient flows into them.
        reduction: over the feature dimension.
    """
    squared = (student.float() - teacher.detach().float()).square()
    per_image = squared.sum(1) if reduction == "sum" else squared.mean(1)
    return 0.5 * per_image.mean()


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Logit distillation: T² · KL(softmax(z_t / T) ‖ softmax(z_s / T)), averaged over the batch.

    Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2,
    https://arxiv.org/abs/1503.02531. The factor T² keeps the size of the gradients when T changes.

    Args:
        student: logits z_s, float (B, K).
        teacher: logits z_t, float (B, K); no gradient flows into them.
        temperature: T, above 0.
    """
    ours = F.log_softmax(student.float() / temperature, dim=1)
    theirs = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def hint_loss(student: Tensor, teacher: Tensor, reduction: Reduction) -> Tensor:
    """Hints: half the squared distance of two stacks of maps, averaged over the batch.

    Eq. 3 of Romero et al. 2014, "FitNets: Hints for Thin Deep Nets", https://arxiv.org/abs/1412.6550.

    Args:
        student: the regressor's maps, float (B, C, H, W).
        teacher: maps of its hint layer, float (B, C, H', W'); of another side, they are averaged to the student's. No
            gradient flows into them.
        reduction: over all of an image's values.
    """
    target = teacher.detach()
    if target.shape[-2:] != student.shape[-2:]:
        target = F.adaptive_avg_pool2d(target, (student.shape[-2], student.shape[-1]))
    return distillation_loss(student.flatten(1), target.flatten(1), reduction)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Activation-based attention transfer: ½ ‖q_s − q_t‖², averaged over the batch; at most 1, as q ≥ 0 has length 1.

    q is the mean over channels of the squared maps, as a vector of places, divided by its length. Zagoruyko and
    Komodakis 2017, "Paying More Attention to Attention", Eq. 2, https://arxiv.org/abs/1612.03928, with the square of
    the norm, as its authors' code has it. The numbers of channels may differ.

    Args:
        student: maps, float (B, C, H, W).
        teacher: maps, float (B, C', H', W'); of another side, their attention is averaged to the student's. No gradient
            flows into them.
    """
    ours, theirs = (maps.float().square().mean(1, keepdim=True) for maps in (student, teacher.detach()))
    if theirs.shape[-2:] != ours.shape[-2:]:
        theirs = F.adaptive_avg_pool2d(theirs, (ours.shape[-2], ours.shape[-1]))
    ours, theirs = (F.normalize(attention.flatten(1), dim=1) for attention in (ours, theirs))
    return 0.5 * (ours - theirs).square().sum(1).mean()


def pairwise_distance_loss(student: Tensor, teacher: Tensor, reduction: Reduction) -> Tensor:
    """Representational distances: ½ (d_s(i, j) − d_t(i, j))², averaged over the pairs of images of a batch.

    d(i, j) is the squared distance of two images' features. McClure and Kriegeskorte 2016, "Representational Distance
    Learning for Deep Neural Networks", https://doi.org/10.3389/fncom.2016.00131, with all pairs of a batch in the place
    of sampled ones. The dimensions of student and teacher may differ.

    Args:
        student: features, float (B, D), B at least 2.
        teacher: features, float (B, D'); no gradient flows into them.
        reduction: of the squared distance over the feature dimension.
    """
    ours, theirs = (_pairwise(features.float(), reduction) for features in (student, teacher.detach()))
    return 0.5 * (ours - theirs).square().mean()


def norm_direction_loss(student: Tensor, teacher: Tensor, class_means: Tensor) -> Tensor:
    """Norm and direction of features: 1 − f_s · e / max(‖f_s‖, ‖f_t‖), averaged over the batch; from 0 to 2.

    e is the teacher's class mean divided by its length. Wang et al. 2023, "Improving Knowledge Distillation via
    Regularizing Feature Norm and Direction", https://arxiv.org/abs/2305.17007; the 1, which changes no gradient, is of
    its authors' code. Features shorter than the teacher's are to grow and to turn; longer ones are to turn alone.

    Args:
        student: features f_s, float (B, D).
        teacher: features f_t, float (B, D); no gradient flows into them.
        class_means: of the teacher's features, each image's class's, float (B, D); likewise.
    """
    ours, theirs = student.float(), teacher.detach().float()
    directions = F.normalize(class_means.detach().float(), dim=1)
    longer = torch.maximum(torch.linalg.vector_norm(ours, dim=1), torch.linalg.vector_norm(theirs, dim=1))
    return (1 - (ours * directions).sum(1) / longer.clamp(min=1e-12)).mean()


def _pairwise(features: Tensor, reduction: Reduction) -> Tensor:
    """Squared distances, (B (B - 1) / 2,), of all pairs of rows of (B, D)."""
    first, second = torch.triu_indices(len(features), len(features), offset=1, device=features.device)
    squares = features.square().sum(1)
    distances = squares[first] + squares[second] - 2 * (features @ features.T)[first, second]
    return distances if reduction == "sum" else distances / features.shape[1]


def image_weights(kind: ClassWeights, labels: Tensor) -> Tensor | None:
    """What each training image's cross entropy weighs, float32 (N,), 1 in the mean; None where all weigh alike.

    Args:
        kind: balanced is N / (K · n), with n images of its class, and K classes that occur.
        labels: of all N training images, int64 (N,).
    """
    if kind == "none":
        return None
    counts = torch.bincount(labels)
    weights: Tensor = len(labels) / ((counts > 0).sum() * counts[labels]).double()
    return weights.float()


def recognition_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Eq. 2 and 3: cross entropy of softmax(logits), float (B, K), with labels, int64 (B,).

    With weights, float32 (B,), the mean of each image's, times its own. Not divided by their sum, which would have
    batches, and processes' shares of one, weigh by what happens to be in them.
    """
    if weights is None:
        return F.cross_entropy(logits.float(), labels)
    return (weights * F.cross_entropy(logits.float(), labels, reduction="none")).mean()


class MixedIn(NamedTuple):
    """The labels of images that were mixed into others."""

    labels: Tensor
    """int64 (B,)."""
    share: float
    """In 0..1: what is left to those that they were mixed into."""
    weights: Tensor | None = None
    """Of their cross entropy, float32 (B,); None where all weigh alike."""


def joint_loss(
    logits: Tensor,
    labels: Tensor,
    distilled: Tensor | None,
    lambda_: float,
    mixed: MixedIn | None = None,
    weights: Tensor | None = None,
) -> Losses:
    """Eq. 4: L = cross entropy + λ · distillation. Without a teacher, λ is 0 and so is the second term.

    Args:
        logits: of the student on low-resolution images, float (B, K).
        labels: int64 (B,).
        distilled: the distillation loss, a scalar, or None for plain training.
        lambda_: λ, at least 0.
        mixed: what the images were mixed with, if they were: cross entropy is then the mean to both labels, weighed as
            the images are (Zhang et al. 2018, "mixup", https://arxiv.org/abs/1710.09412).
        weights: of the images' cross entropy, float32 (B,); None where all weigh alike.
    """
    recognition = recognition_loss(logits, labels, weights)
    if mixed is not None:
        other = recognition_loss(logits, mixed.labels, mixed.weights)
        recognition = mixed.share * recognition + (1 - mixed.share) * other
    if distilled is None:
        assert lambda_ == 0, "distillation without a teacher"
        return Losses(recognition, recognition.detach(), recognition.new_zeros(()))
    return Losses(recognition + lambda_ * distilled, recognition.detach(), distilled.detach())
