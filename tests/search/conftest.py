"""One real search, run once as a user does it, for many tests to look at; and launches on the one Ray."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TINY = ("--set", "train_images=100", "--set", "test_images=60", "--set", "width=0.125", "--set", "epochs=2")
SPACE = """
description: two backbones, plain and distilled
explore:
  backbone: [resnet18, alexnet]
  lambda_: [0, 2]
settings: {batch_size: 25, reduction: mean}
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


@pytest.fixture(scope="session")
def store_path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs") / "store"


@pytest.fixture(scope="session")
def search(run_process, store_path, tmp_path_factory) -> Search:
    """A search in a process of its own, which starts and stops a Ray of its own."""
    space = tmp_path_factory.mktemp("spaces") / "tiny.yaml"
    space.write_text(SPACE)
    arguments = ("launch", "--space", str(space), "--name", "tiny", "--store", str(store_path), *TINY)
    done = run_process(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", "a launch that goes well has nothing to complain of, nor have Ray and MLflow"
    return Search(store_path, "tiny", arguments, done.stdout)


@pytest.fixture(scope="session")
def launch(run_cli, ray_variables, store_path):
    """Run `dfd-tune launch ARGUMENTS...` on the one Ray, with the one store and few images."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_cli("launch", "--store", store_path, *TINY, *arguments, **ray_variables)

    return run


@pytest.fixture(scope="session")
def results_of(run_cli, store_path):
    """What `dfd-tune results NAME` says of a search in the one store."""

    def results(name: str) -> dict[str, Any]:
        done = run_cli("results", name, "--format", "json", "--store", store_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return results
