"""A search on SSH hosts that share no folder: its store is in a bucket, which each host reaches by itself."""

import json
import time
from collections.abc import Iterator

import pytest

from benchmarks.processes import Search, wait_for
from dfd_tune.errors import UserError
from dfd_tune.record import load_search
from dfd_tune.store import Store, existing_store
from tests.cluster.hosts import Hosts, what_is_missing
from tests.cluster.s3 import SECRET, VARIABLES, address, serving
from tests.cluster.test_hosts_search import LONG, SHORT, TOKEN, Laptop, _reading, _wait_for_line

pytestmark = [
    pytest.mark.long,
    pytest.mark.hosts,
    pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing())),
    pytest.mark.timeout(1500),
]
CACHE = "/tmp/cache-of-this-host"


@pytest.fixture(scope="module")
def laptop(tmp_path_factory) -> Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("bucket")
    with Hosts(folder / "hosts", 3) as hosts:
        file = hosts.write_cluster_file(folder / "cluster.yaml", "bucket")
        own = " ".join(f"{name}={value}" for name, value in (VARIABLES | {"DFD_TUNE_CACHE": CACHE}).items())
        for host in hosts.all:  # where `ray start` finds them, and no cluster file names them
            hosts.run(host, "sh", "-c", f"echo export {own} >> /root/.bashrc")
        place = Laptop(hosts, hosts.laptop(token=TOKEN), file, folder)
        yield place
        place.end()


@pytest.fixture(scope="module")
def options(laptop) -> Iterator[str]:
    with serving(laptop.folder, str(laptop.hosts._subnet[1])) as found:
        yield found


@pytest.fixture
def mine(laptop, monkeypatch) -> dict[str, str]:
    """The credentials and cache of a laptop that has some; this process has them, too."""
    variables = VARIABLES | {"DFD_TUNE_CACHE": str(laptop.folder / "cache")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def local(laptop, space: str) -> Search:
    """The same search on this machine alone, in a folder."""
    store = laptop.folder / f"local-{len(space)}"
    if not store.exists():
        short = {"RAY_TMPDIR": "/tmp", "TMPDIR": "/tmp"}
        laptop.run(*laptop.launch("alone", space, "--device", "cpu"), "--store", store, **short)
    return Search(store, "alone")


def as_brought(store: Store, name: str) -> Search:
    """The search as this machine has it now."""
    load_search(store, name)
    return Search(store.root, name)


def same(search: Search, reference: Search) -> None:
    """What does not depend on clocks and hosts is equal."""
    ours, theirs = search.records(), reference.records()
    assert ours.keys() == theirs.keys()
    for key, record in ours.items():
        assert record["status"] == theirs[key]["status"] == "FINISHED"
        assert record["metrics"]["val_accuracy"] == theirs[key]["metrics"]["val_accuracy"]
    assert search.tests() == reference.tests()


def at_work(store: Store, name: str) -> set[str]:
    """Hosts of trials that are in training, with a checkpoint behind them."""
    time.sleep(0.5)  # each look takes the bucket dozens of requests
    kept = {place.removeprefix("trials-") for place in store.names("checkpoints")}
    try:
        records = as_brought(store, name).records()
    except UserError:  # it has no record yet
        return set()
    return {record["host"] for key, record in records.items() if record["status"] == "RUNNING" and key in kept}


def test_a_store_that_is_a_bucket_is_that_of_the_cluster_too(laptop, options, mine):
    there = address("straight", options)
    launch = laptop.launch("calm", SHORT, "--store", there, "--cluster", laptop.file, "--device", "cpu", "--yes")
    said = laptop.run(*launch, **mine)
    assert "Sending" not in said
    assert "Bringing" not in said
    search = as_brought(existing_store(there), "calm")
    same(search, local(laptop, SHORT))
    hosts = {record["host"] for record in search.records().values()}
    assert len(hosts) >= 2
    assert list(laptop.hosts.shared.iterdir()) == []
    # Straight from the bucket, with another cache: nothing of the cluster is asked.
    other = mine | {"DFD_TUNE_CACHE": str(laptop.folder / "another-cache")}
    listed = json.loads(laptop.run("results", "calm", "--format", "json", "--store", there, **other))
    assert len(listed["trials"]) == 8
    assert listed["state"]["how"] == "finished"
    assert "finished" in laptop.run("status", "calm", "--store", there, **other)
    # Each host that trained has copies of its own, and nothing wrote credentials down.
    for host in (host for host in laptop.hosts.all if host.name in hosts):
        assert "train.arrow" in laptop.hosts.run(host, "find", CACHE, "-name", "train.arrow").stdout
        found = laptop.hosts.run(host, "grep", "-rl", "--binary-files=text", SECRET, CACHE, "/tmp/ray", timeout=120)
        assert found.stdout == ""
    bucket = existing_store(there).bucket
    assert not [name for name in bucket.files() if SECRET.encode() in (bucket.read(*name.split("/")) or b"")]
    assert SECRET not in said


def test_a_host_is_killed_and_a_laptop_that_does_not_reach_the_bucket_is_brought_the_search(laptop, options, mine):
    there = address("far", options)
    # Moto asks nobody for credentials: what keeps this laptop from the bucket is that it may keep no copies.
    kept_out = {"DFD_TUNE_CACHE": "/proc/cache"}
    arguments = laptop.launch("storm", LONG, "--cluster", laptop.file, "--cluster-store", there)
    launch = laptop.start(*arguments, "--device", "cpu", "--yes", **kept_out)
    said: list[str] = []
    with _reading(launch, said):
        _wait_for_line(said, "Submitted as")
        store = existing_store(there)
        victim = laptop.hosts.all[1]
        wait_for(lambda: victim.name in at_work(store, "storm"), "work on the second host")
        laptop.hosts.kill(victim)
        _wait_for_line(said, f"Node {victim.name} ")
        assert launch.wait(600) == 0, "\n".join(said)
    assert any("through the head node" in line for line in said)
    assert any(line.startswith("Sending ") for line in said)
    same(as_brought(store, "storm"), local(laptop, LONG))
    assert Search(laptop.here, "storm").records() == as_brought(store, "storm").records()
    assert SECRET not in "\n".join(said)
    # From where the bucket is reached it is brought without the cluster.
    laptop.hosts.kill(laptop.hosts.head)
    fetched = laptop.run("fetch", "storm", "--cluster", laptop.file, "--cluster-store", there, **mine)
    assert "finished" in fetched
