"""Locks, between real processes."""

import contextlib
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

from dfd_tune import locks
from dfd_tune.errors import UserError
from dfd_tune.locks import HeldError, NoLocksError, holder_of, holding, is_held
from dfd_tune.store import open_store

ROOT = Path(__file__).parent.parent
HOLDER = """
    import sys, time
    from pathlib import Path
    from dfd_tune.locks import holding
    with holding(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
"""


@contextlib.contextmanager
def another_holder(file):
    """A process that holds the lock until it is killed, at the end of the block at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(file)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_lock_is_held_by_one_and_says_by_whom(tmp_path):
    file = tmp_path / "a.b.lock"
    assert not is_held(file)
    before = time.time()
    with another_holder(file) as process:
        assert is_held(file)
        with pytest.raises(HeldError) as caught, holding(file, patience=0.1):
            pass
        holder = caught.value.holder
        assert holder == holder_of(file)
        assert holder.process.pid == process.pid
        assert before <= holder.since <= time.time()
        assert abs(holder.process.started - before) < 5
        assert str(process.pid) in str(holder)


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    file = tmp_path / "lock"
    with another_holder(file) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_held(file)
        with holding(file, patience=0.0):
            assert holder_of(file).process.pid == os.getpid()
    assert holder_of(file) is None


def test_threads_of_one_process_exclude_each_other_too(tmp_path):
    inside, most = [], []

    def run():
        with holding(tmp_path / "lock"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def asking(file, seconds, answers):
    """Threads that ask all the time whether the lock is held, for so long."""
    end = time.monotonic() + seconds

    def ask():
        while time.monotonic() < end:
            answers.add(is_held(file))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    return threads


def test_those_who_only_ask_do_not_take_each_other_for_a_holder(tmp_path):
    (tmp_path / "lock").touch()
    answers = set()
    for thread in asking(tmp_path / "lock", 0.3, answers):
        thread.join()
    assert answers == {False}


def test_who_only_asks_keeps_nobody_out_who_has_patience(tmp_path):
    (tmp_path / "lock").touch()
    threads, taken = asking(tmp_path / "lock", 0.7, set()), 0
    while any(thread.is_alive() for thread in threads):
        with holding(tmp_path / "lock", patience=1.0):
            taken += 1
    assert taken > 5


def test_a_long_wait_says_on_whom(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SAY_AFTER_SECONDS", 0.1)
    file = tmp_path / "teacher-k.lock"
    told = []
    with another_holder(file) as process:
        timer = threading.Timer(0.5, process.kill)
        timer.start()
        with holding(file, say=told.append):
            pass
    (line,) = told
    assert "teacher-k" in line
    assert str(process.pid) in line


def test_a_short_wait_says_nothing_and_without_a_listener_the_log_is_told(tmp_path, monkeypatch, caplog):
    file = tmp_path / "lock"
    with another_holder(file) as process:
        threading.Timer(0.2, process.kill).start()
        with holding(file):
            assert not caplog.records
    monkeypatch.setattr(locks, "SAY_AFTER_SECONDS", 0.0)
    with another_holder(file) as process:
        threading.Timer(0.2, process.kill).start()
        with holding(file):
            assert [record.name for record in caplog.records] == ["dfd_tune"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_folder_without_locks_is_refused_in_one_sentence(tmp_path, monkeypatch, code):
    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    store = open_store(tmp_path / "store")
    with pytest.raises(UserError) as caught, store.lease("teacher-k"):
        pytest.fail("nobody may go on without the lock")
    (sentence,) = caught.value.problems
    assert str(store.path("leases")) in sentence
    assert os.strerror(code) in sentence
    with pytest.raises(NoLocksError):
        is_held(store.path("leases", "teacher-k.lock"))
    monkeypatch.undo()
    with store.lease("teacher-k"):  # nothing is left that would block
        pass


def test_other_troubles_of_a_lock_are_not_taken_for_contention(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), holding(tmp_path / "lock"):
        pass


def test_a_lock_that_only_who_may_write_it_can_take_is_a_matter_of_permission(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises((PermissionError, UserError)), holding(tmp_path / "lock"):
        pass


def test_a_note_that_can_not_be_written_or_read_does_no_harm(tmp_path):
    file = tmp_path / "k.lock"
    (tmp_path / "k.holder").mkdir()
    with holding(file):
        assert holder_of(file) is None
    (tmp_path / "k.holder").rmdir()
    (tmp_path / "k.holder").write_text("{")
    assert holder_of(file) is None
    (tmp_path / "k.holder").write_text(json.dumps({"process": {"pid": 1}, "since": 0}))
    assert holder_of(file) is None


def test_leases_of_several_names_do_not_meet(tmp_path):
    store = open_store(tmp_path / "store")
    with store.lease("a"), store.lease("b"):
        assert sorted(path.name for path in store.path("leases").iterdir()) == [
            "a.holder",
            "a.lock",
            "b.holder",
            "b.lock",
        ]
    assert sorted(path.name for path in store.path("leases").iterdir()) == ["a.lock", "b.lock"]
