"""Importances of explored settings, from made-up trials whose accuracy a known setting decides."""

import math
import random

import pytest

from dfd_tune.analysis.importances import FEWEST_TRIALS, importances
from tests.report.searches import grid_trials, make_request, make_search, make_trial

RANGES = {
    "lambda_": {"low": 0.05, "high": 20, "log": True},
    "learning_rate": {"low": 0.01, "high": 0.1, "log": True},
    "backbone": ["resnet18", "vgg16"],
}


def trials_of(request, accuracy, count=40):
    draw = random.Random(0)
    points = [
        {
            "lambda_": 0.05 * 400 ** draw.random(),
            "learning_rate": 0.01 * 10 ** draw.random(),
            "backbone": draw.choice(RANGES["backbone"]),
        }
        for _ in range(count)
    ]
    return [make_trial(request, point, accuracy(point)) for point in points]


def importances_of(request, trials):
    return importances(make_search(request, {}), trials)


def test_what_decides_accuracy_is_most_important():
    request = make_request(RANGES, "tpe", 40)
    by_lambda = importances_of(request, trials_of(request, lambda point: 0.8 + 0.02 * math.log10(point["lambda_"])))
    assert next(iter(by_lambda)) == "lambda_"
    assert by_lambda["lambda_"] > 0.9
    assert sum(by_lambda.values()) == pytest.approx(1)
    vgg16 = trials_of(request, lambda point: 0.8 + 0.1 * (point["backbone"] == "vgg16"), 200)
    assert importances_of(request, vgg16)["backbone"] > 0.9


def test_the_same_trials_give_the_same_importances():
    request = make_request(RANGES, "random", 40)
    trials = trials_of(request, lambda point: 0.9 - point["learning_rate"])
    assert importances_of(request, trials) == importances_of(request, trials)


def test_the_twin_outside_the_space_is_left_out():
    request = make_request(RANGES, "tpe", 40)
    trials = trials_of(request, lambda point: 0.9 - point["learning_rate"])
    twin = make_trial(request, {**{name: trials[0].config[name] for name in RANGES}, "lambda_": 0.0}, 0.99)
    assert importances_of(request, [*trials, twin]) == importances_of(request, trials)
    assert importances_of(request, trials[:FEWEST_TRIALS]) != {}
    assert importances_of(request, [*trials[: FEWEST_TRIALS - 1], twin]) == {}


def test_there_are_none_where_they_would_mean_nothing():
    sampled = make_request(RANGES, "tpe", 40)
    few = trials_of(sampled, lambda point: 0.9 - point["learning_rate"], FEWEST_TRIALS - 1)
    assert importances_of(sampled, few) == {}
    assert importances_of(sampled, trials_of(sampled, lambda point: 0.9)) == {}
    grid = make_request({"lambda_": list(range(FEWEST_TRIALS))})
    assert importances_of(grid, grid_trials(grid, lambda point: 0.8 + point["lambda_"] / 1000)) == {}
