"""Moto's S3 server in a process of its own, with one bucket, for tests and kills of stores in a bucket.

Not for: a bucket of anybody's; it keeps all in its memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BUCKET = "bucket-of-tests"
KEY, SECRET = "AKIARECOGNISABLE0001", "recognisable/secret+of/the+tests"
VARIABLES = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
"""A user's environment."""


@dataclass(frozen=True)
class Server:
    """An S3 server that keeps everything in its memory."""

    port: int
    log: Path

    def address(self, prefix: str, *, bucket: str = BUCKET, port: int | None = None) -> str:
        """Of a store in it."""
        return f"s3://{bucket}/{prefix}?endpoint_override=127.0.0.1:{port or self.port}&scheme=http"

    def requests(self, part: str) -> list[str]:
        """All requests so far whose path holds `part`: their methods and paths."""
        styled = r'"(?:\x1b\[\d+m)*'
        return re.findall(rf'{styled}([A-Z]+ [^" ]*{re.escape(part)}[^" ]*) HTTP', self.log.read_text(errors="replace"))


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server for the length of the block; its log goes to the folder."""
    server = Server(free_port(), folder / "server.log")
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)],
            env={**os.environ, **VARIABLES, "AWS_DEFAULT_REGION": "us-east-1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _make_bucket(server, process)
        yield server
    finally:
        process.kill()
        process.wait()


def _make_bucket(server: Server, process: subprocess.Popen[bytes]) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/{BUCKET}", method="PUT")
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).close()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert process.poll() is None, server.log.read_text()
            assert time.monotonic() < end, "moto's server does not answer"
            time.sleep(0.1)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Road:
    """A way to a server that can be closed: while it is, connections are refused, and those that are open break.

    Args:
        to: port of the server.
    """

    def __init__(self, to: int):
        self._to = to
        self.port = free_port()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Road:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self) -> None:
        """Let connections through."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Let nothing through."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._to))
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        self._open.add(one)
        with contextlib.suppress(OSError):
            while content := one.recv(1 << 16):
                other.sendall(content)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.discard(one)
        one.close()
