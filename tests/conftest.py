"""The command line as users run it: in a process of its own, with an empty home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def environment(home: Path) -> dict[str, str]:
    """As a user's, but for what would tie the tests to this machine's settings."""
    ours = ("DFD_TUNE_STORE", "RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"HOME": str(home), "COLUMNS": "120", "PYTHONPATH": str(ROOT)}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dfd_tune.cli", *map(str, arguments)]


@pytest.fixture(scope="session")
def run_cli(tmp_path_factory):
    """Run `dfd-tune ARGUMENTS...`; returns the finished process."""
    home = tmp_path_factory.mktemp("home")

    def run(*arguments: object, cwd: Path | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=cwd or home,
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def start_cli(tmp_path_factory):
    """Start `dfd-tune ARGUMENTS...` in a process group of its own; returns the running process."""
    home = tmp_path_factory.mktemp("home")

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*arguments),
            cwd=home,
            env=environment(home) | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start
