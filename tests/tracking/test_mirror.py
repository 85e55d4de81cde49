"""MLflow as a view of the store: a search that was run elsewhere is there as if it had been run here."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from dfd_tune.record import load_search, load_trials
from dfd_tune.report.summary import summary_of
from dfd_tune.store import Store, open_store
from dfd_tune.tracking import Tracker, mirror, open_tracker
from dfd_tune.tracking.view import show_view, view_tags
from tests.tracking.conftest import QUICK
from tests.tracking.copies import HOME, concluded_search, write_folder, write_records
from tests.tracking.records import assert_one_value_a_step, history_of, search_record, trial_record

SINCE = 1090.0
SEARCH, TRIALS = concluded_search("copied")


def mirrored(store: Store, name: str) -> None:
    """As `dfd-tune ui` does it: from what lies in the store's folder alone."""
    search = load_search(store, name)
    trials = load_trials(store, search)
    assert mirror(store, search, trials, summary_of(store, search, trials), interrupted_since=SINCE) == []


def seen(tracker: Tracker, name: str) -> dict[str, Any]:
    """What MLflow says of a search, by trial key, but for ids and places."""
    search, client = load_search(tracker._store, name), tracker._client
    experiment = tracker.experiment_id(search)
    found: dict[str, Any] = {"experiment": dict(client.get_experiment(experiment).tags)}
    for run in client.search_runs([experiment]):
        key = run.data.tags.get("dfd.trial_key", "summary")
        assert key not in found
        found[key] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "curves": {metric: history_of(tracker, run.info.run_id, metric) for metric in run.data.metrics},
            "tags": {tag: value for tag, value in run.data.tags.items() if tag.startswith("dfd.")},
            "files": _files_of(client, run.info.run_id, ""),
            "datasets": [entry.dataset.digest for entry in run.inputs.dataset_inputs],
            "models": len(run.outputs.model_outputs) if run.outputs else 0,
        }
    return found


def _files_of(client: Any, run_id: str, folder: str) -> list[str]:
    files = []
    for file in client.list_artifacts(run_id, folder):
        files += _files_of(client, run_id, file.path) if file.is_dir else [file.path]
    return sorted(files)


