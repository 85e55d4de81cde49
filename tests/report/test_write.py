"""A report of a real search from its store: what is in it, and what it says where something is gone."""

import csv
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest

from dfd_tune.record import BEST_FOLDER, PREDICTIONS_FILE, load_search, load_trials, save_search, save_trial
from dfd_tune.report.layouts import Found
from dfd_tune.report.write import summary, write_report
from tests.report.test_page import Reader, loaded_from_elsewhere

NAME = "real"
FIGURES = ["lambda_curve", "examples", "learning_curves", "confusion_matrix", "worst_mistakes"]
TABLES = ["table2", "cells-real", "frontends-real"]
GONE = "the images are no longer in the store; launch the search again to have them prepared."


def report(store, folder, *names):
    """Write the report; returns its files by their place in the folder, and the page as read."""
    files = write_report(store, [load_search(store, name) for name in names or (NAME,)], folder)
    assert files[0] == folder / "report.html"
    assert all(file.is_file() for file in files)
    return {file.relative_to(folder).as_posix() for file in files}, Reader(files[0].read_text())


def changed(store, **changes):
    save_search(store, dataclasses.replace(load_search(store, NAME), **changes))


def predictions(store):
    return store.path("searches", NAME, BEST_FOLDER, PREDICTIONS_FILE)


def left_out(read):
    """What the page says is not shown: title -> why."""
    lines = read.text[read.text.index("Not shown:") + 1 :] if "Not shown:" in read.text else []
    return dict(line.split(": ", 1) for line in lines if line)


def test_a_concluded_search_has_every_table_and_figure_and_a_page(store, tmp_path):
    files, read = report(store, tmp_path / "out")
    assert files == {"report.html"} | {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")} | {
        f"{name}.{kind}" for name in TABLES for kind in ("md", "csv", "tex")
    }
    assert {file.name for file in (tmp_path / "out").iterdir()} == files, "no drafts are left"
    assert len(read.of("img")) == len(FIGURES)
    assert len(read.of("table")) == len(TABLES)
    assert left_out(read) == {}
    html = (tmp_path / "out" / "report.html").read_text()
    assert loaded_from_elsewhere(html) == []
    assert "TEST" not in " ".join(read.text)


def test_the_report_agrees_with_the_records(store, tmp_path):
    report(store, tmp_path)
    search = load_search(store, NAME)
    rows = {row[0]: row for row in csv.reader(io.StringIO((tmp_path / "cells-real.csv").read_text()))}
    tested = {
        tuple(trial.config[name] for name in ("frontend", "lambda_", "seed")): search.tested[trial.key]
        for trial in load_trials(store, search)
    }
    base = 50 * (tested["none", 0, 0] + tested["none", 0, 1])
    distilled = 50 * (tested["none", 2, 0] + tested["none", 2, 1])
    header, row = rows["cell"], rows["frontend=none"]
    values = dict(zip(header, row, strict=True))
    assert values["base (λ = 0), %"].startswith(f"{base:.2f} ± ")
    assert values["distilled, %"].startswith(f"{distilled:.2f} ± ")
    assert values["difference"].startswith(f"{distilled - base:+.2f} ± ".replace("-", "−"))
    assert values["HR baseline, %"] == f"{100 * search.teachers[0].test_accuracy:.2f}"
    assert rows["frontend=espcn"][2:5] == ["–", "–", "–"]


def test_the_summary_has_a_sentence_a_compared_cell_and_says_what_chose(store):
    search = load_search(store, NAME)
    found = Found(search, load_trials(store, search))
    cell, best, chosen, facts = summary(found)
    assert cell.startswith("frontend=none: ")
    assert "At λ = 2 the distilled student" in cell
    assert best.startswith("The best student: alexnet frontend=")
    assert chosen == "λ was chosen on validation images."
    assert facts.startswith(
        "digits at 4×4 instead of 8×8 pixels: 80 training, 20 validation and 60 test images; 2 epochs"
    )
    peeking = Found(dataclasses.replace(search, protocol="paper"), found.trials)
    assert "At λ = 2 (chosen on TEST images) the distilled student" in summary(peeking)[0]
    assert "TEST" in summary(peeking)[2]
    assert "best on validation images" in summary(peeking)[1]


