"""Real processes, killed by a real SIGKILL in the midst of a search: it costs seconds, never results."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from benchmarks.processes import RayNodes, Running, Search, environment, free_port, held_against, tracked, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
"""Many starts of Ray in one test; a bound against hanging, on a machine that has other work."""
SPACE = """
description: plain and distilled
confirm: {seeds: 0}
explore:
  lambda_: [0, 1, 2]
settings:
  backbone: alexnet
"""
EPOCHS = 150
TINY = ("--set", "train_images=100", "--set", "test_images=60", "--set", "width=0.125", "--checkpoint-seconds", "0.3")
LONG = (*TINY, "--set", f"epochs={EPOCHS}", "--set", f"teacher_epochs={EPOCHS}")
"""So many epochs that a kill finds a training in its midst."""


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "space.yaml").write_text(SPACE)
    return folder


@pytest.fixture
def start(home) -> Iterator[Callable[..., Running]]:
    """Start `dfd-tune ARGUMENTS...`; what still runs at the end of the test is ended."""
    yield from _starting(home)


@pytest.fixture(scope="module")
def start_for_all(home) -> Iterator[Callable[..., Running]]:
    yield from _starting(home)


def _starting(home: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*arguments: object, **changes: str) -> Running:
        started.append(Running(*arguments, home=home, **changes))
        return started[-1]

    yield start
    for running in started:
        running.end()


def launch_of(search: Search, home: Path, *more: object) -> tuple[object, ...]:
    space = ("--space", home / "space.yaml")
    return ("launch", "--dataset", "digits", *space, "--name", search.name, "--store", search.store, *LONG, *more)


def database(search: Search) -> str:
    return f"sqlite:///{search.store}/mlflow.db"


def done(running: Running) -> str:
    """What a launch that goes well has printed."""
    assert running.ended() == 0, running.output
    assert "Traceback" not in running.output
    return running.output


@pytest.fixture(scope="session")
def undisturbed(home) -> Search:
    """The search that nobody killed, for all that were killed to be held against."""
    search = Search(home / "undisturbed", "plain")
    running = Running(*launch_of(search, home), home=home)
    try:
        done(running)
    finally:
        running.end()
    verdict = held_against(search, search, database(search))
    assert verdict.problems == []
    assert (verdict.epochs, verdict.repeated) == (4 * EPOCHS, 0)
    return search


def kill(pid: int, running: Running) -> None:
    """SIGKILL to a process that descends from a launch."""
    victim = running.family.member(pid)
    assert victim is not None, "a process of ours"
    victim.kill()


def at_work(running: Running) -> list[str]:
    """Names of the processes of a launch that are alive, but for Ray's agents: these outlive their raylet a while."""
    return [member.name() for member in running.family.look() if "Agent" not in member.name()]


def in_its_midst(search: Search, kind: str) -> str | None:
    """Key of a training that has a checkpoint and is far from its end."""
    key = search.checkpointed(kind)
    log = search.log(key if kind == "trials" else f"network-{key}")
    return key if key is not None and log.trained and max(log.trained) < 0.8 * EPOCHS else None


@pytest.fixture(scope="module")
def killed(home, start_for_all):
    """A search of which the teacher's process, a trial's and the driver were killed in the midst of their work."""
    search = Search(home / "killed", "plain")
    first = start_for_all(*launch_of(search, home))
    teacher = first.until(lambda: in_its_midst(search, "pretrained"), "teacher in training")
    kill(search.log(f"network-{teacher}").processes[-1], first)
    trial = first.until(lambda: in_its_midst(search, "trials"), "trial in training")
    kill(search.log(trial).processes[-1], first)
    first.until(lambda: search.records()[trial]["status"] == "PENDING", "lost attempt in the books")

    def one_done_and_one_in_training() -> str | None:
        return in_its_midst(search, "trials") if search.statuses()["FINISHED"] else None

    stopped_at = first.until(one_done_and_one_in_training, "trial in training beside a finished one")
    first.kill()
    before = search.records()
    wait_for(lambda: not at_work(first), "end of what the driver has started", 60)
    seen = start_for_all("results", search.name, "--format", "json", "--store", search.store)
    results = json.loads(done(seen))
    logs = search.logs()
    second = start_for_all("resume", search.name, "--store", search.store)
    done(second)
    return SimpleNamespace(
        search=search,
        teacher=teacher,
        trial=trial,
        stopped_at=stopped_at,
        before=before,
        results=results,
        logs=logs,
        output=first.output,
        output_of_second=second.output,
    )


