"""A step that reads buffers alone trains as the product does: all of it but the capture, which a CPU can't do."""

import dataclasses
import json
import sys

import pytest
import torch

from benchmarks.captured_step import (
    Course,
    Eager,
    Static,
    check,
    course_of,
    history_of,
    main,
    speed,
    variants_of,
)
from dfd_tune.distill.workbench import BankPlan
from dfd_tune.errors import UserError
from tests.distill.tiny import fresh_store, prepared, trial, workbench

NAMES = ["eager", "captured"]
SIZES = [14, 13]
"""Of the batches that 40 images make, at 16 at most."""


def banked(tmp_path, layout="epochs", **settings):
    """A trial whose teacher has a bank, and its workbench."""
    store = fresh_store(tmp_path)
    config = trial(**{"schedule": "one_cycle"} | settings)
    key = config.teacher().key(workbench(store).dataset.digest)
    return config, prepared(store, config, banks={key: BankPlan(layout, 10)})


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        ("epochs", {"backbone": "resnet18"}),
        ("views", {"schedule": "step", "method": "logits"}),
        ("epochs", {"lambda_": 0.0, "schedule": "cosine"}),
    ],
)
def test_each_trains_as_the_product_does_bit_by_bit(tmp_path, capsys, layout, settings):
    config, bench = banked(tmp_path, layout, **settings)
    assert course_of(config, bench).sizes == SIZES
    assert check(NAMES, config, bench)
    lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [(line["variant"], line["same"], line["apart"]) for line in lines] == [(name, True, 0) for name in NAMES]


def test_a_training_that_begins_again_is_the_same_again(tmp_path):
    config, bench = banked(tmp_path, backbone="resnet18")
    course = course_of(config, bench)
    for variant in variants_of(NAMES, config, bench, smaller=True).values():
        first = history_of(variant, course)
        assert first[0]["loss"] != first[1]["loss"]
        assert history_of(variant, course) == first


@pytest.mark.parametrize("wrong", ["rates", "bank", "weights"])
def test_the_check_sees_what_is_wrong(tmp_path, monkeypatch, wrong):
    config, bench = banked(tmp_path)
    begin = Static.begin

    def begin_wrongly(self, course):
        begin(self, course)
        if wrong == "rates":
            self.rates = self.rates.flip(0)
        elif wrong == "bank":
            self.number = self.number.clone()  # no longer the one that steps read
        else:
            next(self.network.parameters()).data.mul_(1.01)

    monkeypatch.setattr(Static, "begin", begin_wrongly)
    assert not check(["eager", "captured"], config, bench)


def test_learning_rates_are_those_of_the_schedule(tmp_path):
    recipe = dataclasses.replace(trial(schedule="step", learning_rate=0.1).recipe, epochs=4, batch_size=16)
    assert Course(recipe, 17).rates() == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)


def test_what_is_compared_is_200_steps_of_the_same_sizes():
    """45,000 images make 352 batches; 20 of them, ten of 128 and ten of 127, have 2,550."""
    whole = Course(dataclasses.replace(trial().recipe, batch_size=128), 45_000)
    part = whole.part()
    assert (whole.steps, whole.sizes) == (352, [128, 127])
    assert (part.count, part.steps, part.recipe.epochs, part.sizes) == (2550, 20, 10, [128, 127])


def test_a_teacher_that_looks_at_images_is_refused(tmp_path):
    config = trial()
    with pytest.raises(UserError, match="bank"):
        variants_of(["captured"], config, prepared(fresh_store(tmp_path), config), smaller=True)


def test_all_that_is_measured_of_each_is_printed(tmp_path, capsys):
    """On a CPU, which has no say in what is fastest."""
    config, bench = banked(tmp_path, epochs=3)
    variants = variants_of(NAMES, config, bench, smaller=True)
    assert [type(variant) for variant in variants.values()] == [Eager, Static]
    speed(variants, course_of(config, bench), repeats=2)
    lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [line["variant"] for line in lines if line["what"] == "round"] == NAMES * 2
    assert [line["variant"] for line in lines if line["what"] == "evaluation"] == NAMES
    steps = [line for line in lines if line["what"] == "step"]
    assert [line["losses_apart"] for line in steps] == [0, 0]
    assert steps[0]["times_as_fast_as_eager"] == [1, 1, 1]
    assert steps[0]["pays_after_steps"] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_speed_is_not_measured_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["captured_step"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, "--check" in capsys.readouterr().err) == (2, True)
