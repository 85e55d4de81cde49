"""A search on several Ray nodes: some join, some leave, an autoscaler makes some; trials that fit nowhere, and tokens.

Each node is real processes on this machine.
"""

import json
import subprocess
import time

import pytest

from tests.conftest import command, environment
from tests.search.clusters import local_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TINY = ("train_images=100", "test_images=60", "width=0.125", "backbone=alexnet", "lambda_=0")
PATIENCE_SECONDS = 400


@pytest.fixture
def environment_of(tmp_path):
    """The environment of a launch on a cluster."""

    def environment_of(address, **more):
        return environment(tmp_path) | {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled", **more}

    return environment_of


def start(words, environment):
    return subprocess.Popen(
        command(*words), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(words, environment):
    return subprocess.run(command(*words), env=environment, capture_output=True, text=True, timeout=300)


def arguments(space, name, store, *more):
    sets = [word for assignment in TINY for word in ("--set", assignment)]
    return ("launch", "--dataset", "digits", "--space", space, "--name", name, "--store", store, *sets, *more)


def write_space(tmp_path, text):
    space = tmp_path / "space.yaml"
    space.write_text(text)
    return space


def records(store, name):
    return [json.loads(file.read_text()) for file in (store / "searches" / name / "trials").glob("[!.]*.json")]


def wait_until(true, process):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if true():
            return
        assert process.poll() is None, process.communicate(timeout=10)[0]
        time.sleep(0.2)
    raise AssertionError("it did not come about")


@pytest.mark.long
def test_a_node_that_joins_gets_work_and_one_that_leaves_is_not_waited_for(environment_of, tmp_path):
    store = tmp_path / "store"
    space = write_space(tmp_path, "confirm: {seeds: 0}\nexplore:\n  seed: [0, 1, 2]\nsettings: {epochs: 1500}\n")
    with local_cluster(1) as cluster:
        process = start(
            arguments(space, "grows", store, "--checkpoint-seconds", "0.5"), environment_of(cluster.address)
        )

        def running():
            return sum(record["status"] == "RUNNING" for record in records(store, "grows"))

        wait_until(lambda: running() == 1, process)
        node = cluster.add_node(1)
        wait_until(lambda: running() == 2, process)
        wait_until(lambda: len(list((store / "checkpoints").glob("trials-*/0*"))) >= 2, process)
        cluster.remove_node(node)
        output = process.communicate(timeout=PATIENCE_SECONDS)[0]
    assert process.returncode == 0, output
    assert [record["status"] for record in records(store, "grows")] == ["FINISHED"] * 3
    assert sorted(record["attempts"] for record in records(store, "grows")) == [1, 1, 2]
    lines = output.splitlines()
    assert sum("joined" in line for line in lines) == 1
    assert sum("was lost; its jobs" in line for line in lines) == 1
    assert max(map(len, lines)) < 400, "no dump of Ray's"
    assert not list((store / "checkpoints").glob("trials-*")), "a published result leaves no checkpoint"


def test_an_autoscaler_makes_the_node_that_a_trial_needs(environment_of, tmp_path):
    store = tmp_path / "store"
    space = write_space(tmp_path, "confirm: {seeds: 0}\nexplore:\n  seed: [0, 1]\nsettings: {epochs: 2}\n")
    large = {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2}
    with local_cluster(1, worker_types={"large": large}) as cluster:
        done = run(arguments(space, "scales", store, "--cpus-per-worker", "2"), environment_of(cluster.address))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record["status"] for record in records(store, "scales")] == ["FINISHED"] * 2
    assert "joined: 2 CPUs" in done.stdout


def test_a_trial_is_held_against_the_largest_node(environment_of, tmp_path):
    space = write_space(tmp_path, "confirm: {seeds: 0}\nexplore:\n  seed: [0, 1]\n")
    with local_cluster(2) as cluster:
        for _ in range(2):
            cluster.add_node(2)
        words = arguments(space, "large", tmp_path / "store", "--cpus-per-worker", "3")
        done = run(words, environment_of(cluster.address))
    assert done.returncode == 2
    assert "3 CPU" in done.stderr
    assert "--cpus-per-worker" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_cluster_that_wants_a_token_says_so(environment_of, tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    space = write_space(tmp_path, "confirm: {seeds: 0}\nexplore:\n  seed: [0, 1]\n")
    with local_cluster(1, environment={"RAY_AUTH_MODE": "token"}) as cluster:
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        done = run(arguments(space, "token", tmp_path / "store"), environment_of(cluster.address))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert "token" in line
    assert cluster.address in line


@pytest.mark.parametrize(
    ("address", "words"),
    [("ray://127.0.0.1:10001", "Ray Client"), ("127.0.0.1:1", "no Ray cluster answers there")],
)
def test_an_address_that_is_none_says_why(environment_of, tmp_path, address, words):
    space = write_space(tmp_path, "confirm: {seeds: 0}\nexplore:\n  seed: [0, 1]\n")
    done = run(arguments(space, "nowhere", tmp_path / "store"), environment_of(address))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert words in line
