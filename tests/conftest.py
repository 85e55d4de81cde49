"""The command line in processes of its own, one Ray for many tests, and in which order tests run.

Two processes share the files of tests out among themselves (pytest-xdist); a session's fixtures are made once in each.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.s3 import VARIABLES, Server, serving

ROOT = Path(__file__).parent.parent
# Two processes of tests on two cores: one thread each. Read where torch is first imported, which is later.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read where Ray is first imported, by forked.py long before a launch sets it: under `uv run pytest`, Ray would set up
# the project anew for every worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# The tests start many processes, each of which would compile anew what no other may keep compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole searches first: their files take longest, and neither process shall wait for the other at the end."""
    items.sort(key=lambda item: ROOT / "tests" / "search" not in item.path.parents)


def environment(home: Path, **variables: str) -> dict[str, str]:
    """As a user's, but for what would tie the tests to this machine's settings."""
    ours = ("DFD_TUNE_STORE", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"HOME": str(home), "COLUMNS": "120", "PYTHONPATH": str(ROOT)} | variables


# What is ignored stays so in a child, and a background job ignores SIGINT: the child gets what a terminal's has.
DEFAULT_SIGNALS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", DEFAULT_SIGNALS, "-m", "dfd_tune.cli", *map(str, arguments)]


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def ray_token() -> dict[str, str]:
    """Environment variables by which a process may join the one Ray; set before Ray is imported, or not seen."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(16).hex()}


@pytest.fixture(scope="session")
def run_cli(home, ray_token, tmp_path_factory):
    """Run `dfd-tune ARGUMENTS...` in a process forked from one with all imports done (forked.py); else as run_process.

    Keyword arguments are environment variables.
    """
    folder = tmp_path_factory.mktemp("streams")
    with helper("forked.py", environment(home, OMP_NUM_THREADS="1", **ray_token)) as forks:

        def run(*arguments: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
            out, err = (Path(tempfile.mkstemp(dir=folder)[1]) for _ in range(2))
            order = {
                "argv": ["dfd-tune", *map(str, arguments)],
                "cwd": str(cwd or home),
                "environment": environment(home, **ray_token, **variables),
                "out": str(out),
                "err": str(err),
            }
            forks.stdin.write(json.dumps(order) + "\n")
            forks.stdin.flush()
            code = int(forks.stdout.readline())
            return subprocess.CompletedProcess(order["argv"], code, out.read_text(), err.read_text())

        yield run


@contextlib.contextmanager
def helper(file: str, variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A Python program of the tests; lasts until its standard input ends, which it does where these are killed too."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / file)],
        cwd=variables["HOME"],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=60)


@pytest.fixture(scope="session")
def run_process(home):
    """Run `dfd-tune ARGUMENTS...` as a user does, in a process of its own; returns the finished process."""

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
def start_cli(home):
    """Start `dfd-tune ARGUMENTS...` in a process group of its own; returns the running process."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*arguments),
            cwd=home,
            env=environment(home, PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[Server]:
    """An S3 server for all tests."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server, tmp_path, monkeypatch) -> Server:
    """The S3 server, with credentials for it in this process's environment, and a cache of the test's own."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DFD_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DFD_TUNE_CACHE_GB", raising=False)
    return s3_server


@pytest.fixture(scope="session")
def ray_variables(home, ray_token) -> Iterator[dict[str, str]]:
    """Environment variables under which a launch joins the one Ray cluster of all tests (one_ray.py)."""
    with helper("one_ray.py", environment(home, **ray_token, **VARIABLES)) as host:
        address = host.stdout.readline().strip()
        assert address, "Ray did not start"
        yield {"RAY_ADDRESS": address}


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """Mount a disk of so many bytes, in memory; skips where that may not be done."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        done = subprocess.run(words, capture_output=True, text=True) if shutil.which("mount") else None
        if done is None or done.returncode != 0:
            pytest.skip(f"no tmpfs can be mounted here: {'' if done is None else done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Take all room on a disk but for so many bytes; returns the file to delete."""
    filler, size, block = disk / "filler", 0, 16 << 20
    with filler.open("wb") as file:
        while block >= 1 << 12:  # in pieces, as others may write meanwhile
            free = os.statvfs(disk)
            if free.f_bavail * free.f_frsize - block < leave:
                block //= 2
                continue
            try:
                os.posix_fallocate(file.fileno(), size, block)
                size += block
            except OSError:
                block //= 2
    return filler