def content_of(folder: Path) -> dict[str, str]:
    """Every file of a folder, and what is in it."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and file.parent.name != "leases"
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Tracker]:
    """A store into which the search was copied, and its MLflow, once it was mirrored there."""
    store = open_store(tmp_path_factory.mktemp("here") / "store")
    write_folder(store, SEARCH, TRIALS)
    mirrored(store, "copied")
    return store, open_tracker(store, None, pauses=QUICK)


def test_a_copy_shows_the_runs_with_their_curves_and_the_summary(here: tuple[Store, Tracker]) -> None:
    found = seen(here[1], "copied")
    runs = {status: found.pop(trial.key) for status, trial in TRIALS.items() if trial.status != "PENDING"}
    summary, experiment = found.pop("summary"), found.pop("experiment")
    assert found == {}
    assert {name: run["status"] for name, run in runs.items()} == {
        "FINISHED": "FINISHED",
        "PLAIN": "FINISHED",
        "FAILED": "FAILED",
        "KILLED": "KILLED",
        "RUNNING": "KILLED",
    }
    assert runs["FINISHED"]["times"] == (1_000_000, 1_060_500)
    assert runs["KILLED"]["times"] == (1_070_000, 1_080_000)
    assert runs["RUNNING"]["times"] == (1_075_000, 1_090_000)
    assert runs["RUNNING"]["tags"]["dfd.state"] == "INTERRUPTED since 1970-01-01T00:18:10+00:00"
    assert "dfd.state" not in runs["KILLED"]["tags"]
    assert runs["FINISHED"]["curves"]["loss"] == [(epoch, float(epoch)) for epoch in range(1, 5)]
    assert runs["FAILED"]["files"] == ["error.txt"]
    assert summary["times"] == (1_000_000, 1_080_000)
    assert summary["curves"]["best_test_accuracy"] == [(0, 0.94)]
    assert summary["files"] == [
        "ranking.md",
        "report/figures/lambda_curve.svg",
        "report/report.html",
        "trials.csv",
    ]
    assert experiment["dfd.store"] == HOME


def test_its_registered_model_has_alias_signature_and_example(here: tuple[Store, Tracker]) -> None:
    from mlflow.models import Model

    _, tracker = here
    version = tracker._client.get_model_version_by_alias("copied", "best")
    assert version.tags["dfd.trial_key"] == TRIALS["FINISHED"].key
    assert "Classes: class 0, class 1" in version.description
    [logged] = tracker._client.search_logged_models([tracker.experiment_id(SEARCH)])
    model = Model.load(logged.artifact_location.removeprefix("file://"))
    assert model.signature.inputs.inputs[0].shape == (-1, -1, -1, 3)
    assert model.signature.outputs.inputs[0].shape == (-1, 3)
    assert model.saved_input_example_info is not None


def test_it_is_what_the_launch_wrote_where_it_ran(here: tuple[Store, Tracker], tmp_path: Path) -> None:
    there = open_store(tmp_path / "there")
    write_folder(there, SEARCH, TRIALS)
    tracker = open_tracker(there, None, clock=lambda: 1080.0, pauses=QUICK)
    for trial in TRIALS.values():  # epoch by epoch
        for epochs in range(1, len(trial.history) + 1):
            begun = dataclasses.replace(
                trial, status="RUNNING", history=trial.history[:epochs], metrics={}, ended=None, cause=None
            )
            assert tracker.sync(SEARCH, [begun]) == []
        assert tracker.sync(SEARCH, [trial]) == []
    summary = summary_of(there, SEARCH, list(TRIALS.values()))
    assert summary is not None
    tracker.conclude(SEARCH, list(TRIALS.values()), summary)
    before, after = seen(tracker, "copied"), seen(here[1], "copied")
    for found in (before, after):
        del found[TRIALS["RUNNING"].key]  # it goes on there, and is interrupted here
        curves = found["summary"]["curves"]
        assert curves.pop("trials_running", None) or curves.pop("trials_interrupted")
    assert before == after
    assert tracker.close() == []


def test_once_all_is_there_nothing_is_written(here: tuple[Store, Tracker]) -> None:
    store, _ = here
    before = content_of(store.root)
    mirrored(store, "copied")
    assert content_of(store.root) == before


def test_what_the_launch_wrote_itself_is_not_doubled(anywhere: Tracker, tmp_path: Path) -> None:
    store, uri = open_store(tmp_path), anywhere.recorded_address
    name = f"own-{anywhere._address.is_server}"
    search, trials = concluded_search(name, mlflow=uri)
    write_folder(store, search, trials)
    tracker = open_tracker(store, uri, pauses=QUICK)
    records = list(trials.values())
    assert tracker.sync(search, records[:3]) == []
    summary = summary_of(store, search, records)
    assert summary is not None
    tracker.conclude(search, records, summary)
    ids = tracker.runs(search)
    assert len(ids) == 3
    assert tracker.close() == []
    for _ in range(2):
        mirrored(store, name)
    later = open_tracker(store, uri, pauses=QUICK)
    assert later.runs(search).items() >= ids.items()
    assert sorted(later.runs(search)) == sorted(trial.key for trial in records if trial.status != "PENDING")
    runs = later._client.search_runs([later.experiment_id(search)])
    assert len(runs) == len(records)  # the summary in place of the one that is PENDING
    for run in runs:
        assert_one_value_a_step(later, run.info.run_id)
    assert len(later._client.search_model_versions(f"name = '{name}'")) == 1
    assert later.close() == []


def test_a_copy_that_is_newer_brings_what_is_new(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    search, trials = concluded_search("grows")
    folder = write_folder(store, search, trials)
    mirrored(store, "grows")
    done = trial_record(trials["RUNNING"].key, epochs=3, started=1075.0, ended=1100.0, config=trials["RUNNING"].config)
    write_records(store, search, {"RUNNING": done})
    (folder / "report" / "report.html").write_text("<p>Newest</p>\n")
    mirrored(store, "grows")
    tracker = open_tracker(store, None)
    found = seen(tracker, "grows")[done.key]
    assert (found["status"], found["times"]) == ("FINISHED", (1_075_000, 1_100_000))
    assert found["curves"]["loss"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert "dfd.state" not in found["tags"]
    [summary] = tracker._client.search_runs([tracker.experiment_id(search)], "tags.`dfd.kind` = 'summary'")
    report = tracker._client.download_artifacts(summary.info.run_id, "report/report.html", str(tmp_path))
    assert Path(report).read_text() == "<p>Newest</p>\n"
    assert tracker.close() == []


def test_what_runs_on_elsewhere_is_running(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    search, trials = concluded_search("elsewhere", best=None)
    write_records(store, search, trials)
    assert mirror(store, search, list(trials.values()), None, runs_elsewhere=True) == []
    tracker = open_tracker(store, None)
    found = seen(tracker, "elsewhere")[trials["RUNNING"].key]
    assert found["status"] == "RUNNING"
    assert "dfd.state" not in found["tags"]
    assert tracker.close() == []


def test_a_search_without_a_conclusion_has_its_runs_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    search, trials = concluded_search("begun", best=None)
    write_records(store, search, trials)
    mirrored(store, "begun")
    tracker = open_tracker(store, None)
    expected = {trial.key for trial in trials.values() if trial.status != "PENDING"}
    assert seen(tracker, "begun").keys() == {"experiment", *expected}
    assert tracker.close() == []


def test_where_mlflow_does_not_answer_it_says_so(tmp_path: Path) -> None:
    [problem] = mirror(open_store(tmp_path), SEARCH, list(TRIALS.values()), None, uri="http://127.0.0.1:1")
    assert "http://127.0.0.1:1" in problem


def test_an_experiment_is_made_with_the_view_of_its_search_and_can_get_another(tracker: Tracker) -> None:
    search = search_record("viewed", explored={"backbone": ["resnet18"], "lambda_": [0, 1]})
    client, number = tracker._client, tracker.experiment_id(search)
    experiment = client.get_experiment(number)
    assert view_tags(search.explored).items() <= experiment.tags.items()
    assert show_view(client, experiment, ["lambda_"])
    assert view_tags(["lambda_"]).items() <= client.get_experiment(number).tags.items()
