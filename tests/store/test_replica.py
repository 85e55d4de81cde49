"""A node's own files of a search in a bucket: what is brought, what is sent, and what stays."""

import os
from pathlib import Path

import pytest

from dfd_tune.store import replica
from dfd_tune.store.bucket import Bucket, bucket_at
from dfd_tune.store.replica import KNOWN_FILE, bring, pull, push


@pytest.fixture
def bucket(s3, tmp_path) -> Bucket:
    return bucket_at(s3.address(f"replicas/{tmp_path.name}"))


@pytest.fixture
def nodes(tmp_path) -> tuple[Path, Path]:
    """Two nodes' folders."""
    return tmp_path / "here", tmp_path / "there"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """What another test's process has sent is none of this one's."""
    monkeypatch.setattr(replica, "_sent", {})


def write(root: Path, text: str, *parts: str) -> None:
    file = root.joinpath("s", *parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def content(root: Path) -> dict[str, str]:
    files = [file for file in (root / "s").rglob("*") if file.is_file() and file.name != KNOWN_FILE]
    return {file.relative_to(root / "s").as_posix(): file.read_text() for file in files}


def watched(monkeypatch) -> list[str]:
    """Names of the objects that are read from now on."""
    seen: list[str] = []
    fetch = Bucket.fetch

    def watching(self, to, *parts):
        seen.append(parts[-1])
        return fetch(self, to, *parts)

    monkeypatch.setattr(Bucket, "fetch", watching)
    return seen


def test_what_is_sent_is_brought(bucket, nodes):
    here, there = nodes
    write(here, "1", "one")
    write(here, "2", "deep", "two")
    push(bucket, here, "s")
    pull(bucket, there, "s")
    assert content(there) == {"one": "1", "deep/two": "2"}
    bucket.remove("s", "one")
    pull(bucket, there, "s")
    assert content(there) == {"deep/two": "2"}


def test_what_has_not_changed_is_neither_sent_nor_brought(bucket, nodes, monkeypatch):
    monkeypatch.setattr(replica, "SETTLED_SECONDS", 0.0)
    here, there = nodes
    for name in ("one", "two"):
        write(here, name, name)
    push(bucket, here, "s")
    pull(bucket, there, "s")
    before = bucket.files("s")
    push(bucket, here, "s")
    push(bucket, there, "s")
    assert bucket.files("s") == before
    write(here, "changed", "two")
    push(bucket, here, "s")
    seen = watched(monkeypatch)
    pull(bucket, there, "s")
    pull(bucket, there, "s")
    assert seen == ["two"]
    assert content(there) == {"one": "one", "two": "changed"}


def test_an_object_that_changed_twice_in_a_second_comes_all_the_same(bucket, nodes):
    """With the same size, and a time that S3 tells in whole seconds alone, nothing in a listing tells them apart."""
    there = nodes[1]
    for value in "123456":
        bucket.write(value.encode(), "s", "one")
        pull(bucket, there, "s")
        assert content(there) == {"one": value}


def test_an_object_is_settled_once_a_newer_one_is_there_or_time_has_passed(bucket, nodes, monkeypatch):
    there, now = nodes[1], [1000.0]
    monkeypatch.setattr("dfd_tune.store.replica.time.time", lambda: now[0])
    bucket.write(b"1", "s", "one")
    seen = watched(monkeypatch)
    pull(bucket, there, "s")
    pull(bucket, there, "s")
    assert seen == ["one"] * 2
    now[0] += 2 * replica.SETTLED_SECONDS
    pull(bucket, there, "s")  # for the last time
    pull(bucket, there, "s")
    assert seen == ["one"] * 3


def test_while_this_node_writes_its_files_stay_and_others_come(bucket, nodes):
    here, there = nodes
    write(here, "theirs", "brought")
    push(bucket, here, "s")
    pull(bucket, there, "s")
    write(there, "mine, newer", "brought")
    write(there, "mine", "new")
    write(here, "theirs", "another")
    write(here, "theirs, long", "new")
    push(bucket, here, "s")
    pull(bucket, there, "s", keep=True)
    assert content(there) == {"brought": "mine, newer", "new": "mine", "another": "theirs"}
    pull(bucket, there, "s")
    assert content(there)["new"] == "theirs, long"


def test_what_the_writer_has_sent_it_need_not_bring(bucket, nodes, monkeypatch):
    here, _ = nodes
    write(here, "1", "one")
    push(bucket, here, "s")
    pull(bucket, here, "s", keep=True)
    seen = watched(monkeypatch)
    pull(bucket, here, "s")
    assert seen == []


@pytest.mark.parametrize(
    ("ours", "theirs", "then"),
    [
        ("one\n", "one\ntwo\n", "one\ntwo\n"),
        ("one\ntwo\n", "one\n", "one\ntwo\n"),  # what a killed process had not sent yet
        ("one\n", "other\n", "other\n"),
        ("one\n", None, "one\n"),
    ],
)
def test_of_a_log_the_longer_one_stays(bucket, nodes, ours, theirs, then):
    here = nodes[0]
    write(here, ours, "a.log")
    if theirs is not None:
        bucket.write(theirs.encode(), "s", "a.log")
    bring(bucket, here, "s", "a.log")
    assert content(here) == {"a.log": then}
    push(bucket, here, "s")
    assert bucket.read("s", "a.log") == then.encode()


def test_what_is_known_may_be_spoilt(bucket, nodes):
    there = nodes[1]
    bucket.write(b"1", "s", "one")
    pull(bucket, there, "s")
    for spoilt in ("", "[]", '{"one": 1}', '{"one": [1]}'):
        (there / "s" / KNOWN_FILE).write_text(spoilt)
        os.utime(there / "s" / "one")
        pull(bucket, there, "s")
        assert content(there) == {"one": "1"}


def test_what_the_bucket_lacks_goes_where_nobody_writes_but_for_logs_and_what_is_new(bucket, nodes):
    here, there = nodes
    write(here, "1", "one")
    push(bucket, here, "s")
    for parts in (("old.json",), ("deep", "old.json"), ("new.json",), ("a.log",), (".hidden", "old.json")):
        write(there, "left", *parts)
        if parts != ("new.json",):
            os.utime(there.joinpath("s", *parts), (1e9, 1e9))
    pull(bucket, there, "s", keep=True)
    assert {"old.json", "deep/old.json"} <= content(there).keys()
    pull(bucket, there, "s")
    assert content(there) == {"one": "1", "new.json": "left", "a.log": "left", ".hidden/old.json": "left"}
    bucket.remove("s", "one")
    pull(bucket, there, "s")
    assert "a.log" not in content(there), "a search that was removed leaves nothing"
