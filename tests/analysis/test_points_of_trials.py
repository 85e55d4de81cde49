"""Points of trials and their order, and which student is deployed."""

import dataclasses
import math

import pytest

from dfd_tune.analysis.cells import cells_of
from dfd_tune.analysis.choice import best_trial, ranked
from dfd_tune.analysis.points import half_width, points_of
from dfd_tune.criteria import CRITERIA
from tests.report.searches import confirmed, grid_trials, make_request, make_search, make_trial

REQUEST = make_request({"lambda_": [0, 1, 2], "seed": [0, 1, 2]})
SEARCH = make_search(REQUEST, {})
ONE_SEED = make_search(make_request({"lambda_": [0, 1, 2]}), {})


def at(lambda_, seed=0, accuracy=0.5, **changes):
    return make_trial(REQUEST, {"lambda_": float(lambda_), "seed": seed}, accuracy, **changes)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # Student's t(0.975, degrees of freedom) from tables: 12.7062 for 1, 4.3027 for 2, 2.7764 for 4.
        ([1.0, 2.0, 3.0], 4.3027 / math.sqrt(3)),  # s = 1
        ([4.0, 6.0], 12.7062 * math.sqrt(2) / math.sqrt(2)),  # s = √2
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2.7764 * math.sqrt(2.5) / math.sqrt(5)),  # s² = (4 + 1 + 0 + 1 + 4) / 4
        ([7.0, 7.0], 0.0),
    ],
)
def test_half_widths_by_hand(values, expected):
    assert half_width(values) == pytest.approx(expected, rel=1e-4)


def test_one_seed_has_no_interval():
    assert half_width([1.0]) is None
    assert half_width([]) is None


def test_a_point_is_its_seeds_mean():
    (point,) = points_of([at(1, 0, 0.90, val_loss=1.0), at(1, 1, 0.92, val_loss=2.0), at(1, 2, 0.94, val_loss=6.0)])
    assert point.val_accuracy == pytest.approx(0.92)
    assert point.val_loss == pytest.approx(3.0)
    assert point.half_width == pytest.approx(4.3027 * 0.02 / math.sqrt(3), rel=1e-4)
    assert point.config["seed"] == 0
    assert len(point.trials) == 3


def test_points_differ_in_more_than_their_seed_and_keep_their_order():
    trials = grid_trials(REQUEST, lambda point: 0.5)
    points = points_of(trials)
    assert [(point.config["lambda_"], len(point.trials)) for point in points] == [(0, 3), (1, 3), (2, 3)]
    assert [point.config["lambda_"] for point in points_of(trials[::-1])] == [2, 1, 0]


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "FAILED", "KILLED"])
def test_only_finished_trials_count(status):
    (point,) = points_of([at(1, 0), at(1, 1, status=status), at(2, 0, status=status)])
    assert (len(point.trials), point.lacking) == (1, 1)
    assert best_trial(ONE_SEED, [at(1, 0, status=status)]) is None


def test_what_is_trained_anew_is_no_point_of_the_search():
    _, trials = confirmed(SEARCH, grid_trials(REQUEST, lambda point: 0.5), controls=("longer", "tuned_base"))
    assert {trial.stage for trial in trials} == {"search", "confirm", "control"}
    assert [(point.config["lambda_"], len(point.trials)) for point in points_of(trials)] == [(0, 3), (1, 3), (2, 3)]


def test_ranking_is_by_accuracy_and_ties_go_to_the_simpler():
    trials = [at(0, accuracy=0.8, val_loss=0.1), at(2, accuracy=0.9, val_loss=0.5), at(1, accuracy=0.9, val_loss=0.6)]
    assert [point.config["lambda_"] for point in ranked(ONE_SEED, points_of(trials))] == [1, 2, 0]
    assert best_trial(ONE_SEED, trials).config["lambda_"] == 1


SCORED = {
    # λ -> accuracy, balanced accuracy, macro F1, loss: each metric finds another best.
    0: (0.90, 0.60, 0.50, 0.70),
    1: (0.85, 0.70, 0.55, 0.60),
    2: (0.80, 0.65, 0.60, 0.65),
}


