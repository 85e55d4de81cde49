"""Checkpoints in the store: which one counts, when one is due, and what is left of them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from dfd_tune.distill.checkpoints import FACTS_FILE, STATE_FILE, Checkpoints, Snapshot
from dfd_tune.store import MANIFEST_FILE, Store


def snapshot(epoch: int, value: float = 0.0) -> Snapshot:
    history = [{"epoch": number + 1, "loss": 0.1 / (number + 1)} for number in range(epoch)]
    tensors = {"weights": torch.full((2, 3), value), "steps": torch.tensor(7 * epoch), "bytes": torch.arange(5).byte()}
    return Snapshot(epoch, tensors, history, seconds=1.1 * epoch)


def checkpoints(store: Store, **options) -> Checkpoints:
    return Checkpoints(store, "kind-key", **{"every_seconds": 60.0} | options)


def folder(store: Store, epoch: int) -> Path:
    return store.path("checkpoints", "kind-key", f"{epoch:06}")


def found(kept: Checkpoints) -> int | None:
    latest = kept.latest()
    return None if latest is None else latest.epoch


def test_a_checkpoint_comes_back_as_it_was(store):
    kept = checkpoints(store)
    assert kept.latest() is None
    kept.save(snapshot(3, 0.1))
    assert {file.name for file in folder(store, 3).iterdir()} == {STATE_FILE, FACTS_FILE, MANIFEST_FILE}
    for back in (kept.latest(), kept.at(3), checkpoints(store).latest()):
        assert back is not None
        assert (back.epoch, back.history, back.seconds) == (3, snapshot(3).history, 1.1 * 3)
        assert back.tensors.keys() == snapshot(3).tensors.keys()
        for name, tensor in snapshot(3, 0.1).tensors.items():
            assert torch.equal(back.tensors[name], tensor)
            assert back.tensors[name].dtype == tensor.dtype


def test_only_the_newest_is_left_and_nothing_after_clearing(store):
    kept = checkpoints(store)
    for epoch in (1, 2, 9, 10):  # in the order of numbers, not of letters
        kept.save(snapshot(epoch))
        assert [entry.name for entry in folder(store, 1).parent.iterdir()] == [f"{epoch:06}"]
    kept.clear()
    assert kept.latest() is None
    assert list(store.path("checkpoints").iterdir()) == []
    kept.clear()


def test_networks_do_not_see_each_others_checkpoints(store):
    checkpoints(store).save(snapshot(2))
    other = Checkpoints(store, "kind-other", every_seconds=60.0)
    assert other.latest() is None
    other.clear()
    assert found(checkpoints(store)) == 2


def test_a_node_that_comes_back_neither_overwrites_nor_outranks_what_is_newer(store):
    late, newer = checkpoints(store), checkpoints(store)
    newer.save(snapshot(5, value=5.0))
    late.save(snapshot(3, value=3.0))
    assert found(newer) == 5
    late.save(snapshot(5, value=99.0))
    latest = newer.latest()
    assert latest is not None
    assert latest.tensors["weights"][0, 0] == 5.0
    late.save(snapshot(4))
    newer.save(snapshot(6))
    assert [entry.name for entry in folder(store, 1).parent.iterdir()] == ["000006"]


def state_cut_short(entry):
    (entry / STATE_FILE).write_bytes((entry / STATE_FILE).read_bytes()[:-1])


def state_with_a_bit_flipped(entry):
    content = bytearray((entry / STATE_FILE).read_bytes())
    content[-1] ^= 1
    (entry / STATE_FILE).write_bytes(content)


def state_missing(entry):
    (entry / STATE_FILE).unlink()


def facts_emptied(entry):
    (entry / FACTS_FILE).write_text("")


def facts_changed(entry):
    text = (entry / FACTS_FILE).read_text()
    (entry / FACTS_FILE).write_text(text.replace("0.1", "0.2"))


def manifest_missing(entry):
    (entry / MANIFEST_FILE).unlink()


def manifest_emptied(entry):
    (entry / MANIFEST_FILE).write_text("")


DAMAGES = (
    state_cut_short,
    state_with_a_bit_flipped,
    state_missing,
    facts_emptied,
    facts_changed,
    manifest_missing,
    manifest_emptied,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_made_anew(damage, store):
    said: list[str] = []
    kept = checkpoints(store, say=said.append)
    kept.save(snapshot(4))
    with store.publish("checkpoints", "kind-key", "000002") as draft:  # as a kill before tidying leaves it
        for file in folder(store, 4).iterdir():
            text = file.read_bytes()
            (draft / file.name).write_bytes(text.replace(b'"epoch": 4,', b'"epoch": 2,', 1))
    damage(folder(store, 4))
    said.clear()
    assert found(kept) == 2
    assert len(said) == 1
    assert "epoch 4" in said[0]
    with pytest.raises(OSError, match="epoch 4"):
        kept.at(4, patience=0.0)
    kept.save(snapshot(4))
    assert found(kept) == 4
    assert [entry.name for entry in folder(store, 1).parent.iterdir()] == ["000004"]


def test_what_is_damaged_does_not_hide_what_is_made_after_it(store):
    kept = checkpoints(store)
    kept.save(snapshot(4))
    state_with_a_bit_flipped(folder(store, 4))
    assert kept.latest() is None
    for epoch in (1, 2):
        kept.save(snapshot(epoch))
        assert found(kept) == epoch


def test_what_was_cut_off_while_it_was_written_does_not_count(store):
    kept = checkpoints(store)
    kept.save(snapshot(1))
    half = store.publish("checkpoints", "kind-key", "000002")
    (half.__enter__() / STATE_FILE).write_bytes(b"half")
    assert found(kept) == 1


def test_a_disk_that_can_not_be_read_just_now_is_an_error(store, monkeypatch):
    kept = checkpoints(store)
    kept.save(snapshot(1))
    kept.save(snapshot(2))

    def stale(self):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", stale)
        with pytest.raises(OSError, match="Stale"):
            kept.latest()
    assert found(kept) == 2


def test_a_checkpoint_is_due_so_long_after_the_start_or_the_last_one_or_when_it_is_asked_for(store):
    now, asked = 100.0, False
    kept = checkpoints(store, clock=lambda: now, stop_asked=lambda: asked)
    assert not kept.due()
    now = 159.0
    assert not kept.due()
    now = 160.0
    assert kept.due()
    kept.save(snapshot(1))
    assert not kept.due()
    now = 219.0
    assert not kept.due()
    asked = True
    assert kept.due()
    asked, now = False, 220.0
    assert kept.due()
    assert checkpoints(store, clock=lambda: now, every_seconds=0.0).due()
