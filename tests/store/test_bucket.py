"""A bucket behind a real HTTP server: objects, how many requests they take, and what is said where there is none."""

import os
import pickle
import threading

import pytest

from benchmarks.s3 import KEY, SECRET, Road, free_port
from dfd_tune.errors import UserError
from dfd_tune.store import BucketError, existing_store, open_store
from dfd_tune.store.bucket import Bucket, bucket_at, without_secrets


@pytest.fixture
def bucket(s3, tmp_path) -> Bucket:
    return bucket_at(s3.address(f"objects/{tmp_path.name}/"))


def refusal(function, address) -> str:
    with pytest.raises(UserError) as caught:
        function(address)
    (problem,) = caught.value.problems
    assert SECRET not in problem
    assert KEY not in problem
    return problem


def test_objects_by_name(bucket, tmp_path):
    assert bucket.read("a", "one") is None
    assert bucket.known("a", "one") is None
    assert (bucket.files(), bucket.folders()) == ({}, [])
    bucket.write(b"1", "a", "one")
    bucket.write(b"longer", "a", "one")
    (tmp_path / "file").write_bytes(b"2" * 3_000_000)
    bucket.upload(tmp_path / "file", "a", "b", "two")
    bucket.write(b"", "ab", "empty")
    assert bucket.read("a", "one") == b"longer"
    assert bucket.read("ab", "empty") == b""
    assert {name: known.bytes for name, known in bucket.files().items()} == {
        "a/one": 6,
        "a/b/two": 3_000_000,
        "ab/empty": 0,
    }
    assert set(bucket.files("a")) == {"one", "b/two"}
    assert bucket.folders() == ["a", "ab"]
    assert bucket.known("a", "one") == bucket.files("a")["one"]
    with bucket.open("a", "b", "two") as stream:
        assert stream.read(2) == b"22"
        assert stream.read() == b"2" * 2_999_998
    bucket.remove("a", "one")
    bucket.remove("a", "one")
    assert bucket.read("a", "one") is None
    with pytest.raises(FileNotFoundError):
        bucket.open("a", "one")


def test_what_is_fetched_comes_with_its_digest(bucket, tmp_path):
    bucket.write(b"abc", "a")
    assert bucket.fetch(tmp_path / "a", "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (tmp_path / "a").read_bytes() == b"abc"
    assert bucket.fetch(tmp_path / "b", "b") is None


def test_small_objects_take_few_requests(s3, bucket, tmp_path):
    (tmp_path / "file").write_bytes(b"2" * 1_000_000)
    bucket.write(b"1", "counted-one")
    bucket.upload(tmp_path / "file", "counted-two")
    bucket.read("counted-one")
    assert [request.split()[0] for request in s3.requests("/counted-one")] == ["PUT", "HEAD", "GET"]
    assert [request.split()[0] for request in s3.requests("/counted-two")] == ["PUT"]


def test_whether_an_object_is_there_takes_one_request(s3, bucket):
    assert not bucket.has("asked-none")
    bucket.write(b"", "asked-one")
    assert bucket.has("asked-one")
    assert len(s3.requests("asked-none")) == 1
    assert len(s3.requests("asked-one")) == 2


@pytest.mark.parametrize("opened", [open_store, existing_store])
def test_a_bucket_that_is_not_there_is_named(s3, opened):
    assert "'no-such-bucket'" in refusal(opened, s3.address("store", bucket="no-such-bucket"))


@pytest.mark.parametrize("opened", [open_store, existing_store])
def test_a_server_that_does_not_answer_is_an_error_in_one_sentence(s3, opened):
    address = s3.address("store", port=free_port())
    assert address in refusal(opened, address)


def test_a_prefix_without_a_store_is_none_to_read(s3, tmp_path):
    assert "no store" in refusal(existing_store, s3.address(f"nothing/{tmp_path.name}"))


def test_an_option_that_is_none_of_s3_is_named(s3):
    assert "'regoin'" in refusal(open_store, "s3://bucket/store?regoin=eu-west-1")


def test_a_bucket_that_is_away_is_a_passing_error_and_work_goes_on_when_it_is_back(s3, monkeypatch, tmp_path):
    monkeypatch.setattr("dfd_tune.store.bucket.PATIENT", 1)
    with Road(s3.port) as road:
        bucket = bucket_at(s3.address(f"away/{tmp_path.name}", port=road.port))
        bucket.write(b"1", "one")
        road.close()
        asks = {
            "read": lambda: bucket.read("one"),
            "write": lambda: bucket.write(b"2", "one"),
            "list": bucket.files,
            "known": lambda: bucket.known("one"),
            "remove": lambda: bucket.remove("one"),
        }
        for ask in asks.values():
            with pytest.raises(BucketError) as caught:
                ask()
            assert bucket.address in str(caught.value)
            assert SECRET not in str(caught.value)
        road.open()
        assert bucket.read("one") == b"1"


def test_a_short_absence_is_waited_out(s3, tmp_path):
    with Road(s3.port) as road:
        bucket = bucket_at(s3.address(f"short/{tmp_path.name}", port=road.port))
        bucket.write(b"1", "one")
        road.close()
        back = threading.Timer(1.0, road.open)
        back.start()
        assert bucket.read("one") == b"1"
        back.join()


def test_an_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(BucketError("can't")))
    assert (type(error), error.strerror) == (BucketError, "can't")


def test_a_forked_process_uses_a_bucket_that_its_parent_has_used(bucket):
    bucket.write(b"1", "one")
    child = os.fork()
    if child == 0:
        try:
            bucket.write(bucket.read("one") + b"2", "two")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bucket.read("two") == b"12"


def test_credentials_are_cut_out_of_what_an_sdk_says(s3):
    assert without_secrets(f"of {KEY} by {SECRET}.") == "of *** by ***."
