"""Files that appear whole or not at all, and what an error of the disk says of them.

Not for: entries of a store (entries.py), nor for what a store's files mean.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`; when the block ends without an error it goes to the disk and takes that place.

    Its folder is made if need be. A killed writer leaves a file whose name begins with a dot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        sync(draft)
        draft.replace(path)
        sync(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(path, as_json(value))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def as_json(value: Mapping[str, Any]) -> str:
    """The text of a JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def create_text(path: Path, text: str) -> bool:
    """Write a text file atomically unless it is there: of several who do so at once, the first one's stays.

    Returns:
        False on a file system that can't do this, as it has no hard links.
    """
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    except OSError:
        return False
    finally:
        Path(draft).unlink(missing_ok=True)
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None if there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    value = json.loads(text)
    assert isinstance(value, dict), f"{path} holds no JSON object"
    return value


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no such thing for folders.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def is_passing(error: OSError) -> bool:
    """Whether an error says that something can't be read just now, and not that it is missing or damaged.

    Libraries raise an OSError without a number where they do not understand a file's content.
    """
    return error.errno not in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
