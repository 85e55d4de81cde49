"""The store as its users see it: entries that are found or made, and the files of searches, in a folder or a bucket.

Everything appears whole or not at all. In a folder files are written beside their place and renamed, and so are whole
entries; in a bucket one manifest names the files that count. An entry that does not match its manifest does not count.
A disk or a bucket that can't be read just now is an error, and no reason to make anything anew. Not for: what the files
mean; the layout is in __init__.py.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dfd_tune.disk import FULL, in_words, naming
from dfd_tune.errors import UserError, cause_of
from dfd_tune.locks import holding, is_held
from dfd_tune.store import in_bucket, replica
from dfd_tune.store.bucket import Bucket, BucketError, each
from dfd_tune.store.copies import Copies, InFolder, adopt, near
from dfd_tune.store.files import as_json, create_text, replacing, steadily, sync, write_json, write_text
from dfd_tune.store.leases import leased
from dfd_tune.store.manifests import (
    MANIFEST_FILE,
    Files,
    damages,
    json_in,
    manifest_of,
    read_whole,
    sound,
    whole,
    write_manifest,
)
from dfd_tune.store.seals import object_in, sealed

FORMAT = 1
"""Of what a store holds. Another one is refused."""
STORE_FILE = "store.json"
LATE_SECONDS = 60.0
"""For so long a client of a network's file system may remember that a name is not there (`acdirmax` of NFS)."""
LATE_PAUSES = (0.05, 2.0)
"""How often a name is looked for meanwhile: at first, and after a while."""

Found = TypeVar("Found")
Item = TypeVar("Item")
_log = logging.getLogger("dfd_tune")


