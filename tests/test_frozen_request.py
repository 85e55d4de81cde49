"""A request frozen as JSON comes back equal, to the kinds of its numbers and the order of its axes."""

import json

import pytest

from dfd_tune.data.sources import SOURCES
from dfd_tune.errors import UserError
from dfd_tune.frozen_request import request_as_json, request_from_json
from dfd_tune.plan import make_plan
from dfd_tune.settings import settle
from dfd_tune.space import shipped_spaces
from tests.samples import request_for, tiny_dataset

ASSIGNMENTS = {
    "none": (),
    "axes": ("lambda_=[0, 1, 2.5]", "temperature=[1, 2.5]", "jpeg_quality=[none, 5]"),
    "values": ("epochs=3", "width=1", "teachers=[resnet18, vgg16]", "image_size=16", "flip=true"),
}


def exact(value):
    """Text that tells 1 from 1.0 and True, tuples from lists, and one order of keys from another."""
    return repr(value)


def thawed(request):
    return request_from_json(json.loads(json.dumps(request_as_json(request), allow_nan=False)), search="s")


ASKED = {
    "paper": {"protocol": "paper"},
    "space": {},
    "chosen": {"choose_by": "macro_f1"},
    "anew": {"confirm": {"seeds": 3, "cells": "all", "replicate": "pipeline", "controls": "longer, tuned_base"}},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("assignments", ASSIGNMENTS.values(), ids=ASSIGNMENTS)
@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
@pytest.mark.parametrize("space", shipped_spaces())
def test_every_shipped_space_comes_back(space, dataset, assignments, asked):
    request = request_for(space, *assignments, dataset=dataset, seed=7, **asked)
    assert exact(thawed(request)) == exact(request)
    settled = settle(
        request, image_size=SOURCES[dataset].recipe.get("image_size") or 32, vgg19_at_hand=False, device="cpu"
    )
    assert exact(thawed(settled)) == exact(settled)


def test_ranges_steps_and_conditions_come_back(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "description: 'λ'\nsampler: tpe\ntrials: 5\nexplore:\n  lambda_: {low: 1, high: 20, log: true}\n"
        "  batch_size: {low: 8, high: 64, step: 8}\n  width: {low: 0.25, high: 1, step: 0.25}\n"
        "  backbone: [vgg16]\n"
    )
    request = request_for(file, "learning_rate=[0.1, 1]", trials=9)
    back = thawed(request)
    assert exact(back) == exact(request)
    assert exact(back.explore["batch_size"]) == "Range(low=8, high=64, log=False, step=8, when=())"
    assert exact(back.explore["lambda_"]) == "Range(low=1.0, high=20.0, log=True, step=None, when=())"
    file.write_text(
        "explore: {lambda_: [0, 1], jpeg_quality: [none, 5]}\nonly: [{lambda_: 0}, {jpeg_quality: [none]}]\n"
    )
    request = request_for(file)
    assert exact(thawed(request)) == exact(request)
    assert request.only == ({"lambda_": (0.0,)}, {"jpeg_quality": (None,)})


def test_a_request_of_a_version_that_knew_accuracy_alone_chooses_by_it():
    request = request_for("lambda_grid")
    value = request_as_json(request)
    del value["choose_by"], value["space"]["choose_by"]
    assert exact(request_from_json(value, search="s")) == exact(request)


def test_a_thawed_request_gives_the_same_keys():
    request, dataset = request_for("methods", "epochs=1"), tiny_dataset()
    assert list(make_plan(thawed(request), dataset, bank_budget=0).trials) == list(
        make_plan(request, dataset, bank_budget=0).trials
    )


@pytest.mark.parametrize(
    "broken", [{}, {"space": 3}, {"explore": {"lambda_": {"lowest": 1}}}, {"unknown": 1}, {"confirm": {"sseeds": 1}}]
)
def test_a_record_of_another_version_is_refused_in_one_sentence(broken):
    value = request_as_json(request_for("lambda_grid")) | broken if broken else {}
    with pytest.raises(UserError) as caught:
        request_from_json(value, search="mine")
    (problem,) = caught.value.problems
    assert "'mine'" in problem