def test_under_the_papers_protocol_every_part_of_the_page_says_so(store, tmp_path):
    changed(store, protocol="paper")
    _, read = report(store, tmp_path)
    text = " ".join(read.text)
    assert "Table 2: super-resolution front ends and DFD, λ chosen on TEST images" in read.text
    assert "TEST accuracy; hollow markers" in text
    captions = [line for line in read.text if line.startswith(("Mean over seeds", "TEST accuracy"))]
    assert len(captions) == 2
    assert all("λ was chosen on TEST images" in caption for caption in captions)
    # The best student is chosen on validation images all the same, and its figures say that.
    (confused,) = [line for line in read.text if line.startswith("Per cent of each true class")]
    assert "best on validation images" in confused
    assert "TEST" not in confused


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "flipped", "other arrays", "other images", "a text"])
def test_predictions_that_are_gone_or_damaged_cost_two_figures_and_the_page_says_why(store, tmp_path, damage):
    file = predictions(store)
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "flipped":
        middle = len(content) // 2
        file.write_bytes(
            content[:middle] + bytes(255 - value for value in content[middle : middle + 99]) + content[middle + 99 :]
        )
    elif damage == "other arrays":
        np.savez(file, images=np.zeros(3))
    elif damage == "other images":
        np.savez(file, labels=np.zeros(3, dtype=np.int64), probabilities=np.zeros((3, 10), dtype=np.float32))
    else:
        file.write_text("no arrays at all")
    files, read = report(store, tmp_path)
    assert {f"{name}.png" for name in FIGURES[:3]} <= files
    assert not {"confusion_matrix.png", "worst_mistakes.png"} & files
    reasons = left_out(read)
    assert set(reasons) == {"Confusion matrix of the best student", "The best student's worst mistakes"}
    assert all(f"not in '{file}'; launch the search again." in reason for reason in reasons.values())


