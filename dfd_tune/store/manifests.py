"""What an entry should hold: the sizes and digests of its files, written last, and whether it does.

Not for: where entries lie (store.py).
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import RawIOBase
from pathlib import Path, PurePosixPath
from typing import Any

from dfd_tune.digest import sha256_of
from dfd_tune.store.files import is_passing, steadily, sync, write_json

MANIFEST_FILE = "manifest.json"
CHUNK_BYTES = 1 << 20

Files = Mapping[str, Mapping[str, Any]]
"""By name, with slashes: `bytes` and `sha256` of an entry's files."""


def write_manifest(folder: Path) -> Files:
    """Write down the size and SHA-256 of every file in `folder`, and have all of it on the disk before returning."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST_FILE:
            name = path.relative_to(folder).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        sync(path)
    write_json(folder / MANIFEST_FILE, {"files": files})
    return files


def manifest_of(folder: Path) -> Files | None:
    """What the manifest of the entry in `folder` says; None if there is no manifest.

    Raises:
        OSError: the disk can't be read just now.
    """
    try:
        return files_in(steadily((folder / MANIFEST_FILE).read_bytes))
    except OSError as error:
        if is_passing(error):
            raise
        return None


def files_in(manifest: bytes) -> Files | None:
    """What the text of a manifest says; None if it is none."""
    try:
        files = json.loads(manifest)["files"]
        assert all({"bytes", "sha256"} <= facts.keys() for facts in files.values())
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return None
    found: Files = files
    return found


def whole(folder: Path, *names: str) -> bool:
    """Whether the entry in `folder` has a manifest and the files `names`, or all of it, have the sizes it says.

    Raises:
        OSError: it can't be told, as the disk can't be read just now.
    """
    files = manifest_of(folder)
    return files is not None and all(
        name in files and _size(folder / name) == files[name]["bytes"] for name in names or files
    )


def sound(folder: Path) -> bool:
    """Whether an entry is whole and all of its files have the digests that its manifest says. Reads all of it.

    Raises:
        OSError: the disk can't be read just now.
    """
    files = manifest_of(folder)
    try:
        return (
            files is not None
            and whole(folder)
            and all(steadily(partial(sha256_of, folder / name)) == files[name]["sha256"] for name in files)
        )
    except OSError as error:
        if is_passing(error):
            raise
        return False


def damages(files: Files, open: Callable[[str], RawIOBase]) -> Iterator[str]:
    """What is wrong with the files of an entry, a phrase for each that is not what its manifest says. Reads all of it.

    Args:
        files: what its manifest says.
        open: one of the files, by name.

    Raises:
        OSError: they can't be read just now.
    """
    for name, facts in files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            yield f"{name} lies outside of it"
            continue
        digest, length = hashlib.sha256(), 0
        try:
            with open(name) as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    length += len(chunk)
        except OSError as error:
            if is_passing(error):
                raise
            yield f"{name} is missing"
            continue
        if length != facts["bytes"]:
            yield f"{name} has {length:,} bytes, not {facts['bytes']:,}"
        elif digest.hexdigest() != facts["sha256"]:
            yield f"{name} holds other bytes than were written"


def read_whole(folder: Path, name: str) -> bytes | None:
    """The content of a file of the entry in `folder`, held against the manifest; None if it is not there or damaged.

    Raises:
        OSError: the disk can't be read just now.
    """
    files = manifest_of(folder)
    try:
        content = steadily((folder / name).read_bytes)
    except OSError as error:
        if is_passing(error):
            raise
        return None
    return content if files is not None and is_that(content, files, name) else None


def is_that(content: bytes, files: Files, name: str) -> bool:
    """Whether the content of a file is what a manifest says of it."""
    return name in files and files[name]["sha256"] == hashlib.sha256(content).hexdigest()


def read_whole_json(folder: Path, name: str) -> dict[str, Any] | None:
    """The content of a JSON file of the entry in `folder`; None if it is not there or damaged.

    Raises:
        OSError: the disk can't be read just now.
    """
    return json_in(read_whole(folder, name))


def json_in(content: bytes | None) -> dict[str, Any] | None:
    """The JSON object in the content of a file; None if there is none."""
    if content is None:
        return None
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _size(path: Path) -> int | None:
    """Bytes of a file; None if there is no such file."""
    try:
        status = steadily(path.stat)
    except OSError as error:
        if is_passing(error):
            raise
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
