"""Training from a node's copies: the same in every bit, none of it read from the store, and damage is noticed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import bits, run, trial, without_times, workbench

from dfd_tune.config import TrialConfig
from dfd_tune.data.arrow import DamagedFileError
from dfd_tune.distill.features import BankMismatchError
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.workbench import BankPlan, Workbench
from dfd_tune.store import Copies, FolderStore, Store, whole

KINDS = {
    "datasets": "train.arrow",
    "low_res": "train.npy",
    "pretrained": "network.safetensors",
    "banks": "features.npy",
}
"""What a training reads, and the file of it that is large."""


@pytest.fixture
def config() -> TrialConfig:
    return trial(student_start="base")


@pytest.fixture
def node(store, tmp_path) -> Store:
    """The store as a node sees it that keeps copies."""
    return dataclasses.replace(store, copies=Copies(tmp_path / "node"))


def bench_of(store: Store, config: TrialConfig) -> Workbench:
    """A process's workbench, with a bank for the teacher."""
    digest = workbench(store).dataset.digest
    return workbench(store, {config.teacher().key(digest): BankPlan("epochs", config.epochs)})


def prepare(store: Store, config: TrialConfig) -> list[tuple[bool, bool]]:
    """Which networks were trained and banks filled now."""
    bench = bench_of(store, config)
    return [bench.prepare(needed, SingleProcess())[1:] for needed in config.pretrained()]


def train(store: Store, config: TrialConfig) -> tuple[dict[str, bytes], list[dict[str, float]], Any]:
    student, result = run(config, bench_of(store, config))
    return bits(student), without_times(result.history), result.key


def large_files(store: Store, *kinds: str) -> Iterator[Path]:
    for kind in kinds or KINDS:
        yield from store.path(kind).glob(f"*/{KINDS[kind]}")


def scramble(file: Path) -> None:
    """Invert bytes in a file's middle, where its numbers lie: of equal size, it counts as whole."""
    content = np.fromfile(file, dtype=np.uint8)
    content[len(content) // 2 : len(content) * 2 // 3] ^= 255
    content.tofile(file)


def test_a_training_from_copies_is_the_same_and_reads_nothing_large_from_the_store(store, node, config):
    prepare(store, config)
    expected = train(store, config)
    assert train(node, config) == expected
    for file in large_files(store):
        scramble(file)
    assert train(node, config) == expected
    with pytest.raises((BankMismatchError, FileNotFoundError)):
        train(store, config)


def test_each_entry_that_a_training_reads_has_one_copy_that_a_second_process_uses(store, node, config):
    prepare(store, config)
    train(node, config)
    found = {note: note.stat().st_ino for note in node.copies.root.glob("*/copy.json")}
    read = [folder for kind in KINDS for folder in store.path(kind).iterdir()]
    assert sorted(path.name for note in found for path in note.parent.iterdir() if path.is_dir()) == sorted(
        folder.name for folder in read
    )
    train(node, config)
    assert {note: note.stat().st_ino for note in node.copies.root.glob("*/copy.json")} == found


def test_preparing_on_a_node_with_copies_writes_to_the_store(store, node, config):
    assert prepare(node, config) == [(True, True), (True, False)]
    assert prepare(store, config) == [(False, False), (False, False)]
    assert train(store, config) == train(node, config)


@pytest.mark.parametrize(
    ("kind", "made"),
    [("pretrained", [(True, False), (True, False)]), ("banks", [(False, True), (False, False)])],
)
def test_what_is_damaged_in_the_store_is_made_anew(kind, made, store, node, config):
    prepare(store, config)
    expected = train(store, config)
    for file in large_files(store, kind):
        scramble(file)
    assert prepare(node, config) == made
    assert train(node, config) == expected
    assert train(store, config) == expected


def test_damaged_pictures_are_taken_anew(store, node, config):
    prepare(store, config)
    expected = train(store, config)
    for file in large_files(store, "low_res"):
        scramble(file)
    assert train(node, config) == expected
    assert train(store, config) == expected


def test_a_damaged_dataset_is_refused(store, node):
    for file in large_files(store, "datasets"):
        scramble(file)
    workbench(store)  # which looks at sizes alone
    with pytest.raises(DamagedFileError):
        workbench(node)
    assert whole(store.path("datasets", "tiny"))


def train_on_a_node(_number: int, root: Path, copies: Path, config: TrialConfig) -> Any:
    return train(FolderStore(root, Copies(copies)), config)


def test_two_processes_of_a_node_train_from_the_same_copies(
    store, node, config, two_processes: Callable[..., list[Any]]
):
    prepare(store, config)
    assert two_processes(train_on_a_node, store.root, node.copies.root, config) == [train(store, config)] * 2
    assert len(list(node.copies.root.glob("*/copy.json"))) == sum(
        len(list(store.path(kind).iterdir())) for kind in KINDS
    )
