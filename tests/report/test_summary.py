"""The numbers of a search's summary in MLflow, from made-up trials."""

import dataclasses

import pytest

from dfd_tune.record import CostRecord
from dfd_tune.report.conclusion import conclusion
from dfd_tune.report.found import Found
from dfd_tune.report.summary import summary_metrics
from dfd_tune.report.write import summary as on_page
from tests.report.searches import confirmed, grid_trials, make_best, make_request, make_search, with_tests

REQUEST = make_request({"lambda_": [0, 1]})
GAINS = {0: 0.5, 1000: 0.02, 1001: 0.03, 1002: 0.07}


def summary(**confirm):
    trials = grid_trials(REQUEST, lambda point: 0.9 + 0.05 * point["lambda_"])
    search = make_search(REQUEST, {"resnet18": 0.99}, best=make_best(trials[1]))
    if confirm:
        search, trials = confirmed(search, trials, **confirm)
    tested = with_tests(search, trials, lambda config: 0.4 + config["lambda_"] * GAINS[config["seed"]])
    return summary_metrics(tested, trials)


def test_the_summary_has_the_mean_gain_over_fresh_seeds():
    found = summary(seeds=3)
    assert found["mean_test_gain"] == pytest.approx(0.04)  # of 0.02, 0.03 and 0.07
    # s = 0.0265, half width 4.3027 · 0.0265 / √3
    assert found["mean_test_gain_half_width"] == pytest.approx(0.0657, rel=1e-3)
    assert (found["best_test_accuracy"], found["base_test_accuracy"], found["best_lambda"]) == (0.94, 0.90, 1)
    assert found["teacher_resnet18_val_accuracy"] == 0.99


def test_one_seed_has_no_interval():
    found = summary(seeds=1)
    assert found["mean_test_gain"] == pytest.approx(0.02)
    assert "mean_test_gain_half_width" not in found


def test_the_summary_has_what_the_best_student_costs():
    trials = grid_trials(REQUEST, lambda point: 0.9)
    cost = CostRecord(
        parameters=10, multiply_adds=20, file_bytes=30, image_seconds=0.5, batch_seconds=2.0, host="somewhere"
    )
    search = make_search(REQUEST, {"resnet18": 0.99}, best=make_best(trials[1], cost=cost))
    found = summary_metrics(search, trials)
    assert {name: found[f"best_{name}"] for name in ("parameters", "multiply_adds", "file_bytes")} == {
        "parameters": 10,
        "multiply_adds": 20,
        "file_bytes": 30,
    }
    assert (found["best_image_seconds"], found["best_batch_seconds"]) == (0.5, 2.0)
    assert "best_host" not in found
    told = next(line for line in conclusion(search, trials) if "somewhere" in line)
    assert all(words in told for words in ("10 parameters", "500 ms", "2,000 ms"))


@pytest.mark.parametrize("gives", ["network", "logits", "features"])
def test_a_teacher_that_came_in_a_file_is_named_wherever_a_search_is_told_of(gives):
    trials = grid_trials(REQUEST, lambda point: 0.9)
    search = make_search(REQUEST, {"resnet18": 0.8765}, best=make_best(trials[1]))
    mine = dataclasses.replace(search.teachers[0], file="cat.pt2", digest="0123456789abcdef", gives=gives)
    named = dataclasses.replace(search, teachers=[mine])
    for lines in (conclusion, lambda search, trials: on_page(Found(search, trials))):
        told = next(line for line in lines(named, trials) if "cat.pt2" in line)
        assert "0123456789abcdef" in told
        assert "87.65 %" in told
        assert ("nearest class mean" in told) == (gives == "features")
        assert not any("Teacher: " in line for line in lines(search, trials))


def test_what_the_choice_has_seen_is_no_gain_to_compare_searches_by():
    assert "mean_test_gain" not in summary()