@pytest.mark.parametrize(
    ("choose_by", "order"),
    [("accuracy", [0, 1, 2]), ("balanced_accuracy", [1, 2, 0]), ("macro_f1", [2, 1, 0]), ("loss", [1, 2, 0])],
)
def test_what_is_chosen_by_decides_ranking_best_student_and_a_cells_lambda(choose_by, order):
    trials = []
    for lambda_, (accuracy, balanced, f1, loss) in SCORED.items():
        trial = at(lambda_, accuracy=accuracy, val_loss=loss)
        more = {"val_balanced_accuracy": balanced, "val_macro_f1": f1}
        trials.append(dataclasses.replace(trial, metrics=trial.metrics | more))
    search = dataclasses.replace(ONE_SEED, choose_by=choose_by)
    assert [point.config["lambda_"] for point in ranked(search, points_of(trials))] == order
    assert best_trial(search, trials).config["lambda_"] == order[0]
    (cell,) = cells_of(search, trials)
    assert cell.chosen.config["lambda_"] == next(lambda_ for lambda_ in order if lambda_)


@pytest.mark.parametrize("choose_by", CRITERIA)
def test_points_as_good_by_any_metric_are_ranked_by_lambda(choose_by):
    search = dataclasses.replace(ONE_SEED, choose_by=choose_by)
    trials = [at(2), at(0), at(1)]
    more = {"val_balanced_accuracy": 0.4, "val_macro_f1": 0.4}
    trials = [dataclasses.replace(trial, metrics=trial.metrics | more) for trial in trials]
    assert [point.config["lambda_"] for point in ranked(search, points_of(trials))] == [0, 1, 2]


def test_points_of_equal_accuracy_and_lambda_are_ranked_by_loss():
    request = make_request({"lambda_": [1], "learning_rate": [0.1, 0.2]})
    trials = [
        make_trial(request, {"lambda_": 1.0, "learning_rate": rate}, 0.9, val_loss=loss)
        for rate, loss in ((0.1, 0.4), (0.2, 0.3))
    ]
    assert [point.config["learning_rate"] for point in ranked(ONE_SEED, points_of(trials))] == [0.2, 0.1]


def test_a_lucky_seed_alone_does_not_win():
    lucky = [at(1, 0, 0.99), at(1, 1, 0.80), at(1, 2, 0.80)]
    steady = [at(2, 0, 0.90), at(2, 1, 0.92), at(2, 2, 0.91)]
    best = best_trial(SEARCH, lucky + steady)
    assert (best.config["lambda_"], best.config["seed"]) == (2, 1)


def test_of_a_points_equal_seeds_the_one_of_lower_loss_is_best():
    best = best_trial(SEARCH, [at(1, 0, 0.9, val_loss=0.4), at(1, 1, 0.9, val_loss=0.3), at(1, 2, 0.8, val_loss=0.1)])
    assert best.config["seed"] == 1


def test_nothing_finished_has_no_best():
    assert best_trial(SEARCH, []) is None


def deployed(accuracy, **confirm):
    search, trials = confirmed(SEARCH, grid_trials(REQUEST, lambda point: point["lambda_"] / 10), **confirm)
    changed = [
        dataclasses.replace(trial, metrics={**trial.metrics, "val_accuracy": accuracy(trial)})
        if trial.stage == "confirm"
        else trial
        for trial in trials
    ]
    return best_trial(search, changed).config


def test_of_those_trained_anew_the_best_is_deployed_with_distillation_or_without():
    def by_seed(trial):
        return 0.1 + trial.config["seed"] / 1e4

    def plain_wins(trial):
        return by_seed(trial) + 0.5 * (trial.config["lambda_"] == 0)

    # All of these are worse than the search's own, which the choice has flattered.
    best = deployed(by_seed)
    assert (best["lambda_"], best["seed"]) == (0, 1004)  # equal: the simpler
    best = deployed(lambda trial: by_seed(trial) + 0.5 * (trial.config["lambda_"] > 0))
    assert (best["lambda_"], best["seed"]) == (2, 1004)
    assert deployed(plain_wins)["lambda_"] == 0


def test_a_control_is_not_deployed():
    def longer_wins(trial):
        return 0.5 + 0.4 * (trial.config["epochs"] > REQUEST.settings["epochs"])

    best = deployed(longer_wins, controls=("half_longer", "longer"))
    assert best["epochs"] == REQUEST.settings["epochs"]
