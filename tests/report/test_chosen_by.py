"""A search that chooses by another metric than accuracy says so wherever it shows what it chose."""

import csv
import dataclasses
import io
import json

import matplotlib as mpl
import pytest

from dfd_tune.config import TrialConfig
from dfd_tune.confirm import Confirm
from dfd_tune.criteria import CRITERIA, DEFAULT
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import RESULT_FILE
from dfd_tune.plan import describe, make_plan
from dfd_tune.record import load_search, load_trials
from dfd_tune.report.captions import best_of, caption_of, chosen_by
from dfd_tune.report.conclusion import conclusion
from dfd_tune.report.figures.lambda_curve import lambda_curve
from dfd_tune.report.figures.learning_curves import learning_curves
from dfd_tune.report.summary import summary_metrics
from dfd_tune.report.tables import ranking, results_object, trials_csv
from dfd_tune.search.capacity import Resources
from dfd_tune.search.context import SearchContext
from dfd_tune.search.jobs import Attempt, trial_job
from dfd_tune.search.tasks import RUN
from dfd_tune.store import write_json, write_manifest
from dfd_tune.tracking.view import view_tags
from tests.report.conftest import NAME
from tests.report.figures.svg import read_svg
from tests.report.searches import grid_trials, make_best, make_request, make_search
from tests.samples import tiny_dataset

OTHERS = [name for name in CRITERIA if name != DEFAULT]
REQUEST = make_request({"lambda_": [0, 1, 2]})


def scored(trials):
    """The trials with other metrics, by which λ = 1 is best."""
    found = []
    for trial in trials:
        share = 0.6 - 0.1 * abs(trial.config["lambda_"] - 1)
        more = {"val_balanced_accuracy": share, "val_macro_f1": share - 0.05, "val_loss": 2 - 2 * share}
        history = [entry | more for entry in trial.history]
        found.append(dataclasses.replace(trial, metrics=trial.metrics | more, history=history))
    return found


TRIALS = scored(grid_trials(REQUEST, lambda point: 0.7 + 0.05 * point["lambda_"], lambda point: [0.5, 0.7]))


def search_by(choose_by):
    search = make_search(REQUEST, {"resnet18": 0.99}, choose_by=choose_by, num_trials=3)
    best = make_best(TRIALS[1], val_balanced_accuracy=0.6, val_macro_f1=0.55, val_loss=0.8)
    return dataclasses.replace(search, best=best)


@pytest.mark.parametrize("choose_by", OTHERS)
def test_ranking_and_results_have_the_metric_before_accuracy(choose_by):
    search, words = search_by(choose_by), CRITERIA[choose_by].words
    header, rows = ranking(search, TRIALS)
    assert header[:4] == ["rank", "lambda_", f"val. {words}", "val. accuracy"]
    values = {"balanced_accuracy": "60.00 %", "macro_f1": "55.00 %", "loss": "0.8"}
    assert rows[0][:4] == ["1", "1", values[choose_by], "75.00 %"]
    assert json.loads(json.dumps(results_object(search, TRIALS)))["choose_by"] == choose_by
    rows = csv.DictReader(io.StringIO(trials_csv(TRIALS, choose_by)))
    assert {row["choose_by"] for row in rows} == {choose_by}
    assert "choose_by" not in trials_csv(TRIALS)


@pytest.mark.parametrize("choose_by", OTHERS)
def test_words_name_the_metric(choose_by):
    search, words = search_by(choose_by), CRITERIA[choose_by].words
    assert f"chosen by {words} on validation images" in chosen_by(search)
    assert f"chosen by {words} on validation images" in caption_of(search, TRIALS)
    value = {"balanced_accuracy": "60.00 %", "macro_f1": "55.00 %", "loss": "0.8"}[choose_by]
    assert f"({words} {value}, accuracy 75.00 %)" in best_of(search, search.best)
    told = next(line for line in conclusion(search, TRIALS) if line.startswith("Best student"))
    assert f"chosen by {words} on validation images" in told
    assert f"validation {words} {value}, accuracy 75.00 %" in told
    assert summary_metrics(search, TRIALS)[f"best_{CRITERIA[choose_by].column}"] == pytest.approx(
        getattr(search.best, CRITERIA[choose_by].column)
    )


def test_verdicts_are_on_accuracy_and_that_is_said():
    def told(choose_by):
        search = make_search(REQUEST, {}, choose_by=choose_by, confirm=Confirm(seeds=5))
        return chosen_by(search)

    assert "Verdicts are on accuracy." in told("balanced_accuracy")
    assert "on accuracy" not in told("accuracy")


def texts(draw, search, folder):
    with mpl.rc_context({"svg.fonttype": "none"}):  # texts as texts
        file = next(file for file in draw(search, TRIALS, folder) if file.suffix == ".svg")
    return read_svg(file).texts


@pytest.mark.parametrize("choose_by", OTHERS)
def test_figures_show_the_metric(choose_by, tmp_path):
    search, by = search_by(choose_by), CRITERIA[choose_by]
    label = f"validation {by.words}, %" if by.is_share else f"validation {by.words}"
    curve = texts(lambda_curve, search, tmp_path)
    assert label in curve
    assert f"{by.words[0].upper()}{by.words[1:]} against λ, on validation images" in curve
    assert f"λ is chosen by {by.words} on these validation images, not on test images." in curve
    assert "teacher on high-resolution images" not in curve, "whose accuracy alone is known"
    assert label in texts(learning_curves, search, tmp_path)


def test_mlflows_page_is_sorted_by_what_is_chosen_by():
    for name, by in CRITERIA.items():
        tags = view_tags(["lambda_"], by)
        assert tags["mlflow.experiment.primaryMetric.name"] == by.column
        (view,) = (json.loads(value) for key, value in tags.items() if "sharedViewState" in key)
        state = json.loads(view["state"])
        assert state["orderByKey"] == f"metrics.`{by.column}`"
        assert state["orderByAsc"] == (name == "loss")


def test_the_plan_says_it():
    lines = {
        name: describe(
            make_plan(dataclasses.replace(REQUEST, choose_by=name), tiny_dataset(), bank_budget=0, device="cpu"), 0
        )
        for name in CRITERIA
    }
    assert any("macro F1" in line for line in lines["macro_f1"])
    assert not any("Chosen by" in line for line in lines[DEFAULT])


def test_what_an_older_version_trained_is_measured_anew_and_not_trained(store):
    search = load_search(store, NAME)
    trial = load_trials(store, search)[0]
    folder = store.path("trials", trial.key)
    result = json.loads((folder / RESULT_FILE).read_text())
    for metrics in (result["metrics"], *result["history"]):
        del metrics["val_balanced_accuracy"], metrics["val_macro_f1"]
    write_json(folder / RESULT_FILE, result)
    write_manifest(folder)
    context = SearchContext(
        str(store.root), "other", search.dataset["prepared"], (), Resources("cpu", 1.0, 0.0, 1.0), 60.0
    )
    job = trial_job(TrialConfig(**trial.config), trial.key, search.dataset["digest"])

    def told(column):
        asked = dataclasses.replace(context, measures=column)
        return RUN["trial"](job, asked, SingleProcess(), Attempt(job=job, number=1))["result"]

    assert told("val_accuracy") == result, "it says enough"
    found = told("val_macro_f1")
    for name in ("val_macro_f1", "val_balanced_accuracy"):
        assert found["metrics"][name] == pytest.approx(trial.metrics[name])
    assert found["metrics"]["val_accuracy"] == trial.metrics["val_accuracy"]
