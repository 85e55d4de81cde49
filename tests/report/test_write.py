"""A report of a real search from its store: what is in it, and what it says where something is missing."""

import csv
import dataclasses
import io
import shutil

from dfd_tune.analysis.choice import best_trial
from dfd_tune.analysis.verdicts import headline
from dfd_tune.confirm import CONTROLS, NOTHING_ANEW
from dfd_tune.record import (
    BEST_FOLDER,
    PREDICTIONS_FILE,
    REPORT_FOLDER,
    load_search,
    load_trials,
    save_search,
    save_trial,
)
from dfd_tune.report.conclusion import verdict_of
from dfd_tune.report.found import Found
from dfd_tune.report.write import summary, write_report
from tests.report.searches import REQUEST, TEACHERS, grid_trials, make_best, make_search, with_tests
from tests.report.test_page import Reader, loaded_from_elsewhere

NAME = "real"
FIGURES = ["lambda_curve", "examples", "learning_curves", "confusion_matrix", "worst_mistakes"]
TABLES = ["table2", "cells-real", "controls-real", "scores-real", "recall-real", "frontends-real"]


def report(store, folder, *names):
    """Write the report; returns its files by their place in the folder, and the page as read."""
    files = write_report(store, [load_search(store, name) for name in names or (NAME,)], folder)
    assert files[0] == folder / "report.html"
    assert all(file.is_file() for file in files)
    return {file.relative_to(folder).as_posix() for file in files}, Reader(files[0].read_text())


def changed(store, **changes):
    save_search(store, dataclasses.replace(load_search(store, NAME), **changes))


def peeking(search, trials):
    """The search as it would be had λ been chosen on test images: nothing trained anew, and all of its own tested."""
    own = [trial for trial in trials if trial.stage == "search"]
    search = dataclasses.replace(search, protocol="paper", confirm=NOTHING_ANEW, confirmation=[], tests={})
    search = with_tests(search, own, lambda config: 0.5 + 0.1 * config["lambda_"])
    return dataclasses.replace(search, best=make_best(best_trial(search, own))), own


def table_of(concluded, name):
    """A table of the report as rows by their first entry, each by column."""
    text = concluded.path("searches", NAME, REPORT_FOLDER, f"{name}.csv").read_text()
    return {row["cell"]: row for row in csv.DictReader(io.StringIO(text))}


def left_out(read):
    """What the page says is not shown: title -> why."""
    lines = read.text[read.text.index("Not shown:") + 1 :] if "Not shown:" in read.text else []
    return dict(line.split(": ", 1) for line in lines if line)


def test_a_concluded_search_has_every_table_and_figure_and_a_page(concluded):
    folder = concluded.path("searches", NAME, REPORT_FOLDER)
    wanted = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    wanted |= {f"{name}.{kind}" for name in TABLES for kind in ("md", "csv", "tex")} | {"report.html"}
    assert {file.name for file in folder.iterdir()} == wanted
    html = (folder / "report.html").read_text()
    read = Reader(html)
    assert len(read.of("img")) == len(FIGURES)
    assert len(read.of("table")) == len(TABLES)
    assert left_out(read) == {}
    assert loaded_from_elsewhere(html) == []
    assert "TEST" not in " ".join(read.text)


def test_the_report_agrees_with_the_records(concluded):
    search = load_search(concluded, NAME)
    anew = [trial for trial in load_trials(concluded, search) if trial.stage == "confirm"]
    assert set(search.tested) == {trial.key for trial in anew}  # nothing else has met the test images
    tested = {
        tuple(trial.config[name] for name in ("frontend", "lambda_", "epochs", "seed")): search.tested[trial.key]
        for trial in anew
    }

    def mean(*arm):
        return 50 * (tested[(*arm, 1000)] + tested[(*arm, 1001)])

    base, distilled, longer = mean("none", 0, 2), mean("none", 2, 2), mean("none", 0, 3)
    cells, controls = table_of(concluded, "cells-real"), table_of(concluded, "controls-real")
    values = cells["frontend=none"]
    assert values["base (λ = 0), %"].startswith(f"{base:.2f} ± ")
    assert values["distilled, %"].startswith(f"{distilled:.2f} ± ")
    assert values["difference"].startswith(f"{distilled - base:+.2f} ± ".replace("-", "−"))
    assert values["HR baseline, %"] == f"{100 * search.teachers[0].test_accuracy:.2f}"
    values = cells["frontend=espcn"]
    assert values["base (λ = 0), %"].startswith(f"{mean('espcn', 0, 2):.2f} ± ")
    assert {values[name] for name in ("chosen λ", "distilled, %", "difference")} == {"–"}
    values = controls["frontend=none"]
    assert values["held against"] == CONTROLS["half_longer"]
    assert values["its accuracy, %"].startswith(f"{longer:.2f} ± ")
    assert values["difference"].startswith(f"{distilled - longer:+.2f} ± ".replace("-", "−"))