def test_a_search_of_killed_processes_equals_one_that_nobody_killed(killed, undisturbed):
    verdict = held_against(killed.search, undisturbed, database(killed.search))
    assert verdict.problems == []
    assert verdict.epochs == 4 * EPOCHS


def test_a_killed_process_is_told_in_one_line_and_its_job_goes_on_from_its_checkpoint(killed):
    lines = [line for line in killed.output.splitlines() if "tried again" in line]
    assert len(lines) == 2, killed.output
    # Ray may tell of the two in either order.
    assert sum("Teacher alexnet" in line for line in lines) == 1
    assert all("killed" in line for line in lines)
    for name in (f"network-{killed.teacher}", killed.trial):
        log = killed.search.log(name)
        assert len(log.processes) >= 2
        assert sum(log.trained.values()) < 2 * EPOCHS
    attempts = {key: record["attempts"] for key, record in killed.search.records().items()}
    assert attempts[killed.trial] >= 2


def test_after_a_kill_of_the_driver_what_was_finished_is_not_run_again(killed):
    finished = {key for key, record in killed.before.items() if record["status"] == "FINISHED"}
    assert finished
    after = killed.search.records()
    for key in finished:
        assert after[key] == killed.before[key]
        assert killed.search.log(key) == killed.logs[key]
    assert after[killed.stopped_at]["attempts"] > killed.before[killed.stopped_at]["attempts"]
    assert "interrupted" in killed.output_of_second


def test_after_a_kill_of_the_driver_nothing_says_that_the_search_runs(killed):
    statuses = {trial["key"]: trial["status"] for trial in killed.results["trials"]}
    assert statuses[killed.stopped_at] == "INTERRUPTED"
    assert "RUNNING" not in statuses.values()


@pytest.mark.long
def test_a_killed_worker_of_a_group(home, start):
    group = (*TINY, "--set", f"epochs={EPOCHS}", "--set", "lambda_=0", "--workers-per-trial", "2")
    (home / "one.yaml").write_text(
        "confirm: {seeds: 0}\nexplore:\n  batch_size: [20]\nsettings:\n  backbone: alexnet\n"
    )
    searches = []
    for store in ("group", "killed-group"):
        search = Search(home / store, "group")
        running = start(
            "launch",
            "--dataset",
            "digits",
            "--space",
            home / "one.yaml",
            "--name",
            "group",
            "--store",
            search.store,
            *group,
        )
        if store == "killed-group":
            trial = running.until(lambda: in_its_midst(search, "trials"), "group in training")  # noqa: B023
            tune, *workers = search.log(trial).processes
            assert len(workers) == 2
            assert psutil.Process(workers[1]).name() != psutil.Process(tune).name()
            kill(workers[1], running)
        output = done(running)
        searches.append(search)
    verdict = held_against(searches[1], searches[0], database(searches[1]))
    assert verdict.problems == []
    assert len([line for line in output.splitlines() if "tried again" in line]) == 1
    assert searches[1].records()[trial]["attempts"] == 2


@pytest.mark.long
def test_a_killed_raylet_of_two(home, start):
    epochs = 800  # a worker of a node that is gone goes on for seconds: its trial must not end in them
    (home / "two.yaml").write_text(
        "confirm: {seeds: 0}\nexplore:\n  batch_size: [20, 25]\nsettings:\n  backbone: alexnet\n"
    )
    long = (*TINY, "--set", f"epochs={epochs}", "--set", "lambda_=0")
    meant, search = Search(home / "long", "two"), Search(home / "raylet", "two")
    with RayNodes() as nodes:
        nodes.add()

        def launch(where: Search) -> Running:
            arguments = (
                "launch",
                "--dataset",
                "digits",
                "--space",
                home / "two.yaml",
                "--name",
                "two",
                "--store",
                where.store,
                *long,
            )
            return start(*arguments, **nodes.environment)

        done(launch(meant))
        running = launch(search)

        def on_the_second_node() -> str | None:
            key = search.checkpointed("trials")
            member = nodes.family.member(search.log(key).processes[-1]) if key else None
            return key if member is not None and member.ppid() == nodes.raylets[0] else None

        trial = running.until(on_the_second_node, "trial on the second node")
        raylet = nodes.family.member(nodes.raylets[0])
        assert raylet is not None
        raylet.kill()
        running.until(lambda: "was lost" in running.output, "line for the lost node")
        nodes.add()
        output = done(running)
    assert held_against(search, meant, database(search)).problems == []
    record = search.records()[trial]
    assert (record["status"], record["attempts"]) == ("FINISHED", 2)
    assert len(search.log(trial).processes) == 2
    lines = output.splitlines()
    for words in ("was lost; its jobs", "joined", "tried again"):
        assert len([line for line in lines if words in line]) == 1, output
    assert len(lines) < 40, "no dump of Ray's state"
    assert max(map(len, lines)) < 200


