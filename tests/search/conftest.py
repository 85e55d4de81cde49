"""One real search, run once through the command line, for many tests to look at."""

from dataclasses import dataclass
from pathlib import Path

import pytest

TINY = ("--set", "train_images=100", "--set", "test_images=60", "--set", "width=0.125", "--set", "epochs=2")
SPACE = """
description: two backbones, plain and distilled
explore:
  backbone: [resnet18, alexnet]
  lambda_: [0, 2]
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
def search(run_cli, store_path, tmp_path_factory) -> Search:
    space = tmp_path_factory.mktemp("spaces") / "tiny.yaml"
    space.write_text(SPACE)
    arguments = ("launch", "--space", str(space), "--name", "tiny", "--store", str(store_path), *TINY)
    done = run_cli(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", "a launch that goes well has nothing to complain of, nor have Ray and MLflow"
    return Search(store_path, "tiny", arguments, done.stdout)