def test_made_up_searches_of_other_tests_hold_what_a_real_one_holds(concluded):
    real, made_up = load_search(concluded, NAME), make_search(REQUEST, TEACHERS)
    assert set(made_up.dataset) == set(real.dataset)
    (trial,) = grid_trials(REQUEST, lambda point: 0.9)[:1]
    (known, *_) = load_trials(concluded, real)
    assert set(trial.config) == set(known.config)
    assert set(trial.metrics) <= set(known.metrics)


def test_writing_again_changes_nothing(concluded, store, tmp_path):
    report(store, tmp_path / "again")
    first = concluded.path("searches", NAME, REPORT_FOLDER)
    again = {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()}
    assert again == {file.name: file.read_bytes() for file in first.iterdir()}


def test_the_summary_has_a_sentence_a_compared_cell_and_says_what_chose(concluded):
    search = load_search(concluded, NAME)
    found = Found(search, load_trials(concluded, search))
    first, cell, best, cost, chosen, facts = summary(found)
    assert f"{search.best.cost.parameters:,} parameters" in cost
    assert first == verdict_of(search, headline(search, found.trials))
    assert first.startswith("No verdict, as fewer than 5 seeds were trained anew: ")
    assert cell.startswith("frontend=none: ")
    assert "At λ = 2 the distilled student" in cell
    assert best.startswith("The best student: alexnet frontend=")
    assert chosen == "λ was chosen on validation images; test accuracies are of students trained anew with fresh seeds."
    assert facts == (
        "digits at 4×4 instead of 8×8 pixels: 80 training, 20 validation and 60 test images; 2 epochs; "
        "chosen with one seed a point; confirmed with 2 fresh seeds, each making the student anew."
    )


def test_under_the_papers_protocol_the_summary_says_that_lambda_was_chosen_on_test_images(concluded):
    search = load_search(concluded, NAME)
    first, cell, best, chosen, facts = summary(Found(*peeking(search, load_trials(concluded, search))))
    assert first.startswith("No verdict, as λ was chosen on TEST images: 70.0 % against 50.0 % ")
    assert "At λ = 2 (chosen on TEST images) the distilled student has 70.00 %" in cell
    assert "best on validation images" in best
    assert "TEST" in chosen
    assert facts.endswith("; 2 epochs; chosen with one seed a point.")


def test_under_the_papers_protocol_every_part_of_the_page_says_so(store, tmp_path):
    search = load_search(store, NAME)
    search, own = peeking(search, load_trials(store, search))
    save_search(store, search)
    shutil.rmtree(store.path("searches", NAME, "trials"))
    shutil.rmtree(store.path("searches", NAME, "tests"))
    for trial in own:
        save_trial(store, NAME, trial)
    _, read = report(store, tmp_path)
    assert "Table 2: super-resolution front ends and DFD, λ chosen on TEST images" in read.text
    captions = [line for line in read.text if line.startswith(("Those trained anew", "TEST accuracy; hollow markers"))]
    assert len(captions) == 2
    assert all("λ was chosen on TEST images" in caption for caption in captions)
    # The best student is chosen on validation images all the same, and its figures say that.
    (confused,) = [line for line in read.text if line.startswith("Per cent of each true class")]
    assert "best on validation images" in confused
    assert "TEST" not in confused


def test_what_is_gone_costs_its_figures_alone_and_the_page_says_why(store, tmp_path):
    store.path("searches", NAME, BEST_FOLDER, PREDICTIONS_FILE).unlink()
    shutil.rmtree(store.path("datasets"))
    files, read = report(store, tmp_path)
    assert {file for file in files if file.endswith(".svg")} == {"lambda_curve.svg", "learning_curves.svg"}
    reasons = left_out(read)
    assert reasons["What each network sees"].startswith("the images are no longer in the store;")
    assert reasons["Confusion matrix of the best student"].endswith("launch the search again.")
    assert reasons["The best student's worst mistakes"].endswith("launch the search again.")
    assert len(reasons) == 3