@pytest.mark.parametrize("damage", ["missing", "cut", "no card"])
def test_images_that_are_gone_or_damaged_cost_the_pictures_alone(store, tmp_path, damage):
    folder = store.path("datasets", load_search(store, NAME).dataset["prepared"])
    if damage == "missing":
        shutil.rmtree(folder)
    elif damage == "cut":
        content = (folder / "test.arrow").read_bytes()
        (folder / "test.arrow").write_bytes(content[: len(content) // 2])
    else:
        (folder / "dataset.json").unlink()
    files, read = report(store, tmp_path)
    assert {f"{name}.svg" for name in ("lambda_curve", "learning_curves", "confusion_matrix")} <= files
    assert left_out(read) == {"What each network sees": GONE, "The best student's worst mistakes": GONE}


def test_low_resolution_images_that_are_gone_are_taken_again(store, tmp_path):
    before, _ = report(store, tmp_path / "before")
    shutil.rmtree(store.path("low_res"))
    after, _ = report(store, tmp_path / "after")
    assert after == before
    assert (tmp_path / "after" / "examples.png").read_bytes() == (tmp_path / "before" / "examples.png").read_bytes()


def test_a_front_end_that_is_gone_is_named(store, tmp_path):
    shutil.rmtree(store.path("frontends"))
    files, read = report(store, tmp_path)
    assert "examples.png" not in files
    assert "front end espcn" in left_out(read)["What each network sees"]


def test_a_student_without_mistakes_has_none_to_show(store, tmp_path):
    labels = np.arange(60) % 10
    np.savez(predictions(store), labels=labels, probabilities=np.eye(10, dtype=np.float32)[labels])
    files, read = report(store, tmp_path)
    assert "confusion_matrix.png" in files
    assert left_out(read) == {"The best student's worst mistakes": "it made none."}


def test_the_worst_mistakes_are_those_whose_true_class_was_held_least_probable(store, tmp_path):
    labels = np.arange(60) % 10
    probabilities = np.eye(10, dtype=np.float32)[labels]
    for row, sure in ((7, 0.6), (11, 0.9), (23, 0.7)):
        probabilities[row] = 0
        probabilities[row, labels[row]] = 1 - sure
        probabilities[row, (labels[row] + 1) % 10] = sure
    np.savez(predictions(store), labels=labels, probabilities=probabilities)
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):
        report(store, tmp_path)
    said = (tmp_path / "worst_mistakes.svg").read_text()
    order = [said.index(text) for text in ("1 taken for 2", "3 taken for 4", "7 taken for 8")]
    assert order == sorted(order)
    assert "(90% sure)" in said
    assert "The worst 3 of 3." in said


def unfinished(store, keep):
    """Leave of the search what it had after its first `keep` trials, the next one running."""
    search = load_search(store, NAME)
    for number, trial in enumerate(load_trials(store, search)):
        file = store.path("searches", NAME, "trials", f"{trial.key}.json")
        if number >= keep:
            file.unlink()
        if number == keep:
            save_trial(store, NAME, dataclasses.replace(trial, status="RUNNING", metrics={}, history=[]))
    teachers = [dataclasses.replace(teacher, test_accuracy=None) for teacher in search.teachers]
    changed(store, tested={}, best=None, teachers=teachers)
    shutil.rmtree(store.path("searches", NAME, BEST_FOLDER))


def test_an_unfinished_search_reports_what_is_there_and_says_what_is_missing(store, tmp_path):
    unfinished(store, keep=4)
    files, read = report(store, tmp_path)
    assert {"lambda_curve.png", "learning_curves.png", "examples.png", "cells-real.md", "table2.tex"} <= files
    text = " ".join(read.text)
    assert "Unfinished: 4 of 6 trials have a result, 1 RUNNING." in text
    assert "there are no test accuracies yet" in text
    assert "not tested yet" in read.text
    assert left_out(read) == dict.fromkeys(
        ("Confusion matrix of the best student", "The best student's worst mistakes"),
        "the search has no best student yet; it is chosen when the search is concluded.",
    )


def test_a_search_that_has_just_begun_has_a_report_too(store, tmp_path):
    unfinished(store, keep=0)
    files, read = report(store, tmp_path)
    assert files == {"report.html", "examples.png", "examples.svg"} | {
        f"frontends-real.{kind}" for kind in ("md", "csv", "tex")
    }
    reasons = left_out(read)
    assert reasons["Accuracy against λ"] == "fewer than two points have finished."
    assert reasons["Learning curves"] == "no point to compare has finished."
    assert "Unfinished: 0 of 6 trials have a result, 1 RUNNING." in " ".join(read.text)


def test_before_any_trial_the_page_is_all_there_is(store, tmp_path):
    shutil.rmtree(store.path("searches", NAME, "trials"))
    changed(store, tested={}, best=None, teachers=[], frontends=[])
    files, read = report(store, tmp_path)
    assert files == {"report.html"}
    assert left_out(read)["What each network sees"] == "no trial has begun yet."


def test_a_sampled_search_that_is_not_concluded_misses_its_importances(store, tmp_path):
    unfinished(store, keep=2)
    changed(store, sampler="tpe", explored={"lambda_": {"low": 0.1, "high": 10, "log": True, "step": None}})
    _, read = report(store, tmp_path)
    assert "not concluded" in left_out(read)["What mattered"]


def test_several_searches_share_a_page_and_keep_their_figures_apart(store, tmp_path):
    shutil.copytree(store.path("searches", NAME), store.path("searches", "other"))
    record = store.path("searches", "other", "search.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "search": "other"}))
    files, read = report(store, tmp_path, NAME, "other")
    assert {f"{name}/{figure}.png" for name in (NAME, "other") for figure in FIGURES} <= files
    assert {f"{table}.csv" for table in ("table1", "table2-real", "table2-other", "cells-real", "cells-other")} <= files
    assert len(read.of("img")) == 2 * len(FIGURES)
    assert "real and other" in read.text


def test_a_class_name_cannot_become_markup_or_a_formula(store, tmp_path):
    search = load_search(store, NAME)
    hostile = ["<img src=x>", "$\\frac{", "a|b", "100 % & more", *search.dataset["classes"][4:]]
    changed(store, dataset={**search.dataset, "classes": hostile})
    files, read = report(store, tmp_path)
    assert "confusion_matrix.png" in files
    assert "worst_mistakes.png" in files
    assert len(read.of("img")) == len(FIGURES)


def test_writing_again_changes_nothing(store, tmp_path):
    report(store, tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    report(store, tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
