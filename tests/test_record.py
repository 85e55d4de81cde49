import dataclasses
import json
import os

import numpy as np
import pytest

from dfd_tune.confirm import Confirm
from dfd_tune.errors import UserError
from dfd_tune.record import (
    BestRecord,
    ConfirmedCell,
    CostRecord,
    SearchRecord,
    TeacherRecord,
    TrialRecord,
    describe_point,
    find_search,
    load_search,
    load_trials,
    name_of,
    save_search,
    save_test,
    save_trial,
    search_names,
)
from dfd_tune.record import test_record as record_of
from dfd_tune.store import open_store
from tests.samples import digits_trial

CONFIG = dataclasses.asdict(digits_trial())
SEARCH = SearchRecord(
    search="first",
    space="lambda_grid",
    explored={"lambda_": [0.0, 1.0], "backbone": ["vgg16"]},
    dataset={"dataset": "digits", "train_images": 1149},
    settings={"epochs": 3},
    sampler="grid",
    num_trials=2,
    seed=0,
    planned=["b", "a"],
)
TEACHER = TeacherRecord(key="t", role="teacher", backbone="vgg16", width=0.25, val_accuracy=0.98)
BEST = BestRecord(
    key="a",
    config=CONFIG,
    val_accuracy=0.95,
    test_accuracy=0.94,
    teacher="t",
    base_key="b",
    base_test_accuracy=0.93,
    model="models:/first@best",
    cost=CostRecord(
        parameters=1234, multiply_adds=5_000_000, file_bytes=2**20, image_seconds=0.001, batch_seconds=0.02, host="here"
    ),
)


CONFIRMED = dataclasses.replace(
    SEARCH,
    confirm=Confirm(seeds=2, cells="all", controls=("longer", "tuned_base")),
    confirmation=[
        ConfirmedCell(
            cell="vgg16",
            student=CONFIG,
            seeds=[1000, 1001],
            arms={"student": ["c", "d"], "plain": ["e", "f"], "longer": ["g", "h"], "tuned_base": ["e", "f"]},
            tuning=["b", "i"],
        )
    ],
)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def trial(key, status="FINISHED", **changes):
    return TrialRecord(key=key, status=status, config=CONFIG, **changes)


def test_a_search_comes_back_as_it_was(store):
    for record in (SEARCH, CONFIRMED, dataclasses.replace(SEARCH, teachers=[TEACHER, TEACHER], best=BEST)):
        save_search(store, record)
        assert find_search(store, "first") == load_search(store, "first") == record


@pytest.mark.parametrize(
    "record",
    [
        trial("a", teacher="t", metrics={"val_accuracy": 0.9, "loss": 0.25}, history=[{"epoch": 1.0, "loss": 0.5}]),
        trial("a", "PENDING"),
        trial("a", "RUNNING", history=[{"epoch": 1.0}]),
        trial("a", "FAILED", error="Traceback (most recent call last):\n  …λ"),
        trial("a", "KILLED"),
        trial("a", stage="confirm"),
        trial("a", stage="control"),
    ],
)
def test_a_trial_comes_back_as_it_was(store, record):
    save_trial(store, "first", record)
    assert load_trials(store, SEARCH) == [record]


def test_what_test_images_say_has_files_of_its_own_and_a_teachers_is_no_trials(store):
    student, teacher = (
        record_of(key, np.array(right, dtype=bool)) for key, right in (("c", [1] * 7 + [0] * 2), ("t", [1] * 9))
    )
    assert student.right().tolist() == [True] * 7 + [False] * 2
    save_trial(store, "first", trial("c"))
    for record in (student, teacher):
        save_test(store, "first", record)
    save_search(store, dataclasses.replace(CONFIRMED, teachers=[TEACHER], tests={"c": student}))
    assert "tests" not in json.loads(store.path("searches", "first", "search.json").read_text())
    found = load_search(store, "first")
    assert found.tests == {"c": student, "t": teacher}
    assert found.tested == {"c": pytest.approx(7 / 9)}
    # Nor is that of one which a record that was made anew does not name.
    save_search(store, dataclasses.replace(CONFIRMED, teachers=[]))
    assert load_search(store, "first").tested == {"c": pytest.approx(7 / 9)}


