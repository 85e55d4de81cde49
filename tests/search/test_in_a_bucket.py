"""A whole search in a bucket: launched on the Ray of all tests, then read from another machine's cache."""

import json

import numpy as np
import pytest
from PIL import Image

import dfd_tune
from benchmarks.s3 import KEY, SECRET, VARIABLES
from tests.search.conftest import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SPACE = """
description: plain and distilled
confirm: {seeds: 0}
explore: {lambda_: [0, 2]}
settings: {backbone: alexnet, batch_size: 25, reduction: mean, batch_norm: false}
"""


@pytest.fixture(scope="module")
def launched(s3_server, run_cli, ray_variables, tmp_path_factory):
    """The store's address, and a function that runs a command on it from one machine or another."""
    home = tmp_path_factory.mktemp("bucket")
    (home / "space.yaml").write_text(SPACE)
    address = s3_server.address("launched")

    def run(*arguments, machine="a", **variables):
        cache = str(home / f"cache-{machine}")
        return run_cli(*arguments, "--store", address, DFD_TUNE_CACHE=cache, **VARIABLES, **variables)

    launch = ("launch", "--dataset", "digits", "--space", home / "space.yaml", "--name", "mine", *TINY)
    done = run(*launch, **ray_variables)
    assert done.returncode == 0, done.stdout + done.stderr
    again = run(*launch, machine="b", **ray_variables)
    assert again.returncode == 0, again.stdout + again.stderr
    return address, run, home, done.stdout + done.stderr + again.stdout + again.stderr


def test_a_finished_search_is_not_run_again_from_elsewhere(launched):
    assert "finished already" in launched[3]


def test_what_it_found_is_read_from_elsewhere(launched):
    _, run, home, _ = launched
    done = run("results", "mine", "--format", "json", machine="c")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["state"]["how"] == "finished"
    assert [trial["status"] for trial in told["trials"]] == ["FINISHED"] * 2
    for name in ("report/report.html", "ranking.md", "trials.csv", "best/student.safetensors", "logs/ray.log"):
        assert list((home / "cache-c").glob(f"buckets/*/searches/mine/{name}")), name
    logs = run("logs", "mine", machine="c")
    assert logs.returncode == 0
    key = told["trials"][0]["key"]
    assert key in logs.stdout
    assert "attempt 1" in run("logs", "mine", key, machine="c").stdout
    again = run("report", "mine", machine="c")
    assert again.returncode == 0, again.stderr


def test_its_student_classifies_anywhere(launched):
    _, run, home, _ = launched
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(home / "image.png")
    done = run("predict", home / "image.png", "--model", "mine", machine="d")
    assert done.returncode == 0, done.stderr


def test_it_is_loaded_from_python(launched, s3):
    search = dfd_tune.load("mine", store=launched[0])
    assert [trial["status"] for trial in search.trials()] == ["FINISHED"] * 2
    assert search.best is not None
    assert search.report.is_file()


def test_credentials_are_in_no_file_and_no_message(launched, s3):
    address, run, home, said = launched
    run("results", "mine", machine="e")
    bucket = dfd_tune.load("mine", store=address).store.bucket
    contents = [bucket.read(*name.split("/")) for name in bucket.files()]
    contents += [file.read_bytes() for file in home.rglob("*") if file.is_file()]
    assert len(contents) > 100
    for secret in (KEY, SECRET):
        assert secret not in said
        assert not any(secret.encode() in content for content in contents)
