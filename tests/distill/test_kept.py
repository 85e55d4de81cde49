"""Trained networks in the store: kept once, found again, and never taken from damaged or foreign files."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from dfd_tune.digest import digest_arrays
from dfd_tune.distill.kept import FACTS_FILE, WEIGHTS_FILE, Place, ensure, find
from dfd_tune.distill.networks import arrays_of
from dfd_tune.store import MANIFEST_FILE, write_manifest

PLACE = Place(kind="kept", key="abc", config={"epochs": 3}, dataset="d" * 16)


def linear() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(2, 3)


def thaw(weights, facts):
    return weights["bias"].tolist(), facts["score"]


EXPECTED = (linear().bias.tolist(), 0.5)
"""What `thaw` makes of a whole entry."""


@pytest.fixture
def trained():
    """A training that counts its calls in `trained.calls`."""

    def train():
        train.calls += 1
        return linear(), {"score": 0.5}

    train.calls = 0
    return train


@pytest.fixture
def folder(store, trained):
    """An entry's folder, whole."""
    assert ensure(store, PLACE, thaw, trained) == (EXPECTED, True)
    return store.path(PLACE.kind, PLACE.key)


def test_an_entry_holds_weights_facts_and_whose_they_are(folder):
    assert {file.name for file in folder.iterdir()} == {WEIGHTS_FILE, FACTS_FILE, MANIFEST_FILE}
    assert json.loads((folder / FACTS_FILE).read_text()) == {
        "config": {"epochs": 3},
        "dataset": "d" * 16,
        "weights_digest": digest_arrays(arrays_of(linear())),
        "score": 0.5,
    }
    assert load_file(folder / WEIGHTS_FILE)["bias"].tolist() == linear().bias.tolist()


def test_what_is_kept_is_found_and_not_trained_again(folder, store, trained):
    assert find(store, PLACE, thaw) == EXPECTED
    assert ensure(store, PLACE, thaw, trained) == (EXPECTED, False)
    assert trained.calls == 1


def test_nothing_is_found_where_nothing_is(store):
    assert find(store, PLACE, thaw) is None


@pytest.mark.parametrize("other", [{"config": {"epochs": 4}}, {"dataset": "e" * 16}], ids=["config", "dataset"])
def test_a_network_of_another_recipe_or_dataset_is_not_taken_for_this_one(other, folder, store, trained):
    place = dataclasses.replace(PLACE, **other)
    assert find(store, place, thaw) is None
    assert ensure(store, place, thaw, trained) == (EXPECTED, True)
    assert find(store, place, thaw) == EXPECTED


def weights_truncated(folder):
    (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-3])


def weights_missing(folder):
    (folder / WEIGHTS_FILE).unlink()


def weights_empty(folder):
    (folder / WEIGHTS_FILE).write_bytes(b"")


def weights_with_a_bit_flipped(folder):
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)


def weights_changed(folder):
    weights = load_file(folder / WEIGHTS_FILE)
    weights["weight"][0, 0] += 0.25
    save_file(weights, folder / WEIGHTS_FILE)


def facts_missing(folder):
    (folder / FACTS_FILE).unlink()


def facts_broken(folder):
    (folder / FACTS_FILE).write_text('{"weights_digest": ')


def facts_that_are_a_list(folder):
    (folder / FACTS_FILE).write_text("[]")


def facts_without_a_digest(folder):
    _rewrite(folder, lambda facts: facts.pop("weights_digest"))


def facts_without_what_thaw_needs(folder):
    _rewrite(folder, lambda facts: facts.pop("score"))


def facts_with_another_digest(folder):
    _rewrite(folder, lambda facts: facts.update(weights_digest="0" * 16))


def _rewrite(folder, change):
    facts = json.loads((folder / FACTS_FILE).read_text())
    change(facts)
    (folder / FACTS_FILE).write_text(json.dumps(facts))


DAMAGES = (
    weights_truncated,
    weights_missing,
    weights_empty,
    weights_with_a_bit_flipped,
    weights_changed,
    facts_missing,
    facts_broken,
    facts_that_are_a_list,
    facts_without_a_digest,
    facts_without_what_thaw_needs,
    facts_with_another_digest,
)


@pytest.mark.parametrize("seal", [lambda folder: None, write_manifest], ids=["damaged", "damaged before it was sealed"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_never_used_and_trained_anew(damage, seal, folder, store, trained):
    damage(folder)
    seal(folder)
    assert find(store, PLACE, thaw) is None
    assert ensure(store, PLACE, thaw, trained) == (EXPECTED, True)
    assert trained.calls == 2
    assert [entry.name for entry in folder.parent.iterdir()] == [PLACE.key]
    assert ensure(store, PLACE, thaw, trained) == (EXPECTED, False)


def test_an_entry_without_a_manifest_is_not_whole(folder, store):
    (folder / MANIFEST_FILE).unlink()
    assert find(store, PLACE, thaw) is None


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_can_not_be_read_just_now_is_no_damage(number, folder, store, trained, monkeypatch):
    def failing(*arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        with pytest.raises(OSError, match=os.strerror(number)):
            ensure(store, PLACE, thaw, trained)
    assert ensure(store, PLACE, thaw, trained) == (EXPECTED, False)


def test_what_is_damaged_is_not_deleted_before_another_is_there(folder, store, trained):
    weights_truncated(folder)

    def failing():
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError):
        ensure(store, PLACE, thaw, failing)
    assert [file.name for file in store.path(PLACE.kind).rglob(WEIGHTS_FILE)] == [WEIGHTS_FILE]
    assert ensure(store, PLACE, thaw, trained) == (EXPECTED, True)
    assert [entry.name for entry in folder.parent.iterdir()] == [PLACE.key]


def test_a_training_that_fails_leaves_nothing_behind(store, trained):
    def failing():
        raise RuntimeError("loss is not finite")

    with pytest.raises(RuntimeError, match="not finite"):
        ensure(store, PLACE, thaw, failing)
    assert not store.path(PLACE.kind, PLACE.key).exists()
    assert ensure(store, PLACE, thaw, trained) == (EXPECTED, True)
