import csv
import dataclasses
import io
import json

import pytest

from dfd_tune.report.numbers import percent
from dfd_tune.report.tables import ranking, results_object, trials_csv
from tests.report.searches import (
    ACCURACIES,
    DIGEST,
    REQUEST,
    TEACHERS,
    confirmed,
    grid_trials,
    make_request,
    make_search,
    make_trial,
)


def test_results_hold_what_programs_look_for(search, trials):
    found = json.loads(json.dumps(results_object(search, trials), allow_nan=False))
    assert (found["search"], found["space"], found["dataset"]) == ("made_up-digits", "made_up", "digits")
    assert [(teacher["backbone"], teacher["val_accuracy"]) for teacher in found["teachers"]] == list(TEACHERS.items())
    assert [trial["key"] for trial in found["trials"]] == [trial.key for trial in trials]
    for trial in found["trials"]:
        assert trial["status"] == "FINISHED"
        accuracy = ACCURACIES[trial["config"]["backbone"], trial["config"]["lambda_"]]
        assert trial["metrics"]["val_accuracy"] == accuracy <= 1
    best = found["best"]
    assert (best["key"], best["val_accuracy"], best["test_accuracy"]) == (trials[-1].key, 0.95, 0.94)
    assert best["config"] == found["trials"][-1]["config"]
    distilled = [trial for trial in found["trials"] if trial["config"]["lambda_"] > 0]
    assert {trial["teacher"] for trial in distilled} == {teacher["key"] for teacher in found["teachers"]}


def test_results_of_a_search_that_has_just_begun():
    running = make_trial(REQUEST, {"backbone": "vgg16", "lambda_": 1.0}, 0.0, status="RUNNING")
    found = json.loads(json.dumps(results_object(make_search(REQUEST, {}), [running])))
    assert found["best"] is None
    assert found["teachers"] == []
    assert (found["trials"][0]["status"], found["trials"][0]["metrics"]) == ("RUNNING", {})


def test_csv_comes_back(trials):
    failed = make_trial(REQUEST, {"backbone": "vgg16", "lambda_": 1.0}, 0.0, status="FAILED")
    rows = list(csv.DictReader(io.StringIO(trials_csv([*trials, failed]))))
    assert [row["key"] for row in rows] == [trial.key for trial in [*trials, failed]]
    for row, trial in zip(rows, trials, strict=False):
        assert row["status"] == "FINISHED"
        written = {name: "" if value is None else str(value) for name, value in trial.config.items()}
        assert {name: row[name] for name in trial.config} == written
        assert {name: float(row[name]) for name in trial.metrics} == trial.metrics
    assert rows[-1]["status"] == "FAILED"
    assert rows[-1]["val_accuracy"] == ""
    assert rows[-1]["backbone"] == "vgg16"


def test_csv_without_trials_has_a_header_alone():
    assert trials_csv([]) == "key,status,stage\n"


def test_the_ranking_is_best_first(search, trials):
    header, rows = ranking(search, trials)
    assert header == ["rank", "backbone", "lambda_", "val. accuracy", "train accuracy", "seconds"]
    assert rows == [
        ["1", "vgg16", "1", "95.00 %", "97.00 %", "12"],
        ["2", "resnet18", "1", "92.00 %", "97.00 %", "12"],
        ["3", "vgg16", "0", "91.00 %", "97.00 %", "12"],
        ["4", "resnet18", "0", "90.00 %", "97.00 %", "12"],
    ]


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING"])
def test_the_ranking_ends_with_what_did_not_finish(search, trials, status):
    rest = make_trial(REQUEST, {"backbone": "resnet18", "lambda_": 0.0}, 0.0, status=status)
    header, rows = ranking(search, [rest, *trials[1:]])
    assert len(rows) == 4
    assert rows[-1][:4] == ["–", "resnet18", "0", status]
    assert all(len(row) == len(header) for row in rows)


def test_the_ranking_of_seeds_has_means_and_intervals():
    request = make_request({"lambda_": [1], "seed": [0, 1, 2]})
    trials = grid_trials(request, lambda point: 0.90 + 0.01 * point["seed"])
    trials[1].metrics.update(train_accuracy=1.0, seconds=42.3)
    header, rows = ranking(make_search(request, {}), trials)
    assert header == ["rank", "lambda_", "val. accuracy", "seeds", "train accuracy", "seconds"]
    # Mean 0.91; s = 0.01, so the half width is 4.3027 · 0.01 / √3 = 0.02484. Means of (0.97, 1, 0.97) = 0.98 and of
    # (12.3, 42.3, 12.3) = 22.3.
    assert rows == [["1", "1", "91.00 % ± 2.48", "3", "98.00 %", "22"]]


def test_results_say_by_which_images_lambda_was_chosen_and_what_was_tested(search, trials):
    tested = {trials[0].key: 0.9}
    found = results_object(dataclasses.replace(search, protocol="paper", tested=tested), trials)
    assert (found["protocol"], found["tested"], found["frontends"], found["importances"]) == ("paper", tested, [], {})


def test_what_was_trained_anew_is_in_the_results_with_its_stage_and_not_in_the_ranking(search, trials):
    plain_header, plain_rows = ranking(search, trials)
    search, everything = confirmed(search, trials, controls=("half_longer", "tuned_base"))
    found = json.loads(json.dumps(results_object(search, everything), allow_nan=False))
    stages = [trial["stage"] for trial in found["trials"]]
    # Student, plain and half_longer with five seeds each; what is tuned comes out as plain training is, so its arm
    # is the same; and beside the λ = 0 trial of the search, one that plain training is tuned by.
    assert [stages.count(stage) for stage in ("search", "confirm", "control")] == [4, 15, 1]
    assert found["confirm"]["seeds"] == 5
    (cell,) = found["confirmation"]
    assert set(cell["arms"]) == {"student", "plain", "half_longer", "tuned_base"}
    assert set(cell["arms"]["student"]) < {trial["key"] for trial in found["trials"]}
    assert ranking(search, everything) == (plain_header, plain_rows)
    rows = list(csv.DictReader(io.StringIO(trials_csv(everything))))
    assert [row["stage"] for row in rows] == stages


def test_percent():
    assert [percent(value) for value in (0, 0.98765, 1)] == ["0.00 %", "98.77 %", "100.00 %"]


def test_the_dataset_is_named_with_its_digest(search, trials):
    assert results_object(search, trials)["dataset_facts"]["digest"] == DIGEST