@pytest.mark.long
def test_a_driver_killed_while_it_concludes(home, start, undisturbed):
    search = Search(home / "concluding", "plain")
    first = start(*launch_of(search, home))
    first.until(search.tests, "first network held against the test images")
    first.kill()
    wait_for(lambda: not at_work(first), "end of what the driver has started", 60)
    before, files = search.logs(), {file: file.stat().st_mtime_ns for file in search.folder.glob("tests/[!.]*.json")}
    assert files
    done(start("resume", search.name, "--store", search.store))
    assert held_against(search, undisturbed, database(search)).problems == []
    for file, written in files.items():
        assert file.stat().st_mtime_ns == written, "tested twice"
        logs = [name for name in before if name in (f"test-{file.stem}", f"reference-{file.stem}")]
        assert len(logs) == 1
        assert search.log(logs[0]) == before[logs[0]]
    assert [name for name in before if name in search.records()]
    for key in search.records():
        assert search.log(key) == before[key], "trained again"


class MlflowServer:
    """A real server on a port of its own, which can be away for a while."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        database = f"sqlite:///{self._folder}/server.db"
        where = ["--host", "127.0.0.1", "--port", str(self._port), "--backend-store-uri", database]
        where += ["--artifacts-destination", str(self._folder / "artifacts"), "--workers", "1"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *where],
            env=environment(self._folder, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(self._answers, "answer of the MLflow server", 120)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        assert self._process is not None
        family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        for child in family:
            if child.is_running():
                child.kill()


def test_an_mlflow_server_that_is_away_for_a_while(home, start, undisturbed, tmp_path):
    search = Search(home / "away", "plain")
    server = MlflowServer(tmp_path)
    server.start()
    try:
        running = start(*launch_of(search, home), "--mlflow-uri", server.uri)
        running.until(lambda: in_its_midst(search, "trials"), "trial in training")
        server.stop()
        running.until(lambda: search.statuses()["FINISHED"] >= 2, "two trials that finish meanwhile")
        server.start()
        output = done(running)
        assert "did not take" not in output
        assert held_against(search, undisturbed, server.uri).problems == []
        assert all(len(history) == EPOCHS for history in tracked(server.uri, search.name).histories.values())
    finally:
        server.stop()


def test_two_launches_of_one_name_and_a_lease_in_other_hands(home, start, undisturbed):
    """Another process holds the teacher's lease, so the first launch waits for it; the second is refused meanwhile."""
    search = Search(home / "twice", "plain")
    (teacher,) = (record["key"] for record in undisturbed.own()["teachers"])
    code = (
        "import sys, time\n"
        "from dfd_tune.store import open_store\n"
        "with open_store(sys.argv[1]).lease(sys.argv[2]):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(search.store), f"pretrained-{teacher}"],
        env=environment(home),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        first = start(*launch_of(search, home))
        waiting = first.until(
            lambda: [line for line in first.output.splitlines() if "Waiting for" in line], "line of whom it waits for"
        )
        assert len(waiting) == 1
        assert f"process {holder.pid} " in waiting[0]
        assert not list(search.store.glob("pretrained/*"))
        second = start(*launch_of(search, home))
        assert second.ended() == 2
        (refusal,) = [line for line in second.output.splitlines() if line.startswith("dfd-tune:")]
        assert f"process {first.process.pid} " in refusal
        assert os.uname().nodename in refusal
        assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", refusal)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        done(first)
    finally:
        holder.kill()
        holder.wait()
    assert held_against(search, undisturbed, database(search)).problems == []
    with (search.store / "leases" / f"pretrained-{teacher}.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
