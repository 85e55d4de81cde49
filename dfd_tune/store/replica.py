"""A node's own files of a search whose store is in a bucket: brought here to be read, sent there as they change.

What one search's launch writes has one writer, so files are only told apart by what is known of them without reading:
size and time of change. Not for: entries, which are copied by their manifests (copies.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dfd_tune.store.bucket import Bucket, each
from dfd_tune.store.files import read_json, replacing, write_text

KNOWN_FILE = ".known.json"
"""In the folder that was brought: by file, size and time of what the bucket held."""

_sent: dict[Path, tuple[int, int]] = {}
"""Size and time of change of this process's files as the bucket has them."""


def pull(bucket: Bucket, root: Path, *parts: str) -> None:
    """Bring what the bucket has and this node has not, or of another size or time; what it has no more goes.

    Raises:
        BucketError: it can't be read.
    """
    folder = root.joinpath(*parts)
    there, known = bucket.files(*parts), _known(folder)
    wanted = [
        name
        for name, now in there.items()
        if known.get(name) != [now.bytes, now.changed] or not (folder / name).is_file()
    ]

    def bring(name: str) -> None:
        with replacing(folder / name) as draft:
            gone = bucket.fetch(draft, *parts, name) is None
        if gone:
            (folder / name).unlink(missing_ok=True)
        else:
            note_written(folder / name)

    each(bring, wanted)
    gone = known.keys() - there.keys()
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    if wanted or gone:
        now = {name: [known.bytes, known.changed] for name, known in there.items()}
        write_text(folder / KNOWN_FILE, json.dumps(now) + "\n")


def push(bucket: Bucket, root: Path, *parts: str) -> None:
    """Send what has changed since this process sent or brought it.

    Raises:
        BucketError: it can't be written.
    """
    place = root.joinpath(*parts)
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]

    def send(file: Path) -> None:
        look = _look(file)
        if look is not None and _sent.get(file) != look:
            bucket.upload(file, *file.relative_to(root).parts)
            _sent[file] = look

    each(send, [file for file in files if not any(part.startswith(".") for part in file.relative_to(root).parts)])


def note_written(file: Path) -> None:
    """Remember that the bucket has what this file holds now."""
    look = _look(file)
    if look is not None:
        _sent[file] = look


def _look(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _known(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / KNOWN_FILE) or {}
    except ValueError:
        return {}
