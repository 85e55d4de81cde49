"""The store as its users see it: entries that are found or made, and the files of searches.

Everything appears whole or not at all. An entry that does not match its manifest does not count. A disk or a bucket
that can't be read just now is an error, and no reason to make anything anew. Not for: how a folder or a bucket keeps
these promises (in_folder.py, in_bucket.py); what the files mean; the layout is in __init__.py.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dfd_tune.disk import in_words, naming
from dfd_tune.errors import UserError, cause_of
from dfd_tune.locks import holding
from dfd_tune.store.bucket import BucketError
from dfd_tune.store.copies import Copies
from dfd_tune.store.files import as_json, steadily
from dfd_tune.store.manifests import Files, json_in, write_manifest
from dfd_tune.store.seals import object_in, sealed

FORMAT = 1
"""Of what a store holds. Another one is refused."""
STORE_FILE = "store.json"
LATE_SECONDS = 60.0
"""For so long a client of a network's file system may remember that a name is not there (`acdirmax` of NFS)."""

Found = TypeVar("Found")
Item = TypeVar("Item")
_log = logging.getLogger("dfd_tune")


class Store(ABC):
    """A folder or a bucket. Open one with `open_store`; what can fail as the store can't be reached raises OSError."""

    root: Path
    """The folder that it is; of a bucket, one on a disk of this node's own, for drafts and the files of searches.
    Absolute."""
    copies: Copies | None
    """Where this node keeps its own of what it reads. None: it reads from the folder itself."""

    @property
    @abstractmethod
    def location(self) -> str:
        """By which it is opened: its folder's path or its bucket's address."""

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
        if not self._create_text(sealed(as_json(fresh)), STORE_FILE):
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

    @abstractmethod
    def near(self, kind: str, key: str) -> contextlib.AbstractContextManager[Path]:
        """The folder to read an entry from: the entry itself or, where the store has copies, this node's, made if
        need be. One that is not there or not whole gives a folder that is not `whole`.

        A copy stays as long as the block lasts. What is mapped into memory by then can be read afterwards too.

        Raises:
            OSError: the store can't be read just now, or the node's disk not be written; ENOSPC where it has no room.
            NoLocksError: the folder for copies has no locks.
        """

    @abstractmethod
    def here(self, kind: str, key: str) -> Path:
        """Like `near`, for somebody who reads it once, and now: a folder is no slower for that than its copy would be,
        and a bucket's copy may have to make room later."""

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
            self._put(draft, files, *parts)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def clear_drafts(self, *parts: str) -> None:
        """Remove what killed publishers of an entry left; for the holder of its lease, as nobody drafts it then."""
        final = self.path(*parts)
        for draft in final.parent.glob(f".{final.name}.*"):
            shutil.rmtree(draft, ignore_errors=True)

    @abstractmethod
    def _put(self, draft: Path, files: Files, *parts: str) -> None:
        """Have a whole entry appear, of which the manifest says `files`, unless a sound one is there."""

    @abstractmethod
    def whole(self, *parts: str) -> bool:
        """Whether an entry is there with all of its files, each of its size; nothing is read but the manifest. In a
        bucket the manifest speaks for the files, which were there before it.

        Raises:
            OSError: it can't be told, as the store can't be read just now.
        """

    @abstractmethod
    def is_there(self, *parts: str) -> bool:
        """Whether something lies in an entry's place, whole or not."""

    @abstractmethod
    def seen(self, *parts: str, patience: float = LATE_SECONDS) -> bool:
        """Whether an entry is there, whole or not; of one that another node has just published, waited for a while, as
        this one may not see it yet.

        Args:
            parts: of the entry's name.
            patience: seconds to wait.

        Raises:
            OSError: it can't be told.
        """

    @abstractmethod
    def has(self, kind: str, key: str, name: str) -> bool:
        """Whether an entry has a file of that name, of the size that its manifest says.

        Raises:
            OSError: it can't be told, as the store can't be read just now.
        """

    @abstractmethod
    def files(self, kind: str, key: str) -> Files | None:
        """What an entry's manifest says of its files; None if it has none.

        Raises:
            OSError: the store can't be read just now.
        """

    @abstractmethod
    def file(self, *parts: str) -> Path | None:
        """A file that is no entry's and never changes, as those in downloads, on a disk of this node's, to which a
        bucket's is brought; None if there is none.

        Raises:
            OSError: the bucket can't be read just now, or the disk not be written.
        """

    @abstractmethod
    def content(self, *parts: str) -> bytes | None:
        """One file of an entry, the last part being its name; None if it is not there, or not what the manifest says.

        Raises:
            OSError: the store can't be read just now.
        """

    def facts(self, *parts: str) -> dict[str, Any] | None:
        """A JSON file of an entry, as `content`.

        Raises:
            OSError: the store can't be read just now.
        """
        return json_in(self.content(*parts))

    @abstractmethod
    def entries(self, *parts: str) -> list[str]:
        """Names of what lies in a kind of entries, whole or not; sorted. In a bucket, of what has a manifest.

        Raises:
            OSError: it can't be told.
        """

    @abstractmethod
    def damages(self, *parts: str) -> list[str]:
        """What is wrong with an entry, in phrases; none if it is what its manifest says, or gone. Reads all of it.

        Raises:
            OSError: it can't be read just now.
        """

    @abstractmethod
    def let_go(self, kind: str, key: str, name: str) -> int:
        """Have an entry go on without one of its files, as readers of its kind bear; returns the bytes that it had.

        Raises:
            OSError: the store can't be read just now, or not be written.
        """

    @abstractmethod
    def set_aside(self, *parts: str) -> bool:
        """Have an entry count no more, if it is there: renamed away, until another one is published in its place; in a
        bucket its manifest goes. Returns whether it was there."""

    @abstractmethod
    def discard(self, *parts: str) -> None:
        """Remove an entry, or what else lies there. It disappears at once, before its files are deleted."""

    # Files that change, as a search's records: each whole at any time. One writer at a time, who holds the search.

    def write_json(self, value: Mapping[str, Any], *parts: str) -> None:
        """Have a file hold this JSON object, at once; sealed, so that damage to it is seen."""
        self.write_text(sealed(as_json(value)), *parts)

    def read_json(self, *parts: str) -> dict[str, Any] | None:
        """The JSON object in a file as it is now; None if there is no such file.

        Raises:
            ValueError: it holds none, or not what was sealed there.
            OSError: it can't be read just now.
        """
        text = self.read_text(*parts)
        return None if text is None else object_in(text)

    @abstractmethod
    def write_text(self, text: str, *parts: str) -> None:
        """Have a file hold this text, in UTF-8, at once; in the bucket, too."""

    @abstractmethod
    def _create_text(self, text: str, *parts: str) -> bool:
        """Have a file hold this text if it is not there; False if it is, or if the store has no way to do that."""

    @abstractmethod
    def read_text(self, *parts: str) -> str | None:
        """The text in a file as it is now, in UTF-8; None if there is no such file.

        Raises:
            UnicodeDecodeError: it holds none.
            OSError: it can't be read just now.
        """

    @abstractmethod
    def remove(self, *parts: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def names(self, *parts: str) -> list[str]:
        """What lies under these parts of a name, as searches do; sorted."""

    @abstractmethod
    def there(self, *parts: str) -> bool:
        """Whether there is such a file.

        Raises:
            OSError: it can't be told.
        """

    @abstractmethod
    def changed(self, *parts: str) -> int | None:
        """When a file was last written, in nanoseconds since 1970 by the store's clock; None if it is not there."""

    @abstractmethod
    def push(self, *parts: str) -> None:
        """Have the bucket hold what this node's files under these parts do. Does nothing in a folder.

        Raises:
            BucketError: it can't be written.
        """

    @abstractmethod
    def pull(self, *parts: str, lock: str | None = None) -> None:
        """Have this node's files under these parts hold what the bucket's do. Does nothing in a folder.

        Args:
            parts: of the files' names.
            lock: which their writer holds; while a process of this node does, what was written here stays. None: it is
                this process that holds it.

        Raises:
            BucketError: it can't be read.
        """

    @abstractmethod
    def bring(self, *parts: str) -> None:
        """Have one of this node's files hold what the bucket's does; of a log, what it has more here stays. Does
        nothing in a folder.

        Raises:
            BucketError: it can't be read.
        """

    @abstractmethod
    def each(self, work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
        """What `work`, which asks the store, gives for each item: many at a time in a bucket, where each one waits."""

    # Who does what, where several might.

    @contextlib.contextmanager
    def lease(self, name: str, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the store-wide lock `name`; waits for it. A process that dies lets go of it, in a bucket after a while.

        Args:
            name: of the lock.
            say: is told who holds it, if it is waited for long; None tells the log.

        Raises:
            UserError: the store's folder has no locks.
        """
        with self._holding(name, say=say), self._leased(name, say):
            yield

    @contextlib.contextmanager
    def node_lease(self, name: str) -> Iterator[None]:
        """Like `lease`, where those need to agree that see `root`: of a bucket, processes of this node alone.

        Raises:
            UserError: the folder has no locks.
        """
        with self._holding(name):
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
        with self._holding(name, patience=patience), self._leased(name, say, waits=False):
            yield

    @abstractmethod
    def wait_for(self, name: str, say: Callable[[str], None] | None = None) -> None:
        """Wait until nobody holds the store-wide lock `name`, which may never have been held.

        Raises:
            UserError: the store's folder has no locks.
        """

    def lock_file(self, name: str) -> Path:
        """The file that the lock `name` is on; of a bucket, the one on which processes of this node agree."""
        return self.path("leases", f"{name}.lock")

    @contextlib.contextmanager
    def _holding(self, name: str, **how: Any) -> Iterator[None]:
        lock = self.lock_file(name)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with holding(lock, **how):
            yield

    @abstractmethod
    def _leased(
        self, name: str, say: Callable[[str], None] | None, *, waits: bool = True
    ) -> contextlib.AbstractContextManager[None]:
        """What the lock `name` needs beyond a lock in `root`."""
