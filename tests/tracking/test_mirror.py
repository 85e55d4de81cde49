"""MLflow as a view of the store: a search that was run elsewhere is there as if it had been run here."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from dfd_tune.record import TrialRecord, load_search, load_trials
from dfd_tune.report.summary import summary_of
from dfd_tune.store import Store, open_store
from dfd_tune.tracking import Tracker, mirror, open_tracker
from dfd_tune.tracking.view import show_view, view_tags
from tests.tracking.conftest import QUICK
from tests.tracking.copies import FAILED, FINISHED, HOME, KILLED, PLAIN, RUNNING, concluded_search, write_folder
from tests.tracking.records import assert_one_value_a_step, history_of, search_record, trial_record

SINCE = 1090.0


def mirrored(store: Store, name: str, uri: str | None = None) -> None:
    """As `dfd-tune ui` does it: from what lies in the store's folder alone."""
    search = load_search(store, name)
    trials = load_trials(store, search)
    summary = summary_of(store, search, trials)
    assert mirror(store, search, trials, summary, uri=uri, interrupted_since=SINCE) == []


def seen(tracker: Tracker, name: str) -> dict[str, Any]:
    """All that MLflow says of a search, by trial key, but for what is its own: ids, paths, times of the summary."""
    search, client = load_search(tracker._store, name), tracker._client
    experiment = tracker.experiment_id(search)
    found: dict[str, Any] = {"experiment": dict(client.get_experiment(experiment).tags)}
    for run in client.search_runs([experiment]):
        key = run.data.tags.get("dfd.trial_key", "summary")
        assert key not in found
        found[key] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time if key != "summary" else None),
            "params": run.data.params,
            "curves": {metric: history_of(tracker, run.info.run_id, metric) for metric in run.data.metrics},
            "tags": {tag: value for tag, value in run.data.tags.items() if not tag.startswith("mlflow.user")},
            "files": _files_of(client, run.info.run_id),
            "datasets": [entry.dataset.digest for entry in run.inputs.dataset_inputs],
            "models": len(run.outputs.model_outputs) if run.outputs else 0,
        }
    return found


def _files_of(client: Any, run_id: str, folder: str | None = None) -> list[str]:
    files = []
    for file in client.list_artifacts(run_id, folder):
        files += _files_of(client, run_id, file.path) if file.is_dir else [file.path]
    return files


