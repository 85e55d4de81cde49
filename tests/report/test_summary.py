"""The numbers of a search's summary in MLflow, from made-up trials."""

import pytest

from dfd_tune.report.summary import summary_metrics
from tests.report.searches import grid_trials, make_best, make_request, make_search, with_tests


def summary(seeds):
    request = make_request({"lambda_": [0, 1], "seed": seeds})
    trials = grid_trials(request, lambda point: 0.9 + 0.05 * point["lambda_"])
    best = next(trial for trial in trials if trial.config["lambda_"] == 1)
    search = make_search(request, {"resnet18": 0.99}, best=make_best(best))
    gains = {0: 0.02, 1: 0.03, 2: 0.07}
    tested = with_tests(search, trials, lambda config: 0.9 + config["lambda_"] * gains[config["seed"]])
    return summary_metrics(tested, trials)


def test_over_seeds_the_summary_has_their_mean_gain():
    found = summary([0, 1, 2])
    assert found["mean_test_gain"] == pytest.approx(0.04)  # of 0.02, 0.03 and 0.07
    assert (found["best_test_accuracy"], found["base_test_accuracy"], found["best_lambda"]) == (0.94, 0.90, 1)
    assert found["teacher_resnet18_val_accuracy"] == 0.99


def test_one_seed_has_no_mean():
    assert "mean_test_gain" not in summary([0])
