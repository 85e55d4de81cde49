"""Entries in a bucket, which has neither renames nor locks: one object names the files that count.

    <kind>/<key>/<publisher>/<file>  each publisher's own files, under a random name
    <kind>/<key>/manifest.json       written last: the files' sizes and digests, and whose they are

Equal keys have equal meaning, but not equal bytes, as clock readings and numbers of threads differ; so what two
publishers write is never mixed. Readers follow the manifest alone. What no manifest names is litter (litter.py).
Not for: files that change (replica.py).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

from dfd_tune.store.bucket import Bucket, each
from dfd_tune.store.files import as_json
from dfd_tune.store.manifests import MANIFEST_FILE, Files, files_in, is_that

PUBLISHER = "publisher"
"""Under which a manifest says whose files it names."""


@dataclass(frozen=True)
class OriginalInBucket:
    """An entry in a bucket, as its manifest was when this was made. Its text names it in messages."""

    bucket: Bucket
    parts: tuple[str, ...]
    publisher: str
    found: Files

    def files(self) -> Files | None:
        """What its manifest says."""
        return self.found

    def open(self, name: str) -> RawIOBase:
        """One of its files.

        Raises:
            FileNotFoundError: it is not there.
            BucketError: it can't be read just now.
        """
        return self.bucket.open(*self.parts, self.publisher, name)

    def read(self, name: str) -> bytes | None:
        """The content of one of its files; None if it is not there, or another one.

        Raises:
            BucketError: it can't be read just now.
        """
        content = self.bucket.read(*self.parts, self.publisher, name) if name in self.found else None
        return content if content is not None and is_that(content, self.found, name) else None

    def __str__(self) -> str:
        return f"{'/'.join(self.parts)} in {self.bucket.address}"


def entry_in(bucket: Bucket, *parts: str) -> OriginalInBucket | None:
    """The entry at these parts of a name; None if it has no manifest, or one that is none.

    Raises:
        BucketError: it can't be told.
    """
    text = bucket.read(*parts, MANIFEST_FILE)
    files = None if text is None else files_in(text)
    if text is None or files is None:
        return None
    publisher: Any = json.loads(text).get(PUBLISHER)
    return OriginalInBucket(bucket, parts, publisher, files) if isinstance(publisher, str) and publisher else None


def publish(bucket: Bucket, draft: Path, files: Files, *parts: str) -> bool:
    """Have a bucket hold the entry that lies in a folder, manifest included; whoever was quicker keeps the place.

    Args:
        bucket: where.
        draft: the folder.
        files: what its manifest says.
        parts: of the entry's name.

    Returns:
        Whether it is this one that counts now.

    Raises:
        BucketError: it can't be written; nothing counts then.
    """
    if entry_in(bucket, *parts) is not None:
        return False
    publisher = uuid.uuid4().hex
    each(lambda name: bucket.upload(draft / name, *parts, publisher, name), files)
    if entry_in(bucket, *parts) is not None:
        each(lambda name: bucket.remove(*parts, publisher, name), files)
        return False
    bucket.write(as_json({PUBLISHER: publisher, "files": files}).encode(), *parts, MANIFEST_FILE)
    now = entry_in(bucket, *parts)
    # Where another's manifest came between, a reader may be at these files all the same, so they stay as litter.
    return now is not None and now.publisher == publisher


def let_go(bucket: Bucket, kind: str, key: str, name: str) -> int:
    """Have an entry go on without one of its files; returns the bytes that it had.

    Raises:
        BucketError: the bucket can't be read or written.
    """
    entry = entry_in(bucket, kind, key)
    if entry is None:
        return 0
    known = bucket.known(kind, key, entry.publisher, name)
    if name in entry.found:
        rest = {other: facts for other, facts in entry.found.items() if other != name}
        bucket.write(as_json({PUBLISHER: entry.publisher, "files": rest}).encode(), kind, key, MANIFEST_FILE)
    # Also what the manifest names no longer, as somebody was killed between the two.
    bucket.remove(kind, key, entry.publisher, name)
    return 0 if known is None else known.bytes


def discard(bucket: Bucket, *parts: str) -> None:
    """Remove an entry, or all whose names begin so. Their manifests go first, so that nothing is seen in part.

    Raises:
        BucketError: it can't be removed.
    """
    manifests = [name for name in bucket.files(*parts) if name.rpartition("/")[2] == MANIFEST_FILE]
    each(lambda name: bucket.remove(*parts, name), manifests)
    bucket.remove_all(*parts)


def names_in(bucket: Bucket, *parts: str) -> list[str]:
    """Names of the entries that lie directly under these parts; sorted.

    Raises:
        BucketError: it can't be told.
    """
    found = (name.split("/") for name in bucket.files(*parts))
    return sorted(name[0] for name in found if len(name) == 2 and name[1] == MANIFEST_FILE)
