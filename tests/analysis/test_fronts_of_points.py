"""The front of accuracy and cost, and the choice within a limit, on made-up trials."""

import dataclasses
import itertools

from hypothesis import given
from hypothesis import strategies as st

from dfd_tune.analysis.choice import best_trial, chosen_of, complete
from dfd_tune.analysis.front import cost_of_point, front_of
from dfd_tune.analysis.points import points_of
from tests.report.searches import make_request, make_search, make_trial

REQUEST = make_request({"lambda_": [0, 1, 2, 3, 4, 5]})


def trials_of(pairs):
    """A trial for each accuracy in per cent and number of parameters."""
    found = []
    for lambda_, (accuracy, parameters) in enumerate(pairs):
        trial = make_trial(REQUEST, {"lambda_": lambda_}, accuracy / 100)
        found.append(dataclasses.replace(trial, metrics=trial.metrics | {"parameters": float(parameters)}))
    return found


def search_of(choose="accuracy", objectives=("accuracy", "parameters")):
    return make_search(REQUEST, {}, objectives=list(objectives), choose=choose)


def pairs_of(points):
    return [(round(100 * point.val_accuracy), cost_of_point(point, "parameters")) for point in points]


def test_the_front_by_hand():
    trials = trials_of([(90, 500), (80, 100), (80, 200), (95, 900), (85, 500), (70, 900)])
    assert pairs_of(front_of(search_of(), trials)) == [(80, 100), (90, 500), (95, 900)]


def test_a_search_after_accuracy_alone_has_none():
    assert front_of(search_of(objectives=("accuracy",)), trials_of([(90, 500)])) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=6))
def test_a_point_is_on_the_front_if_no_other_is_better_in_one_and_no_worse_in_the_other(pairs):
    trials = trials_of(pairs)
    front = pairs_of(front_of(search_of(), trials))
    undominated = {
        (accuracy, cost)
        for accuracy, cost in pairs
        if not any(other >= accuracy and price <= cost and (other, price) != (accuracy, cost) for other, price in pairs)
    }
    assert set(front) == undominated
    assert len(front) == len(undominated)  # of equal ones, one
    assert all(one[0] < other[0] and one[1] < other[1] for one, other in itertools.pairwise(front))


def test_the_most_accurate_within_the_limit_is_chosen():
    trials = trials_of([(90, 500), (80, 100), (80, 200), (95, 900), (85, 500), (70, 900)])
    assert best_trial(search_of(), trials).config["lambda_"] == 3
    assert best_trial(search_of("front:parameters<=600"), trials).config["lambda_"] == 0
    assert best_trial(search_of("front:parameters<=100"), trials).config["lambda_"] == 1
    assert best_trial(search_of("front:parameters<=99"), trials) is None
    points = points_of(trials)
    assert pairs_of([chosen_of(search_of("front:parameters<=499"), points)]) == [(80, 100)]
    assert complete(search_of("front:parameters<=99"), points) == []
    assert complete(search_of("front:parameters<=99"), points, limited=False) == points


def test_those_that_were_trained_anew_keep_to_the_limit_too():
    trials = trials_of([(90, 500), (80, 100)])
    search = search_of("front:parameters<=100")
    cell = type("Cell", (), {"arms": {"student": [trials[0].key], "plain": [trials[1].key]}})()
    search = dataclasses.replace(search, confirmation=[cell])
    assert best_trial(search, trials) == trials[1]
