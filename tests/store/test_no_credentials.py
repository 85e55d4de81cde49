"""Credentials are in the environment alone: in no file, no object, no message."""

import logging

import pytest

from benchmarks.s3 import KEY, SECRET, Road
from dfd_tune.errors import UserError
from dfd_tune.store import BucketError, open_store


def holding_credentials(content: bytes) -> bool:
    return any(secret.encode() in content for secret in (KEY, SECRET))


def test_credentials_are_written_nowhere(s3, in_bucket, tmp_path, caplog, capfd, monkeypatch):
    monkeypatch.setattr("dfd_tune.store.bucket.PATIENT", 1)
    caplog.set_level(logging.DEBUG)
    with in_bucket.publish("things", "k") as draft:
        (draft / "one").write_text("1")
    in_bucket.write_json({"a": 1}, "searches", "mine", "search.json")
    in_bucket.pull("searches", "mine")
    with in_bucket.lease("mine"), in_bucket.near("things", "k"):
        held = {name: in_bucket.bucket.read(name) for name in in_bucket.bucket.files()}
    texts = [str(in_bucket), repr(in_bucket), in_bucket.location]
    with Road(s3.port) as road:
        away = open_store(s3.address(f"away/{tmp_path.name}", port=road.port))
        road.close()
        with pytest.raises(BucketError) as failed:
            away.read_json("store.json")
        with pytest.raises(UserError) as refused:
            open_store(away.location)
    texts += [str(failed.value), str(refused.value), caplog.text, *capfd.readouterr()]
    assert len(held) >= 5
    assert not any(holding_credentials(content) for content in held.values())
    assert not any(holding_credentials(text.encode()) for text in texts)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert not any(holding_credentials(file.read_bytes()) for file in files)