@dataclass(frozen=True)
class Store:
    """A store at an absolute path or in a bucket. Make one with `open_store`."""

    root: Path
    """The folder that it is; of a bucket, one on a disk of this node's own, for drafts and the files of searches."""
    copies: Copies | None = None
    """None: this node reads from the folder itself. A store in a bucket always has one."""
    bucket: Bucket | None = None

    @property
    def location(self) -> str:
        """By which it is opened: its folder's path or its bucket's address."""
        return str(self.root) if self.bucket is None else self.bucket.address

    def path(self, *parts: str) -> Path:
        """The place of something in its folder; it need not exist. Of a bucket, this node's own files alone."""
        return self.root.joinpath(*parts)

    def identity(self) -> str:
        """32 hexadecimal digits that tell this store from every other, drawn once; a moved store keeps them.

        Raises:
            UserError: its file can't be read, or the bucket not be written.
        """
        try:
            return str((self.read_json(STORE_FILE) or self._named())["id"])
        except BucketError as error:
            raise UserError(
                f"The store '{self.location}' can't be used ({cause_of(error)}); see that the environment's "
                "credentials let objects be listed, read, written and deleted there."
            ) from None
        except OSError as error:
            told = in_words(error) or f"'{STORE_FILE}' in '{self.location}' can't be used ({cause_of(error)})."
            raise UserError(told) from None
        except (KeyError, ValueError) as error:
            raise UserError(
                f"'{STORE_FILE}' in '{self.location}', which tells this store from others in MLflow, can't be read "
                f"({cause_of(error)}); put it back from a copy, or delete it to have this store's searches begin new "
                "experiments there."
            ) from None

    def _named(self) -> dict[str, Any]:
        """Give the store its identity, unless somebody is quicker; returns what counts."""
        from importlib.metadata import version

        fresh = {"id": uuid.uuid4().hex, "format": FORMAT, "release": version("dfd-tune")}
        if self.bucket is not None or not create_text(self.path(STORE_FILE), sealed(as_json(fresh))):
            with self.lease("identity"):
                if self.read_json(STORE_FILE) is None:
                    self.write_json(fresh, STORE_FILE)
        return self.read_json(STORE_FILE) or {}

    # Entries: under a key, and never changed.

    def ensure(
        self,
        kind: str,
        key: str,
        open: Callable[[Path], Found | None],
        make: Callable[[Path], None],
        say: Callable[[str], None] | None = None,
    ) -> tuple[Found, bool]:
        """What `open` makes of an entry, which `make` makes now if it is not there; and whether it did.

        Of two who ask at once one makes it, and the other waits; in a bucket, both may at worst. What is there, but
        is not whole or nothing that `open` takes, is set aside, and made anew.

        Args:
            kind: folder of the store.
            key: name of the entry in it.
            open: is given the entry's folder, perhaps this node's copy of it, which may not exist; None if what is
                in there can't be used.
            make: fills a fresh folder.
            say: is told on whom it waits, and of what is made anew; None tells the log.

        Raises:
            OSError: the store can't be read just now, or not be written.
        """
        found = self.opened(kind, key, open)
        if found is not None:
            return found, False
        with self.lease(f"{kind}-{key}", say):
            found = self.opened(kind, key, open)
            if found is not None:
                return found, False
            if self.set_aside(kind, key):
                (say or _log.warning)(f"'{kind}/{key}' in '{self.location}' is damaged and set aside; it is made anew.")
            self.clear_drafts(kind, key)
            with self.publish(kind, key) as draft:
                make(draft)
            found = self.opened(kind, key, open)
            assert found is not None, f"{kind}/{key} was just made"
            return found, True

    def opened(self, kind: str, key: str, open: Callable[[Path], Found | None]) -> Found | None:
        """What `open` makes of an entry's folder, as in `ensure`; None if it can't be used.

        Raises:
            OSError: the store can't be read just now, or this node's disk not be written.
        """
        with self.near(kind, key) as folder:
            return steadily(lambda: open(folder))

    @contextlib.contextmanager
    def near(self, kind: str, key: str) -> Iterator[Path]:
        """The folder to read an entry from: the entry itself or, where the store has copies, this node's, made if
        need be. One that is not there or not whole gives a folder that is not `whole`.

        A copy stays as long as the block lasts. What is mapped into memory by then can be read afterwards too.

        Raises:
            OSError: the store can't be read just now, or the node's disk not be written; ENOSPC where it has no room.
            NoLocksError: the folder for copies has no locks.
        """
        place = self.path(kind, key)
        original = InFolder(place) if self.bucket is None else in_bucket.entry_in(self.bucket, kind, key)
        if self.copies is None or original is None:
            yield place
            return
        with near(original, self.copies, kind, key) as copy:
            yield place if copy is None else copy

    def here(self, kind: str, key: str) -> Path:
        """Like `near`, for somebody who reads it once, and now: a folder is no slower for that than its copy would be,
        and a bucket's copy may have to make room later."""
        if self.bucket is None:
            return self.path(kind, key)
        with self.near(kind, key) as folder:
            return folder

    @contextlib.contextmanager
    def publish(self, *parts: str) -> Iterator[Path]:
        """A fresh folder to fill. When the block ends without an error it gets its manifest, goes to the disk, and is
        renamed to its place; or to the bucket.

        If the place is taken by then, by someone who was quicker, theirs is kept, as equal keys mean equal content; but
        what does not match its manifest, in sizes and digests, gives way.
        """
        final = self.path(*parts)
        final.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            with naming(final):
                yield draft
                draft.chmod(0o755)
                files = write_manifest(draft)
            if self.bucket is not None:
                counts = in_bucket.publish(self.bucket, draft, files, *parts)
                if counts and self.copies is not None and len(parts) == 2:
                    adopt(draft, files, self.copies, *parts)
                return
            while not _renamed(draft, final) and not sound(final):
                self.set_aside(*parts)
            sync(final.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        for damaged in final.parent.glob(f"{_aside(final)}*"):
            shutil.rmtree(damaged, ignore_errors=True)

    def whole(self, *parts: str) -> bool:
        """Whether an entry is there with all of its files, each of its size; nothing is read but the manifest. In a
        bucket the manifest speaks for the files, which were there before it.

        Raises:
            OSError: it can't be told, as the store can't be read just now.
        """
        if self.bucket is not None:
            return in_bucket.entry_in(self.bucket, *parts) is not None
        return whole(self.path(*parts))

    def is_there(self, *parts: str) -> bool:
        """Whether something lies in an entry's place, whole or not."""
        if self.bucket is not None:
            return self.bucket.known(*parts, MANIFEST_FILE) is not None
        return self.path(*parts).exists()

    def seen(self, *parts: str, patience: float = LATE_SECONDS) -> bool:
        """Whether an entry is there, whole or not; of one that another node has just published, waited for a while, as
        this one may not see it yet.

        Raises:
            OSError: it can't be told.
        """
        if self.bucket is not None:
            return self.whole(*parts)
        place, end, pause = self.path(*parts), time.monotonic() + patience, LATE_PAUSES[0]
        while not place.exists():
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, pause))
            pause = min(2 * pause, LATE_PAUSES[1])
            self.entries(*parts[:-1])  # a listing has a client ask the server what has changed
        return True

    def has(self, kind: str, key: str, name: str) -> bool:
        """Whether an entry has a file of that name, of the size that its manifest says.

        Raises:
            OSError: it can't be told, as the store can't be read just now.
        """
        if self.bucket is None:
            return whole(self.path(kind, key), name)
        entry = in_bucket.entry_in(self.bucket, kind, key)
        if entry is None or name not in entry.found:
            return False
        known = self.bucket.known(kind, key, entry.publisher, name)
        return known is not None and known.bytes == entry.found[name]["bytes"]

    def files(self, kind: str, key: str) -> Files | None:
        """What an entry's manifest says of its files; None if it has none.

        Raises:
            OSError: the store can't be read just now.
        """
        if self.bucket is None:
            return manifest_of(self.path(kind, key))
        entry = in_bucket.entry_in(self.bucket, kind, key)
        return None if entry is None else entry.found

    def file(self, *parts: str) -> Path | None:
        """A file that is no entry's and never changes, as those in downloads, on a disk of this node's, to which a
        bucket's is brought; None if there is none.

        Raises:
            OSError: the bucket can't be read just now, or the disk not be written.
        """
        place = self.path(*parts)
        if self.bucket is not None and not place.is_file() and self.bucket.known(*parts) is not None:
            with replacing(place) as draft:
                self.bucket.fetch(draft, *parts)
            replica.note_written(place)
        return place if place.is_file() else None

    def content(self, *parts: str) -> bytes | None:
        """One file of an entry, the last part being its name; None if it is not there, or not what the manifest says.

        Raises:
            OSError: the store can't be read just now.
        """
        *entry, name = parts
        if self.bucket is None:
            return read_whole(self.path(*entry), name)
        found = in_bucket.entry_in(self.bucket, *entry)
        return None if found is None else found.read(name)

    def facts(self, *parts: str) -> dict[str, Any] | None:
        """A JSON file of an entry, as `content`.

        Raises:
            OSError: the store can't be read just now.
        """
        return json_in(self.content(*parts))

    def entries(self, *parts: str) -> list[str]:
        """Names of what lies in a kind of entries, whole or not; sorted. In a bucket, of what has a manifest.

        Raises:
            OSError: it can't be told.
        """
        if self.bucket is not None:
            return in_bucket.names_in(self.bucket, *parts)
        try:
            return sorted(entry.name for entry in self.path(*parts).iterdir() if not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    def damages(self, *parts: str) -> list[str]:
        """What is wrong with an entry, in phrases; none if it is what its manifest says, or gone. Reads all of it.

        Raises:
            OSError: it can't be read just now.
        """
        if self.bucket is None:
            folder = self.path(*parts)
            files = manifest_of(folder)
            found = ["it has no manifest"] if files is None else list(damages(files, InFolder(folder).open))
            return found if folder.is_dir() else []
        entry = in_bucket.entry_in(self.bucket, *parts)
        found = ["its manifest can't be read"] if entry is None else list(damages(entry.found, entry.open))
        return found if found and self.bucket.known(*parts, MANIFEST_FILE) is not None else []

    def let_go(self, kind: str, key: str, name: str) -> int:
        """Have an entry go on without one of its files, as readers of its kind bear; returns the bytes that it had.

        Raises:
            OSError: the store can't be read just now, or not be written.
        """
        if self.bucket is not None:
            return in_bucket.let_go(self.bucket, kind, key, name)
        folder = self.path(kind, key)
        files = manifest_of(folder)
        if files is None:
            return 0
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError:
            size = 0
        if name in files:
            rest = {other: facts for other, facts in files.items() if other != name}
            write_json(folder / MANIFEST_FILE, {"files": rest})
        # Also what the manifest names no longer, as somebody was killed between the two.
        (folder / name).unlink(missing_ok=True)
        return size

    def set_aside(self, *parts: str) -> bool:
        """Rename an entry away, if it is there; it goes when another one is published in its place. In a bucket its
        manifest goes. Returns whether it was there."""
        if self.bucket is not None:
            there = self.is_there(*parts)
            self.bucket.remove(*parts, MANIFEST_FILE)
            return there
        final = self.path(*parts)
        try:
            aside = Path(tempfile.mkdtemp(prefix=_aside(final), dir=final.parent))
        except FileNotFoundError:
            return False
        try:
            final.rename(aside / final.name)
            return True
        except FileNotFoundError:
            aside.rmdir()
            return False

    def clear_drafts(self, *parts: str) -> None:
        """Remove what killed publishers of an entry left; for the holder of its lease, as nobody drafts it then."""
        final = self.path(*parts)
        for draft in final.parent.glob(f".{final.name}.*"):
            shutil.rmtree(draft, ignore_errors=True)

    def discard(self, *parts: str) -> None:
        """Remove an entry, or what else lies there. It disappears at once, before its files are deleted."""
        if self.bucket is not None:
            in_bucket.discard(self.bucket, *parts)
        final = self.path(*parts)
        if not final.exists():
            return
        with contextlib.suppress(FileNotFoundError):  # someone else was quicker
            try:
                doomed = Path(tempfile.mkdtemp(prefix=".discarded.", dir=final.parent))
            except OSError as error:
                if error.errno not in FULL:
                    raise
                shutil.rmtree(final, ignore_errors=True)  # a full disk is what it may be removed for
                return
            try:
                final.rename(doomed / final.name)
            finally:
                shutil.rmtree(doomed, ignore_errors=True)

    # Files that change, as a search's records: each whole at any time. One writer at a time, who holds the search.

    def write_json(self, value: Mapping[str, Any], *parts: str) -> None:
        """Have a file hold this JSON object, at once; sealed, so that damage to it is seen."""
        self.write_text(sealed(as_json(value)), *parts)

    def write_text(self, text: str, *parts: str) -> None:
        """Have a file hold this text, in UTF-8, at once; in the bucket, too."""
        if self.bucket is None or len(parts) > 1:
            write_text(self.path(*parts), text)
        if self.bucket is not None:
            self.bucket.write(text.encode(), *parts)
            replica.note_written(self.path(*parts))

    def read_json(self, *parts: str) -> dict[str, Any] | None:
        """The JSON object in a file as it is now; None if there is no such file.

        Raises:
            ValueError: it holds none, or not what was sealed there.
            OSError: it can't be read just now.
        """
        text = self.read_text(*parts)
        return None if text is None else object_in(text)

    def read_text(self, *parts: str) -> str | None:
        """The text in a file as it is now, in UTF-8; None if there is no such file.

        Raises:
            UnicodeDecodeError: it holds none.
            OSError: it can't be read just now.
        """
        if self.bucket is not None:
            content = self.bucket.read(*parts)
            return None if content is None else content.decode()
        try:
            place = self.path(*parts)
            return steadily(lambda: place.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def remove(self, *parts: str) -> None:
        """Remove a file, if it is there."""
        self.path(*parts).unlink(missing_ok=True)
        if self.bucket is not None:
            self.bucket.remove(*parts)

    def names(self, *parts: str) -> list[str]:
        """What lies under these parts of a name, as searches do; sorted."""
        if self.bucket is not None:
            return self.bucket.folders(*parts)
        try:
            return sorted(entry.name for entry in self.path(*parts).iterdir() if not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    def there(self, *parts: str) -> bool:
        """Whether there is such a file.

        Raises:
            OSError: it can't be told.
        """
        return self.changed(*parts) is not None if self.bucket is None else self.bucket.has(*parts)

    def changed(self, *parts: str) -> int | None:
        """When a file was last written, in nanoseconds since 1970 by the store's clock; None if it is not there."""
        if self.bucket is not None:
            known = self.bucket.known(*parts)
            return None if known is None else known.changed
        try:
            return steadily(self.path(*parts).stat).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None

    def push(self, *parts: str) -> None:
        """Have the bucket hold what this node's files under these parts do. Does nothing in a folder.

        Raises:
            BucketError: it can't be written.
        """
        if self.bucket is not None:
            replica.push(self.bucket, self.root, *parts)

    def pull(self, *parts: str, lock: str | None = None) -> None:
        """Have this node's files under these parts hold what the bucket's do. Does nothing in a folder.

        What the bucket does not know stays.

        Args:
            parts: of the files' names.
            lock: which their writer holds; while a process of this node does, what was written here stays too.

        Raises:
            BucketError: it can't be read.
        """
        if self.bucket is not None:
            keep = lock is not None and is_held(self.lock_file(lock))
            replica.pull(self.bucket, self.root, *parts, keep=keep)

    def bring(self, *parts: str) -> None:
        """Have one of this node's files hold what the bucket's does; of a log, what it has more here stays. Does
        nothing in a folder.

        Raises:
            BucketError: it can't be read.
        """
        if self.bucket is not None:
            replica.bring(self.bucket, self.root, *parts)

    def each(self, work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
        """What `work`, which asks the store, gives for each item: many at a time in a bucket, where each one waits."""
        return list(map(work, items)) if self.bucket is None else each(work, items)

    @contextlib.contextmanager
    def lease(self, name: str, say: Callable[[str], None] | None = None, *, node: bool = False) -> Iterator[None]:
        """Hold the store-wide lock `name`; waits for it. A process that dies lets go of it, in a bucket after a while.

        Args:
            name: of the lock.
            say: is told who holds it, if it is waited for long; None tells the log.
            node: whether only processes of this node need to agree, where the store is in a bucket.

        Raises:
            UserError: the store's folder has no locks.
        """
        lock = self.lock_file(name)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(holding(lock, say=say))
            if self.bucket is not None and not node:
                stack.enter_context(leased(self.bucket, name, say or _log.warning))
            yield

    @contextlib.contextmanager
    def claim(self, name: str, patience: float, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the store-wide lock `name`, unless somebody else does.

        Args:
            name: of the lock.
            patience: seconds for which who only asks after the lock may hold it.
            say: is told where it takes long to see whether the holder lives; None tells the log.

        Raises:
            HeldError: somebody else holds it; in a bucket, somebody who lives.
            UserError: the store's folder has no locks.
        """
        with contextlib.ExitStack() as stack:
            lock = self.lock_file(name)
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(holding(lock, patience=patience))
            if self.bucket is not None:
                stack.enter_context(leased(self.bucket, name, say or _log.warning, waits=False))
            yield

    def wait_for(self, name: str, say: Callable[[str], None] | None = None) -> None:
        """Wait until nobody holds the store-wide lock `name`, which may never have been held.

        Raises:
            UserError: the store's folder has no locks.
        """
        afar = self.bucket is not None and self.bucket.known("leases", f"{name}.json") is not None
        if afar or self.lock_file(name).exists():
            with self.lease(name, say, node=not afar):
                pass

    def lock_file(self, name: str) -> Path:
        """The file that the lock `name` is on; of a bucket, the one on which processes of this node agree."""
        return self.path("leases", f"{name}.lock")


def _renamed(draft: Path, final: Path) -> bool:
    """Rename a folder; False if its place is taken."""
    try:
        draft.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _aside(final: Path) -> str:
    """How the names begin under which what was `final` is set aside."""
    return f".set-aside.{final.name}."
