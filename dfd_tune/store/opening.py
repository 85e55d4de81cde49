"""Opening a store: a folder or a bucket, seen to be usable and of a format that this release reads.

Not for: what is done with it (store.py).
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from dfd_tune.digest import digest_json
from dfd_tune.errors import UserError, cause_of
from dfd_tune.store.bucket import bucket_at, is_address
from dfd_tune.store.copies import Copies
from dfd_tune.store.in_bucket import BucketStore
from dfd_tune.store.in_folder import FolderStore
from dfd_tune.store.store import FORMAT, STORE_FILE, Store

CACHE_VARIABLE, CACHE_BYTES_VARIABLE = "DFD_TUNE_CACHE", "DFD_TUNE_CACHE_GB"
DEFAULT_CACHE = "~/.cache/dfd-tune"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def open_store(location: str | os.PathLike[str], copies: Copies | None = None) -> Store:
    """Open the store in a folder or a bucket, making it if it is not there.

    Args:
        location: the folder's path, or the bucket's address.
        copies: where this node keeps its own of what it reads; None: of a folder nowhere, of a bucket where
            DFD_TUNE_CACHE says, else in ~/.cache/dfd-tune, bounded by DFD_TUNE_CACHE_GB.

    Raises:
        UserError: it can't be read or written, or is of another format.
    """
    text = os.fspath(location)
    store: Store
    if is_address(text):
        store = _in_bucket(text, copies)
    else:
        root = Path(os.path.expanduser(text)).absolute()
        _check_writable(root, f"The store '{root}'", "name a folder that can, with --store or DFD_TUNE_STORE")
        store = FolderStore(root, copies)
    _check_format(store)
    if isinstance(store, BucketStore):
        store.identity()  # which is written there now, if it is not yet: that it can be is seen before work begins
    return store


def existing_store(location: str | os.PathLike[str]) -> Store:
    """The store in a folder or a bucket that must be there already; for commands that only read.

    Raises:
        UserError: there is no such folder, or the store is of another format.
    """
    text = os.fspath(location)
    store: Store
    if is_address(text):
        store = _in_bucket(text, None)
        there = store.there(STORE_FILE)
    else:
        store = FolderStore(Path(os.path.expanduser(text)).absolute())
        there = store.root.is_dir()
    if not there:
        raise UserError(
            f"There is no store at '{store.location}'; name one with --store or DFD_TUNE_STORE, or make one with "
            "`dfd-tune launch`."
        )
    _check_format(store)
    return store


def problem_with_name(name: str) -> str | None:
    """What is wrong with the name of a search, as one sentence; None if it may be a folder's name."""
    if _NAME.fullmatch(name) and ".." not in name:
        return None
    return (
        f"--name is '{name}', but must be 1 to 100 letters, digits, '.', '_' or '-', start with a letter or a "
        "digit, and hold no '..'."
    )


def _in_bucket(address: str, copies: Copies | None) -> BucketStore:
    bucket = bucket_at(address)
    copies = copies or _cache()
    root = copies.root.expanduser() / "buckets" / digest_json({"address": bucket.address})
    _check_writable(
        root, f"The folder '{root}', in which this node keeps copies", f"name another with {CACHE_VARIABLE}"
    )
    return BucketStore(root, copies, bucket)


def _cache() -> Copies:
    """Where a bucket's copies go, as the environment says.

    Raises:
        UserError: it says no number of gigabytes, or a path that is not absolute.
    """
    root = Path(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE).expanduser()
    if not root.is_absolute():
        raise UserError(
            f"{CACHE_VARIABLE} is '{root}', but must be an absolute path: processes begin in other folders."
        )
    text = os.environ.get(CACHE_BYTES_VARIABLE)
    if not text:
        return Copies(root)
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 1e9:
        raise UserError(
            f"{CACHE_BYTES_VARIABLE} is '{text}', but must be a number of gigabytes above 0; leave it out to let "
            "copies fill the disk but for a little."
        )
    return Copies(root, int(size * 1e9))


def _check_writable(root: Path, what: str, remedy: str) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(f"{what} can't be written ({cause_of(error)}); {remedy}.") from None


def _check_format(store: Store) -> None:
    """Refuse a store of another format.

    Raises:
        UserError: it is one.
    """
    try:
        known = store.read_json(STORE_FILE)
    except (ValueError, AssertionError, OSError):
        return  # its identity is asked for wherever it matters
    if known is not None and known.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"The store '{store.location}' has format {known['format']}, and this release reads format {FORMAT}; use "
            f"it with dfd-tune {known.get('release', 'of the release that made it')}, or name another --store."
        )
