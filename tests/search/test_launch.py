"""A whole search through the command line: real Ray, real MLflow store, real files."""

import dataclasses
import json
from xml.etree import ElementTree

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from dfd_tune.forecast import Forecast, against_outcome
from dfd_tune.record import load_search, load_trials
from dfd_tune.report.found import Found
from dfd_tune.report.write import summary
from dfd_tune.store import open_store
from tests.search.conftest import runs_of, trial_runs


@pytest.fixture(scope="module")
def results(results_of, search):
    return results_of(search.name)


@pytest.fixture(scope="module")
def client(search):
    return MlflowClient(search.mlflow_uri, search.mlflow_uri)


@pytest.fixture(scope="module")
def runs(search):
    return runs_of(search.store, search.name)


def test_every_trial_finished_and_is_complete(results):
    assert results["search"] == "tiny"
    assert results["dataset"] == "digits"
    points = {(trial["config"]["backbone"], trial["config"]["lambda_"]) for trial in results["trials"]}
    assert points == {(backbone, lambda_) for backbone in ("resnet18", "alexnet") for lambda_ in (0, 2)}
    for trial in results["trials"]:
        assert trial["status"] == "FINISHED"
        assert 0 <= trial["metrics"]["val_accuracy"] <= 1
        assert trial["metrics"]["loss"] == pytest.approx(
            trial["metrics"]["cross_entropy"] + trial["config"]["lambda_"] * trial["metrics"]["distillation"], rel=1e-5
        )
    assert {teacher["backbone"] for teacher in results["teachers"]} == {"resnet18", "alexnet"}


def test_the_best_is_the_best_on_validation_and_has_its_twin(results):
    best = results["best"]
    accuracies = {trial["key"]: trial["metrics"]["val_accuracy"] for trial in results["trials"]}
    assert accuracies[best["key"]] == best["val_accuracy"] == max(accuracies.values())
    assert 0 <= best["test_accuracy"] <= 1
    assert best["cost"]["parameters"] > 1000
    assert 0 < best["cost"]["image_seconds"] < best["cost"]["batch_seconds"]
    twins = [
        trial["key"]
        for trial in results["trials"]
        if trial["config"] == best["config"] | {"lambda_": 0.0} and best["config"]["lambda_"] > 0
    ]
    assert ([best["base_key"]] if best["base_key"] else []) == twins


def test_results_agree_with_mlflow_run_by_run(results, runs):
    by_key = trial_runs(runs)
    assert set(by_key) == {trial["key"] for trial in results["trials"]}
    for trial in results["trials"]:
        run = by_key[trial["key"]]
        assert run.info.status == "FINISHED"
        of_images = ("dataset", "image_size", "train_images", "train_offset", "test_images", "validation_fraction")
        assert run.data.params == {
            name: str(value)
            for name, value in (
                trial["config"]
                | dict.fromkeys(of_images)
                | {"dataset": "digits", "train_images": 100, "train_offset": 0, "test_images": 60}
                | {"validation_fraction": 0.2}
            ).items()
        }
        for name in ("val_accuracy", "loss", "cross_entropy", "distillation", "train_accuracy", "val_loss"):
            assert run.data.metrics[name] == pytest.approx(trial["metrics"][name])
        assert run.inputs.dataset_inputs[0].dataset.digest == results["dataset_facts"]["digest"]
        assert run.data.tags["dfd.space"] == "tiny"


def test_mlflow_has_every_epoch_and_one_summary(runs, client):
    for run in trial_runs(runs).values():
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [metric.step for metric in history] == [1, 2]
    (summary,) = [run for run in runs if run.data.tags["dfd.kind"] == "summary"]
    artifacts = {file.path for file in client.list_artifacts(summary.info.run_id)}
    assert {"report", "ranking.md", "trials.csv"} <= artifacts
    report = {file.path for file in client.list_artifacts(summary.info.run_id, "report")}
    assert {"report/report.html", "report/lambda_curve.png", "report/table1.tex"} <= report


def test_files_of_the_search(search):
    folder = search.store / "searches" / "tiny"
    with Image.open(folder / "report" / "lambda_curve.png") as image:
        assert min(image.size) > 300
    ElementTree.parse(folder / "report" / "lambda_curve.svg")
    assert (folder / "best" / "student.safetensors").stat().st_size > 1000
    assert not [file for file in search.store.rglob(".*") if file.name != ".gitignore"]


def test_the_registered_model_predicts_as_predict_does(run_cli, search, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    files = []
    for number, size in enumerate([(8, 8), (4, 4), (30, 17)]):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(files[-1])
    done = run_cli("predict", *files, "--model", "tiny", "--format", "json", "--store", search.store)
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", search.mlflow_uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model("models:/tiny@best")
    theirs = []
    for file in files:
        with Image.open(file) as image:
            theirs.append(np.asarray(model.predict(np.asarray(image)[None, :, :, None]))[0].tolist())
    ours = json.loads(done.stdout)
    for prediction, probabilities in zip(ours, theirs, strict=True):
        assert list(prediction["probabilities"].values()) == pytest.approx(probabilities, abs=1e-5)
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)


def test_predict_names_every_image_it_cannot_read(run_cli, search, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    done = run_cli("predict", tmp_path / "none.png", tmp_path / "text.png", "--model", "tiny", "--store", search.store)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"dfd-tune: The image '{tmp_path / 'none.png'}' can't be read (No such file or directory); give another file.",
        f"dfd-tune: '{tmp_path / 'text.png'}' is not an image; give a PNG, JPEG or other image file.",
    ]


def test_results_as_table_and_csv(run_cli, search):
    table = run_cli("results", "tiny", "--store", search.store).stdout
    assert "Best student, chosen on validation images" in table
    csv = run_cli("results", "tiny", "--format", "csv", "--store", search.store).stdout
    assert len(csv.splitlines()) == 5


