import dataclasses
import os

import pytest

from dfd_tune.errors import UserError
from dfd_tune.record import (
    BestRecord,
    SearchRecord,
    TeacherRecord,
    TrialRecord,
    describe_point,
    find_search,
    load_search,
    load_trials,
    save_search,
    save_trial,
    search_names,
)
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
)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def trial(key, status="FINISHED", **changes):
    return TrialRecord(key=key, status=status, config=CONFIG, **changes)


def test_a_search_comes_back_as_it_was(store):
    for record in (SEARCH, dataclasses.replace(SEARCH, teachers=[TEACHER, TEACHER], best=BEST)):
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
    ],
)
def test_a_trial_comes_back_as_it_was(store, record):
    save_trial(store, "first", record)
    assert load_trials(store, SEARCH) == [record]


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


def test_what_a_camera_does_not_do_goes_without_saying():
    camera = ["downsample", "blur", "noise", "jpeg_quality"]
    assert describe_point(dataclasses.asdict(digits_trial()), camera) == "bicubic"
    noisy = digits_trial(downsample="area", noise=10.0, jpeg_quality=50)
    assert describe_point(dataclasses.asdict(noisy), camera) == "area noise=10 jpeg_quality=50"
