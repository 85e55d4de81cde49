"""Eq. 1 to 4 and the losses of related methods: by hand, against plain loops over numbers, by analytic gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dfd_tune.distill.losses import (
    MixedIn,
    attention_loss,
    distillation_loss,
    hint_loss,
    image_weights,
    joint_loss,
    norm_direction_loss,
    pairwise_distance_loss,
    recognition_loss,
    soft_target_loss,
)

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


def test_balanced_weights_by_hand():
    # Four images of class 0, one of class 1, none of class 2, three of class 3: N = 8, K = 3.
    labels = torch.tensor([0, 0, 1, 3, 0, 3, 0, 3])
    weights = image_weights("balanced", labels)
    expected = [8 / (3 * count) for count in (4, 4, 1, 3, 4, 3, 4, 3)]
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)
    assert weights.mean().item() == pytest.approx(1.0, rel=1e-6)
    assert image_weights("none", labels) is None


def test_of_equally_many_images_a_class_all_weigh_alike():
    assert image_weights("balanced", torch.tensor([2, 0, 1, 0, 1, 2])).tolist() == [1.0] * 6


def test_weights_are_of_the_cross_entropy_alone_and_no_batch_divides_by_them():
    logits, labels, student, teacher = random_batch(6, 8)
    weights = torch.tensor([3.0, 0.5, 0.5, 1.0, 0.25, 2.0])
    each = [recognition_loss(logits[row : row + 1], labels[row : row + 1]).item() for row in range(6)]
    expected = sum(weight * loss for weight, loss in zip(weights.tolist(), each, strict=True)) / 6
    distilled = distillation_loss(student, teacher, "sum")
    losses = joint_loss(logits, labels, distilled, 0.5, weights=weights)
    assert losses.cross_entropy.item() == pytest.approx(expected, rel=1e-5)
    assert losses.distillation.item() == distilled.item()
    assert losses.total.item() == pytest.approx(expected + 0.5 * distilled.item(), rel=1e-5)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_eq_4_by_hand(reduction, lambda_):
    losses = dfd_loss(LOGITS, LABELS, STUDENT, TEACHER, lambda_=lambda_, reduction=reduction)
    assert losses.total.item() == pytest.approx(CROSS_ENTROPY + lambda_ * BY_HAND[reduction], rel=1e-6)
    assert losses.cross_entropy.item() == pytest.approx(CROSS_ENTROPY, rel=1e-6)
    # Reported as it is, not times λ.
    assert losses.distillation.item() == pytest.approx(BY_HAND[reduction], rel=1e-6)


def test_cross_entropy_of_mixed_images_by_hand():
    # Labels 1, 0 cost ln 4/3 and ln 2; 0, 0 cost ln 4 and ln 2; three quarters of the one and a quarter of the other.
    expected = (0.75 * math.log(4 / 3) + 0.25 * math.log(4) + math.log(2)) / 2
    mixed = MixedIn(torch.tensor([0, 0]), 0.75)
    losses = joint_loss(LOGITS, LABELS, torch.tensor(3.0), 0.5, mixed)
    assert losses.cross_entropy.item() == pytest.approx(expected, rel=1e-6)
    assert losses.total.item() == pytest.approx(expected + 1.5, rel=1e-6)
    # It is that of the mixed labels.
    soft = torch.nn.functional.cross_entropy(LOGITS, torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    assert losses.cross_entropy.item() == pytest.approx(soft.item(), rel=1e-6)


def test_mixed_images_weigh_by_the_classes_of_both():
    # Each label's cross entropy, ln 4/3 and ln 2, then ln 4 and ln 2, has the weight of its own class.
    own, other = torch.tensor([2.0, 0.5]), torch.tensor([0.5, 0.5])
    expected = 0.75 * (2 * math.log(4 / 3) + 0.5 * math.log(2)) / 2
    expected += 0.25 * (0.5 * math.log(4) + 0.5 * math.log(2)) / 2
    losses = joint_loss(LOGITS, LABELS, None, 0.0, MixedIn(torch.tensor([0, 0]), 0.75, other), own)
    assert losses.cross_entropy.item() == pytest.approx(expected, rel=1e-6)


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


# Losses of related methods.


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradient(loss, student: torch.Tensor, *rest) -> torch.Tensor:
    """Of `loss(student, ...)` with regard to `student`."""
    variable = student.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(variable, *rest), variable)
    return found


def test_logits_are_regressed_as_features_are():
    # Differences 1, -2, 0 and 3, 0, 4: squares 5 and 25; ½ · (5 + 25) / 2 = 7.5, and by `mean` a third of it.
    student, teacher = (
        torch.tensor([[2.0, 0.0, 1.0], [3.0, 1.0, 4.0]]),
        torch.tensor([[1.0, 2.0, 1.0], [0.0, 1.0, 0.0]]),
    )
    assert distillation_loss(student, teacher, "sum").item() == 7.5
    assert distillation_loss(student, teacher, "mean").item() == 2.5


def test_soft_targets_by_hand():
    # At T = 2 the student's logits ±ln 3 become ±½ ln 3, so probabilities 3/4 and 1/4; the teacher's are 1/2 and 1/2.
    # T² · (½ ln(½ / ¾) + ½ ln(½ / ¼)) = 4 · ½ ln(4/3) for the first image, 0 for the second, which agrees.
    student = torch.tensor([[math.log(3), -math.log(3)], [7.0, 1.0]])
    teacher = torch.tensor([[5.0, 5.0], [6.0, 0.0]])
    assert soft_target_loss(student, teacher, 2.0).item() == pytest.approx(math.log(4 / 3), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_soft_targets_against_plain_arithmetic(temperature):
    student, teacher = 3 * noise(5, 4), 3 * noise(5, 4, seed=1)

    def softened(row):
        powers = [math.exp(logit / temperature) for logit in row]
        return [power / sum(powers) for power in powers]

    total = 0.0
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        for p, q in zip(softened(theirs), softened(ours), strict=True):
            total += p * math.log(p / q)
    expected = temperature**2 * total / 5
    assert soft_target_loss(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_of_soft_targets_is_the_difference_of_the_softened_outputs(temperature):
    student, teacher = 3 * noise(5, 4), 3 * noise(5, 4, seed=1)
    # d/dz_s of T² · KL / B: T · (softmax(z_s / T) − softmax(z_t / T)) / B.
    expected = temperature * (torch.softmax(student / temperature, 1) - torch.softmax(teacher / temperature, 1)) / 5
    found = gradient(soft_target_loss, student, teacher, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_at_high_temperature_soft_targets_are_regression_of_centred_logits():
    # Hinton et al., Eq. 4: T · (e^(z_s/T)/Σ − e^(z_t/T)/Σ) → (z_s − z_t) / K for logits of mean 0, which is the
    # gradient of ½‖z_s − z_t‖² / K; what is left falls as 1/T. Without T² it would vanish.
    student, teacher = noise(5, 4), noise(5, 4, seed=1)
    student, teacher = (logits - logits.mean(1, keepdim=True) for logits in (student, teacher))
    limit = gradient(distillation_loss, student, teacher, "mean")
    errors = [
        (gradient(soft_target_loss, student, teacher, temperature) - limit).abs().max().item()
        for temperature in (5.0, 50.0)
    ]
    assert errors[1] < 0.02 * limit.abs().max().item()
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.3)


def test_soft_targets_do_not_see_a_constant_added_to_all_logits():
    student, teacher = noise(5, 4), noise(5, 4, seed=1)
    shifted = soft_target_loss(student + 3, teacher - 2, 4.0)
    assert shifted.item() == pytest.approx(soft_target_loss(student, teacher, 4.0).item(), rel=1e-4)
    assert distillation_loss(student + 3, teacher - 2, "mean") > 1 + distillation_loss(student, teacher, "mean")


# Two images, one map of 2 × 2 each. The teacher's map of 4 × 4 has the block means 1, 2, 3, 6.
HINT_STUDENT = torch.tensor([[[[1.0, 0.0], [3.0, 3.0]]], [[[1.0, 2.0], [3.0, 6.0]]]])
HINT_TEACHER = torch.tensor(
    [[[[0.0, 2.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 0.0, 8.0], [2.0, 4.0, 8.0, 8.0]]]]
).expand(2, 1, 4, 4)


def test_hints_by_hand_with_the_teachers_maps_averaged_to_the_students_side():
    # Differences of the first image: 0, -2, 0, -3, squared 13; the second has none. ½ · (13 + 0) / 2, and a quarter.
    assert hint_loss(HINT_STUDENT, HINT_TEACHER, "sum").item() == pytest.approx(3.25, rel=1e-6)
    assert hint_loss(HINT_STUDENT, HINT_TEACHER, "mean").item() == pytest.approx(3.25 / 4, rel=1e-6)


@pytest.mark.parametrize("sides", [(4, 4), (2, 4), (3, 6), (4, 2)], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_hints_against_plain_loops(reduction, sides):
    ours, theirs = sides
    student, teacher = noise(2, 3, ours, ours), noise(2, 3, theirs, theirs, seed=1)

    def target(image, channel, y, x):
        """The mean over the places of the teacher's map that lie under (y, x) of the student's."""
        if theirs < ours:
            return teacher[image, channel, y * theirs // ours, x * theirs // ours].item()
        part = theirs // ours
        block = teacher[image, channel, y * part : (y + 1) * part, x * part : (x + 1) * part]
        return sum(block.flatten().tolist()) / part**2

    total = 0.0
    for image, channel, y, x in np.ndindex(*student.shape):
        total += (student[image, channel, y, x].item() - target(image, channel, y, x)) ** 2
    expected = total / 2 / 2 / (student[0].numel() if reduction == "mean" else 1)
    assert hint_loss(student, teacher, reduction).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_of_hints_is_the_analytic_one(reduction):
    student, teacher = noise(2, 3, 2, 2), noise(2, 3, 4, 4, seed=1)
    pooled = teacher.unflatten(-1, (2, 2)).unflatten(-3, (2, 2)).mean((-1, -3))
    expected = (student - pooled) / 2 / (12 if reduction == "mean" else 1)
    torch.testing.assert_close(gradient(hint_loss, student, teacher, reduction), expected)


def test_attention_by_hand():
    """Of the first image: squares 1, 0, 9, 9 over √163, the teacher's block means of squares 1.5, 4, 9.5, 48 (of the
    16 values 0 4 4 4 / 1 1 4 4 / 9 9 0 64 / 4 16 64 64) over √2412.5."""
    ours, theirs = torch.tensor([1.0, 0.0, 9.0, 9.0]) / 163**0.5, torch.tensor([1.5, 4.0, 9.5, 48.0]) / 2412.5**0.5
    expected = 0.5 * (ours - theirs).square().sum().item()
    assert attention_loss(HINT_STUDENT[:1], HINT_TEACHER[:1]).item() == pytest.approx(expected, rel=1e-5)


def test_attention_sees_neither_scale_nor_sign_nor_channels_that_repeat_and_is_at_most_1():
    student, teacher = noise(3, 4, 2, 2), noise(3, 5, 2, 2, seed=1)
    loss = attention_loss(student, teacher).item()
    assert 0 < loss < 1
    for same in (3 * student, -student, torch.cat([student, student], 1)):
        assert attention_loss(same, teacher).item() == pytest.approx(loss, rel=1e-5)
    here, there = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    here[..., 0, 0], there[..., 1, 1] = 5.0, 2.0
    assert attention_loss(here, there).item() == pytest.approx(1.0)
    assert attention_loss(here, 7 * here).item() == 0


def test_the_gradient_of_attention_is_that_of_finite_differences():
    student, teacher = noise(2, 3, 2, 2).double(), noise(2, 3, 4, 4, seed=1)
    found = gradient(attention_loss, student.float(), teacher).double()
    step = 1e-3
    for place in ((0, 0, 0, 0), (1, 2, 1, 0)):
        moved = torch.zeros_like(student)
        moved[place] = step
        rise = attention_loss(student + moved, teacher).item() - attention_loss(student - moved, teacher).item()
        assert found[place].item() == pytest.approx(rise / (2 * step), abs=2e-4)


# Squared distances of the pairs (0, 1), (0, 2), (1, 2): 25, 4, 13 in the plane, and 1, 9, 4 on a line.
IN_THE_PLANE = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]]) + torch.tensor([1.0, -1.0])
ON_A_LINE = torch.tensor([[0.0], [1.0], [3.0]])


def test_distances_of_pairs_by_hand():
    # ½ · (24² + 5² + 9²) / 3 = 682 / 6. By `mean`, the plane's are halved: 12.5 − 1, 2 − 9, 6.5 − 4, squared
    # 132.25 + 49 + 6.25 = 187.5, of which a sixth.
    assert pairwise_distance_loss(IN_THE_PLANE, ON_A_LINE, "sum").item() == pytest.approx(682 / 6, rel=1e-6)
    assert pairwise_distance_loss(IN_THE_PLANE, ON_A_LINE, "mean").item() == pytest.approx(187.5 / 6, rel=1e-6)


@pytest.mark.parametrize("dims", [(7, 7), (3, 5)], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_distances_of_pairs_against_plain_loops(reduction, dims):
    student, teacher = noise(6, dims[0]), noise(6, dims[1], seed=1)

    def distance(rows, first, second):
        squares = [(a - b) ** 2 for a, b in zip(rows[first].tolist(), rows[second].tolist(), strict=True)]
        return sum(squares) / (len(squares) if reduction == "mean" else 1)

    pairs = [(first, second) for first in range(6) for second in range(first)]
    total = sum((distance(student, *pair) - distance(teacher, *pair)) ** 2 for pair in pairs)
    expected = total / 2 / len(pairs)
    assert pairwise_distance_loss(student, teacher, reduction).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_of_distances_is_the_analytic_one(reduction):
    student, teacher = noise(6, 3), noise(6, 5, seed=1)
    parts = (3, 5) if reduction == "mean" else (1, 1)
    ours, theirs = (torch.cdist(rows, rows) ** 2 / part for rows, part in zip((student, teacher), parts, strict=True))
    # d/df_a of ½ Σ (d_s − d_t)² / P: Σ_b (d_s(a, b) − d_t(a, b)) · 2 (f_a − f_b) / P, of 15 pairs; by `mean` over D.
    towards = student[:, None] - student[None]
    expected = ((ours - theirs)[..., None] * 2 * towards).sum(1) / 15 / parts[0]
    found = gradient(pairwise_distance_loss, student, teacher, reduction)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_distances_do_not_see_where_features_lie_or_how_they_are_turned():
    student, teacher = noise(6, 4), noise(6, 4, seed=1)
    turn, _ = torch.linalg.qr(noise(4, 4, seed=2))
    loss = pairwise_distance_loss(student, teacher, "sum").item()
    for moved in (student @ turn, student + torch.tensor([1.0, -2.0, 0.5, 0.0]), (student - 1) @ turn):
        assert pairwise_distance_loss(moved, teacher, "sum").item() == pytest.approx(loss, rel=1e-4)
    assert pairwise_distance_loss(2 * student, teacher, "sum").item() != pytest.approx(loss, rel=0.1)
    assert pairwise_distance_loss(teacher @ turn, teacher, "sum").item() < 1e-8 * loss


# Lengths 5 and 10, teachers of 10 and 1, and class means along (0, 1) and (0.6, 0.8).
TURNED = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
LONG_AND_SHORT = torch.tensor([[0.0, 10.0], [1.0, 0.0]])
CLASS_MEANS = torch.tensor([[0.0, 2.0], [3.0, 4.0]])


def test_norm_and_direction_by_hand():
    # 1 − 4 / 10, as the teacher's features are longer; 1 − (3.6 + 6.4) / 10, as they point to their class's mean.
    assert norm_direction_loss(TURNED, LONG_AND_SHORT, CLASS_MEANS).item() == pytest.approx(0.3, rel=1e-6)
    # Turned away they cost 1 + 4 / 10 and 2.
    assert norm_direction_loss(-TURNED, LONG_AND_SHORT, CLASS_MEANS).item() == pytest.approx(1.7, rel=1e-6)


def test_norm_and_direction_against_plain_loops():
    student, teacher, means = (noise(6, 5, seed=seed) for seed in range(3))
    total = 0.0
    for ours, theirs, mean in zip(student.tolist(), teacher.tolist(), means.tolist(), strict=True):
        projected = sum(a * b for a, b in zip(ours, mean, strict=True)) / math.hypot(*mean)
        total += 1 - projected / max(math.hypot(*ours), math.hypot(*theirs))
    assert norm_direction_loss(student, teacher, means).item() == pytest.approx(total / 6, rel=1e-5)


def test_short_features_are_to_grow_and_long_ones_to_turn_alone():
    found = gradient(norm_direction_loss, 2 * TURNED, LONG_AND_SHORT.flip(0), CLASS_MEANS.flip(0))
    # Both are longer than their teachers, 10 and 20: no gradient along themselves.
    assert (found * TURNED).sum(1).abs().max() < 1e-7
    # −(e − cos · f_s / ‖f_s‖) / ‖f_s‖ / B, of e = (0, 1) and cos = 0.8 for the second.
    torch.testing.assert_close(found[1], -(torch.tensor([0.0, 1.0]) - 0.8 * torch.tensor([0.6, 0.8])) / 20 / 2)
    # Shorter than its teacher: −e / ‖f_t‖ / B, wherever it points.
    found = gradient(norm_direction_loss, TURNED, LONG_AND_SHORT, CLASS_MEANS)
    torch.testing.assert_close(found[0], -torch.tensor([0.0, 1.0]) / 10 / 2)


def test_class_means_have_a_direction_alone_and_features_of_no_length_no_cost_that_is_not_finite():
    loss = norm_direction_loss(TURNED, LONG_AND_SHORT, CLASS_MEANS)
    assert norm_direction_loss(TURNED, LONG_AND_SHORT, 7 * CLASS_MEANS).item() == pytest.approx(loss.item())
    nothing = torch.zeros(2, 2)
    assert norm_direction_loss(nothing, nothing, CLASS_MEANS).item() == 1
    assert gradient(norm_direction_loss, nothing, nothing, CLASS_MEANS).isfinite().all()


RELATED = {
    "regressed logits": lambda student, teacher: distillation_loss(student, teacher, "mean"),
    "soft targets": lambda student, teacher: soft_target_loss(student, teacher, 4.0),
    "hints": lambda student, teacher: hint_loss(student[..., None, None], teacher[..., None, None], "mean"),
    "attention": lambda student, teacher: attention_loss(student.view(4, 2, 3, 1), teacher.view(4, 2, 3, 1)),
    "distances": lambda student, teacher: pairwise_distance_loss(student, teacher, "mean"),
    "norm and direction": lambda student, teacher: norm_direction_loss(student, teacher, teacher),
}


@pytest.mark.parametrize("name", RELATED)
def test_no_gradient_flows_into_the_teacher_and_nothing_is_lost_in_half_precision(name):
    student, teacher = (noise(4, 6, seed=seed).requires_grad_() for seed in (0, 1))
    loss = RELATED[name](student, teacher)
    loss.backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    halves = [tensor.detach().to(torch.bfloat16) for tensor in (student, teacher)]
    in_half = RELATED[name](*halves)
    assert in_half.dtype == torch.float32
    assert in_half.item() == pytest.approx(RELATED[name](*(half.float() for half in halves)).item(), rel=1e-6)


@pytest.mark.parametrize("name", RELATED)
def test_the_gradient_is_the_slope_of_the_loss(name):
    student, teacher, way = noise(4, 6), noise(4, 6, seed=1), noise(4, 6, seed=2)
    slope = (gradient(RELATED[name], student, teacher) * way).sum().item()
    # Of a symmetric difference, whose error is of the order of step²; the losses' own rounding is 1e-7 / step.
    step = 0.01
    ahead, behind = (RELATED[name](student + sign * step * way, teacher).item() for sign in (1, -1))
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=5e-3, abs=1e-4)


@pytest.mark.parametrize("name", RELATED)
def test_equal_outputs_cost_nothing_by_any_method(name):
    outputs = noise(4, 6)
    rounding = 1e-6 if name == "norm and direction" else 1e-10  # of the 1 that it is taken from
    assert RELATED[name](outputs, outputs.clone()).item() == pytest.approx(0, abs=rounding)
