"""One real search, run once as a user does it, for many tests to look at; and launches on the Ray of all tests."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

TINY = ("--set", "train_images=100", "--set", "test_images=60", "--set", "width=0.125", "--set", "epochs=2")
SPACE = """
description: two backbones, plain and distilled
confirm: {seeds: 0}
explore:
  backbone: [resnet18, alexnet]
  lambda_: [0, 2]
settings: {batch_size: 25, reduction: mean, batch_norm: false}
"""


@dataclass(frozen=True)
class Search:
    store: Path
    name: str
    arguments: tuple[str, ...]
    output: str

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{self.store}/mlflow.db"


def runs_of(store: Path, name: str) -> list[Run]:
    """A search's runs in its store's MLflow."""
    uri = f"sqlite:///{store}/mlflow.db"
    client = MlflowClient(uri, uri)
    return list(client.search_runs([client.get_experiment_by_name(name).experiment_id]))


def trial_runs(runs: list[Run]) -> dict[str, Run]:
    """Those of trials, by key."""
    return {run.data.tags["dfd.trial_key"]: run for run in runs if run.data.tags["dfd.kind"] == "trial"}


@pytest.fixture(scope="session")
def store_path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs") / "store"


@pytest.fixture(scope="session")
def search(run_process, store_path, tmp_path_factory) -> Search:
    """A search as a user runs it: a process of its own, which starts and stops a Ray of its own."""
    space = tmp_path_factory.mktemp("spaces") / "tiny.yaml"
    space.write_text(SPACE)
    arguments = (
        "launch",
        "--dataset",
        "digits",
        "--space",
        str(space),
        "--name",
        "tiny",
        "--store",
        str(store_path),
        *TINY,
    )
    done = run_process(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", "a launch that goes well has nothing to complain of, nor have Ray and MLflow"
    return Search(store_path, "tiny", arguments, done.stdout)


@pytest.fixture(scope="session")
def launch(run_cli, ray_variables, store_path):
    """Run `dfd-tune launch ARGUMENTS...` on the Ray and in the store of all tests and few images."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_cli("launch", "--dataset", "digits", "--store", store_path, *TINY, *arguments, **ray_variables)

    return run


@pytest.fixture(scope="session")
def results_of(run_cli, store_path):
    """What `dfd-tune results NAME` says of a search in the one store."""

    def results(name: str) -> dict[str, Any]:
        done = run_cli("results", name, "--format", "json", "--store", store_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return results
