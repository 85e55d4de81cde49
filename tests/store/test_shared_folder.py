"""A folder that hosts share, simulated: no network's file system is mounted here, but what one does is done to calls.

Late visibility: a name that is there answers as if it were not, until its folder was listed. ESTALE: a read fails so
often. ENOLCK: locks are refused.
"""

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from dfd_tune.disk import in_words
from dfd_tune.errors import UserError
from dfd_tune.store import Store, files, in_folder, open_store, read_whole, whole, write_text


@pytest.fixture
def store(tmp_path) -> Store:
    made = open_store(tmp_path / "store")
    publish(made)
    return made


def publish(store: Store) -> None:
    with store.publish("pretrained", "k") as draft:
        write_text(draft / "network.json", "{}")


def test_an_entry_that_another_node_publishes_is_waited_for(tmp_path):
    """Published for real, a little later."""
    store = open_store(tmp_path / "store")
    other = threading.Timer(0.2, publish, [store])
    other.start()
    assert store.seen("pretrained", "k", patience=20.0)
    other.join()


def test_an_entry_that_this_node_remembers_as_missing_is_seen_once_its_folder_was_listed(store, monkeypatch):
    """A simulation of what NFS clients remember."""
    listed: list[object] = []
    real_exists, real_iterdir = Path.exists, Path.iterdir

    def exists(path):
        return bool(listed) and real_exists(path)

    def iterdir(path):
        listed.append(path)
        return real_iterdir(path)

    monkeypatch.setattr(Path, "exists", exists)
    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert store.seen("pretrained", "k", patience=20.0)
    assert listed == [store.path("pretrained")]


def test_what_is_not_there_counts_as_lost_after_a_bounded_while(store, monkeypatch):
    monkeypatch.setattr(in_folder, "LATE_PAUSES", (0.01, 0.02))
    began = time.monotonic()
    assert not store.seen("pretrained", "other", patience=0.1)
    assert time.monotonic() - began < 10
    assert not store.seen("nowhere", "k", patience=0.0)


class Stale:
    """A simulation of handles that a server knows no more: so many reads of a file fail."""

    def __init__(self, monkeypatch, times: int):
        self.left = times
        monkeypatch.setattr(files, "STALE_PAUSES", (0.0, 0.0, 0.0))
        self._real = {name: getattr(Path, name) for name in ("read_bytes", "read_text", "stat")}
        for name in self._real:
            monkeypatch.setattr(Path, name, self._of(name))

    def _of(self, name):
        def read(path, *arguments, **options):
            if self.left > 0:
                self.left -= 1
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
            return self._real[name](path, *arguments, **options)

        return read


READS = {
    "whole": lambda store: whole(store.path("pretrained", "k")),
    "a file": lambda store: read_whole(store.path("pretrained", "k"), "network.json"),
    "an entry": lambda store: store.content("pretrained", "k", "network.json"),
    "a record": lambda store: store.read_json("searches", "s", "search.json"),
    "its time": lambda store: store.changed("searches", "s", "search.json"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_stale_handle_is_tried_again_a_few_times_and_then_an_error(read, store, monkeypatch):
    """A simulation."""
    store.write_json({"a": 1}, "searches", "s", "search.json")
    expected = read(store)
    for times in (1, 3):
        with monkeypatch.context() as patch:
            stale = Stale(patch, times)
            assert read(store) == expected
            assert stale.left == 0
    with monkeypatch.context() as patch:
        Stale(patch, 1000)
        with pytest.raises(OSError) as caught:  # noqa: PT011
            read(store)
    assert "just now" in in_words(caught.value)
    assert store.whole("pretrained", "k")


def test_a_server_that_gives_no_locks_is_one_sentence_and_nothing_is_done_without(store, monkeypatch):
    """A simulation of `nolock`, or of a lock service that is away."""

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match="no file locks"):
        store.ensure("pretrained", "other", lambda folder: None, lambda folder: pytest.fail("made without a lock"))
