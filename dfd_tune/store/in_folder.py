"""A store in a folder: files are written beside their place and renamed, and so are whole entries; locks are real.

The folder may be shared by nodes, whose clients of its file system see names late and lose handles. Not for: what the
methods promise, which `Store` says (store.py).
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.disk import FULL
from dfd_tune.store.copies import Copies, OriginalFolder, near
from dfd_tune.store.files import create_text, steadily, sync, write_json, write_text
from dfd_tune.store.manifests import MANIFEST_FILE, Files, damages, manifest_of, read_whole, sound, whole
from dfd_tune.store.store import LATE_SECONDS, Found, Item, Store

LATE_PAUSES = (0.05, 2.0)
"""How often a name is looked for that may come late, in seconds: at first, and after a while."""


@dataclass(frozen=True)
class FolderStore(Store):
    """A store in a folder."""

    root: Path
    copies: Copies | None = None

    @property
    def location(self) -> str:
        return str(self.root)

    @contextlib.contextmanager
    def near(self, kind: str, key: str) -> Iterator[Path]:
        place = self.path(kind, key)
        if self.copies is None:
            yield place
            return
        with near(OriginalFolder(place), self.copies, kind, key) as copy:
            yield place if copy is None else copy

    def here(self, kind: str, key: str) -> Path:
        return self.path(kind, key)

    def _put(self, draft: Path, files: Files, *parts: str) -> None:
        final = self.path(*parts)
        while not _renamed(draft, final) and not sound(final):
            self.set_aside(*parts)
        sync(final.parent)
        for damaged in final.parent.glob(f"{_aside(final)}*"):
            shutil.rmtree(damaged, ignore_errors=True)

    def whole(self, *parts: str) -> bool:
        return whole(self.path(*parts))

    def is_there(self, *parts: str) -> bool:
        return self.path(*parts).exists()

    def seen(self, *parts: str, patience: float = LATE_SECONDS) -> bool:
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
        return whole(self.path(kind, key), name)

    def files(self, kind: str, key: str) -> Files | None:
        return manifest_of(self.path(kind, key))

    def file(self, *parts: str) -> Path | None:
        place = self.path(*parts)
        return place if place.is_file() else None

    def content(self, *parts: str) -> bytes | None:
        *entry, name = parts
        return read_whole(self.path(*entry), name)

    def entries(self, *parts: str) -> list[str]:
        try:
            return sorted(entry.name for entry in self.path(*parts).iterdir() if not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    def damages(self, *parts: str) -> list[str]:
        return damages_in(self.path(*parts))

    def let_go(self, kind: str, key: str, name: str) -> int:
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

    def discard(self, *parts: str) -> None:
        discard(self.path(*parts))

    def write_text(self, text: str, *parts: str) -> None:
        write_text(self.path(*parts), text)

    def _create_text(self, text: str, *parts: str) -> bool:
        return create_text(self.path(*parts), text)

    def read_text(self, *parts: str) -> str | None:
        try:
            place = self.path(*parts)
            return steadily(lambda: place.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def remove(self, *parts: str) -> None:
        self.path(*parts).unlink(missing_ok=True)

    def names(self, *parts: str) -> list[str]:
        return self.entries(*parts)

    def there(self, *parts: str) -> bool:
        return self.changed(*parts) is not None

    def changed(self, *parts: str) -> int | None:
        try:
            return steadily(self.path(*parts).stat).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None

    def push(self, *parts: str) -> None:
        pass

    def pull(self, *parts: str, lock: str | None = None) -> None:
        pass

    def bring(self, *parts: str) -> None:
        pass

    def each(self, work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
        return list(map(work, items))

    def wait_for(self, name: str, say: Callable[[str], None] | None = None) -> None:
        if self.lock_file(name).exists():
            with self.lease(name, say):
                pass

    def _leased(
        self, name: str, say: Callable[[str], None] | None, *, waits: bool = True
    ) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def damages_in(folder: Path) -> list[str]:
    """What is wrong with the files in a folder that has a manifest, as of an entry; none if it is not there.

    Raises:
        OSError: they can't be read just now.
    """
    files = manifest_of(folder)
    found = ["it has no manifest"] if files is None else list(damages(files, OriginalFolder(folder).open))
    return found if folder.is_dir() else []


def discard(final: Path) -> None:
    """Remove a folder, which disappears at once, before its files are deleted. Does nothing if it is not there."""
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
