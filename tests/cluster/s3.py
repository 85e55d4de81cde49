"""Moto's S3 server on an address that hosts reach, and an environment with credentials for it. Not tests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

SECRET = "recognisable-secret-of-the-cluster-tests"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "recognisable-key-of-the-tests", "AWS_SECRET_ACCESS_KEY": SECRET}
VARIABLES = CREDENTIALS | {"AWS_EC2_METADATA_DISABLED": "true"}
"""What each node and each user has of its own."""
BUCKET = "cluster-tests"


@contextlib.contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """A server with one bucket, for the length of the block; gives what follows `s3://BUCKET/PREFIX` in addresses."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)],
            env=os.environ | VARIABLES,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _make_bucket(f"http://{host}:{port}/{BUCKET}", process)
        yield f"?endpoint_override={host}:{port}&scheme=http"
    finally:
        process.kill()
        process.wait()


def address(prefix: str, options: str) -> str:
    """Of a store."""
    return f"s3://{BUCKET}/{prefix}{options}"


def _make_bucket(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=10).close()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)
