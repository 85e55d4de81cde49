"""A search in a bucket whose driver is killed, and that another machine goes on with: nothing is lost."""

import os
import re
import signal

import pytest

from benchmarks.buckets import SearchInBucket
from benchmarks.processes import Running, Search, outcome_of, wait_for
from benchmarks.s3 import VARIABLES, Road
from dfd_tune.liveness import state_of
from dfd_tune.store import existing_store

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(1500)]
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


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bucket-kills")
    (folder / "space.yaml").write_text(SPACE)
    return folder


@pytest.fixture
def start(home):
    """Start `dfd-tune ARGUMENTS...` on one of several machines, told apart by their caches."""
    started = []

    def starting(*arguments, machine="a"):
        cache = str(home / f"cache-{machine}")
        started.append(Running(*arguments, home=home, DFD_TUNE_CACHE=cache, **VARIABLES))
        return started[-1]

    yield starting
    for running in started:
        running.end()


def launch_of(location, home, name="plain"):
    space = ("--space", home / "space.yaml")
    return ("launch", "--dataset", "digits", *space, "--name", name, "--store", location, *LONG)


def done(running):
    assert running.ended() == 0, running.output
    assert "Traceback" not in running.output
    return running.output


@pytest.fixture(scope="session")
def undisturbed(home):
    """The same search, in a folder."""
    running = Running(*launch_of(home / "undisturbed", home), home=home)
    try:
        done(running)
    finally:
        running.end()
    return outcome_of(Search(home / "undisturbed", "plain"))


def as_folder(address, tmp_path):
    return SearchInBucket.at(address, "plain", tmp_path / "cache").as_folder(tmp_path / "folder")


def checkpointed(store, kind):
    """A training of that kind that is under way."""
    return next((key for key in store.names("checkpoints") if key.startswith(kind)), None)


def is_run_by(store, running):
    state = state_of(store, "plain")
    return state.kind == "running" and state.process.pid == running.process.pid


def opened(address):
    try:
        return existing_store(address)
    except Exception:
        return None


def test_a_killed_driver_s_search_goes_on_from_another_machine(s3, home, start, undisturbed, tmp_path):
    address = s3.address("killed")
    first = start(*launch_of(address, home))
    store = first.until(lambda: opened(address), "store")
    first.until(lambda: checkpointed(store, "trials"), "checkpoint of a trial")
    for machine in ("a", "b"):
        second = start(*launch_of(address, home), machine=machine)
        assert second.ended() == 2, second.output
        assert f"process {first.process.pid} " in second.output
    first.kill()
    going_on = start("resume", "plain", "--store", address, machine="b")
    output = done(going_on)
    assert "interrupted" in output
    assert outcome_of(as_folder(address, tmp_path)) == undisturbed
    assert store.names("checkpoints") == []


def test_a_stop_from_another_machine_and_ctrl_c_keep_what_is_done(s3, home, start, undisturbed, tmp_path):
    address = s3.address("stopped")
    first = start(*launch_of(address, home))
    store = first.until(lambda: opened(address), "store")
    first.until(lambda: checkpointed(store, "pretrained"), "checkpoint of the teacher")
    assert "stopped" in done(start("stop", "plain", "--store", address, machine="b"))
    assert first.ended() == 130
    second = start("resume", "plain", "--store", address, machine="b")
    # There may be a checkpoint of a trial that the first launch ran, long before the second one listens to signals.
    second.until(lambda: is_run_by(store, second) and checkpointed(store, "trials"), "checkpoint of a trial")
    os.kill(second.process.pid, signal.SIGINT)
    assert second.ended() == 130, second.output
    done(start("resume", "plain", "--store", address, machine="a"))
    assert outcome_of(as_folder(address, tmp_path)) == undisturbed


def test_a_bucket_that_goes_away_ends_the_launch_with_a_sentence_and_loses_nothing(
    s3, home, start, undisturbed, tmp_path
):
    with Road(s3.port) as road:
        address = s3.address("away", port=road.port)
        first = start(*launch_of(address, home))
        store = first.until(lambda: opened(address), "store")
        first.until(lambda: checkpointed(store, "trials"), "checkpoint of a trial")
        road.close()
        assert first.ended() == 2, first.output
        assert "Traceback" not in first.output
        assert re.search(r"^dfd-tune: The store .*just now \(can't .*bucket-of-tests", first.output, re.MULTILINE)
        road.open()
        done(start("resume", "plain", "--store", address, machine="a"))
        assert outcome_of(as_folder(address, tmp_path)) == undisturbed


def test_two_searches_that_want_one_teacher_train_it_once(s3, home, start):
    address = s3.address("together")
    both = [start(*launch_of(address, home, name), machine=name) for name in ("one", "other")]
    for running in both:
        done(running)
    store = wait_for(lambda: opened(address), "store")
    trained = 0
    for name in ("one", "other"):
        store.pull("searches", name)
        for log in store.path("searches", name, "logs").glob("network-*.log"):
            trained += log.read_text().count("epoch 1:")
    assert trained == 1
