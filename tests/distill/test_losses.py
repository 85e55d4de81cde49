"""Eq. 1 to 4: by hand, against plain loops over numbers, and by their analytic gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dfd_tune.distill.losses import distillation_loss, joint_loss, recognition_loss

# Squared distances of the two images: 1² + 2² = 5 and 2² + 3² = 13.
STUDENT = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
TEACHER = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
# Softmax of the two images: (1/4, 3/4) and (1/2, 1/2).
LOGITS = torch.tensor([[0.0, math.log(3)], [5.0, 5.0]])
LABELS = torch.tensor([1, 0])
# ½ · (5 + 13) / 2, and that divided by D = 2.
BY_HAND = {"sum": 4.5, "mean": 2.25}
# (-ln 3/4 - ln 1/2) / 2 = (ln 4/3 + ln 2) / 2.
CROSS_ENTROPY = (math.log(4 / 3) + math.log(2)) / 2


def dfd_loss(logits, labels, student, teacher, *, lambda_: float, reduction: str):
    """Eq. 4 with Eq. 1 in it."""
    distilled = None if teacher is None else distillation_loss(student, teacher, reduction)
    return joint_loss(logits, labels, distilled, lambda_)


def random_batch(images: int = 5, dim: int = 7, classes: int = 4, seed: int = 0):
    """Logits, labels, student features, teacher features."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator)
    labels = torch.randint(classes, (images,), generator=generator)
    return logits, labels, *torch.randn(2, images, dim, generator=generator)


def plain_total(logits, labels, student, teacher, lambda_: float, reduction: str) -> float:
    """Eq. 4, number by number, in the double precision of Python."""
    total = 0.0
    for row, label, ours, theirs in zip(
        logits.tolist(), labels.tolist(), student.tolist(), teacher.tolist(), strict=True
    ):
        probability = math.exp(row[label]) / sum(math.exp(logit) for logit in row)
        norm = sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True))
        if reduction == "mean":
            norm /= len(ours)
        total += -math.log(probability) + lambda_ * norm / 2
    return total / len(labels)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_eq_1_by_hand(reduction):
    assert distillation_loss(STUDENT, TEACHER, reduction).item() == pytest.approx(BY_HAND[reduction], rel=1e-6)


def test_eq_2_and_3_by_hand():
    assert recognition_loss(LOGITS, LABELS).item() == pytest.approx(CROSS_ENTROPY, rel=1e-6)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_eq_4_by_hand(reduction, lambda_):
    losses = dfd_loss(LOGITS, LABELS, STUDENT, TEACHER, lambda_=lambda_, reduction=reduction)
    assert losses.total.item() == pytest.approx(CROSS_ENTROPY + lambda_ * BY_HAND[reduction], rel=1e-6)
    assert losses.cross_entropy.item() == pytest.approx(CROSS_ENTROPY, rel=1e-6)
    # Reported as it is, not times λ.
    assert losses.distillation.item() == pytest.approx(BY_HAND[reduction], rel=1e-6)


def test_without_a_teacher_only_cross_entropy_is_left():
    losses = dfd_loss(LOGITS, LABELS, STUDENT, None, lambda_=0, reduction="mean")
    assert losses.total.item() == losses.cross_entropy.item() == pytest.approx(CROSS_ENTROPY, rel=1e-6)
    assert losses.distillation.item() == 0


def test_distilling_without_a_teacher_is_a_mistake():
    with pytest.raises(AssertionError, match="teacher"):
        dfd_loss(LOGITS, LABELS, STUDENT, None, lambda_=0.1, reduction="mean")


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 10.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_eq_4_equals_plain_loops(reduction, lambda_):
    for seed, shape in enumerate(((1, 1, 2), (5, 7, 4), (8, 16, 10))):
        batch = random_batch(*shape, seed=seed)
        total = dfd_loss(*batch, lambda_=lambda_, reduction=reduction).total.item()
        assert total == pytest.approx(plain_total(*batch, lambda_, reduction), rel=1e-5)


@pytest.mark.parametrize("lambda_", [0.3, 10.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_are_the_analytic_ones(reduction, lambda_):
    logits, labels, student, teacher = random_batch()
    images, dim = student.shape
    for tensor in (logits, student, teacher):
        tensor.requires_grad_()
    dfd_loss(logits, labels, student, teacher, lambda_=lambda_, reduction=reduction).total.backward()
    # d/df_s of λ/B · ½‖f_s - f_t‖², by `mean` over D.
    difference = (student - teacher).detach() * lambda_ / images
    torch.testing.assert_close(student.grad, difference / dim if reduction == "mean" else difference)
    # d/dz of cross entropy: (softmax(z) - onehot) / B.
    onehot = torch.nn.functional.one_hot(labels, logits.shape[1])
    torch.testing.assert_close(logits.grad, (torch.softmax(logits, 1).detach() - onehot) / images)
    assert teacher.grad is None


def test_losses_that_are_reported_carry_no_graph():
    logits, labels, student, teacher = random_batch()
    losses = dfd_loss(logits.requires_grad_(), labels, student.requires_grad_(), teacher, lambda_=1, reduction="sum")
    assert losses.total.requires_grad
    assert not losses.cross_entropy.requires_grad
    assert not losses.distillation.requires_grad


def test_sum_is_mean_times_the_dimension():
    _, _, student, teacher = random_batch(dim=7)
    summed, averaged = (distillation_loss(student, teacher, name) for name in ("sum", "mean"))
    assert summed.item() == pytest.approx(7 * averaged.item(), rel=1e-6)


def test_equal_features_cost_nothing():
    assert distillation_loss(STUDENT, STUDENT.clone(), "sum").item() == 0


def test_half_precision_is_summed_in_float32():
    # 1000 · 100² = 10⁷ is over float16's largest number, 65504.
    student = torch.full((1, 1000), 100.0, dtype=torch.float16)
    loss = distillation_loss(student, torch.zeros_like(student), "sum")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.5e7, rel=1e-6)
    logits = np.log([[1, 3]]).astype(np.float32)
    assert recognition_loss(torch.from_numpy(logits).bfloat16(), torch.tensor([1])).dtype == torch.float32
