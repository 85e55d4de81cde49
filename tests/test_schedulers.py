"""What a space says of early stopping: kinds, grace periods, and what can't be meant."""

import pytest

from dfd_tune.axes import Choice
from dfd_tune.schedulers import NEVER, SCHEDULERS, Course, EarlyStop, parse_early_stop
from dfd_tune.space import scheduler_problem


@pytest.mark.parametrize("value", [None, "none", {}, {"kind": "none"}])
def test_nothing_is_stopped_unless_asked_for(value):
    assert parse_early_stop(value) == (NEVER, [])
    assert not NEVER.stops


def test_a_scheduler_may_have_settings():
    found, problems = parse_early_stop({"kind": "asha", "grace_epochs": 4, "factor": 2})
    assert (found, problems) == (EarlyStop(kind="asha", grace_epochs=4, factor=2), [])
    assert EarlyStop(**found.as_json()) == found
    assert found.stops


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("ash", ["asha"]),
        (3, ["scheduler"]),
        ({"kind": "asha", "grace": 3}, ["grace_epochs"]),
        ({"kind": "asha", "factor": 1}, ["factor", "from 2"]),
        ({"kind": "asha", "grace_epochs": True}, ["grace_epochs", "from 1"]),
        ({"kind": "median", "grace_epochs": 0.5}, ["grace_epochs", "from 1"]),
    ],
)
def test_what_can_not_be_meant_is_one_sentence(value, named):
    found, (problem,) = parse_early_stop(value)
    assert found == NEVER
    assert all(word in problem for word in named)


def test_lucky_seeds_are_not_to_be_left():
    explore = {"seed": Choice((0, 1))}
    assert "seed" in scheduler_problem(EarlyStop(kind="asha"), explore)
    assert scheduler_problem(NEVER, explore) is None
    assert scheduler_problem(EarlyStop(kind="median"), {"lambda_": Choice((0, 1))}) is None


def test_the_grace_period_is_a_share_of_the_longest_trial_unless_given():
    asha, median = EarlyStop(kind="asha"), EarlyStop(kind="median")
    assert [asha.course(epochs).grace_epochs for epochs in (1, 9, 90)] == [1, 1, 10]
    assert [median.course(epochs).grace_epochs for epochs in (1, 8, 90)] == [1, 2, 22]
    assert EarlyStop(kind="asha", grace_epochs=30).course(20).grace_epochs == 20


def test_rungs_are_told_as_they_are():
    rule = SCHEDULERS["asha"].rule(Course(epochs=36, grace_epochs=4, factor=3))
    assert "after 4 and 12 of 36" in rule
    assert "after 2, 4 and 8 of 16" in SCHEDULERS["asha"].rule(Course(epochs=16, grace_epochs=2, factor=2))
