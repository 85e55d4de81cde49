"""What test images say class by class: recall of the best student, scores of all that were tested."""

import dataclasses
import json

import numpy as np
import pytest

from dfd_tune.distill.testing import by_class
from dfd_tune.record import test_record as make_record
from dfd_tune.report.class_tables import MOST_CLASSES, recall_table, recalls_of, scores_table
from dfd_tune.report.conclusion import conclusion
from dfd_tune.report.found import Found
from dfd_tune.report.summary import summary_metrics
from dfd_tune.report.tables import results_object
from tests.report.searches import confirmed, grid_trials, make_best, make_request, make_search, with_tests

REQUEST = make_request({"lambda_": [0, 1]})
TRIALS = grid_trials(REQUEST, lambda point: 0.9)
LABELS = np.array([0] * 90 + [1] * 10)
"""Nine of ten images are of class 0; of the third class there are none."""


def best_that_said(predicted, labels=LABELS, classes=3, **changes):
    """A search whose best student took the test images for these classes."""
    record = make_record(TRIALS[1].key, predicted == labels, **by_class(predicted, labels, classes))
    search = make_search(REQUEST, {}, tests={record.key: record}, tested={record.key: record.accuracy}, **changes)
    best = make_best(
        TRIALS[1],
        test_accuracy=record.accuracy,
        test_balanced_accuracy=record.balanced_accuracy,
        test_macro_f1=record.macro_f1,
    )
    facts = search.dataset | {"classes": [f"class {number}" for number in range(classes)], "test_images": len(labels)}
    return dataclasses.replace(search, best=best, dataset=facts)


def test_recall_by_hand():
    predicted = np.where(np.arange(100) < 81, 0, 1)  # 81 of 90, and all of 10
    search = best_that_said(predicted)
    table = recall_table(Found(search, TRIALS))
    assert table.rows == (("class 0", "90", "90.00"), ("class 1", "10", "100.00"), ("class 2", "0", "–"))
    assert recalls_of(search) == [
        {"class": "class 0", "images": 90, "recall": 0.9},
        {"class": "class 1", "images": 10, "recall": 1.0},
        {"class": "class 2", "images": 0, "recall": None},
    ]


def test_a_record_of_an_unbalanced_folder_by_hand():
    # Whoever takes everything for the frequent class is right on nine of ten, and knows one class of two.
    record = make_record("k", np.zeros(100, dtype=np.int64) == LABELS, **by_class(np.zeros(100, np.int64), LABELS, 3))
    assert record.accuracy == 0.9
    assert record.balanced_accuracy == 0.5
    assert record.macro_f1 == pytest.approx((180 / 190 + 0) / 2)
    assert (record.class_images, record.class_right) == ([90, 10, 0], [90, 0, 0])


def test_of_many_classes_the_worst_are_shown_and_that_is_said():
    count = 2 * MOST_CLASSES
    labels = np.repeat(np.arange(count), 4)
    wrong = np.tile(np.arange(4), count) < np.repeat(np.arange(count) % 4, 4)  # 0 to 3 of each class
    table = recall_table(Found(best_that_said(np.where(wrong, (labels + 1) % count, labels), labels, count), TRIALS))
    assert len(table.rows) == MOST_CLASSES
    assert [row[2] for row in table.rows] == ["25.00"] * 10 + ["50.00"] * 10
    assert [row[0] for row in table.rows[:2]] == ["class 3", "class 7"]
    assert f"The worst {MOST_CLASSES} of {count} classes." in table.caption


def test_programs_and_the_last_lines_have_them_too():
    predicted = np.where(np.arange(100) < 81, 0, 1)
    search = best_that_said(predicted)
    found = json.loads(json.dumps(results_object(search, TRIALS), allow_nan=False))
    assert found["recall"][1] == {"class": "class 1", "images": 10, "recall": 1.0}
    scores = found["tests"][TRIALS[1].key]
    assert (scores["accuracy"], scores["balanced_accuracy"]) == (0.91, 0.95)
    told = next(line for line in conclusion(search, TRIALS) if line.startswith("Best student"))
    assert "test accuracy 91.00 % (balanced 95.00 %, macro F1 " in told
    assert summary_metrics(search, TRIALS)["best_test_balanced_accuracy"] == 0.95


def test_scores_of_every_arm_are_means_over_its_seeds():
    search, trials = confirmed(make_search(REQUEST, {}), TRIALS, seeds=2, controls=("longer",))
    tests = {}
    for trial in trials:
        if trial.stage == "confirm":
            right = 80 + 5 * (trial.config["lambda_"] > 0) + trial.config["seed"] % 2
            predicted = np.where(np.arange(100) < right, 0, 1)
            tests[trial.key] = make_record(trial.key, predicted == LABELS, **by_class(predicted, LABELS, 3))
    accuracies = {key: record.accuracy for key, record in tests.items()}
    table = scores_table(Found(dataclasses.replace(search, tests=tests, tested=accuracies), trials))
    rows = {row[1]: row for row in table.rows}
    assert len(rows) == 3
    # Of seeds 1000 and 1001, 85 and 86 of 90, and all of the ten.
    assert rows["distilled"][2] == "2"
    assert rows["distilled"][3].startswith("95.50 ± ")
    assert rows["distilled"][4].startswith(f"{100 * (85.5 / 90 + 1) / 2:.2f} ± ")
    assert rows["plain training (λ = 0)"][3].startswith("90.50 ± ")


def test_what_an_older_version_tested_has_accuracy_alone():
    search = with_tests(make_search(REQUEST, {}, best=make_best(TRIALS[1])), TRIALS, lambda config: 0.8)
    found = Found(search, TRIALS)
    assert recall_table(found) is None
    assert scores_table(found) is None
    told = results_object(search, TRIALS)
    assert told["recall"] == []
    assert told["tests"][TRIALS[0].key] == {"accuracy": 0.8}
