"""A node's own files of a search whose store is in a bucket: brought here to be read, sent there as they change.

What one search's launch writes has one writer, so files are only told apart by what is known of them without reading:
size and time of change. Not for: entries, which are copied by their manifests (copies.py).
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.store.bucket import Bucket, Known, each
from dfd_tune.store.files import read_json, replacing, write_text

KNOWN_FILE = ".known.json"
"""In the folder that was brought: by file, what is known of it (`_Note`)."""
SETTLED_SECONDS = 2.0
"""S3 tells times in whole seconds. An object that is older than another one by this, or that is unchanged this long
after it was first seen, can't have been written again in its second."""
GROWS = ".log"
"""Files that end so are written at their end alone."""

_sent: dict[Path, tuple[int, int]] = {}
"""Size and time of change of this process's files as the bucket has them."""


@dataclass(frozen=True)
class _Note:
    """What was brought, and what became of it here."""

    bytes: int
    changed: int
    """Of the object; likewise `bytes`."""
    here: int
    """When this node's file was last changed, in nanoseconds, once it had been brought."""
    seen: float | None
    """When the object was first seen as it is, in seconds by this node's clock; None once it is settled."""


def pull(bucket: Bucket, root: Path, *parts: str, keep: bool = False) -> None:
    """Bring what the bucket has and this node has not, or of another size or time; what it has no more goes.

    Args:
        bucket: where the files are.
        root: this node's folder for them.
        parts: what their names begin with.
        keep: whether what has been written here since it was brought stays, as a process of this node is the writer;
            else of what the bucket lacks only logs do, as they go there late.

    Raises:
        BucketError: it can't be read.
    """
    folder, now = root.joinpath(*parts), time.time()
    there, known = bucket.files(*parts), _known(folder)
    newest = max((found.changed for found in there.values()), default=0)

    def noted(name: str) -> _Note | None:
        file, found, before = folder / name, there[name], known.get(name)
        look = _look(file)
        same = before is not None and (before.bytes, before.changed) == (found.bytes, found.changed)
        touched = look is not None and (before is None or look[1] != before.here)
        if keep and touched:
            sent = look is not None and _sent.get(file) == look and look[0] == found.bytes
            return _note_of(file, found, None) if sent else before
        if same and before is not None and before.seen is None and look is not None:
            if not touched:
                _sent[file] = look
            return before
        bring(bucket, root, *parts, name)
        since = before.seen if same and before is not None and before.seen is not None else now
        settled = newest - found.changed >= SETTLED_SECONDS * 1e9 or now - since >= SETTLED_SECONDS
        return _note_of(file, found, None if settled else since)

    notes = dict(zip(there, each(noted, there), strict=True))
    for name in known.keys() - there.keys():
        look = _look(folder / name)
        if not keep or (look is not None and look[1] == known[name].here):
            (folder / name).unlink(missing_ok=True)
    if not keep:
        _drop(folder, there, before=now)
    fresh = {name: note for name, note in notes.items() if note is not None}
    if fresh != known:
        text = json.dumps({name: dataclasses.astuple(note) for name, note in fresh.items()})
        write_text(folder / KNOWN_FILE, f"{text}\n")


def _drop(folder: Path, there: Mapping[str, Known], before: float) -> None:
    """Remove files that the bucket lacks: they never counted, or are of a search that was removed elsewhere."""
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        name = file.relative_to(folder)
        stays = name.as_posix() in there or (there and file.suffix == GROWS)
        look = None if stays or any(part.startswith(".") for part in name.parts) else _look(file)
        # What was written since may be of a writer who has only begun.
        if look is not None and look[1] < (before - SETTLED_SECONDS) * 1e9:
            file.unlink(missing_ok=True)


def bring(bucket: Bucket, root: Path, *parts: str) -> None:
    """Have this node's file hold what the bucket's does, or be gone if it is. A log that has more here, as its process
    was killed before it sent that, stays.

    Raises:
        BucketError: it can't be read.
    """
    file = root.joinpath(*parts)
    if file.suffix == GROWS and file.is_file():
        content, ours = bucket.read(*parts), file.read_bytes()
        if content is None or ours.startswith(content):
            if ours == content:
                note_written(file)
            return
    with replacing(file) as draft:
        gone = bucket.fetch(draft, *parts) is None
    if gone:
        file.unlink(missing_ok=True)
    else:
        note_written(file)


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


def _note_of(file: Path, found: Known, seen: float | None) -> _Note | None:
    look = _look(file)
    return None if look is None else _Note(found.bytes, found.changed, look[1], seen)


def _known(folder: Path) -> dict[str, _Note]:
    try:
        return {name: _Note(*note) for name, note in (read_json(folder / KNOWN_FILE) or {}).items()}
    except (ValueError, TypeError):
        return {}
