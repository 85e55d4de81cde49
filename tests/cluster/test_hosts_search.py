"""Searches on clusters of SSH hosts, from a laptop: equal to local ones, whatever happens to the hosts."""

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.processes import Search, held_against, outcome_of, wait_for
from tests.cluster.hosts import Host, Hosts, what_is_missing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing())),
    pytest.mark.timeout(1500),
]
TOKEN = "fedcba9876543210" * 4
SETTINGS = "settings: {backbone: alexnet, width: 0.25, train_images: 300, test_images: 100, teacher_epochs: 20"
SHORT = f"confirm: {{seeds: 0}}\nexplore: {{lambda_: [0, 1], seed: [0, 1, 2, 3]}}\n{SETTINGS}, epochs: 60}}\n"
"""Four trials of λ = 0 and a teacher at the start: whatever the number of nodes, each of them gets one CPU."""
MANY = "explore: {lambda_: [0, 0.5, 1, 2], seed: [0, 1, 2, 3, 4, 5]}"
LONG = f"confirm: {{seeds: 0}}\n{MANY}\n{SETTINGS}, epochs: 150}}\n"
GROUP = f"confirm: {{seeds: 0}}\nexplore: {{lambda_: [0, 1]}}\n{SETTINGS}, epochs: 6}}\n"