def test_a_second_launch_runs_nothing_again(run_cli, search):
    done = run_cli(*search.arguments)
    assert done.returncode == 0, done.stderr
    assert "All trials of this search are finished already." in done.stdout
    client = MlflowClient(search.mlflow_uri, search.mlflow_uri)
    experiment = client.get_experiment_by_name("tiny")
    assert len(client.search_runs([experiment.experiment_id])) == 5
    assert len(client.search_model_versions("name='tiny'")) == 1


def test_a_changed_search_under_an_old_name_is_refused(run_cli, search):
    done = run_cli(*search.arguments, "--set", "weight_decay=0.1")
    assert done.returncode == 2
    assert "weight_decay was 0.0005, now 0.1" in done.stderr
    assert "--name" in done.stderr


@pytest.mark.slow
def test_a_search_chosen_otherwise_needs_a_name_of_its_own_and_trains_nothing(run_cli, launch, search, results_of):
    refused = run_cli(*search.arguments, "--choose-by", "macro_f1")
    assert refused.returncode == 2
    assert "choose_by was accuracy, now macro_f1" in refused.stderr
    space = search.arguments[search.arguments.index("--space") + 1]
    done = launch("--space", space, "--name", "otherwise", "--choose-by", "macro_f1")
    assert done.returncode == 0, done.stdout + done.stderr
    store = open_store(search.store)
    trials = load_trials(store, load_search(store, "otherwise"))
    known = {trial.key: trial.history for trial in load_trials(store, load_search(store, search.name))}
    assert {trial.key: trial.history for trial in trials} == known
    assert {trial.attempts for trial in trials} == {0}
    told = results_of("otherwise")
    assert told["choose_by"] == "macro_f1"
    scores = {trial["key"]: trial["metrics"]["val_macro_f1"] for trial in told["trials"]}
    assert scores[told["best"]["key"]] == told["best"]["val_macro_f1"] == max(scores.values())
    assert [one["class"] for one in told["recall"]] == list("0123456789")
    assert sum(one["images"] for one in told["recall"]) == 60
    right = sum(one["images"] * one["recall"] for one in told["recall"] if one["images"])
    assert right / 60 == pytest.approx(told["best"]["test_accuracy"])
    summary_run = next(run for run in runs_of(search.store, "otherwise") if run.data.tags["dfd.kind"] == "summary")
    assert summary_run.data.tags["dfd.choose_by"] == "macro_f1"
    assert summary_run.data.metrics["best_val_macro_f1"] == pytest.approx(max(scores.values()))


@pytest.mark.slow
def test_two_workers_train_as_one(launch, results, search, tmp_path):
    """Without batch norm, two workers on halves of each batch must follow the losses of the search's one."""
    space = tmp_path / "workers.yaml"
    space.write_text(
        "confirm: {seeds: 0}\nexplore: {lambda_: [0, 2]}\n"
        "settings: {backbone: alexnet, batch_norm: false, reduction: mean, batch_size: 25}\n"
    )
    done = launch("--space", space, "--name", "workers", "--workers-per-trial", 2, "--cpus-per-worker", 0.5)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(file.read_text()) for file in (search.store / "searches/workers/trials").glob("*.json")]
    assert [record["config"]["lambda_"] for record in records] in ([0, 2], [2, 0])
    for trial in records:
        follows_the_search(trial, results, search)


def follows_the_search(trial, results, search):
    (single,) = [other["key"] for other in results["trials"] if trial["config"] == other["config"] | {"workers": 2}]
    assert trial["key"] != single
    alone = json.loads((search.store / "searches" / search.name / "trials" / f"{single}.json").read_text())
    for one, two in zip(alone["history"], trial["history"], strict=True):
        for metric in ("loss", "cross_entropy", "distillation", "train_accuracy", "val_accuracy"):
            assert two[metric] == pytest.approx(one[metric], rel=1e-3, abs=1e-4)


# What it was forecast to cost, and what it did.


@pytest.fixture(scope="module")
def records(search):
    store = open_store(search.store)
    found = load_search(store, search.name)
    return found, load_trials(store, found)


def test_a_search_too_small_for_a_probe_still_says_what_came_of_it(search, records):
    found, trials = records
    forecast = Forecast.from_json(found.forecast)
    assert forecast.wall_seconds is None
    assert "Timing a few steps" not in search.output
    assert forecast.outcome["jobs"] == len(trials) + len(found.teachers)
    hours = sum(trial.metrics["device_hours"] for trial in trials)
    assert forecast.outcome["device_hours"] > hours > 0  # the teachers' too
    assert forecast.outcome["wall_seconds"] > max(trial.metrics["seconds"] for trial in trials)


def test_the_line_ends_the_launch_and_stands_in_the_report(search, records):
    found, trials = records
    line = against_outcome(found.forecast)
    assert line is not None
    assert line in search.output
    assert summary(Found(found, trials))[-1] == f"{line}."
    assert summary(Found(dataclasses.replace(found, forecast={}), trials)) == summary(Found(found, trials))[:-1]


def test_a_search_that_is_launched_again_is_forecast_by_its_own_trials(search, records, run_cli):
    again = run_cli(*search.arguments, "--dry-run")
    assert again.returncode == 0, again.stderr
    assert "by a probe" not in again.stdout, "nothing is left to run"
    assert again.stdout.splitlines()[-1].startswith("In all 0 trainings")
    assert load_search(open_store(search.store), search.name) == records[0]
    other = [part if part != "epochs=2" else "epochs=3" for part in search.arguments]
    refused = run_cli(*other, "--dry-run")
    assert refused.returncode == 2
    assert "epochs was 2, now 3" in refused.stderr
