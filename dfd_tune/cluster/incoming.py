"""What was sent to a cluster, taken into the store there: entries whole and with the right digests, or not at all.

Not for: sending it (send.py).
"""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfd_tune.digest import sha256_of
from dfd_tune.errors import UserError
from dfd_tune.store import INCOMING, Store, replacing

BESIDE = "/tmp/dfd-tune-incoming"
"""On the head node, where the store is in a bucket: how the name begins of the folder for that."""
PIECE_FILE = "piece"
"""In each of the folders that hold pieces of what is sent through the job port."""


def adopt(store: Store, incoming: Mapping[str, Any] | None) -> None:
    """Take in what was sent.

    Args:
        store: the store on the cluster.
        incoming: None if nothing was; else `place`, the folder in which it lies, or `pieces`, names of folders on
            Python's path whose contents are one stream; and `files`, each with its path in a store, size and SHA-256,
            in the order of that stream.

    Raises:
        UserError: something is missing, or not what was sent.
    """
    if incoming is None:
        return
    place = Path(incoming["place"] or store.path(INCOMING, uuid.uuid4().hex))
    try:
        if incoming["pieces"]:
            _put_together(place, incoming["pieces"], incoming["files"])
        _refuse_damage(place, incoming["files"])
        for entry in sorted({entry_of(file["path"]) for file in incoming["files"]}):
            _take_in(store, place / entry, entry)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def entry_of(path: str) -> str:
    """KIND/KEY of a file's path in a store; what lies in a kind's folder itself is an entry of its own."""
    return "/".join(path.split("/")[:2])


def _take_in(store: Store, source: Path, entry: str) -> None:
    if source.is_file():
        take_in_file(store, source, entry)
        return
    with store.publish(*entry.split("/")) as draft:
        for file in source.iterdir():
            shutil.move(file, draft / file.name)


def take_in_file(store: Store, source: Path, entry: str) -> None:
    """Have a store hold a file that is an entry of its own, as weights in downloads."""
    parts = entry.split("/")
    with replacing(store.path(*parts)) as draft:
        shutil.copyfile(source, draft)
    store.push(*parts)


def _put_together(place: Path, pieces: Sequence[str], files: Sequence[Mapping[str, Any]]) -> None:
    """Cut the stream that all pieces make into the files that it consists of."""
    stream = _Stream([_found(name) / PIECE_FILE for name in pieces])
    for file in files:
        target = place / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            stream.copy(out, file["bytes"])


class _Stream:
    """Several files, read as if they were one."""

    def __init__(self, files: Sequence[Path]):
        self._files = iter(files)
        self._open: Any = None

    def copy(self, out: Any, count: int) -> None:
        """Copy the next `count` bytes; fewer where the stream ends before."""
        while count > 0:
            part = b"" if self._open is None else self._open.read(min(count, 1 << 20))
            if part:
                out.write(part)
                count -= len(part)
                continue
            following = next(self._files, None)
            if following is None:
                return
            if self._open is not None:
                self._open.close()
            self._open = following.open("rb")


def _found(name: str) -> Path:
    """The folder of that name on Python's path, where Ray has put it."""
    for place in sys.path:
        if (Path(place) / name / PIECE_FILE).is_file():
            return Path(place) / name
    raise UserError(f"'{name}', a piece of what was sent, has not arrived; launch again.")


def _refuse_damage(place: Path, files: Sequence[Mapping[str, Any]]) -> None:
    for file in files:
        path = place / file["path"]
        if not path.is_file() or path.stat().st_size != file["bytes"] or sha256_of(path) != file["sha256"]:
            raise UserError(f"'{file['path']}' did not arrive as it was sent; launch again.")
