"""Figures that need images or predictions from a store: what they show, and what is said where something is gone."""

import dataclasses
import shutil

import matplotlib as mpl
import numpy as np
import pytest

from dfd_tune.record import BEST_FOLDER, PREDICTIONS_FILE, REPORT_FOLDER, load_search, load_trials
from dfd_tune.report.images import (
    CannotBeShownError,
    best_students_confusion,
    best_students_mistakes,
    best_students_notes,
    examples_of,
)
from dfd_tune.store import write_manifest

NAME = "real"
GONE = "the images are no longer in the store; launch the search again to have them prepared."


def drawn(make, store, folder, trials=None, **changes):
    """The figure's SVG, its texts as texts."""
    search = dataclasses.replace(load_search(store, NAME), **changes)
    with mpl.rc_context({"svg.fonttype": "none"}):
        _, svg = make(store, search, trials or load_trials(store, search), folder)
    return svg.read_text()


def refused(make, store, folder):
    """Why a figure can't be drawn."""
    search = load_search(store, NAME)
    with pytest.raises(CannotBeShownError) as caught:
        make(store, search, load_trials(store, search), folder)
    assert not folder.exists()
    return str(caught.value)


def predictions(store):
    return store.path("searches", NAME, BEST_FOLDER, PREDICTIONS_FILE)


def predicted(store, labels, probabilities):
    """Have the best student have said this of the test images."""
    np.savez(predictions(store), labels=labels, probabilities=probabilities)
    write_manifest(predictions(store).parent)


def written(concluded, name):
    return concluded.path("searches", NAME, REPORT_FOLDER, name)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "flipped", "other arrays", "other images", "a text"])
def test_predictions_that_are_gone_or_damaged_can_not_be_shown(store, tmp_path, damage):
    file = predictions(store)
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = bytes(255 - value for value in content[middle : middle + 99])
    damaged = {
        "cut": content[:middle],
        "empty": b"",
        "flipped": content[:middle] + flipped + content[middle + 99 :],
        "a text": b"no arrays at all",
    }
    if damage == "missing":
        file.unlink()
    elif damage in damaged:
        file.write_bytes(damaged[damage])
    elif damage == "other arrays":
        np.savez(file, images=np.zeros(3))
    else:
        np.savez(file, labels=np.zeros(3, dtype=np.int64), probabilities=np.zeros((3, 10), dtype=np.float32))
    for make in (best_students_confusion, best_students_mistakes):
        assert f"is not in '{file}'; launch the search again." in refused(make, store, tmp_path / "out")