@dataclass
class Laptop:
    """A user's machine: a home, a cluster file, and commands that are run there."""

    hosts: Hosts
    variables: dict[str, str]
    file: Path
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def there(self) -> Path:
        """The store on the cluster."""
        return self.hosts.shared / "store"

    @property
    def here(self) -> Path:
        """The laptop's own store."""
        return self.folder / "store"

    def start(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Start `dfd-tune ARGUMENTS...`; what it prints goes into one stream."""
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "dfd_tune.cli", *map(str, arguments)],
            env=self.variables | {"DFD_TUNE_STORE": str(self.here)} | variables,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: object, code: int = 0, timeout: float = 400, **variables: str) -> str:
        """Run it to its end, which has this exit code; returns what it printed."""
        process = self.start(*arguments, **variables)
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(process.communicate()[0]) from None
        assert process.returncode == code, said
        return said

    def launch(self, name: str, space: str, *more: object) -> tuple[object, ...]:
        """The words of a launch, but for where it runs."""
        file = self.folder / f"{hashlib.sha256(space.encode()).hexdigest()[:8]}.yaml"
        file.write_text(space)
        return ("launch", "--dataset", "digits", "--space", file, "--name", name, "--checkpoint-seconds", 1, *more)

    def on_cluster(self, file: Path | None = None, store: Path | None = None) -> tuple[object, ...]:
        """The words that have it run on the cluster."""
        return ("--cluster", file or self.file, "--cluster-store", store or self.there, "--device", "cpu", "--yes")

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture(scope="module")
def laptop(tmp_path_factory) -> Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("search")
    with Hosts(folder / "hosts", 3) as hosts:
        variables = hosts.laptop(token=TOKEN)
        file = hosts.write_cluster_file(folder / "cluster.yaml", "search")
        place = Laptop(hosts, variables, file, folder)
        yield place
        place.end()


@pytest.fixture(scope="module")
def locally(laptop) -> Callable[[str, str], Search]:
    """The same search without a cluster, run once a space."""
    known: dict[str, Search] = {}

    def search(space: str, *more: str) -> Search:
        if space not in known:
            store = laptop.folder / f"local-{len(known)}"
            # Not below the test's own folder: names of sockets are short.
            short = {"RAY_TMPDIR": "/tmp", "TMPDIR": "/tmp"}
            laptop.run(*laptop.launch("alone", space, "--device", "cpu", *more), "--store", store, **short)
            known[space] = Search(store, "alone")
        return known[space]

    return search


def hosts_of(search: Search) -> set[str]:
    return {record["host"] for record in search.records().values()}


def digests(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file()
    }


def held(search: Search, reference: Search) -> list[str]:
    """What is not as promised of a search on the cluster, against one that ran undisturbed on one machine."""
    return held_against(search, reference, f"sqlite:///{search.store}/mlflow.db").problems


def test_a_search_on_three_hosts_equals_one_on_this_machine(laptop, locally):
    said = laptop.run(*laptop.launch("calm", SHORT), *laptop.on_cluster())
    there, here = Search(laptop.there, "calm"), Search(laptop.here, "calm")
    # Short trials may all be done before the last host's processes have started.
    assert len(hosts_of(there)) >= 2
    assert held(there, locally(SHORT)) == []
    # One teacher, trained once in all.
    (network,) = (there.folder / "logs").glob("network-*.log")
    assert sorted(there.log(network.stem).trained) == list(range(1, 21))
    # What was brought is what is there.
    assert here.records() == there.records()
    assert {name: value for name, value in outcome_of(here).items() if name in ("tests", "best", "teachers")} == {
        name: value for name, value in outcome_of(there).items() if name in ("tests", "best", "teachers")
    }
    assert digests(here.folder / "report") == digests(there.folder / "report")
    assert "Report: " in said
    # Each host has its own copy of what its trials read.
    (prepared,) = (laptop.there / "datasets").iterdir()
    for host in (host for host in laptop.hosts.all if host.name in hosts_of(there)):
        listed = laptop.hosts.run(host, "sh", "-c", "cd /tmp/dfd-tune-copies && find . -name '*.*' | xargs sha256sum")
        found = {_in_store(name): digest for digest, name in map(str.split, listed.stdout.splitlines())}
        found = {name: digest for name, digest in found.items() if name.endswith((".arrow", ".npy"))}
        wanted = {
            str(file.relative_to(laptop.there)): hashlib.sha256(file.read_bytes()).hexdigest()
            for kind in ("datasets", "low_res", "banks")
            for file in (laptop.there / kind).glob("*/*")
            if file.suffix in (".arrow", ".npy")
        }
        assert f"datasets/{prepared.name}/train.arrow" in found
        assert found.items() <= wanted.items()


def _in_store(copy: str) -> str:
    """Which file of the store ./KIND-DIGEST/KEY/FILE is a copy of."""
    _, kind, *rest = copy.split("/")
    return "/".join([kind.rpartition("-")[0], *rest])


def test_what_was_brought_is_worked_with_as_ever(laptop):
    listed = json.loads(laptop.run("results", "calm", "--format", "json"))
    assert listed["state"]["kind"] == "ended"
    assert len(listed["trials"]) == 8
    report = laptop.here / "searches" / "calm" / "report"
    before = digests(report)
    laptop.run("report", "calm")
    assert {name: digest for name, digest in digests(report).items() if name.endswith(".csv")} == {
        name: digest for name, digest in before.items() if name.endswith(".csv")
    }
    assert digests(report).keys() == before.keys()
    predicted = json.loads(laptop.run("predict", next(report.rglob("*.png")), "--model", "calm", "--format", "json"))
    assert sum(predicted[0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_a_second_launch_sends_nothing_and_trains_nothing(laptop):
    there = Search(laptop.there, "calm")
    before = {name: log.trained for name, log in there.logs().items()}
    said = laptop.run(*laptop.launch("calm", SHORT), *laptop.on_cluster())
    assert "is up" in said
    assert "Sending" not in said
    assert {name: log.trained for name, log in there.logs().items()} == before


@pytest.mark.long
def test_hosts_are_killed_cut_off_healed_and_added_and_nothing_is_lost(laptop, locally):
    hosts, search = laptop.hosts, Search(laptop.there, "storm")
    launch = laptop.start(*laptop.launch("storm", LONG), *laptop.on_cluster())
    said: list[str] = []
    with _reading(launch, said):
        second, third = hosts.all[1:3]
        wait_for(lambda: _at_work(search), "a trial in training")
        added = hosts.add()
        _join(hosts, added)
        wait_for(lambda: added.name in hosts_of(search), "work on the host that was added")
        wait_for(lambda: third.name in _at_work(search), "work on the third host")
        hosts.cut(third)
        _wait_for_line(said, f"Node {third.name} ")
        hosts.heal(third)
        wait_for(lambda: second.name in _at_work(search), "work on the second host")
        hosts.kill(second)
        _wait_for_line(said, f"Node {second.name} ")
        assert launch.wait(400) == 0, "\n".join(said)
    assert held(search, locally(LONG)) == []
    assert search.statuses() == {"FINISHED": 24}
    assert Search(laptop.here, "storm").records() == search.records()


@pytest.mark.long
def test_the_head_is_killed_and_another_cluster_goes_on(laptop, locally):
    # In a store of its own, as another one holds these trials' results already.
    hosts, store = laptop.hosts, laptop.hosts.shared / "another"
    search = Search(store, "headless")
    launch = laptop.start(*laptop.launch("headless", LONG), *laptop.on_cluster(store=store))
    with _reading(launch, []):
        wait_for(lambda: search.statuses()["FINISHED"] >= 2 and _at_work(search), "finished trials")
        hosts.kill(hosts.head)
        launch.kill()
    before = search.statuses()["FINISHED"]
    file = hosts.write_cluster_file(laptop.folder / "second.yaml", "second")
    said = laptop.run("resume", "headless", "--cluster", file, "--cluster-store", store, "--yes")
    assert before >= 2
    assert search.statuses() == {"FINISHED": 24}, said
    assert held(search, locally(LONG)) == []
    laptop.run("cluster", "down", file, "--yes")
    assert all(hosts.ray_processes(host) == [] for host in hosts.all)


@pytest.mark.long
def test_a_group_of_two_workers_on_two_hosts_learns_what_one_worker_learns(laptop, locally):
    hosts = laptop.hosts
    file = hosts.write_cluster_file(laptop.folder / "narrow.yaml", "narrow", cpus=1)
    laptop.run(*laptop.launch("pair", GROUP, "--workers-per-trial", 2), *laptop.on_cluster(file), "--down-after")
    found = {record["config"]["lambda_"]: record for record in Search(laptop.there, "pair").records().values()}
    alone = {record["config"]["lambda_"]: record for record in locally(GROUP).records().values()}
    for lambda_ in (0, 1):
        assert found[lambda_]["status"] == "FINISHED"
        ours, theirs = ([epoch["loss"] for epoch in one[lambda_]["history"]] for one in (found, alone))
        assert ours == pytest.approx(theirs, rel=1e-2)
    assert all(hosts.ray_processes(host) == [] for host in hosts.all)


def _at_work(search: Search) -> set[str]:
    """Hosts of trials that are in training, with a checkpoint behind them."""
    kept = {place.name.removeprefix("trials-") for place in (search.store / "checkpoints").glob("trials-*")}
    return {
        record["host"]
        for key, record in search.records().items()
        if record["status"] == "RUNNING" and key in kept and record["host"]
    }


@contextlib.contextmanager
def _reading(process: subprocess.Popen[str], said: list[str]) -> Iterator[None]:
    """Collect the lines that a process prints, so that it never waits to be read."""

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.rstrip("\n"))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
        thread.join(20)


def _wait_for_line(said: list[str], beginning: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not any(line.startswith(beginning) for line in said):
        assert time.monotonic() < deadline, f"no line '{beginning}…' in\n" + "\n".join(said)
        time.sleep(0.2)


def _join(hosts: Hosts, host: Host) -> None:
    """What a person types on a host that is to join: the file's start command for workers."""
    hosts.run(host, "mkdir", "-p", "/root/.ray")
    hosts.run(host, "sh", "-c", f"umask 077; printf {TOKEN} > /root/.ray/auth_token")
    size = "--num-cpus=2 --memory=3000000000 --object-store-memory=200000000"
    started = hosts.run(
        host, "sh", "-c", f"RAY_AUTH_MODE=token ray start --address={hosts.head.ip}:6379 {size}", timeout=120
    )
    assert started.returncode == 0, started.stdout + started.stderr