def test_several_searches_share_a_page_and_keep_their_figures_apart(store, tmp_path):
    shutil.rmtree(store.path("datasets"))  # fewer figures are drawn faster
    shutil.rmtree(store.path("searches", NAME, BEST_FOLDER))
    shutil.copytree(store.path("searches", NAME), store.path("searches", "other"))
    record = ("searches", "other", "search.json")
    store.write_json(store.read_json(*record) | {"search": "other"}, *record)
    files, read = report(store, tmp_path, NAME, "other")
    figures = {f"{name}/{figure}.png" for name in (NAME, "other") for figure in ("lambda_curve", "learning_curves")}
    assert {file for file in files if file.endswith(".png")} == figures
    assert {f"{table}.csv" for table in ("table1", "table2-real", "table2-other", "cells-real", "cells-other")} <= files
    assert len(read.of("img")) == 4
    assert "real and other" in read.text


def unfinished(store, keep):
    """Leave of the search what it had after its first `keep` trials, the next one running: what it confirms is known
    once its own three trials have ended."""
    search = load_search(store, NAME)
    for number, trial in enumerate(load_trials(store, search)):
        if number >= keep:
            store.path("searches", NAME, "trials", f"{trial.key}.json").unlink()
        if number == keep:
            save_trial(store, NAME, dataclasses.replace(trial, status="RUNNING", metrics={}, history=[]))
    teachers = [dataclasses.replace(teacher, test_accuracy=None) for teacher in search.teachers]
    confirmation = search.confirmation if keep >= search.num_trials else []
    changed(store, tested={}, best=None, teachers=teachers, confirmation=confirmation)
    shutil.rmtree(store.path("searches", NAME, BEST_FOLDER))
    shutil.rmtree(store.path("searches", NAME, "tests"))


def test_an_unfinished_search_reports_what_is_there_and_says_what_is_missing(store, tmp_path):
    unfinished(store, keep=2)
    files, read = report(store, tmp_path)
    assert {"lambda_curve.png", "learning_curves.png", "examples.png", "cells-real.md", "table2.tex"} <= files
    text = " ".join(read.text)
    assert "Unfinished: 2 of 3 trials have a result, 1 INTERRUPTED." in text
    assert "confirming trials" not in text
    assert "there are no test accuracies yet" in text
    assert "not tested yet" in read.text
    titles = ("Confusion matrix of the best student", "The best student's worst mistakes")
    not_yet = "the search has no best student yet; it is chosen when the search is concluded."
    assert left_out(read) == dict.fromkeys(titles, not_yet)


def test_a_search_that_is_being_confirmed_says_how_far_that_is(store, tmp_path):
    unfinished(store, keep=5)
    _, read = report(store, tmp_path)
    text = " ".join(read.text)
    # Student, plain training and a control without front end, plain training behind one: four arms of two seeds.
    assert "Unfinished: 2 of 8 confirming trials have a result, 1 INTERRUPTED." in text
    assert "of 3 trials" not in text
    assert "there are no test accuracies yet" in text
    assert "not tested yet" in read.text


def test_a_search_that_has_just_begun_has_a_report_too(store, tmp_path):
    unfinished(store, keep=0)
    files, read = report(store, tmp_path)
    tables = {f"frontends-real.{kind}" for kind in ("md", "csv", "tex")}
    assert files == {"report.html", "examples.png", "examples.svg"} | tables
    reasons = left_out(read)
    assert reasons["Accuracy against λ"] == "fewer than two points have finished."
    assert reasons["Learning curves"] == "no point to compare has finished."
    assert "Unfinished: 0 of 3 trials have a result, 1 INTERRUPTED." in " ".join(read.text)


def test_before_any_trial_the_page_is_all_there_is(store, tmp_path):
    shutil.rmtree(store.path("searches", NAME, "trials"))
    changed(store, tested={}, best=None, teachers=[], frontends=[], sampler="tpe", num_trials=6)
    files, read = report(store, tmp_path)
    assert files == {"report.html"}
    assert left_out(read)["What each network sees"] == "no trial has begun yet."
    assert "not concluded" in left_out(read)["What mattered"]
