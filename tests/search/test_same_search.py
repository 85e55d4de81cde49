"""Which launches go on with a search of their name, and which would be another one."""

import dataclasses

import pytest

from dfd_tune.errors import UserError
from dfd_tune.search.same_search import refuse_changes
from tests.report.searches import make_request, make_search

EXPLORE = {"lambda_": [0, 1], "backbone": ["resnet18"]}


def search_of(explore=EXPLORE, sampler="grid", trials=None, **changes):
    return make_search(make_request(explore, sampler, trials), {}, **changes)


def refusal(known, asked, *, extend=False):
    with pytest.raises(UserError) as caught:
        refuse_changes(known, asked, extend=extend)
    (problem,) = caught.value.problems
    return problem


def test_the_same_goes_on_with_another_choice_or_more_trials():
    known = search_of()
    for extend in (False, True):
        refuse_changes(known, search_of(), extend=extend)
        refuse_changes(known, search_of(choose="front:parameters<=5"), extend=extend)
        refuse_changes(search_of(EXPLORE, "random", 3), search_of(EXPLORE, "random", 9), extend=extend)


@pytest.mark.parametrize(
    "explore",
    [
        {"lambda_": [0, 1, 2], "backbone": ["resnet18"]},
        {"lambda_": [0, 1], "backbone": ["vgg16", "resnet18"]},
        {**EXPLORE, "reduction": ["mean", "sum"]},
    ],
)
def test_a_space_that_holds_all_of_before_is_added_where_that_is_asked_for(explore):
    known, asked = search_of(), search_of(explore, space="larger")
    assert "--extend" in refusal(known, asked)
    refuse_changes(known, asked, extend=True)


@pytest.mark.parametrize(
    ("explore", "named"),
    [
        ({"lambda_": [0, 2], "backbone": ["resnet18"]}, "lambda_"),
        ({"lambda_": [0, 1]}, "backbone"),
        ({**EXPLORE, "reduction": ["mean"]}, "reduction"),
    ],
)
def test_points_of_before_are_not_dropped(explore, named):
    asked = search_of(explore)
    if named == "backbone":
        asked = dataclasses.replace(asked, settings=asked.settings | {"backbone": "vgg16"})
    assert named in refusal(search_of(), asked, extend=True)
    assert "--extend" not in refusal(search_of(), asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 77},
        {"protocol": "paper"},
        {"objectives": ["accuracy", "latency"]},
        {"settings": make_request(EXPLORE).settings | {"epochs": 99}},
    ],
)
def test_anything_else_is_another_search(changes):
    known, larger = search_of(), {"lambda_": [0, 1, 2], "backbone": ["resnet18"]}
    for extend in (False, True):
        assert refusal(known, search_of(larger, **changes), extend=extend)
