"""Who runs a search, told of real processes, some of them killed."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dfd_tune.errors import UserError
from dfd_tune.liveness import State, as_they_are, ask_to_stop, running, state_of, stop_asked, who_asked
from dfd_tune.record import save_search
from dfd_tune.store import open_store
from tests.report.searches import make_request, make_search, make_trial

ROOT = Path(__file__).parent.parent
LAUNCH = """
    import sys, time
    from dfd_tune.liveness import running, stop_asked
    from dfd_tune.store import open_store
    store = open_store(sys.argv[1])
    with running(store, "s", print, beat_seconds=0.05):
        record = store.path("searches", "s", "search.json")
        record.write_text("{}")
        print("runs", flush=True)
        while not stop_asked(store, "s"):
            time.sleep(0.02)
        print("asked to stop", flush=True)
        raise KeyboardInterrupt
"""


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@contextlib.contextmanager
def another_launch(store):
    """A process that runs the search "s" until it is asked to stop, or killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LAUNCH), str(store.root)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "runs\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def record(store, name="s"):
    """The search's record, written by its launch."""
    save_search(store, make_search(make_request({"lambda_": [0, 1]}), {}, search=name))


def run_file(store):
    return store.path("searches", "s", "run.json")


def test_a_search_that_runs_and_is_then_killed(store):
    assert state_of(store, "s") == State("never")
    before = time.time()
    with another_launch(store) as process:
        state = state_of(store, "s")
        assert (state.kind, state.process.pid) == ("running", process.pid)
        assert before <= state.since <= time.time()
        began = json.loads(run_file(store).read_text())
        assert began["pid"] == process.pid
        assert began["process_started"] <= began["started"] <= began["heartbeat"]
        time.sleep(0.3)
        last = json.loads(run_file(store).read_text())["heartbeat"]
        assert last > began["heartbeat"]
        killed = time.time()
        process.send_signal(signal.SIGKILL)
        process.wait()
        state = state_of(store, "s")
        assert (state.kind, state.process.pid) == ("interrupted", process.pid)
        assert last <= state.since <= killed + 0.01
    said = []
    with running(store, "s", said.append):
        assert state_of(store, "s").process.pid == os.getpid()
        record(store)
    assert len(said) == 1
    assert state_of(store, "s").kind == "ended"


def test_a_second_launch_is_told_who_runs_the_search(store):
    with another_launch(store) as process:
        with pytest.raises(UserError) as caught, running(store, "s", print):
            pytest.fail("two launches of one search")
        (sentence,) = caught.value.problems
        assert f"process {process.pid} " in sentence
        assert json.loads(run_file(store).read_text())["pid"] == process.pid
        with running(store, "another", print):
            pass
    said = []
    with running(store, "s", said.append):  # a killed one keeps nobody out
        assert said


@pytest.mark.parametrize(
    ("error", "how"), [(None, "finished"), (KeyboardInterrupt, "stopped"), (RuntimeError, "failed")]
)
def test_how_a_search_ended(store, error, how):
    clock = iter(range(100, 1000)).__next__
    with contextlib.suppress(KeyboardInterrupt, RuntimeError), running(store, "s", print, clock=clock):
        record(store)
        if error is not None:
            raise error
    state = state_of(store, "s")
    assert (state.kind, state.how, state.process.pid) == ("ended", how, os.getpid())
    assert 100 < state.since < 110
    said = []
    with running(store, "s", said.append):
        record(store)
    assert not said


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt()])
def test_a_launch_that_is_refused_leaves_no_trace(store, error):
    with pytest.raises(type(error)), running(store, "s", print):
        raise error
    assert not store.path("searches").exists()
    assert state_of(store, "s") == State("never")


def test_a_refused_launch_leaves_the_end_of_the_one_before_as_it_was(store):
    with running(store, "s", print):
        record(store)
    before = state_of(store, "s")
    with pytest.raises(UserError), running(store, "s", print):
        raise UserError("another space")
    assert state_of(store, "s") == before
    assert before.how == "finished"


def test_a_search_is_asked_to_stop_by_another_process(store):
    with another_launch(store) as process:
        assert not stop_asked(store, "s")
        ask_to_stop(store, "s")
        output, _ = process.communicate(timeout=10)
        assert output == "asked to stop\n"
    assert state_of(store, "s").how == "stopped"
    assert not stop_asked(store, "s")


def test_a_stale_wish_to_stop_is_forgotten_by_the_next_launch(store):
    ask_to_stop(store, "s")
    assert str(os.getpid()) in who_asked(store, "s")
    with running(store, "s", print):
        assert not stop_asked(store, "s")
    assert who_asked(store, "s")


def test_states_are_never_mixed_up_while_launches_come_and_go(store):
    """Each launch begins and ends cleanly, so at no moment is the search interrupted."""
    over, seen = threading.Event(), set()

    def watch():
        while not over.is_set():
            seen.add(state_of(store, "s").kind)

    record(store)
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for _ in range(60):
            with running(store, "s", pytest.fail, beat_seconds=0.001):
                record(store)
                time.sleep(0.002)
    finally:
        over.set()
        thread.join()
    assert "running" in seen
    assert seen <= {"never", "running", "ended"}


def test_a_clock_that_goes_wrong_does_not_change_who_lives(store):
    with another_launch(store):
        for skew in (-1e6, 1e6):
            assert state_of(store, "s", clock=lambda skew=skew: time.time() + skew).kind == "running"


def test_where_there_are_no_locks_the_heartbeat_is_asked(store, monkeypatch):
    with another_launch(store) as process:

        def refuse(descriptor, operation):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", refuse)
        state = state_of(store, "s")
        assert (state.kind, state.process.pid) == ("running", process.pid)
        assert state_of(store, "s", clock=lambda: time.time() + 100).kind == "interrupted"
        with pytest.raises(UserError) as caught, running(store, "s", print):
            pytest.fail("nobody may go on without the lock")
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"host": 1}'])
def test_a_run_file_that_is_no_run_counts_as_none(store, content):
    record(store)
    run_file(store).write_text(content)
    assert state_of(store, "s") == State("never")
    with running(store, "s", pytest.fail):
        assert state_of(store, "s").kind == "running"


def test_trials_that_nobody_runs_are_interrupted():
    request = make_request({"lambda_": [0, 1, 2]})
    statuses = ("RUNNING", "FINISHED", "PENDING")
    trials = [make_trial(request, {"lambda_": weight}, 0.9, status=status) for weight, status in enumerate(statuses)]
    assert as_they_are(trials, State("running")) == trials
    for kind in ("interrupted", "ended", "never"):
        told = as_they_are(trials, State(kind))
        assert [trial.status for trial in told] == ["INTERRUPTED", "FINISHED", "PENDING"]
        assert [dataclasses.replace(trial, status="PENDING") for trial in told] == [
            dataclasses.replace(trial, status="PENDING") for trial in trials
        ]
