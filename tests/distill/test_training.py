"""The training loop: what it sees, the steps it takes, how it ends; alone and in two processes."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from tiny import banded_images, bits, network, without_times
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from two_processes import mostly_of_one_class, train_distilled, train_distributed

from dfd_tune.data.pairs import EvaluationImages, TrainingImages
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill.distillation import Distillation, Term
from dfd_tune.distill.features import LiveFeatures
from dfd_tune.distill.losses import distillation_loss, joint_loss
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.training import (
    DivergedError,
    batches,
    evaluate,
    learning_rate_schedule,
    mixing,
    train_network,
)
from dfd_tune.parts import Recipe

RECIPE = Recipe(
    epochs=2,
    batch_size=16,
    learning_rate=0.02,
    schedule="constant",
    momentum=0.9,
    weight_decay=5e-4,
    seed=0,
    precision="float32",
)


def dfd(lambda_: float, reduction: str, source) -> Distillation:
    terms = (Term("features", partial(distillation_loss, reduction=reduction)),)
    return Distillation(lambda_, terms, (lambda draw: {"features": source(draw)},))


def recipe(**changes) -> Recipe:
    return dataclasses.replace(RECIPE, **changes)


def training(count: int = 40, noise: int = 40, crop_padding: int = 1) -> TrainingImages:
    space = ViewSpace(crop_padding, flip=True)
    pixels, labels = banded_images(count, seed=0, noise=noise)
    return TrainingImages(
        torch.from_numpy(pixels),
        torch.from_numpy(labels),
        space,
        augment_seed=0,
        mean=torch.tensor([0.2]),
        std=torch.tensor([0.25]),
    )


def held_out(count: int = 30) -> EvaluationImages:
    pixels, labels = banded_images(count, seed=1)
    return EvaluationImages(
        torch.from_numpy(pixels), torch.from_numpy(labels), mean=torch.tensor([0.2]), std=torch.tensor([0.25])
    )


def train(model, images=None, process=None, distillation=None, **changes):
    return train_network(
        model,
        images or training(),
        held_out(),
        recipe=recipe(**changes),
        process=process or SingleProcess(),
        distillation=distillation,
    )


# Batches.


@pytest.mark.parametrize(("count", "batch_size"), [(1, 2), (7, 7), (8, 7), (40, 16), (33, 32), (101, 8), (1000, 999)])
def test_batches_partition_the_images_into_almost_equal_parts(count, batch_size):
    parts = batches(count, batch_size, seed=3, epoch=2)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert all(part.dtype == np.int64 for part in parts)
    sizes = [len(part) for part in parts]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == math.ceil(count / batch_size)


def test_batches_are_a_pure_function_of_seed_and_epoch():
    def order(seed, epoch):
        return np.concatenate(batches(100, 16, seed, epoch)).tolist()

    first = order(3, 2)
    np.random.seed(1)
    torch.manual_seed(1)
    assert order(3, 2) == first
    every = [order(seed, epoch) for seed in range(4) for epoch in range(4)]
    assert len({tuple(one) for one in every}) == 16
    assert all(one != sorted(one) for one in every)


def test_the_order_does_not_depend_on_the_batch_size():
    orders = [np.concatenate(batches(100, size, 0, 0)).tolist() for size in (2, 16, 100)]
    assert orders[0] == orders[1] == orders[2]


# What is mixed.


def test_what_is_mixed_is_a_pure_function_of_seed_epoch_and_batch():
    def drawn(seed=3, epoch=2, number=1, count=16):
        share, places = mixing(count, recipe(mixup=0.4, seed=seed), epoch, number)
        assert sorted(places.tolist()) == list(range(count))
        assert 0 <= share <= 1
        return share, places.tolist()

    first = drawn()
    np.random.seed(1)
    torch.manual_seed(1)
    assert drawn() == first
    others = [drawn(seed, epoch, number) for seed in range(3) for epoch in range(3) for number in range(3)]
    assert len({share for share, _ in others}) == 27
    # The same for good: results are found under keys that know of α and the seed alone.
    assert (round(first[0], 6), first[1]) == (0.428092, [2, 12, 15, 5, 3, 10, 13, 9, 8, 1, 0, 6, 7, 14, 4, 11])


def test_shares_have_the_moments_of_a_beta_distribution():
    for alpha in (0.2, 1.0, 8.0):
        shares = np.array([mixing(2, recipe(mixup=alpha), 0, number)[0] for number in range(4000)])
        # Mean 1/2 and variance 1 / (4 (2α + 1)), at most 1/4: known to 0.008 and better.
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.02)


@pytest.mark.parametrize("lambda_", [0.0, 3.0])
@pytest.mark.parametrize("seed", range(3))  # of which the heavier image is the own one, or the other
def test_a_mixed_step_is_a_step_against_the_gradient(seed, lambda_):
    images, teacher = training(), network(seed=2).eval()
    settings = recipe(mixup=0.7, seed=seed, epochs=1, batch_size=40, momentum=0.0, weight_decay=0.0)
    ((order,), (share, places)) = batches(40, 40, seed, 0), mixing(40, settings, 0, 0)
    own, others = images.draw(0, order), images.draw(0, order[places])
    inputs = share * images.views(own) + (1 - share) * images.views(others)
    labels = share * one_hot(images.labels_of(own), 3) + (1 - share) * one_hot(images.labels_of(others), 3)
    target = teacher.features(inputs).detach()

    plain = network()
    features = plain.features(inputs)
    logits = plain.classifier(features)
    total = cross_entropy(logits, labels) + lambda_ * distillation_loss(features, target, "sum")
    total.backward()
    expected = {name: weight.detach() - 0.02 * weight.grad for name, weight in plain.named_parameters()}

    trained = network()
    live = LiveFeatures(teacher, images, "float32")
    (metrics,) = train_network(
        trained,
        images,
        held_out(),
        recipe=settings,
        process=SingleProcess(),
        distillation=dfd(lambda_, "sum", live) if lambda_ else None,
    )
    assert metrics["loss"] == pytest.approx(total.item(), rel=1e-5)
    for name, weight in trained.named_parameters():
        torch.testing.assert_close(weight.detach(), expected[name], rtol=1e-4, atol=1e-6)
    # The heavier label is the largest of the mixed ones, but where both are one class.
    right = (logits.argmax(1) == labels.argmax(1)).double().mean().item()
    assert metrics["train_accuracy"] == pytest.approx(right)


def test_validation_images_are_not_mixed():
    model = network()
    history = train(model, mixup=1.0)
    found = evaluate(model, held_out())
    assert (history[-1]["val_accuracy"], history[-1]["val_loss"]) == pytest.approx((found.accuracy, found.loss))


# The learning rate.


def rates(total_steps: int, **changes) -> list[float]:
    """The rate of every step, as the loop takes them."""
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    settings = recipe(**changes)
    optimizer = torch.optim.SGD([weight], settings.learning_rate, momentum=settings.momentum)
    schedule = learning_rate_schedule(optimizer, settings, total_steps)
    used = []
    for _ in range(total_steps):
        used.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["momentum"] == settings.momentum
        optimizer.step()
        schedule.step()
    return used


def test_the_step_schedule_divides_by_ten_at_a_half_and_at_three_quarters():
    assert rates(8, schedule="step", learning_rate=3.0) == pytest.approx([3] * 4 + [0.3] * 2 + [0.03] * 2)


def test_the_constant_schedule_is_constant():
    assert rates(12, schedule="constant", learning_rate=3.0) == [3.0] * 12


def test_the_cosine_schedule_falls_from_the_peak_along_a_cosine():
    # 3 · (1 + cos(π·k/4)) / 2 for k = 0..3; k = 4, where it would be 0, is no step any more.
    half = math.sqrt(0.5)
    expected = [3.0, 1.5 * (1 + half), 1.5, 1.5 * (1 - half)]
    assert rates(4, schedule="cosine", learning_rate=3.0) == pytest.approx(expected)
    assert rates(1000, schedule="cosine", learning_rate=3.0)[-1] < 1e-4


def test_the_one_cycle_schedule_by_hand():
    # A cycle of 9 + 1 steps peaks at step 0.3·10 - 1 = 2: from 3/25 by half a cosine up to 3, which at step 1 is
    # midway; then down to 3/25/10⁴ over 7 steps, of which the loop takes 6.
    low, end = 3 / 25, 3 / 25 / 1e4
    expected = [low, (low + 3) / 2, 3.0]
    expected += [end + (3 - end) * (1 + math.cos(math.pi * k / 7)) / 2 for k in range(1, 7)]
    assert rates(9, schedule="one_cycle", learning_rate=3.0) == pytest.approx(expected)


def test_a_long_one_cycle_peaks_at_the_peak_rate_and_ends_near_nothing():
    used = rates(1000, schedule="one_cycle", learning_rate=3.0)
    peak = int(np.argmax(used))
    assert used[peak] == pytest.approx(3.0, rel=1e-4)
    assert 295 <= peak <= 305
    assert used == sorted(used[:peak]) + sorted(used[peak:], reverse=True)
    assert used[-1] < 1e-4


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("total_steps", [1, 2, 3, 4, 5])
def test_every_schedule_takes_trainings_of_few_steps(schedule, total_steps):
    used = rates(total_steps, schedule=schedule, learning_rate=3.0)
    assert len(used) == total_steps
    assert all(0 < rate <= 3.0 for rate in used)


# Evaluation.


class Ratio(nn.Module):
    """Logits 0 and p·ln 3 for a pixel p: softmax (1/2, 1/2) for p = 0 and (1/4, 3/4) for p = 1."""

    def forward(self, images):
        assert not self.training
        odds = images.flatten(1) * math.log(3)
        return torch.cat([torch.zeros_like(odds), odds], 1)


@pytest.mark.parametrize("copies", [1, 300])
def test_evaluation_by_hand(copies):
    # 300 copies are 1200 images: two batches of 500 and one of 200.
    pixels = torch.tensor([0, 0, 1, 1], dtype=torch.uint8).repeat(copies).reshape(-1, 1, 1, 1)
    labels = torch.tensor([0, 1, 1, 0]).repeat(copies)
    images = EvaluationImages(pixels, labels, mean=torch.tensor([0.0]), std=torch.tensor([1 / 255]))
    model = Ratio().train()
    accuracy, loss = evaluate(model, images)[:2]
    # The first of two equal logits wins: right, wrong, right, wrong.
    assert accuracy == 0.5
    # -ln of 1/2, 1/2, 3/4, 1/4.
    assert loss == pytest.approx((2 * math.log(2) + math.log(4 / 3) + math.log(4)) / 4, rel=1e-6)
    assert not model.training


def test_rare_classes_count_as_much_as_frequent_ones():
    # Six images of class 0, of which one is taken for class 1; two of class 1, of which one is taken for class 0.
    pixels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 0], dtype=torch.uint8).reshape(-1, 1, 1, 1)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    found = evaluate(Ratio(), EvaluationImages(pixels, labels, mean=torch.tensor([0.0]), std=torch.tensor([1 / 255])))
    assert found.accuracy == 6 / 8
    assert found.balanced_accuracy == pytest.approx((5 / 6 + 1 / 2) / 2)
    # F1 = 2 · right / (images + predicted): 10 / 12 and 2 / 4.
    assert found.macro_f1 == pytest.approx((10 / 12 + 2 / 4) / 2)


# The loop.


@pytest.mark.parametrize("lambda_", [0.0, 3.0])
def test_one_step_is_a_step_against_the_gradient(lambda_):
    images, teacher = training(), network(seed=2).eval()
    draw = images.draw(0, np.arange(40))
    inputs, labels = images.views(draw), images.labels_of(draw)
    target = teacher.features(inputs).detach()

    plain = network()
    features = plain.features(inputs)
    distilled = distillation_loss(features, target, "sum")
    total = joint_loss(plain.classifier(features), labels, distilled, lambda_).total
    total.backward()
    expected = {name: weight.detach() - 0.02 * weight.grad for name, weight in plain.named_parameters()}

    trained = network()
    source = lambda draw: target[draw.indices]  # noqa: E731
    history = train(
        trained,
        images,
        distillation=dfd(lambda_, "sum", source),
        epochs=1,
        batch_size=40,
        momentum=0.0,
        weight_decay=0.0,
    )
    assert history[0]["loss"] == pytest.approx(total.item(), rel=1e-5)
    for name, weight in trained.named_parameters():
        torch.testing.assert_close(weight.detach(), expected[name], rtol=1e-5, atol=1e-6)


def test_one_step_with_class_weights_is_one_of_each_images_own_loss():
    images = training()
    images = dataclasses.replace(images, labels=mostly_of_one_class(images.labels))
    draw = images.draw(0, np.arange(40))
    inputs, labels = images.views(draw), images.labels_of(draw)
    counts = torch.bincount(labels)
    assert counts.tolist() == [35, 2, 3]
    plain = network()
    losses = torch.nn.functional.cross_entropy(plain(inputs), labels, reduction="none")
    total = sum(40 / (3 * counts[label]) * loss for loss, label in zip(losses, labels, strict=True)) / 40
    total.backward()
    expected = {name: weight.detach() - 0.02 * weight.grad for name, weight in plain.named_parameters()}

    trained = network()
    settings = {"epochs": 1, "batch_size": 40, "momentum": 0.0, "weight_decay": 0.0, "class_weights": "balanced"}
    history = train(trained, images, **settings)
    assert history[0]["loss"] == pytest.approx(total.item(), rel=1e-5)
    for name, weight in trained.named_parameters():
        torch.testing.assert_close(weight.detach(), expected[name], rtol=1e-5, atol=1e-6)


def test_class_weights_help_rare_classes():
    """Of images of nothing but noise, a network says what is frequent; with weights, it does not."""
    random = torch.Generator().manual_seed(0)
    labels = (torch.arange(40) % 10 == 0).long()
    pixels = torch.randint(0, 256, (40, 1, 8, 8), generator=random, dtype=torch.uint8)
    images = dataclasses.replace(training(), images=pixels, labels=labels)
    shown = dataclasses.replace(held_out(), images=pixels, labels=labels)

    def share_of_rare(**settings):
        model = network()
        train(model, images, epochs=3, batch_size=40, learning_rate=0.01, **settings)
        with torch.no_grad():
            return torch.cat([model(inputs) for inputs, _ in shown.batches()]).softmax(1)[:, 1].mean().item()

    assert share_of_rare(class_weights="balanced") > share_of_rare()


def test_every_epoch_sees_every_image_once_in_its_view_with_its_teacher_features():
    seen: list[tuple[int, list[int]]] = []

    def source(draw):
        seen.append((draw.epoch, draw.indices.tolist()))
        return torch.zeros(len(draw), 32)

    train(network(), distillation=dfd(1.0, "mean", source))
    assert seen == [(epoch, part.tolist()) for epoch in range(2) for part in batches(40, 16, 0, epoch)]


@pytest.mark.parametrize(("every", "looked_at"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (99, [5])])
def test_looking_at_validation_images_less_often_changes_nothing_else(every, looked_at):
    always, seldom = network(dropout=0.3), network(dropout=0.3)
    full = train(always, epochs=5)
    found = train(seldom, epochs=5, evaluate_every=every)
    assert bits(seldom) == bits(always)
    assert [int(epoch["epoch"]) for epoch in found if "val_accuracy" in epoch] == looked_at
    for ours, theirs in zip(without_times(found), without_times(full), strict=True):
        assert ours == {name: theirs[name] for name in ours}
        assert theirs.keys() - ours.keys() in (
            set(),
            {"val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_loss"},
        )


def test_losses_are_means_over_images_whatever_the_batches():
    # At a learning rate of nearly nothing the network stays the same, so the batch size can't matter.
    images, teacher = training(), network(seed=2).eval()
    target = teacher.features(images.views(images.draw(0, np.arange(40)))).detach()
    distillation = dfd(2.0, "mean", lambda draw: target[draw.indices])
    runs = [
        train(network(), images, distillation=distillation, epochs=1, learning_rate=1e-30, batch_size=size)[0]
        for size in (40, 16, 3)
    ]
    names = ("loss", "cross_entropy", "distillation", "train_accuracy")
    for metrics in runs[1:]:
        assert [metrics[name] for name in names] == pytest.approx([runs[0][name] for name in names], rel=1e-5)
    expected = runs[0]["cross_entropy"] + 2 * runs[0]["distillation"]
    assert runs[0]["loss"] == pytest.approx(expected, rel=1e-6)


def test_metrics_of_an_epoch():
    process = SingleProcess()
    ticks = itertools.count()  # a second passes between two looks at the clock
    model = network()
    history = train_network(
        model, training(), held_out(), recipe=recipe(schedule="cosine"), process=process, clock=lambda: next(ticks)
    )
    assert history == process.reported
    assert [metrics["epoch"] for metrics in history] == [1, 2]
    assert [metrics["images_per_second"] for metrics in history] == [40, 40]
    # Three steps an epoch; the rate is that of the last: (1 + cos(π·k/6)) / 2 of the peak for k = 2 and 5.
    expected = [0.02 * (1 + math.cos(math.pi * k / 6)) / 2 for k in (2, 5)]
    assert [metrics["learning_rate"] for metrics in history] == pytest.approx(expected)
    # Up to the last bits, as the layout of the weights in memory is another by now.
    assert (history[-1]["val_accuracy"], history[-1]["val_loss"]) == pytest.approx(evaluate(model, held_out())[:2])
    for metrics in history:
        assert metrics["distillation"] == 0
        assert metrics["loss"] == metrics["cross_entropy"]
        # An accuracy is a whole number of images.
        assert metrics["train_accuracy"] * 40 == pytest.approx(round(metrics["train_accuracy"] * 40))


def test_dropout_and_batch_norm_are_in_training_mode_in_every_epoch():
    class Watched(nn.Identity):
        modes: list[bool]

        def forward(self, inputs):
            self.modes.append(self.training)
            return inputs

    model, watched = network(), Watched()
    watched.modes = []
    model.features.append(watched)
    train(model)
    # Three training steps and one batch of validation images, twice.
    assert watched.modes == [True, True, True, False] * 2


def test_equal_runs_are_equal_bit_by_bit_and_other_seeds_are_not():
    def outcome(seed):
        torch.manual_seed(np.random.randint(1000))  # the state of the process must not matter
        model = network(dropout=0.5)
        return without_times(train(model, seed=seed)), bits(model)

    first, second, other = outcome(0), outcome(0), outcome(1)
    assert first == second
    assert first[0] != other[0]
    assert first[1] != other[1]


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16", "resnet18"])
def test_a_network_learns_what_is_easily_told_apart(backbone):
    images = training(120, noise=10, crop_padding=0)
    history = train(network(backbone=backbone), images, epochs=6, batch_size=10, schedule="cosine")
    assert history[-1]["train_accuracy"] > 0.9
    assert history[-1]["val_accuracy"] > 0.9
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_loss_that_is_not_finite_ends_the_training():
    process = SingleProcess()
    with pytest.raises(DivergedError) as caught:
        train(network(), process=process, learning_rate=1e6, epochs=5)
    assert "not finite in epoch 1" in str(caught.value)
    assert "learning_rate 1e+06" in str(caught.value)
    assert "lower" in str(caught.value)
    # The epoch that diverged is not reported, so no scheduler ranks it.
    assert process.reported == []
    assert caught.value.epoch == 1
    for survivor in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert isinstance(survivor, DivergedError)
        assert (str(survivor), survivor.epoch) == (str(caught.value), 1)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_distillation_that_is_not_finite_ends_the_training(value):
    distillation = dfd(1.0, "mean", lambda draw: torch.full((len(draw), 32), value))
    with pytest.raises(DivergedError, match="epoch 1"):
        train(network(), distillation=distillation)


# Precision.


class Watched(nn.Identity):
    """Takes down the number formats that pass through it."""

    seen: set[torch.dtype]

    def forward(self, inputs):
        if self.training:
            self.seen.add(inputs.dtype)
        return inputs


@pytest.mark.parametrize(("precision", "expected"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_network_is_trained_in_its_precision_whatever_the_device(precision, expected):
    model, watched = network(), Watched()
    watched.seen = set()
    model.features.append(watched)
    train(model, precision=precision)
    assert watched.seen == {expected}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_equal_runs_in_bf16_are_equal_and_differ_a_little_from_float32():
    def losses(precision):
        return [metrics["loss"] for metrics in train(network(), precision=precision)]

    first, again, other = losses("bf16"), losses("bf16"), losses("float32")
    assert first == again
    assert first != other
    # bf16 has 8 bits of mantissa.
    assert first == pytest.approx(other, rel=2**-5)


# Two processes.


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize(
    ("batch_size", "mixup"),
    [
        pytest.param(20, 0.0, id="even: 2 batches of 20, 10 and 10"),
        pytest.param(14, 0.0, id="uneven: batches of 14, 13 and 13, the latter 7 and 6"),
        pytest.param(9, 0.0, id="uneven: 5 batches of 8"),
        pytest.param(14, 0.5, id="uneven and mixed, with images of the other's share too"),
    ],
)
def test_two_processes_train_as_one_does(batch_size, mixup, class_weights, two_processes, store, tmp_path):
    settings = recipe(batch_size=batch_size, epochs=3, mixup=mixup, class_weights=class_weights)
    how = ("dfd", "alexnet", 0.0, None, class_weights == "balanced")
    alone = train_distilled(SingleProcess(), store.root, settings, *how)
    ranks = two_processes(train_distributed, store.root, tmp_path / "meeting", settings, *how)
    for ours, theirs in zip(ranks[0]["history"], alone["history"], strict=True):
        assert ours.keys() == theirs.keys()
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    # Rank 0 evaluates, and all ranks know: they must agree on whether training has diverged.
    assert ranks[1]["history"] == ranks[0]["history"]
    for rank in ranks:
        assert rank["reported"] == rank["history"]
        for name, weights in rank["weights"].items():
            np.testing.assert_array_equal(weights, ranks[0]["weights"][name])
            np.testing.assert_allclose(weights, alone["weights"][name], rtol=1e-4, atol=1e-5)
    assert alone["history"][0]["distillation"] > 0
