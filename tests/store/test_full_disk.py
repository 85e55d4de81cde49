"""A full disk, which is a real one in memory: one sentence with what is needed and what is free, and nothing left."""

import errno
import os
import sys

import numpy as np
import pytest

from dfd_tune.disk import in_words
from dfd_tune.errors import UserError
from dfd_tune.search.joblog import job_log, note
from dfd_tune.search.jobs import Attempt, Job
from dfd_tune.store import Copies, FolderStore, Store, files, open_store
from dfd_tune.store.arrays import mapped_array, new_array, write_array
from dfd_tune.tracking import open_tracker
from tests.conftest import fill
from tests.samples import digits_trial

ONE_MB = 1 << 20


def left(store: Store) -> list[str]:
    """Files in a store, but for lock files."""
    return sorted(str(file.relative_to(store.root)) for file in store.root.rglob("*") if file.is_file())


def test_an_array_that_has_no_room_is_refused_before_anything_is_written_into_it(small_disk):
    store = open_store(small_disk(4 * ONE_MB) / "store")

    def bank(rows):
        with store.publish("banks", "k") as draft:
            new_array(draft / "features.npy", np.float16, (rows, 1000, 1000))[:] = 2.0  # SIGBUS would end this process

    with pytest.raises(OSError) as caught:  # noqa: PT011
        bank(4)
    assert caught.value.errno == errno.ENOSPC
    sentence = in_words(caught.value)
    assert f"'{store.path('banks', 'k')}'" in sentence
    assert "'features.npy' needs 8.0 MB, and 4.2 MB were free" in sentence
    assert left(store) == []
    bank(1)
    assert mapped_array(store.path("banks", "k", "features.npy")).max() == 2.0


@pytest.mark.parametrize("reserves", [True, False])
def test_room_is_reserved_also_where_the_file_system_can_not(tmp_path, monkeypatch, reserves):
    def refuse(*arguments):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if not reserves:
        monkeypatch.setattr(files.os, "posix_fallocate", refuse)
    array = new_array(tmp_path / "a.npy", np.float32, (3, 500_000))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes
    array[:] = 3.0
    array.flush()
    write_array(tmp_path / "b.npy", np.asarray(array))
    assert np.array_equal(np.load(tmp_path / "b.npy"), np.full((3, 500_000), 3.0, np.float32))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_records_stay_as_they_were_and_can_be_written_once_there_is_room(small_disk):
    disk = small_disk(ONE_MB)
    store = open_store(disk / "store")
    store.write_json({"trial": "old"}, "searches", "s", "search.json")
    filler = fill(disk)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        store.write_json({"trial": "x" * 10_000}, "searches", "s", "search.json")
    assert f"The disk of '{store.path('searches', 's', 'search.json')}' is full" in in_words(caught.value)
    assert store.read_json("searches", "s", "search.json") == {"trial": "old"}
    filler.unlink()
    store.write_json({"trial": "new"}, "searches", "s", "search.json")
    assert store.read_json("searches", "s", "search.json") == {"trial": "new"}
    assert left(store) == ["searches/s/search.json"]


def test_a_nodes_disk_without_room_for_a_copy_says_what_it_needs(small_disk, tmp_path):
    store = FolderStore(open_store(tmp_path / "store").root, Copies(small_disk(ONE_MB) / "copies"))
    with store.publish("banks", "k") as draft:
        (draft / "features.npy").write_bytes(bytes(3_000_000))
    with pytest.raises(OSError) as caught, store.near("banks", "k"):  # noqa: PT011
        pass
    assert "needs 3.0 MB, beside 1.0 MB free" in in_words(caught.value)
    assert store.whole("banks", "k")


def test_a_job_goes_on_without_a_log_where_that_has_no_room(small_disk):
    disk = small_disk(ONE_MB)
    store = open_store(disk / "store")
    attempt = Attempt(job=Job(kind="trial", key="k", config=digits_trial()), number=1)
    fill(disk)
    outputs = [os.fstat(number).st_ino for number in (1, 2)]
    done = []
    with job_log(store, "s", attempt):
        note("a line")
        sys.stderr.flush()
        done.append(True)
    assert done == [True]
    assert [os.fstat(number).st_ino for number in (1, 2)] == outputs


def test_a_database_without_room_is_one_sentence(small_disk):
    disk = small_disk(ONE_MB)
    store = open_store(disk / "store")
    fill(disk)
    with pytest.raises(UserError) as caught:
        open_tracker(store, None)
    (sentence,) = caught.value.problems
    assert "mlflow.db" in sentence or str(store.root) in sentence