def test_planned_trials_come_in_their_order_then_others_by_key(store):
    for key in ("d", "a", "c", "b"):
        save_trial(store, "first", trial(key))
    assert [record.key for record in load_trials(store, SEARCH)] == ["b", "a", "c", "d"]


def test_a_later_record_of_a_trial_takes_the_place_of_the_former(store):
    save_trial(store, "first", trial("a", "RUNNING"))
    save_trial(store, "first", trial("a", "FINISHED"))
    assert [record.status for record in load_trials(store, SEARCH)] == ["FINISHED"]


def test_trials_of_other_searches_and_half_written_ones_are_left_out(store):
    save_trial(store, "second", trial("a"))
    save_trial(store, "first", trial("b"))
    store.path("searches", "first", "trials", ".a.json.x7").write_text("{")
    store.path("searches", "first", "trials", ".a.json").write_text("{")
    assert [record.key for record in load_trials(store, SEARCH)] == ["b"]


def test_a_search_without_trials_has_none(store):
    assert load_trials(store, SEARCH) == []


def test_searches_are_listed_by_when_they_were_written(store):
    assert search_names(store) == []
    for place, name in enumerate(("zebra", "ape", "middle")):
        save_search(store, dataclasses.replace(SEARCH, search=name))
        os.utime(store.path("searches", name, "search.json"), (1000 + place, 1000 + place))
    assert search_names(store) == ["zebra", "ape", "middle"]


def test_an_unknown_search_gets_the_nearest(store):
    save_search(store, SEARCH)
    assert find_search(store, "frist") is None
    with pytest.raises(UserError) as caught:
        load_search(store, "frist")
    assert caught.value.problems == (
        f"In the store '{store.root}': Unknown search 'frist'. Did you mean 'first'? Known: first.",
    )


@pytest.mark.parametrize("name", ["../searches/first", "first/", "first/../first", "..", "."])
def test_a_search_is_named_and_not_found_by_a_path(store, name):
    save_search(store, SEARCH)
    with pytest.raises(UserError, match="Unknown search"):
        load_search(store, name)


def test_a_point_in_a_few_words():
    config = dataclasses.asdict(digits_trial(backbone="vgg16", lambda_=2.0, learning_rate=0.0123456, flip=True, seed=1))
    assert describe_point(config, ["backbone", "lambda_", "seed"]) == "vgg16 λ=2 seed=1"
    assert describe_point(config, ["learning_rate", "flip"]) == "learning_rate=0.01235 flip=True"
    assert describe_point(config, []) == ""


@pytest.mark.parametrize(
    ("key", "stage", "name"),
    [
        ("b", "search", "vgg16 λ=2"),
        ("d", "confirm", "vgg16 λ=2 seed=1001 (confirming)"),
        ("e", "confirm", "vgg16 λ=2 seed=1001 (confirming: plain)"),  # the first of the arms that share it
        ("g", "confirm", "vgg16 λ=2 seed=1001 (control: longer)"),
        ("z", "confirm", "vgg16 λ=2 seed=1001 (not used any more)"),
        (
            "i",
            "control",
            "vgg16 λ=2 learning_rate=0.02 weight_decay=0.0005 dropout=0.25 (tuning plain training)",
        ),
    ],
)
def test_a_trial_that_is_trained_anew_says_what_it_is_for(key, stage, name):
    config = digits_trial(backbone="vgg16", lambda_=2.0, seed=1001, learning_rate=0.02, dropout=0.25)
    record = TrialRecord(key=key, status="FINISHED", config=dataclasses.asdict(config), stage=stage)
    assert name_of(CONFIRMED, record, ["backbone", "lambda_"]) == name


def test_what_a_camera_does_not_do_goes_without_saying():
    camera = ["downsample", "blur", "noise", "jpeg_quality"]
    assert describe_point(dataclasses.asdict(digits_trial()), camera) == "bicubic"
    noisy = digits_trial(downsample="area", noise=10.0, jpeg_quality=50)
    assert describe_point(dataclasses.asdict(noisy), camera) == "area noise=10 jpeg_quality=50"
