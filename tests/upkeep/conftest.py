"""Stores in a folder and in a bucket, each with a made-up search and all that it refers to."""

import uuid

import pytest

from dfd_tune.store import Store, open_store
from tests.upkeep.made_up import made_up, publish_all, save


@pytest.fixture
def fresh_bucket(s3, tmp_path, monkeypatch) -> str:
    """The address of a store in a bucket that is empty."""
    monkeypatch.setenv("DFD_TUNE_CACHE", str(tmp_path / "cache"))
    return s3.address(f"upkeep/{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture(params=["folder", "bucket"])
def either(request) -> Store:
    if request.param == "folder":
        return request.getfixturevalue("folder")
    return open_store(request.getfixturevalue("fresh_bucket"))


@pytest.fixture
def search():
    """A made-up search's record and those of its trials."""
    return made_up()


@pytest.fixture
def filled_folder(folder, search) -> Store:
    """In a folder, with that search and all that it refers to."""
    save(folder, *search)
    publish_all(folder, *search)
    return folder


@pytest.fixture
def filled(either, search) -> Store:
    """With that search and all that it refers to."""
    save(either, *search)
    publish_all(either, *search)
    return either
