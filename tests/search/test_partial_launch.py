"""A search that is not run in one go: a trial crashes, more trials are asked for, a launch was stopped."""

import json
import shutil

import pytest

from dfd_tune.store import read_json, write_json
from tests.search.conftest import runs_of, trial_runs


@pytest.fixture(scope="module")
def wild(launch, tmp_path_factory):
    """A search of three trials, of which one crashes; and its arguments."""
    space = tmp_path_factory.mktemp("wild") / "wild.yaml"
    space.write_text(
        "confirm: {seeds: 0}\nexplore: {lambda_: [1, 2], learning_rate: [100, 0.05]}\n"
        "only: [{learning_rate: 0.05}, {lambda_: 1}]\n"
        "settings: {backbone: alexnet, batch_norm: false, batch_size: 25, seed: 1}\n"
    )
    arguments = ("--space", space, "--name", "wild")
    return launch(*arguments), arguments


def trials_of(listed):
    """By λ and learning rate."""
    return {(trial["config"]["lambda_"], trial["config"]["learning_rate"]): trial for trial in listed["trials"]}


def test_a_crash_is_failed_and_the_rest_goes_on(wild, results_of, store_path):
    done, _ = wild
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 trial(s) FAILED" in done.stderr
    listed = results_of("wild")
    trials = trials_of(listed)
    failed = trials.pop((1, 100))
    assert failed["status"] == "FAILED"
    assert "The loss is not finite in epoch" in failed["error"]
    assert {point: trial["status"] for point, trial in trials.items()} == dict.fromkeys(
        [(0, 0.05), (1, 0.05), (2, 0.05)], "FINISHED"
    )
    assert listed["best"]["key"] in [trial["key"] for trial in trials.values()]
    runs = trial_runs(runs_of(store_path, "wild"))
    assert {key: run.info.status for key, run in runs.items()} == {
        trial["key"]: trial["status"] for trial in listed["trials"]
    }


@pytest.mark.slow
def test_a_search_stopped_before_the_twin_of_its_best_runs_that_twin_alone(wild, launch, results_of, store_path):
    _, arguments = wild
    listed = results_of("wild")
    keys = {point: trial["key"] for point, trial in trials_of(listed).items() if trial["status"] == "FINISHED"}
    best = json.loads((store_path / "searches" / "wild" / "search.json").read_text())["best"]
    assert keys[0, 0.05] in (best["base_key"], best["key"])
    # As a stop in the midst of the twin would have left it.
    record = store_path / "searches" / "wild" / "trials" / f"{keys[0, 0.05]}.json"
    write_json(record, read_json(record) | {"status": "KILLED", "metrics": {}})
    shutil.rmtree(store_path / "trials" / keys.pop((0, 0.05)))
    others = {key: written(store_path / "trials" / key) for key in keys.values()}
    again = launch(*arguments)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "1 trial(s) FAILED and stay so" in again.stderr
    assert "validation accuracy" in again.stdout
    assert {key: written(store_path / "trials" / key) for key in keys.values()} == others
    assert {trial["key"]: trial["status"] for trial in results_of("wild")["trials"]} == {
        trial["key"]: trial["status"] for trial in listed["trials"]
    }
    # What a launch that was killed at its very end leaves behind goes too, though nothing is left to run.
    left = store_path / "searches" / "wild" / ".tune" / "jobs"
    left.mkdir(parents=True)
    assert "All trials of this search are finished already." in launch(*arguments).stdout
    assert not left.parent.exists()


@pytest.mark.slow
def test_a_sampled_search_continues_with_more_trials(launch, results_of):
    settings = ("epochs=1", "teacher_epochs=1", "backbone=alexnet", "student_start=[scratch, base, teacher]")
    arguments = (
        "--space",
        "tpe_all",
        "--confirm-seeds",
        0,
        "--name",
        "sampled",
        *(word for one in settings for word in ("--set", one)),
    )
    first = launch(*arguments, "--trials", 2)
    assert first.returncode == 0, first.stdout + first.stderr
    listed = results_of("sampled")
    keys = [trial["key"] for trial in listed["trials"] if trial["config"]["lambda_"] > 0]
    assert len(keys) == 2
    assert all(0.1 <= trial["config"]["lambda_"] <= 10 or trial["config"]["lambda_"] == 0 for trial in listed["trials"])
    second = launch(*arguments, "--trials", 4)
    assert second.returncode == 0, second.stdout + second.stderr
    listed = results_of("sampled")
    more = [trial["key"] for trial in listed["trials"] if trial["config"]["lambda_"] > 0]
    assert len(more) == 4
    assert set(keys) < set(more)
    # The best is measured against its λ = 0 twin, which the space does not hold, or is that twin.
    assert (listed["best"]["base_test_accuracy"] is None) == (listed["best"]["config"]["lambda_"] == 0)


def written(folder):
    """When each file of a folder was written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
