"""A store in a bucket: one object names the files of an entry that count, and what is read lies on this node's disk.

Entries are copied here to be read; the files of searches are kept here and there alike (replica.py). Not for: what the
methods promise, which `Store` says (store.py); which objects an entry is made of (bucket_entries.py).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.locks import is_held
from dfd_tune.store import bucket_entries, in_folder, replica
from dfd_tune.store.bucket import Bucket, each
from dfd_tune.store.copies import Copies, adopt, near
from dfd_tune.store.files import write_text
from dfd_tune.store.leases import leased
from dfd_tune.store.manifests import MANIFEST_FILE, Files, damages
from dfd_tune.store.store import LATE_SECONDS, Found, Item, Store

_log = logging.getLogger("dfd_tune")


@dataclass(frozen=True)
class BucketStore(Store):
    """A store in a bucket."""

    root: Path
    copies: Copies
    bucket: Bucket

    @property
    def location(self) -> str:
        return self.bucket.address

    @contextlib.contextmanager
    def near(self, kind: str, key: str) -> Iterator[Path]:
        place = self.path(kind, key)
        original = bucket_entries.entry_in(self.bucket, kind, key)
        if original is None:
            yield place
            return
        with near(original, self.copies, kind, key) as copy:
            yield place if copy is None else copy

    def here(self, kind: str, key: str) -> Path:
        with self.near(kind, key) as folder:
            return folder

    def _put(self, draft: Path, files: Files, *parts: str) -> None:
        counts = bucket_entries.publish(self.bucket, draft, files, *parts)
        if counts and len(parts) == 2:
            adopt(draft, files, self.copies, *parts)

    def whole(self, *parts: str) -> bool:
        return bucket_entries.entry_in(self.bucket, *parts) is not None

    def is_there(self, *parts: str) -> bool:
        return self.bucket.known(*parts, MANIFEST_FILE) is not None

    def seen(self, *parts: str, patience: float = LATE_SECONDS) -> bool:
        return self.whole(*parts)

    def has(self, kind: str, key: str, name: str) -> bool:
        entry = bucket_entries.entry_in(self.bucket, kind, key)
        if entry is None or name not in entry.found:
            return False
        known = self.bucket.known(kind, key, entry.publisher, name)
        return known is not None and known.bytes == entry.found[name]["bytes"]

    def files(self, kind: str, key: str) -> Files | None:
        entry = bucket_entries.entry_in(self.bucket, kind, key)
        return None if entry is None else entry.found

    def file(self, *parts: str) -> Path | None:
        place = self.path(*parts)
        if not place.is_file() and self.bucket.known(*parts) is not None:
            replica.bring(self.bucket, self.root, *parts)
        return place if place.is_file() else None

    def content(self, *parts: str) -> bytes | None:
        *entry, name = parts
        found = bucket_entries.entry_in(self.bucket, *entry)
        return None if found is None else found.read(name)

    def entries(self, *parts: str) -> list[str]:
        return bucket_entries.names_in(self.bucket, *parts)

    def damages(self, *parts: str) -> list[str]:
        entry = bucket_entries.entry_in(self.bucket, *parts)
        found = ["its manifest can't be read"] if entry is None else list(damages(entry.found, entry.open))
        return found if found and self.is_there(*parts) else []

    def let_go(self, kind: str, key: str, name: str) -> int:
        return bucket_entries.let_go(self.bucket, kind, key, name)

    def set_aside(self, *parts: str) -> bool:
        if not self.is_there(*parts):
            return False
        self.bucket.remove(*parts, MANIFEST_FILE)
        return True

    def discard(self, *parts: str) -> None:
        bucket_entries.discard(self.bucket, *parts)
        in_folder.discard(self.path(*parts))

    def write_text(self, text: str, *parts: str) -> None:
        if len(parts) > 1:
            write_text(self.path(*parts), text)
        self.bucket.write(text.encode(), *parts)
        replica.note_written(self.path(*parts))

    def _create_text(self, text: str, *parts: str) -> bool:
        return False

    def read_text(self, *parts: str) -> str | None:
        content = self.bucket.read(*parts)
        return None if content is None else content.decode()

    def remove(self, *parts: str) -> None:
        self.path(*parts).unlink(missing_ok=True)
        self.bucket.remove(*parts)

    def names(self, *parts: str) -> list[str]:
        return self.bucket.folders(*parts)

    def there(self, *parts: str) -> bool:
        return self.bucket.has(*parts)

    def changed(self, *parts: str) -> int | None:
        known = self.bucket.known(*parts)
        return None if known is None else known.changed

    def push(self, *parts: str) -> None:
        replica.push(self.bucket, self.root, *parts)

    def pull(self, *parts: str, lock: str | None = None) -> None:
        keep = lock is not None and is_held(self.lock_file(lock))
        replica.pull(self.bucket, self.root, *parts, keep=keep)

    def bring(self, *parts: str) -> None:
        replica.bring(self.bucket, self.root, *parts)

    def each(self, work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
        return each(work, items)

    def wait_for(self, name: str, say: Callable[[str], None] | None = None) -> None:
        if self.bucket.known("leases", f"{name}.json") is not None:
            with self.lease(name, say):
                pass
        elif self.lock_file(name).exists():
            with self._holding(name, say=say):
                pass

    def _leased(
        self, name: str, say: Callable[[str], None] | None, *, waits: bool = True
    ) -> contextlib.AbstractContextManager[None]:
        return leased(self.bucket, name, say or _log.warning, waits=waits)
