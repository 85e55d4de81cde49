"""What trainings write on a disk that is full, a real one in memory: an error of the disk, nothing left, and all as it
would have been once there is room."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny import bits, fresh_store, run, trial, without_times, workbench

from dfd_tune.config import DatasetConfig
from dfd_tune.data.cameras import camera_images
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.distill.checkpoints import Checkpoints, Snapshot
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import find_result, save_result
from dfd_tune.distill.workbench import BankPlan
from dfd_tune.errors import UserError
from dfd_tune.store import Store, open_store
from tests.conftest import fill

CONFIG = trial(width=0.5)
SIZE = 48 << 20


def pictures(store: Store) -> Any:
    return camera_images(store, workbench(store).dataset, CONFIG.camera, "train").tobytes()


def teacher(store: Store) -> Any:
    found, _, _ = workbench(store).prepare(CONFIG.teacher(), SingleProcess())
    return bits(found.network), without_times(found.history)


def bank(store: Store) -> Any:
    digest = workbench(store).dataset.digest
    bench = workbench(store, {CONFIG.teacher().key(digest): BankPlan("epochs", 200)})
    bench.prepare(CONFIG.teacher(), SingleProcess())
    return np.asarray(bench.features(CONFIG.teacher()).features).tobytes()


def student(store: Store) -> Any:
    bench = workbench(store)
    network, result = run(CONFIG, bench)
    save_result(network, result, CONFIG, bench)
    found = find_result(store, result.key)
    assert found is not None
    return bits(network), without_times(found.history)


def checkpoint(store: Store) -> Any:
    kept = Checkpoints(store, "trials-k", every_seconds=0.0)
    kept.save(Snapshot(1, {"weights": torch.arange(200_000, dtype=torch.float32)}, [{"epoch": 1.0}], 1.0))
    latest = kept.latest()
    assert latest is not None
    return latest.tensors["weights"].numpy().tobytes()


@pytest.mark.parametrize(
    ("what", "leave"),
    [(pictures, 0), (teacher, 20_000), (bank, 100_000), (student, 20_000), (checkpoint, 0), (checkpoint, 20_000)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_has_no_room_is_an_error_of_the_disk_and_comes_once_there_is(
    what: Callable[[Store], Any], leave: int, small_disk, tmp_path
):
    expected_in, store = fresh_store(tmp_path / "roomy"), fresh_store(small_disk(SIZE) / "store")
    if what in (bank, student):
        for place in (expected_in, store):
            teacher(place)
            pictures(place)
    filler = fill(store.root.parent, leave)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        what(store)
    assert caught.value.errno == errno.ENOSPC
    assert str(store.root) in str(caught.value.filename)
    assert [file for file in store.root.rglob(".*") if "leases" not in file.parts] == []
    filler.unlink()
    assert what(store) == what(expected_in)


def test_a_dataset_without_room_is_one_sentence(small_disk, tmp_path):
    config = DatasetConfig(dataset="digits")
    store = open_store(small_disk(1 << 20) / "store")
    filler = fill(store.root.parent, 30_000)
    with pytest.raises(UserError) as caught:
        prepare_dataset(config, store, print)
    (sentence,) = caught.value.problems
    assert "is full" in sentence
    assert str(store.path("datasets")) in sentence
    assert list(store.path("datasets").iterdir()) == []
    filler.unlink()
    found = prepare_dataset(config, store, print)
    assert found.digest == prepare_dataset(config, open_store(tmp_path / "roomy"), print).digest
