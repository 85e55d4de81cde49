"""What a search trains anew once it has chosen: real launches, killed and resumed, and what they record."""

import contextlib
import json

import psutil
import pytest

from benchmarks.processes import Running, Search, held_against
from tests.search.conftest import TINY, runs_of, trial_runs

pytestmark = pytest.mark.slow

SPACE = """
confirm: {seeds: 2, cells: all}
controls: [half_longer, low_res_teacher, tuned_base]
explore:
  lambda_: [0, 2]
settings: {backbone: resnet18, batch_size: 25}
"""
ARMS = {"student", "plain", "half_longer", "low_res_teacher", "tuned_base"}
FRESH = [1000, 1001]


@pytest.fixture(scope="module")
def confirmed(launch, results_of, tmp_path_factory):
    """The results of a search that nobody disturbed."""
    space = tmp_path_factory.mktemp("confirming") / "anew.yaml"
    space.write_text(SPACE)
    done = launch("--space", space, "--name", "anew")
    assert done.returncode == 0, done.stdout + done.stderr
    return results_of("anew"), done.stdout, space


def test_only_what_is_trained_anew_meets_the_test_images(confirmed):
    listed, _, _ = confirmed
    by_stage = {stage: [] for stage in ("search", "confirm", "control")}
    for trial in listed["trials"]:
        assert trial["status"] == "FINISHED"
        by_stage[trial["stage"]].append(trial)
    assert [trial["config"]["lambda_"] for trial in by_stage["search"]] == [0, 2]
    assert len(by_stage["control"]) == 1  # plain training's own search: the λ = 0 point, and one more
    assert {trial["key"] for trial in by_stage["confirm"]} == set(listed["tested"])
    assert {trial["config"]["seed"] for trial in by_stage["confirm"]} == set(FRESH)
    assert {trial["config"]["seed"] for trial in by_stage["search"]} == {0}


def test_the_arms_differ_in_what_they_ask(confirmed):
    listed, _, _ = confirmed
    (cell,) = listed["confirmation"]
    trials = {trial["key"]: trial["config"] for trial in listed["trials"]}
    arms = {arm: [trials[key] for key in keys] for arm, keys in cell["arms"].items()}
    assert set(arms) == ARMS
    for configs in arms.values():
        assert [config["seed"] for config in configs] == FRESH
    student = arms["student"][0]
    expected = {
        "plain": {"lambda_": 0.0},
        "half_longer": {"lambda_": 0.0, "epochs": 3},
        "low_res_teacher": {"teacher_sees": "low_res"},
    }
    for arm, changes in expected.items():
        assert arms[arm][0] == student | changes
    tuned = {name for name, value in arms["tuned_base"][0].items() if value != student[name]}
    assert tuned <= {"lambda_", "learning_rate", "weight_decay"}
    assert [teacher["role"] for teacher in listed["teachers"]] == ["teacher", "base"]


def test_the_best_of_those_trained_anew_is_deployed(confirmed):
    listed, _, _ = confirmed
    arms = listed["confirmation"][0]["arms"]
    anew = {trial["key"]: trial for trial in listed["trials"] if trial["key"] in arms["student"] + arms["plain"]}
    best = anew[listed["best"]["key"]]
    assert best["metrics"]["val_accuracy"] == max(trial["metrics"]["val_accuracy"] for trial in anew.values())
    assert listed["best"]["test_accuracy"] == listed["tested"][best["key"]]


def test_mlflow_says_what_each_run_is_for(confirmed, store_path):
    listed, _, _ = confirmed
    runs = trial_runs(runs_of(store_path, "anew"))
    arms = {key: arm for arm, keys in listed["confirmation"][0]["arms"].items() for key in keys}
    assert {key: run.data.tags["dfd.stage"] for key, run in runs.items()} == {
        trial["key"]: trial["stage"] for trial in listed["trials"]
    }
    assert {key: run.data.tags["dfd.arm"] for key, run in runs.items() if "dfd.arm" in run.data.tags} == arms


def test_a_second_launch_has_nothing_left_and_a_changed_confirmation_is_another_search(confirmed, launch, results_of):
    listed, _, space = confirmed
    again = launch("--space", space, "--name", "anew")
    assert (again.returncode, again.stderr) == (0, "")
    assert "Starting Ray" not in again.stdout
    assert results_of("anew") | {"state": listed["state"]} == listed  # whose last process was another one
    refused = launch("--space", space, "--name", "anew", "--confirm-seeds", 3)
    assert refused.returncode == 2
    assert "confirm: seeds was 2, now 3" in refused.stderr


@pytest.fixture
def start(home, ray_token, ray_variables):
    """Start `dfd-tune ARGUMENTS...` in a process of its own, which joins the Ray of all tests."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            running = Running(*arguments, home=home, **ray_token, **ray_variables)
            stack.callback(running.end)
            return running

        yield start


def test_kills_of_a_trial_and_of_the_driver_while_it_confirms_cost_nothing(
    confirmed, start, run_cli, ray_variables, store_path, tmp_path
):
    listed, _, space = confirmed
    search, undisturbed = Search(tmp_path / "store", "anew"), Search(store_path, "anew")
    running = start("launch", "--dataset", "digits", "--space", space, "--name", "anew", "--store", search.store, *TINY)

    def finished(stage):
        return {
            key: record
            for key, record in search.records().items()
            if (record["stage"], record["status"]) == (stage, "FINISHED")
        }

    (first, *_) = running.until(lambda: finished("search"), "finished trial")
    # The process of that trial, which by now is at its next job or waits for one.
    process = psutil.Process(search.log(first).processes[-1])
    assert process.name().startswith("ray::"), "a process of the tests' Ray"
    process.kill()
    running.until(lambda: finished("confirm"), "trial that was finished anew")
    running.kill()
    before = finished("search") | finished("confirm")
    resumed = run_cli("resume", "anew", "--store", search.store, **ray_variables)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    verdict = held_against(search, undisturbed, f"sqlite:///{search.store}/mlflow.db")
    assert verdict.problems == []
    after = search.records()
    assert {key: after[key]["ended"] for key in before} == {key: before[key]["ended"] for key in before}
    found = json.loads(run_cli("results", "anew", "--store", search.store, "--format", "json").stdout)
    assert found["confirmation"] == listed["confirmation"]
    assert found["tested"] == listed["tested"]
    own = {name: found["best"][name] for name in ("model", "cost")}  # latencies are never the same twice
    assert found["best"] == listed["best"] | own
    measured = {name for name in own["cost"] if name.endswith("_seconds")}
    assert {own["cost"][name] == listed["best"]["cost"][name] for name in own["cost"].keys() - measured} == {True}


def test_a_pipeline_is_replicated_with_its_teacher(launch, results_of, tmp_path):
    space = tmp_path / "pipeline.yaml"
    space.write_text(SPACE.replace("[half_longer, low_res_teacher, tuned_base]", "[]"))
    # A rate of its own: of trials that the store has already, no teacher is needed.
    done = launch("--space", space, "--name", "pipeline", "--replicate", "pipeline", "--set", "learning_rate=0.03")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = results_of("pipeline")
    assert len(listed["teachers"]) == 3
    assert all(teacher["test_accuracy"] is not None for teacher in listed["teachers"])
    trials = {trial["key"]: trial for trial in listed["trials"]}
    students = [trials[key] for key in listed["confirmation"][0]["arms"]["student"]]
    assert [trial["config"]["teacher_seed"] for trial in students] == FRESH
    assert len({trial["teacher"] for trial in students}) == 2
    assert {trial["teacher"] for trial in students} < {teacher["key"] for teacher in listed["teachers"]}
