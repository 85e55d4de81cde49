"""Every digest and every record is read, what is damaged is named, and nothing else."""

import errno
import hashlib
import os

import pytest

from dfd_tune.store import KINDS, RESULT_FILE, STUDENT_FILE, BucketStore, FolderStore, listing, write_manifest
from dfd_tune.upkeep.soundness import check, put_aside
from tests.upkeep.made_up import checkpoint, publish, save


def faults(store):
    return [fault for checked in check(store) for fault in checked.faults]


def named(store):
    return {"/".join(fault.parts): fault.problems for fault in faults(store)}


def stored(store, name):
    """The place of an entry's file in a folder, or in the bucket by its parts."""
    if not isinstance(store, BucketStore):
        return store.path(*name.split("/"))
    kind, key, file = name.split("/")
    (found,) = [known for known in store.bucket.files(kind, key) if known.endswith(f"/{file}")]
    return (kind, key, *found.split("/"))


def rewrite(store, name, change):
    place = stored(store, name)
    if not isinstance(store, BucketStore):
        place.write_bytes(change(place.read_bytes()))
    else:
        store.bucket.write(change(store.bucket.read(*place)), *place)


def flipped(content):
    return content[:3] + bytes([content[3] ^ 1]) + content[4:]


def test_a_sound_store_has_no_faults_and_all_of_it_is_read(filled, search):
    record, trials = search
    checkpoint(filled, f"trials-{trials[0].key}")
    found = {checked.kind: checked.entries for checked in check(filled)}
    assert found["trials"] == len(trials)
    assert found["pretrained"] == len(record.teachers)
    assert found["checkpoints"] == found["searches"] == 1
    assert faults(filled) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_in_an_entry_of_each_kind_is_seen(kind, folder):
    for key in ("sound", "damaged"):
        publish(folder, kind, key)
    (weights,) = [name for name in listing(folder, kind, "damaged") if not name.endswith(".json")]
    rewrite(folder, f"{kind}/damaged/{weights}", flipped)
    assert folder.whole(kind, "damaged"), "sizes do not tell"
    assert named(folder) == {f"{kind}/damaged": (f"{weights} holds other bytes than were written",)}


def missing(store):
    if not isinstance(store, BucketStore):
        stored(store, f"trials/k/{STUDENT_FILE}").unlink()
    else:
        store.bucket.remove(*stored(store, f"trials/k/{STUDENT_FILE}"))


def cut_short(store):
    rewrite(store, f"trials/k/{STUDENT_FILE}", lambda content: content[:4])


def other_bytes(store):
    rewrite(store, f"trials/k/{STUDENT_FILE}", flipped)


DAMAGES = {missing: "is missing", cut_short: "has 4 bytes, not 80", other_bytes: "holds other bytes than were written"}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_student_is_named_and_put_aside_without_its_result(damage, either):
    publish(either, "trials", "k")
    damage(either)
    assert named(either) == {"trials/k": (f"{STUDENT_FILE} {DAMAGES[damage]}",)}
    (fault,) = faults(either)
    assert put_aside(either, fault)
    assert named(either) == {}
    assert either.facts("trials", "k", RESULT_FILE) == {"key": "k"}
    assert not either.has("trials", "k", STUDENT_FILE)
    assert not put_aside(either, fault), "it is mended by now"


@pytest.mark.parametrize("file", [RESULT_FILE, "manifest.json"])
def test_a_trial_whose_result_is_damaged_is_put_aside_whole(file, folder):
    publish(folder, "trials", "k")
    folder.path("trials", "k", file).write_text("{")
    (fault,) = faults(folder)
    assert put_aside(folder, fault)
    assert folder.entries("trials") == []
    assert list(folder.path("trials").glob(".set-aside.k.*/k")), "it is not deleted"


def test_a_manifest_that_is_none_in_a_bucket_is_named_and_goes(either):
    if not isinstance(either, BucketStore):
        pytest.skip("of a bucket alone")
    publish(either, "banks", "k")
    either.bucket.write(b"{", "banks", "k", "manifest.json")
    (fault,) = faults(either)
    assert "manifest" in str(fault)
    assert put_aside(either, fault)
    assert named(either) == {}


def test_what_somebody_makes_just_now_is_not_put_aside(folder):
    publish(folder, "banks", "k")
    rewrite(folder, "banks/k/features.npy", flipped)
    (fault,) = faults(folder)
    with folder.lease("banks-k"):
        assert not put_aside(folder, fault)
    assert folder.entries("banks") == ["k"]


def test_a_disk_that_can_not_be_read_just_now_is_told_and_nothing_is_put_aside(folder, monkeypatch):
    publish(folder, "banks", "k")

    def failing(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "damages", failing)
        (fault,) = faults(folder)
    assert fault.passing
    assert "Input/output error" in str(fault)
    assert not put_aside(folder, fault)
    assert folder.entries("banks") == ["k"]


def test_an_entry_that_goes_meanwhile_is_no_fault(folder, monkeypatch):
    publish(folder, "banks", "k")
    entries = FolderStore.entries

    def gone_by_then(store, *parts):
        found = entries(store, *parts)
        store.discard("banks", "k")
        return found

    monkeypatch.setattr(FolderStore, "entries", gone_by_then)
    assert faults(folder) == []


@pytest.mark.parametrize("file", ["search.json", "run.json", "trials/KEY.json", "tests/KEY.json"])
@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_record_that_can_not_be_read_is_named(file, content, folder, search):
    record, trials = search
    save(folder, record, trials)
    place = folder.path("searches", record.search, *file.replace("KEY", trials[0].key).split("/"))
    place.parent.mkdir(exist_ok=True)
    place.write_text(content)
    (fault,) = faults(folder)
    assert folder.path(*fault.parts) == place
    assert not put_aside(folder, fault)
    assert place.exists()


def test_a_backbones_text_that_is_another_one_is_named(either):
    either.write_text("x = 1\n", "backbones", "0123456789abcdef.py")
    either.write_text("x = 1\n", "backbones", f"{hashlib.sha256(b'x = 1' + bytes([10])).hexdigest()[:16]}.py")
    assert set(named(either)) == {"backbones/0123456789abcdef.py"}


def test_a_best_student_of_other_bytes_is_named(either, search):
    record, trials = search
    save(either, record, trials)
    place = either.path("searches", record.search, "best")
    place.mkdir(parents=True)
    (place / STUDENT_FILE).write_bytes(b"weights")
    write_manifest(place)
    either.push("searches", record.search, "best")
    assert faults(either) == []
    (place / STUDENT_FILE).write_bytes(b"Weights")
    either.push("searches", record.search, "best")
    assert list(named(either)) == [f"searches/{record.search}/best"]