def content_of(folder: Path) -> dict[str, str]:
    """Every file of a folder, and what is in it."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.parent.name != "leases"
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Tracker]:
    """A store into which the search was copied, and what its database says, once it was mirrored."""
    store = open_store(tmp_path_factory.mktemp("here") / "store")
    write_folder(store, *concluded_search("copied"))
    mirrored(store, "copied")
    return store, open_tracker(store, None, pauses=QUICK)


def test_a_copy_shows_the_runs_with_their_curves_and_the_summary(here: tuple[Store, Tracker]) -> None:
    found = seen(here[1], "copied")
    assert {key: found[key]["status"] for key in found if key != "experiment"} == {
        FINISHED: "FINISHED",
        PLAIN: "FINISHED",
        FAILED: "FAILED",
        KILLED: "KILLED",
        RUNNING: "KILLED",
        "summary": "FINISHED",
    }
    assert found[FINISHED]["times"] == (1_000_000, 1_060_500)
    assert found[KILLED]["times"] == (1_070_000, 1_080_000)
    assert found[RUNNING]["times"] == (1_075_000, 1_090_000)
    assert found[RUNNING]["tags"]["dfd.state"] == "INTERRUPTED since 1970-01-01T00:18:10+00:00"
    assert "dfd.state" not in found[KILLED]["tags"]
    assert found[FINISHED]["curves"]["loss"] == [(epoch, float(epoch)) for epoch in range(1, 5)]
    assert found[FAILED]["files"] == ["error.txt"]
    summary = found["summary"]
    assert summary["times"][0] == 1_000_000
    assert summary["curves"]["best_test_accuracy"] == [(0, 0.8)]
    assert sorted(summary["files"]) == [
        "ranking.md",
        "report/figures/lambda_curve.svg",
        "report/report.html",
        "trials.csv",
    ]
    assert found["experiment"]["dfd.store"] == HOME


def test_its_registered_model_has_alias_signature_and_example(here: tuple[Store, Tracker]) -> None:
    from mlflow.models import Model

    client = here[1]._client
    version = client.get_model_version_by_alias("copied", "best")
    assert version.tags["dfd.trial_key"] == FINISHED
    assert "ring, bar, cross" in version.description or "3" in version.description
    [logged] = client.search_logged_models([here[1].experiment_id(search_record("copied", home=HOME))])
    folder = Path(logged.artifact_location.removeprefix("file://"))
    model = Model.load(folder)
    assert model.signature.inputs.inputs[0].shape == (-1, -1, -1, 3)
    assert model.signature.outputs.inputs[0].shape == (-1, 3)
    assert model.saved_input_example_info is not None


def test_it_is_what_the_search_wrote_where_it_ran(here: tuple[Store, Tracker], tmp_path: Path) -> None:
    there = open_store(tmp_path / "there")
    search, trials = concluded_search("copied")
    write_folder(there, search, trials)
    tracker = open_tracker(there, None, clock=lambda: 1080.0, pauses=QUICK)
    for trial in trials:  # epoch by epoch, as a launch does
        for epochs in range(1, len(trial.history) + 1):
            begun = trial_record(trial.key, epochs=epochs, status="RUNNING", attempts=trial.attempts, host=trial.host)
            tracker.log_trial(search, _with_times(begun, trial))
        assert tracker.sync(search, [trial]) == []
    summary = summary_of(there, search, trials)
    assert summary is not None
    tracker.conclude(search, trials, summary)
    before, after = seen(tracker, "copied"), seen(here[1], "copied")
    for found in (before, after):
        found.pop(RUNNING)  # as it was interrupted since
        found["summary"]["curves"] = {
            name: curve for name, curve in found["summary"]["curves"].items() if not name.startswith("trials_")
        }
    assert before == after
    assert tracker.close() == []


def _with_times(begun: TrialRecord, trial: TrialRecord) -> TrialRecord:
    import dataclasses

    return dataclasses.replace(begun, started=trial.started, device=trial.device)


def test_once_all_is_there_nothing_is_written(here: tuple[Store, Tracker]) -> None:
    store, _ = here
    before = content_of(store.root)
    mirrored(store, "copied")
    assert content_of(store.root) == before


@pytest.mark.parametrize("place", ["database", "server"])
def test_what_the_launch_wrote_itself_is_not_doubled(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    uri = request.getfixturevalue("server") if place == "server" else None
    store, name = open_store(tmp_path), f"own-{place}"
    search, trials = concluded_search(name, mlflow=uri)
    write_folder(store, search, trials)
    tracker = open_tracker(store, uri, pauses=QUICK)
    assert tracker.sync(search, trials[:3]) == []
    summary = summary_of(store, search, trials)
    assert summary is not None
    tracker.conclude(search, trials, summary)
    ids = tracker.runs(search)
    assert tracker.close() == []
    for _ in range(2):
        mirrored(store, name)
    later = open_tracker(store, uri, pauses=QUICK)
    assert later.runs(search).items() >= ids.items()
    assert sorted(later.runs(search)) == sorted(trial.key for trial in trials if trial.status != "PENDING")
    for run in later._client.search_runs([later.experiment_id(search)]):
        assert_one_value_a_step(later, run.info.run_id)
    assert len(later._client.search_model_versions(f"name = '{name}'")) == 1
    assert later.close() == []


def test_a_copy_that_is_newer_brings_what_is_new(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    search, trials = concluded_search("grows")
    folder = write_folder(store, search, trials)
    mirrored(store, "grows")
    write_folder(store, search, [trial_record(RUNNING, epochs=3, started=1075.0, ended=1100.0)])
    (folder / "report" / "report.html").write_text("<p>Newer</p>\n")
    mirrored(store, "grows")
    tracker = open_tracker(store, None)
    found = seen(tracker, "grows")[RUNNING]
    assert (found["status"], found["times"]) == ("FINISHED", (1_075_000, 1_100_000))
    assert found["curves"]["loss"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert "dfd.state" not in found["tags"]
    [summary] = tracker._client.search_runs([tracker.experiment_id(search)], "tags.`dfd.kind` = 'summary'")
    report = tracker._client.download_artifacts(summary.info.run_id, "report/report.html", str(tmp_path))
    assert Path(report).read_text() == "<p>Newer</p>\n"
    assert tracker.close() == []


def test_a_search_without_an_outcome_has_its_runs_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    search, trials = concluded_search("begun")
    shutil.rmtree(write_folder(store, search, trials))
    write_records_only(store, trials)
    mirrored(store, "begun")
    tracker = open_tracker(store, None)
    assert FINISHED in seen(tracker, "begun")
    assert "summary" not in seen(tracker, "begun")
    assert tracker.close() == []


def write_records_only(store: Store, trials: list[TrialRecord]) -> None:
    from dfd_tune.record import save_search, save_trial

    save_search(store, search_record("begun"))
    for trial in trials:
        save_trial(store, "begun", trial)


def test_where_mlflow_does_not_answer_it_says_so(tmp_path: Path) -> None:
    search, trials = concluded_search("away")
    [problem] = mirror(open_store(tmp_path), search, trials, None, uri="http://127.0.0.1:1")
    assert "http://127.0.0.1:1" in problem


def test_an_experiment_gets_the_view_of_its_search_once(tracker: Tracker) -> None:
    search = search_record("viewed", explored={"backbone": ["resnet18"], "lambda_": [0, 1]})
    client, number = tracker._client, tracker.experiment_id(search)
    experiment = client.get_experiment(number)
    assert view_tags(search.explored).items() <= experiment.tags.items()
    assert show_view(client, experiment, ["lambda_"])
    changed = client.get_experiment(number).tags
    assert {name: value for name, value in changed.items() if experiment.tags[name] != value}.keys() == {
        "mlflow.sharedViewState.dfd-tune"
    }
