"""What a real search keeps of its students once it has ended, and what becomes of those that are needed later."""

import json

import pytest

from dfd_tune.store import STUDENT_FILE, open_store
from dfd_tune.upkeep.soundness import check

pytestmark = pytest.mark.slow

SPACE = """
confirm: {seeds: 0}
explore: {lambda_: [0, 1, 2]}
settings: {backbone: alexnet, batch_norm: false, reduction: mean, batch_size: 25, seed: 7}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    file = tmp_path_factory.mktemp("keep") / "three.yaml"
    file.write_text(SPACE)
    return file


@pytest.fixture(scope="module")
def chosen(launch, results_of, space):
    """The first of three searches, and what it said."""
    done = launch("--space", space, "--name", "chosen")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return results_of("chosen"), done.stdout


def with_student(store_path, results):
    store = open_store(store_path)
    return {trial["key"] for trial in results["trials"] if store.has("trials", trial["key"], STUDENT_FILE)}


def keys(results):
    return {trial["key"] for trial in results["trials"]}


def outcomes(results):
    return {trial["key"]: (trial["metrics"]["val_accuracy"], trial["metrics"]["loss"]) for trial in results["trials"]}


def test_what_was_neither_chosen_nor_tested_is_let_go_of_and_its_result_stays(chosen, store_path, run_cli):
    results, output = chosen
    assert with_student(store_path, results) == set(results["tested"])
    assert len(results["tested"]) == 2
    assert "Let go of 1 of 3 students" in output
    folder = store_path / "searches" / "chosen" / "trials"
    assert all(len(json.loads(file.read_text())["history"]) == 2 for file in folder.glob("*.json"))
    assert [fault for checked in check(open_store(store_path)) for fault in checked.faults] == []
    listed = json.loads(run_cli("store", "ls", "--format", "json", "--store", store_path).stdout)
    assert {"name": "chosen", "trials": 3}.items() <= next(
        one for one in listed["searches"] if one["name"] == "chosen"
    ).items()


def test_a_second_launch_runs_nothing_and_lets_go_of_nothing(chosen, launch, space):
    done = launch("--space", space, "--name", "chosen")
    assert done.returncode == 0, done.stderr
    assert "All trials of this search are finished already." in done.stdout
    assert "Let go" not in done.stdout


def test_a_search_that_needs_it_trains_it_again_which_is_forecast_and_said(
    chosen, launch, results_of, space, store_path
):
    results, _ = chosen
    (gone,) = keys(results) - set(results["tested"])
    paper = ("--space", space, "--name", "paper-of-three", "--protocol", "paper")
    planned = launch(*paper, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "3 more from the store" in planned.stdout or "from the store" in planned.stdout
    assert "In all 1 trainings" in planned.stdout
    done = launch(*paper)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    (said,) = [line for line in done.stdout.splitlines() if "Trained again" in line]
    assert gone in said
    again = results_of("paper-of-three")
    assert outcomes(again) == outcomes(results)
    assert set(again["tested"]) == keys(again) == with_student(store_path, again)


def test_it_stays_then_as_the_other_search_needs_it_until_that_is_removed(
    chosen, launch, results_of, space, store_path, run_cli
):
    results, _ = chosen
    assert launch("--space", space, "--name", "chosen").returncode == 0
    assert with_student(store_path, results) == keys(results)
    assert run_cli("store", "rm", "paper-of-three", "--yes", "--store", store_path).returncode == 0
    done = launch("--space", space, "--name", "chosen", "--keep-students", "all")
    assert done.returncode == 0, done.stderr
    assert with_student(store_path, results) == keys(results)
    done = launch("--space", space, "--name", "chosen")
    assert "Let go of 1 of 3 students" in done.stdout
    assert with_student(store_path, results) == set(results["tested"])
