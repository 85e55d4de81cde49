"""Searches on a cluster that is known by its job port alone, from submission to results, with a real one."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.processes import Search, wait_for
from tests.search.clusters import local_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
TOKEN, PASSWORD = "0f1e2d3c4b5a6978" * 4, "hunter2-for-mlflow"
SPACE = """
confirm: {seeds: 0}
explore: {lambda_: [0, 1]}
settings: {backbone: alexnet, width: 0.25, train_images: 200, test_images: 100, epochs: 1500, teacher_epochs: 2}
"""


@dataclass
class User:
    """Somebody elsewhere, with a home and a store, and the folder that the cluster's nodes see."""

    address: str
    home: Path
    there: Path | str

    def start(self, *arguments: object, token: str | None = TOKEN, **variables: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "DFD_", "MLFLOW_"))}
        if token is not None:
            variables["RAY_AUTH_TOKEN"] = token
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "dfd_tune.cli", *map(str, arguments)],
            env=clean | {"HOME": str(self.home), "DFD_TUNE_STORE": str(self.home / "store")} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: object, code: int = 0, **more: str | None) -> str:
        process = self.start(*arguments, **more)
        said = process.communicate(timeout=600)[0]
        assert process.returncode == code, said
        return said

    @property
    def where(self) -> tuple[object, ...]:
        return ("--address", self.address, "--cluster-store", self.there)

    def launch(self, *more: object) -> tuple[object, ...]:
        space = self.home / "space.yaml"
        space.write_text(SPACE)
        return (
            "launch",
            "--dataset",
            "digits",
            "--space",
            space,
            "--name",
            "far",
            "--device",
            "cpu",
            "--yes",
            *self.where,
            *more,
        )


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Iterator[User]:
    home = tmp_path_factory.mktemp("home")
    with local_cluster(2, environment={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}, job_port=True) as cluster:
        wait_for(lambda: answers(cluster.job_address), "the job port")
        yield User(cluster.job_address, home, tmp_path_factory.mktemp("cluster") / "store")


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def asked(user: User, path: str) -> str:
    request = urllib.request.Request(f"{user.address}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


@pytest.mark.long
def test_a_search_is_left_looked_at_stopped_and_gone_on_with(user):
    there = Search(user.there, "far")
    launch = user.start(*user.launch("--checkpoint-seconds", 1), MLFLOW_TRACKING_PASSWORD=PASSWORD)
    wait_for(lambda: there.checkpointed("trials"), "a trial in training")
    launch.send_signal(signal.SIGINT)
    said = launch.communicate(timeout=60)[0]
    assert launch.returncode == 0, said
    assert "Sending" in said
    # It runs on, and every command finds it.
    assert "RUNNING" in user.run("status", "far")
    refused = user.run(*user.launch(), code=2)
    assert "is being run already" in refused
    assert "RUNNING elsewhere" in user.run("fetch", "far") + user.run("results", "far")
    key = next(iter(there.records()))
    assert re.search(r"epoch +1\b|epoch 1", user.run("logs", "far", key[:8], *user.where))
    # Credentials have gone along, but stand in nothing that Ray tells of its jobs.
    (job,) = [job for job in json.loads(asked(user, "/api/jobs/")) if job["metadata"]["dfd_tune_verb"] == "launch"]
    assert PASSWORD not in json.dumps(job)
    assert PASSWORD not in asked(user, f"/api/jobs/{job['submission_id']}/logs")
    assert not any(PASSWORD in file.read_text(errors="replace") for file in there.folder.rglob("*.json"))
    # It ends gracefully, where it is.
    said = user.run("stop", "far", *user.where)
    assert there.statuses()["RUNNING"] == 0, said
    assert there.own()["best"] is None
    seen = there.checkpointed("trials")
    assert seen is not None
    said = user.run("resume", "far", *user.where, "--yes")
    assert there.statuses() == {"FINISHED": 2}, said
    assert min(there.log(seen).trained) == 1
    assert there.log(seen).repeated == 0
    here = Search(user.home / "store", "far")
    assert here.records() == there.records()
    assert here.own()["best"] == there.own()["best"]
    assert "finished" in user.run("status", "far")


@pytest.mark.long
def test_a_search_of_the_same_images_sends_nothing(user):
    assert "Sending" not in user.run(*user.launch())


def test_a_stop_of_rays_own_leaves_time_to_close_the_books(user):
    there = Search(user.there, "cut")
    user.run(*user.launch("--set", "seed=5", "--name", "cut", "--no-follow"))
    wait_for(lambda: there.statuses()["RUNNING"], "a trial that runs")
    launches = [
        job
        for job in json.loads(asked(user, "/api/jobs/"))
        if (job["metadata"]["dfd_tune_search"], job["metadata"]["dfd_tune_verb"]) == ("cut", "launch")
    ]
    request = urllib.request.Request(
        f"{user.address}/api/jobs/{launches[0]['submission_id']}/stop",
        method="POST",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    urllib.request.urlopen(request, timeout=20).close()
    run_file = there.folder / "run.json"
    wait_for(lambda: json.loads(run_file.read_text())["how"] == "stopped", "books that are closed")
    assert there.statuses()["RUNNING"] == 0


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_a_token_that_is_missing_or_wrong_is_one_sentence(user, token):
    said = user.run(*user.launch(), code=2, token=token).splitlines()[-1]
    assert "token is missing or wrong" in said


@pytest.mark.parametrize(
    ("address", "told"),
    [("http://127.0.0.1:9", "Nobody answers"), ("head:8265", "must be the address"), ("ray://head:10001", "must be")],
)
def test_an_address_where_no_cluster_is_is_one_sentence(user, address, told):
    said = user.run("status", "far", "--address", address, "--cluster-store", "/x", code=2)
    assert told in said
    assert len(said.splitlines()) == 1


def test_what_stands_against_a_search_is_said_before_it_is_submitted(user):
    before = asked(user, "/api/jobs/").count('"dfd_tune_verb": "launch"')
    said = user.run(*user.launch("--device", "cuda", "--name", "gpus"), code=2)
    assert "No node has a GPU" in said
    said = user.run(*user.launch("--name", "nowhere", "--cluster-store", "/proc/store"), code=2)
    assert "/proc/store" in said
    assert "Traceback" not in said
    assert asked(user, "/api/jobs/").count('"dfd_tune_verb": "launch"') == before
