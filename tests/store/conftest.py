"""A store in a folder and one in a bucket, for tests of what both promise."""

import uuid

import pytest

from dfd_tune.store import BucketStore, Store, open_store
from dfd_tune.store.leases import Pace


@pytest.fixture
def in_bucket(s3, monkeypatch) -> Store:
    """A fresh store in a bucket, whose leases are quick in this process."""
    quick = Pace(beat=0.3, silent=2.0, settle=0.3)
    monkeypatch.setattr("dfd_tune.store.leases.Pace", lambda: quick)
    return open_store(s3.address(f"stores/{uuid.uuid4().hex}"))


@pytest.fixture(params=["folder", "bucket"])
def either(request, tmp_path) -> Store:
    """A fresh store, in a folder and in a bucket."""
    if request.param == "folder":
        return open_store(tmp_path / "store")
    return request.getfixturevalue("in_bucket")


@pytest.fixture
def opened_anew(monkeypatch, tmp_path):
    """Open a store once more; one in a bucket with an empty cache, as on another node."""

    def again(store: Store) -> Store:
        if isinstance(store, BucketStore):
            monkeypatch.setenv("DFD_TUNE_CACHE", str(tmp_path / f"cache-{uuid.uuid4().hex}"))
        return open_store(store.location)

    return again
