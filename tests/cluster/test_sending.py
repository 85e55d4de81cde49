"""What is sent to a cluster arrives whole, whichever way it goes, or is refused."""

import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfd_tune.cluster.incoming import INCOMING, PIECE_FILE, adopt
from dfd_tune.cluster.send import cut_into_pieces, files_to_send, refuse_too_much, send_over_ssh
from dfd_tune.errors import UserError
from dfd_tune.store import open_store


@pytest.fixture
def stores(tmp_path):
    """One with an entry and a file of weights, and an empty one."""
    here, there = open_store(tmp_path / "here"), open_store(tmp_path / "there")
    with here.publish("datasets", "key") as draft:
        (draft / "train.arrow").write_bytes(bytes(range(256)) * 5)
        (draft / "empty").write_bytes(b"")
        (draft / "dataset.json").write_text("{}")
    here.path("downloads").mkdir()
    here.path("downloads", "weights.pth").write_bytes(b"weights")
    return here, there


ENTRIES = ["datasets/key", "downloads/weights.pth"]


def contents(store):
    return {
        file.relative_to(store.root).as_posix(): file.read_bytes()
        for file in store.root.rglob("*")
        if file.is_file() and file.name != "manifest.json"
    }


def copy(source, target):
    """As rsync over SSH does it, without SSH."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def test_over_ssh_it_arrives_with_a_manifest_and_nothing_else_is_left(stores):
    here, there = stores
    incoming = send_over_ssh(copy, here, files_to_send(here, ENTRIES), str(there.root))
    adopt(there, incoming)
    assert contents(there) == contents(here)
    assert there.whole("datasets", "key")
    assert list(there.path(INCOMING).iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(size=st.integers(1, 2000))
def test_in_pieces_of_any_size_it_arrives_as_well(stores, tmp_path_factory, monkeypatch, size):
    here, _ = stores
    there, folder = open_store(tmp_path_factory.mktemp("there")), tmp_path_factory.mktemp("pieces")
    incoming, folders = cut_into_pieces(here, files_to_send(here, ENTRIES), folder, size)
    assert all(0 < (place / PIECE_FILE).stat().st_size <= size for place in folders)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    adopt(there, incoming)
    assert contents(there) == contents(here)


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"\0" * 1280)])
def test_what_is_damaged_on_its_way_is_refused_and_not_taken_in(stores, damage):
    here, there = stores
    incoming = send_over_ssh(copy, here, files_to_send(here, ENTRIES), str(there.root))
    damage(Path(incoming["place"], "datasets", "key", "train.arrow"))
    with pytest.raises(UserError, match=r"train\.arrow"):
        adopt(there, incoming)
    assert contents(there) == {}


def test_a_piece_that_is_missing_is_named(stores, tmp_path, monkeypatch):
    here, there = stores
    incoming, folders = cut_into_pieces(here, files_to_send(here, ENTRIES), tmp_path / "pieces", 500)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "pieces"), *sys.path])
    (folders[1] / PIECE_FILE).unlink()
    with pytest.raises(UserError, match=folders[1].name):
        adopt(there, incoming)


def test_what_was_sent_is_taken_in_also_where_another_launch_was_quicker(stores):
    here, there = stores
    for _ in range(2):
        adopt(there, send_over_ssh(copy, here, files_to_send(here, ENTRIES), str(there.root)))
    assert contents(there) == contents(here)


def test_a_job_port_is_not_sent_more_than_a_gigabyte():
    refuse_too_much(10**9, "/shared/runs")
    with pytest.raises(UserError, match="/shared/runs"):
        refuse_too_much(10**9 + 1, "/shared/runs")