@pytest.mark.parametrize("damage", ["missing", "cut", "no card"])
def test_images_that_are_gone_or_damaged_can_not_be_shown(store, tmp_path, damage):
    folder = store.path("datasets", load_search(store, NAME).dataset["prepared"])
    if damage == "missing":
        shutil.rmtree(folder)
    elif damage == "cut":
        content = (folder / "test.arrow").read_bytes()
        (folder / "test.arrow").write_bytes(content[: len(content) // 2])
    else:
        (folder / "dataset.json").unlink()
    for make in (examples_of, best_students_mistakes):
        assert refused(make, store, tmp_path / "out") == GONE


def test_low_resolution_images_that_are_gone_are_taken_again(concluded, store, tmp_path):
    shutil.rmtree(store.path("low_res"))
    search = load_search(store, NAME)
    png, _ = examples_of(store, search, load_trials(store, search), tmp_path)
    assert png.read_bytes() == written(concluded, "examples.png").read_bytes()


def test_a_front_end_that_is_gone_is_named(store, tmp_path):
    shutil.rmtree(store.path("frontends"))
    assert "front end espcn" in refused(examples_of, store, tmp_path / "out")


def test_examples_show_high_and_low_resolution_and_each_front_end(concluded, tmp_path):
    svg = drawn(examples_of, concluded, tmp_path)
    assert svg.count("<image ") == 3 * 8  # of eight of the ten classes
    which = "The first test image of each of the first 8 of 10 classes."
    for text in ("high resolution", "low resolution", "espcn", "8×8", "4×4", which):
        assert f">{text}<" in svg, text


def test_every_camera_that_was_explored_has_a_row_that_says_what_it_does(store, tmp_path):
    first = load_trials(store, load_search(store, NAME))[0]
    departures = [{}, {"downsample": "area"}, {"blur": 1.0}, {"noise": 10.0}, {"jpeg_quality": 50}]
    trials = [dataclasses.replace(first, config={**first.config, **departure}) for departure in departures]
    explored = {name: [] for name in ("downsample", "blur", "noise", "jpeg_quality")}
    svg = drawn(examples_of, store, tmp_path, trials, explored=explored)
    assert svg.count("<image ") == 6 * 8
    for text in ("area", "blur 1", "noise 10", "jpeg quality 50"):
        assert svg.count(f">{text}<") == 1, text
    assert svg.count(">bicubic<") == 4


def test_no_more_rows_are_shown_than_can_be_looked_at_and_that_is_said(store, tmp_path, monkeypatch):
    monkeypatch.setattr("dfd_tune.report.images.MOST_ROWS", 4)  # fewer are drawn faster
    first = load_trials(store, load_search(store, NAME))[0]
    values = range(7)
    trials = [dataclasses.replace(first, config={**first.config, "noise": float(value)}) for value in values]
    svg = drawn(examples_of, store, tmp_path, trials, explored={"noise": list(values)})
    assert svg.count("<image ") == 4 * 8
    assert "The first 3 of 7 kinds of low-resolution images." in svg


def test_a_student_without_mistakes_has_none_to_show(store, tmp_path):
    labels = np.arange(60) % 10
    predicted(store, labels, np.eye(10, dtype=np.float32)[labels])
    assert refused(best_students_mistakes, store, tmp_path / "out") == "it made none."


def test_the_worst_mistakes_are_those_whose_true_class_was_held_least_probable(store, tmp_path):
    labels = np.arange(60) % 10
    probabilities = np.eye(10, dtype=np.float32)[labels]
    for row, sure in ((7, 0.6), (11, 0.9), (23, 0.7)):
        probabilities[row] = 0
        probabilities[row, labels[row]] = 1 - sure
        probabilities[row, (labels[row] + 1) % 10] = sure
    predicted(store, labels, probabilities)
    svg = drawn(best_students_mistakes, store, tmp_path)
    order = [svg.index(text) for text in ("1 taken for 2", "3 taken for 4", "7 taken for 8")]
    assert order == sorted(order)
    assert "(90% sure)" in svg
    assert "The worst 3 of 3." in svg


def test_the_best_students_figures_say_which_it_is_and_by_what_it_was_chosen(concluded, tmp_path):
    search = load_search(concluded, NAME)
    facts, best = best_students_notes(search, load_trials(concluded, search))
    assert facts.endswith("; 2 epochs; confirmed with 2 fresh seeds, each making the student anew")
    assert search.best.config["seed"] in (1000, 1001)
    assert f"seed={search.best.config['seed']} is best on validation images" in best
    assert best_students_notes(dataclasses.replace(search, best=None), []) == []
    svg = drawn(best_students_confusion, concluded, tmp_path, protocol="paper")
    assert "is best on validation images" in svg
    assert "TEST" not in svg, "under that protocol, too, the best student is chosen on validation images"


def test_class_names_begin_no_formula(concluded, tmp_path):
    classes = ["<img>", "$\\frac{", "a|b", "100 % & more", *"456789"]
    dataset = {**load_search(concluded, NAME).dataset, "classes": classes}
    for make in (best_students_confusion, best_students_mistakes):
        assert "<img>" not in drawn(make, concluded, tmp_path, dataset=dataset)
    assert len(list(tmp_path.glob("*.png"))) == 2
