"""What a search is after, as a space and `--choose` say it."""

import math

import pytest

from dfd_tune.axes import Choice
from dfd_tune.criteria import CRITERIA
from dfd_tune.objectives import (
    ALONE,
    COSTS,
    MOST_ACCURATE,
    Choose,
    choose_from,
    directions,
    parse_choose,
    parse_objectives,
    values_of,
)
from dfd_tune.schedulers import EarlyStop
from dfd_tune.space import scheduler_problem


@pytest.mark.parametrize(
    ("value", "found"), [(None, ALONE), (["accuracy"], ALONE), (["accuracy", "latency"], ("accuracy", "latency"))]
)
def test_objectives(value, found):
    assert parse_objectives(value) == (found, [])


@pytest.mark.parametrize(
    "value",
    [
        "accuracy",
        [],
        ["parameters"],
        ["parameters", "accuracy"],
        ["accuracy", "parameters", "latency"],
        ["accuracy", "size"],
        ["accuracy", 3],
        ["accuracy", ["parameters"]],
    ],
)
def test_objectives_that_can_not_be_meant(value):
    found, problems = parse_objectives(value)
    assert found == ALONE
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("accuracy", MOST_ACCURATE),
        (" Accuracy ", MOST_ACCURATE),
        ("front:PARAMETERS<=200000", Choose("parameters", 200_000.0)),
        ("front:multiply_adds <= 2.5e6", Choose("multiply_adds", 2_500_000.0)),
        ("front:latency<=2ms", Choose("latency", 0.002)),
        ("front:latency<=0.5s", Choose("latency", 0.5)),
    ],
)
def test_a_choice(text, found):
    chosen, problem = parse_choose(text)
    assert (chosen, problem) == (found, None)
    assert choose_from(chosen.as_text()) == chosen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "front",
        "front:parameters",
        "front:size<=3",
        "front:parameters<3",
        "front:parameters<=2ms",
        "front:latency<=1.2.3",
    ],
)
def test_a_choice_that_can_not_be_meant(text):
    chosen, problem = parse_choose(text)
    assert chosen == MOST_ACCURATE
    assert problem is not None
    assert "--choose" in problem


def test_who_may_be_chosen():
    limit = Choose("parameters", 100.0)
    assert limit.allows({"parameters": 100.0})
    assert not limit.allows({"parameters": 101.0})
    assert not limit.allows({})
    assert MOST_ACCURATE.allows({})


def test_values_and_their_directions():
    metrics = {"val_accuracy": 0.75, "image_seconds": 0.002, "parameters": 7.0}
    accuracy, loss = CRITERIA["accuracy"], CRITERIA["loss"]
    assert values_of(metrics, ("accuracy", "latency"), accuracy) == (0.75, 0.002)
    assert values_of(metrics, ALONE, accuracy) == (0.75,)
    assert values_of(metrics | {"val_loss": 0.3}, ("accuracy", "parameters"), loss) == (0.3, 7.0)
    assert directions(("accuracy", "latency"), accuracy) == ["maximize", "minimize"]
    assert directions(ALONE, loss) == ["minimize"]
    assert accuracy.by_epoch([{"epoch": 1.0}, {"epoch": 2.0, "val_accuracy": 0.5}]) == {2: 0.5}
    assert all(cost.metric for cost in COSTS.values())
    assert MOST_ACCURATE.at_most == math.inf


def test_trials_of_two_objectives_are_not_stopped_by_one():
    stop = EarlyStop(kind="asha")
    assert scheduler_problem(stop, {"lambda_": Choice((1, 2))}, ("accuracy", "parameters")) is not None
    assert scheduler_problem(stop, {"lambda_": Choice((1, 2))}) is None
