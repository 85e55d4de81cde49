"""Stores in a folder and in a bucket, each with a made-up search and all that it refers to."""

import uuid
from collections.abc import Iterator

import pytest

from dfd_tune.store import Store, open_store
from tests.upkeep.made_up import made_up, publish_all, save


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    """Of an S3 server that keeps everything in its memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield port
    server.stop()


@pytest.fixture
def fresh_bucket(moto_port, tmp_path, monkeypatch) -> str:
    """The address of a store in a bucket that is empty."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "anything")
    monkeypatch.setenv("DFD_TUNE_CACHE", str(tmp_path / "cache"))
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto_port}", region_name="us-east-1")
    client.create_bucket(Bucket="upkeep")
    return f"s3://upkeep/{uuid.uuid4().hex}?endpoint_override=127.0.0.1:{moto_port}&scheme=http"


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
