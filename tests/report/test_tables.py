import csv
import dataclasses
import io
import json

import pytest

from dfd_tune.record import BestRecord
from dfd_tune.report.tables import conclusion, percent, ranking, results_object, trials_csv
from tests.report.searches import DIGEST, grid_trials, make_request, make_search, make_trial

REQUEST = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1]})
TEACHERS = {"resnet18": 0.99, "vgg16": 0.97}
ACCURACIES = {("resnet18", 0.0): 0.90, ("resnet18", 1.0): 0.92, ("vgg16", 0.0): 0.91, ("vgg16", 1.0): 0.95}


@pytest.fixture
def trials():
    return grid_trials(REQUEST, lambda point: ACCURACIES[point["backbone"], point["lambda_"]])


def best_of(trial, **changes):
    best = BestRecord(
        key=trial.key,
        config=trial.config,
        val_accuracy=trial.metrics["val_accuracy"],
        test_accuracy=0.94,
        teacher=trial.teacher,
        base_key="b",
        base_test_accuracy=0.90,
        model=None,
    )
    return dataclasses.replace(best, **changes)


@pytest.fixture
def search(trials):
    return make_search(REQUEST, TEACHERS, best=best_of(trials[-1]))


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
    assert trials_csv([]) == "key,status\n"


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


def test_the_gap_recovered_by_hand(search):
    first, second, third = conclusion(search)
    assert first.startswith("Best student, chosen on validation images: vgg16 with λ = 1, validation accuracy 95.00 %")
    assert first.endswith("test accuracy 94.00 %")
    # Student 94, base 90, teacher 96 (on test images): 4 points, and 4 / 6 of the gap.
    assert "without distillation (λ = 0): test accuracy 90.00 %; distillation gives +4.00 points" in second
    assert second.endswith("the teacher on high-resolution images: 96.00 %, so the gap recovered is 67%")
    assert third.startswith("One test image is 0.28 points")  # 1 of 360


def test_a_loss_is_said_as_plainly_as_a_gain(search):
    second = conclusion(dataclasses.replace(search, best=dataclasses.replace(search.best, test_accuracy=0.87)))[1]
    assert "distillation gives -3.00 points" in second
    assert second.endswith("the gap recovered is -50%")  # -3 / 6


def test_there_is_no_gap_below_the_base(search):
    better = dataclasses.replace(search.best, base_test_accuracy=0.96)
    second = conclusion(dataclasses.replace(search, best=better))[1]
    assert second.endswith("the teacher on high-resolution images: 96.00 %")


def test_plain_training_that_wins_is_not_held_against_itself(trials):
    best = best_of(trials[0], base_key=None, base_test_accuracy=None)
    assert trials[0].config["lambda_"] == 0
    (line,) = conclusion(make_search(REQUEST, TEACHERS, best=best))
    assert "resnet18 with λ = 0" in line


def test_without_a_base_nothing_is_said_of_a_gain(search):
    best = dataclasses.replace(search.best, base_key=None, base_test_accuracy=None)
    assert len(conclusion(dataclasses.replace(search, best=best))) == 1


def test_seeds_are_advised_where_there_are_none(search):
    assert conclusion(search)[-1].endswith("Explore `seed` to have intervals.")
    seeded = dataclasses.replace(search, explored={**search.explored, "seed": [0, 1]})
    assert "Explore `seed`" not in conclusion(seeded)[-1]


def test_under_the_papers_protocol_the_conclusion_says_what_chose(search):
    honest = conclusion(search)
    assert not any("TEST" in line for line in honest)
    *same, last = conclusion(dataclasses.replace(search, protocol="paper"))
    assert same == honest
    assert "chosen on validation images" in same[0]
    assert last.startswith("Protocol `paper`: the report's tables and figures choose λ on TEST images")


def test_results_say_by_which_images_lambda_was_chosen_and_what_was_tested(search, trials):
    tested = {trials[0].key: 0.9}
    found = results_object(dataclasses.replace(search, protocol="paper", tested=tested), trials)
    assert (found["protocol"], found["tested"], found["frontends"], found["importances"]) == ("paper", tested, [], {})


def test_nothing_finished_is_said():
    assert conclusion(make_search(REQUEST, {})) == ["No trial has finished, so there is no best student."]


def test_percent():
    assert [percent(value) for value in (0, 0.98765, 1)] == ["0.00 %", "98.77 %", "100.00 %"]


def test_the_dataset_is_named_with_its_digest(search, trials):
    assert results_object(search, trials)["dataset_facts"]["digest"] == DIGEST
