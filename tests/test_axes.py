"""Axes under a condition: where they are explored, how they are read, and which axis holds all of another."""

import pytest

from dfd_tune.axes import Choice, Range, axis_from_json, explored_at, grid_points, in_space, parse_axis, point_at
from dfd_tune.frozen_request import request_as_json, request_from_json
from dfd_tune.settings import resolve
from dfd_tune.space import SearchSpace
from tests.report.searches import make_request

METHODS = {"method": ["dfd", "kd", "fitnets"]}
AXES = {
    "method": Choice(("dfd", "kd", "fitnets")),
    "temperature": Choice((2.0, 4.0), (("method", ("kd",)),)),
    "hint_layer": Choice(("middle", "block1"), (("method", ("fitnets",)),)),
}


def test_a_grid_has_a_setting_under_a_condition_where_that_is_met():
    assert list(grid_points(AXES)) == [
        {"method": "dfd"},
        {"method": "kd", "temperature": 2.0},
        {"method": "kd", "temperature": 4.0},
        {"method": "fitnets", "hint_layer": "middle"},
        {"method": "fitnets", "hint_layer": "block1"},
    ]


def test_a_condition_on_a_setting_that_is_not_explored_there_is_not_met():
    chained = AXES | {"reduction": Choice(("mean", "sum"), (("temperature", (2.0,)),))}
    config = {"method": "dfd", "temperature": 2.0, "hint_layer": "middle", "reduction": "mean"}
    assert point_at(config, chained) == {"method": "dfd"}
    assert point_at(config | {"method": "kd"}, chained) == {"method": "kd", "temperature": 2.0, "reduction": "mean"}


def test_elsewhere_a_trial_has_the_value_that_it_would_have_anyway():
    request = make_request({"method": ["dfd", "kd"], "temperature": {"values": [2, 8], "when": {"method": "kd"}}})
    unset = request.settings["temperature"]
    trials = [request.trial(point) for point in grid_points(request.explore)]
    assert [(trial.method, trial.temperature) for trial in trials] == [("dfd", unset), ("kd", 2.0), ("kd", 8.0)]
    assert request.trial({"method": "dfd", "temperature": 8.0}).temperature == unset


def test_where_an_axis_is_not_explored_any_value_is_in_the_space():
    config = {"method": "dfd", "temperature": 99.0, "hint_layer": "middle"}
    assert in_space(config, AXES)
    assert not in_space(config | {"method": "kd"}, AXES)
    assert explored_at(config, {name: axis.as_json() for name, axis in AXES.items()}) == ["method"]


@pytest.mark.parametrize("axis", [*AXES.values(), Range(1.0, 9.0, log=True, when=(("method", ("kd", "dfd")),))])
def test_an_axis_comes_back_from_json(axis):
    assert axis_from_json(axis.as_json()) == axis


def test_a_request_with_conditions_comes_back_from_json():
    request = make_request(
        {"method": ["dfd", "kd"], "temperature": {"low": 1, "high": 9, "when": {"method": "kd"}}}, "tpe", 5
    )
    assert request_from_json(request_as_json(request), search="s") == request


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("temperature", {"low": 1, "high": 9, "when": {"backbone": "vgg16"}}, ["backbone", "before"]),
        ("temperature", {"low": 1, "high": 9, "when": {"method": "rdl"}}, ["rdl", "list"]),
        ("temperature", {"low": 1, "high": 9, "when": {"method": []}}, ["method", "list"]),
        ("temperature", {"low": 1, "high": 9, "when": "kd"}, ["when", "mapping"]),
        ("temperature", {"low": 1, "high": 9, "whem": {}}, ["whem", "when"]),
        ("temperature", {"values": 3, "when": {"method": "kd"}}, ["values", "list"]),
        ("temperature", {"values": [3], "low": 1}, ["low", "values"]),
        ("temperature", {"values": [-1], "when": {"method": "kd"}}, ["temperature", "-1"]),
        ("lambda_", {"values": [1, 2], "when": {"method": "kd"}}, ["lambda_", "when"]),
    ],
)
def test_what_can_not_be_meant_is_said(name, value, named):
    axis, problems = parse_axis(name, value, "tpe", {"method": Choice(("dfd", "kd"))})
    assert axis is None
    assert len(problems) == 1
    assert all(word in problems[0] for word in named), problems


def resolved(*assignments):
    axes = {}
    for name, value in {
        **METHODS,
        "temperature": {"values": [2, 4], "when": {"method": ["kd"]}},
        "reduction": {"values": ["mean", "sum"], "when": {"method": ["dfd", "fitnets"]}},
        "lambda_": [1, 2],
    }.items():
        axes[name], problems = parse_axis(name, value, "grid", axes)
        assert not problems
    recipe = make_request({"lambda_": [1]}).settings
    return resolve(
        SearchSpace("s", "", "grid", axes, {}, None),
        dataset="digits",
        data=None,
        recipe=recipe,
        assignments=assignments,
    )


def test_a_setting_that_is_fixed_settles_the_conditions_on_it():
    kd = resolved("method=kd")
    assert list(kd.explore) == ["temperature", "lambda_"]
    assert kd.explore["temperature"] == Choice((2.0, 4.0))
    assert len(list(grid_points(kd.explore))) == 4
    dfd = resolved("method=dfd")
    assert list(dfd.explore) == ["reduction", "lambda_"]
    free = resolved("temperature=3")
    assert list(free.explore) == ["method", "reduction", "lambda_"]
    assert free.settings["temperature"] == 3.0


def test_a_list_on_the_command_line_keeps_the_condition():
    found = resolved("temperature=[5, 6, 7]")
    assert found.explore["temperature"] == Choice((5.0, 6.0, 7.0), (("method", ("kd",)),))


@pytest.mark.parametrize(
    ("larger", "smaller", "holds"),
    [
        (Choice((1, 2, 3)), Choice((1, 3)), True),
        (Choice((1, 2)), Choice((1, 3)), False),
        (Choice((1, 2)), Range(1.0, 2.0), False),
        (Range(0.5, 8.0), Choice((1, 8)), True),
        (Range(0.5, 8.0), Choice((1, 9)), False),
        (Range(0.5, 8.0), Range(1.0, 8.0, log=True), True),
        (Range(0.5, 8.0), Range(0.1, 8.0), False),
        (Range(0.0, 8.0, step=2), Range(2.0, 6.0, step=2), True),
        (Range(0.0, 8.0, step=2), Range(1.0, 7.0, step=2), False),
        (Range(0.0, 8.0, step=2), Range(2.0, 6.0), False),
        (Choice((1, 2)), Choice((1,), (("method", ("kd",)),)), False),
    ],
)
def test_whether_an_axis_holds_all_of_another(larger, smaller, holds):
    assert larger.covers(smaller) is holds
