"""A search of two objectives under a condition, run for real: its front, another choice, and more points later."""

import pytest

from tests.search.conftest import runs_of, trial_runs

pytestmark = pytest.mark.slow

SPACE = """
confirm: {{seeds: 0}}
sampler: grid
objectives: [accuracy, parameters]
explore:
  backbone: [resnet18, alexnet]
  dropout: {{values: {dropouts}, when: {{backbone: alexnet}}}}
  lambda_: [0]
settings: {{batch_size: 25, batch_norm: false, seed: 3}}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return tmp_path_factory.mktemp("fronts") / "fronts.yaml"


@pytest.fixture(scope="module")
def first(launch, space):
    space.write_text(SPACE.format(dropouts="[0.0]"))
    done = launch("--space", space, "--name", "fronts")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def by_backbone(listed):
    return {trial["config"]["backbone"]: trial for trial in listed["trials"]}


def test_the_front_stands_in_results_report_and_mlflow(first, results_of, store_path):
    listed = results_of("fronts")
    trials = by_backbone(listed)
    assert trials.keys() == {"resnet18", "alexnet"}
    assert all(trial["metrics"]["parameters"] > 1000 for trial in trials.values())
    assert listed["best"]["cost"]["parameters"] == trials[listed["best"]["config"]["backbone"]]["metrics"]["parameters"]
    on_front = {key for point in listed["front"] for key in point["trials"]}
    smallest = min(trials.values(), key=lambda trial: trial["metrics"]["parameters"])
    assert {smallest["key"], listed["best"]["key"]} <= on_front
    assert list((store_path / "searches" / "fronts" / "report").rglob("front.png"))
    runs = trial_runs(runs_of(store_path, "fronts"))
    assert {key for key, run in runs.items() if run.data.tags.get("dfd.front") == "true"} == on_front
    assert all(run.data.metrics["parameters"] > 1000 for run in runs.values())


def test_a_limit_chooses_the_smaller_one_and_trains_nothing(first, run_cli, ray_variables, results_of, store_path):
    trials = by_backbone(results_of("fronts"))
    small, large = sorted(trials.values(), key=lambda trial: trial["metrics"]["parameters"])
    limit = f"front:parameters<={large['metrics']['parameters'] - 1:.0f}"
    store = ("--store", store_path)
    again = run_cli("resume", "fronts", "--choose", limit, *store, **ray_variables)
    assert again.returncode == 0, again.stdout + again.stderr
    listed = results_of("fronts")
    assert listed["best"]["key"] == small["key"]
    assert listed["choose"] == limit
    assert {trial["key"]: trial["metrics"]["seconds"] for trial in listed["trials"]} == {
        trial["key"]: trial["metrics"]["seconds"] for trial in trials.values()
    }
    none = run_cli("resume", "fronts", "--choose", "front:parameters<=1", *store, **ray_variables)
    assert none.returncode == 0
    assert "Nothing is chosen" in none.stdout
    wrong = run_cli("resume", "fronts", "--choose", "front:size<=1", *store, **ray_variables)
    assert wrong.returncode == 2
    assert run_cli("resume", "fronts", "--choose", "accuracy", *store, **ray_variables).returncode == 0


def test_more_points_come_under_the_same_name_where_that_is_asked_for(first, launch, space, results_of):
    before = {trial["key"] for trial in results_of("fronts")["trials"]}
    space.write_text(SPACE.format(dropouts="[0.0, 0.5]"))
    refused = launch("--space", space, "--name", "fronts")
    assert refused.returncode == 2
    assert "--extend" in refused.stderr
    done = launch("--space", space, "--name", "fronts", "--extend")
    assert done.returncode == 0, done.stdout + done.stderr
    trials = results_of("fronts")["trials"]
    assert before < {trial["key"] for trial in trials}
    assert [trial["config"]["dropout"] for trial in trials if trial["key"] not in before] == [0.5]
    space.write_text(SPACE.format(dropouts="[0.5]"))
    assert launch("--space", space, "--name", "fronts", "--extend").returncode == 2
