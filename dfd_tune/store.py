"""The store: the folder that holds datasets, teachers, banks, trials and searches, each under its key.

Everything appears whole or not at all: files are written beside their place and renamed, folders too. Each entry has
a manifest, the sizes and digests of its files, written last; an entry that does not match it does not count. A disk
that can't be read just now is an error, and no reason to make anything anew.
Not for: what the files mean. Layout:

    datasets/<key>/      train.arrow, validation.arrow, test.arrow, dataset.json
    downloads/           archives that torchvision fetched
    low_res/<key>/       train.npy, validation.npy, test.npy, camera.json
    pretrained/<key>/    network.safetensors, network.json          teachers and base networks
    teachers/<digest>/   teacher.safetensors or .pt2, teacher.json  teachers that were trained elsewhere
    frontends/<key>/     network.safetensors, network.json          super-resolution front ends
    banks/<key>/         features.npy, bank.json                    features of a teacher
    backbones/<digest>.py                                           text of a backbone from a user's own file
    trials/<key>/        student.safetensors, result.json
    checkpoints/<key>/<epoch>/  state.safetensors, state.json       trainings that are under way
    searches/<name>/     search.json, trials/<key>.json, run.json, logs/, best/, report files
    mlflow.db, mlflow_artifacts/
    leases/              lock files, empty; beside those that are held, who holds them
    store.json           the store's identity
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_tune.digest import sha256_of
from dfd_tune.errors import UserError, cause_of
from dfd_tune.locks import holding

MANIFEST_FILE = "manifest.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Copies:
    """Where a node keeps copies of what it reads from a store (copies.py)."""

    root: Path
    """A folder on a disk of the node's own; absolute, but for a `~`."""
    budget: int | None = None
    """Bytes that they may take in all; None lets them fill the disk, but for a little."""


@dataclass(frozen=True)
class Store:
    """A store at an absolute path. Make one with `open_store`."""

    root: Path
    copies: Copies | None = None
    """None: this node reads from the store itself."""

    def path(self, *parts: str) -> Path:
        """The place of an entry; it need not exist."""
        return self.root.joinpath(*parts)

    def identity(self) -> str:
        """32 hexadecimal digits that tell this store from every other, drawn once; a moved store keeps them.

        Raises:
            UserError: its file can't be read.
        """
        file = self.path("store.json")
        try:
            known = read_json(file)
            if known is None and not _create_text(file, json.dumps({"id": uuid.uuid4().hex}) + "\n"):
                with self.lease("identity"):
                    if not file.exists():
                        write_json(file, {"id": uuid.uuid4().hex})
            return str((known or read_json(file) or {})["id"])
        except (AssertionError, KeyError, ValueError, OSError) as error:
            raise UserError(
                f"'{file}', which tells this store from others in MLflow, can't be read ({cause_of(error)}); "
                "put it back from a copy, or delete it to have this store's searches begin new experiments there."
            ) from None

    @contextlib.contextmanager
    def publish(self, *parts: str) -> Iterator[Path]:
        """A fresh folder to fill. When the block ends without an error it gets its manifest, goes to the disk, and is
        renamed to its place.

        If the place is taken by then, by someone who was quicker, theirs is kept, as equal keys mean equal content; but
        what does not match its manifest, in sizes and digests, gives way.
        """
        final = self.path(*parts)
        final.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            yield draft
            draft.chmod(0o755)
            write_manifest(draft)
            while not _renamed(draft, final) and not sound(final):
                self.set_aside(*parts)
            _sync(final.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        for damaged in final.parent.glob(f"{_aside(final)}*"):
            shutil.rmtree(damaged, ignore_errors=True)

    def whole(self, *parts: str) -> bool:
        """Whether an entry is there with all of its files, each of its size; nothing is read but the manifest.

        Raises:
            OSError: it can't be told, as the disk can't be read just now.
        """
        return whole(self.path(*parts))

    def set_aside(self, *parts: str) -> None:
        """Rename an entry away, if it is there; it goes when another one is published in its place."""
        final = self.path(*parts)
        with contextlib.suppress(FileNotFoundError):
            aside = Path(tempfile.mkdtemp(prefix=_aside(final), dir=final.parent))
            try:
                final.rename(aside / final.name)
            except FileNotFoundError:
                aside.rmdir()

    def clear_drafts(self, *parts: str) -> None:
        """Remove what killed publishers of an entry left; for the holder of its lease, as nobody drafts it then."""
        final = self.path(*parts)
        for draft in final.parent.glob(f".{final.name}.*"):
            shutil.rmtree(draft, ignore_errors=True)

    @contextlib.contextmanager
    def lease(self, name: str, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the store-wide lock `name`; waits for it. A process that dies lets go of it.

        Args:
            name: of the lock.
            say: is told who holds it, if it is waited for long; None tells the log.

        Raises:
            UserError: the store's folder has no locks.
        """
        folder = self.path("leases")
        folder.mkdir(parents=True, exist_ok=True)
        with holding(folder / f"{name}.lock", say=say):
            yield

    def discard(self, *parts: str) -> None:
        """Remove an entry. It disappears at once, by a rename, before its files are deleted."""
        final = self.path(*parts)
        if not final.exists():
            return
        with contextlib.suppress(FileNotFoundError):  # someone else was quicker
            doomed = Path(tempfile.mkdtemp(prefix=".discarded.", dir=final.parent))
            try:
                final.rename(doomed / final.name)
            finally:
                shutil.rmtree(doomed, ignore_errors=True)


def open_store(location: str | os.PathLike[str]) -> Store:
    """Open the store at a folder, making it if it is not there.

    Raises:
        UserError: the location is a bucket's address, is a file, or cannot be written.
    """
    text = os.fspath(location)
    if "://" in text:
        raise UserError(
            f"--store is '{text}', but a store must be a folder; on a cluster, name one that every node mounts."
        )
    root = Path(os.path.expanduser(text)).absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"The store '{root}' can't be written ({cause_of(error)}); name a folder that can, "
            "with --store or DFD_TUNE_STORE."
        ) from None
    return Store(root)


def existing_store(location: str | os.PathLike[str]) -> Store:
    """The store at a folder that must be there already; for commands that only read.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(os.path.expanduser(location)).absolute()
    if not root.is_dir():
        raise UserError(
            f"There is no store at '{root}'; name one with --store or DFD_TUNE_STORE, or make one with "
            "`dfd-tune launch`."
        )
    return Store(root)


def write_manifest(folder: Path) -> None:
    """Write down the size and SHA-256 of every file in `folder`, and have all of it on the disk before returning."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST_FILE:
            name = path.relative_to(folder).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        _sync(path)
    write_json(folder / MANIFEST_FILE, {"files": files})
    _sync(folder / MANIFEST_FILE)
    _sync(folder)


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
            and all(sha256_of(folder / name) == files[name]["sha256"] for name in files)
        )
    except OSError as error:
        if is_passing(error):
            raise
        return False


def read_whole(folder: Path, name: str) -> bytes | None:
    """The content of a file of the entry in `folder`, held against the manifest; None if it is not there or damaged.

    Raises:
        OSError: the disk can't be read just now.
    """
    files = manifest_of(folder)
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        if is_passing(error):
            raise
        return None
    if files is None or name not in files or files[name]["sha256"] != hashlib.sha256(content).hexdigest():
        return None
    return content


def read_whole_json(folder: Path, name: str) -> dict[str, Any] | None:
    """The content of a JSON file of the entry in `folder`; None if it is not there or damaged.

    Raises:
        OSError: the disk can't be read just now.
    """
    content = read_whole(folder, name)
    if content is None:
        return None
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def is_passing(error: OSError) -> bool:
    """Whether an error says that something can't be read just now, and not that it is missing or damaged.

    Libraries raise an OSError without a number where they do not understand a file's content.
    """
    return error.errno not in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


def manifest_of(folder: Path) -> dict[str, dict[str, Any]] | None:
    """Bytes and SHA-256 of an entry's files, by name, as its manifest says; None if there is no manifest.

    Raises:
        OSError: the disk can't be read just now.
    """
    try:
        files = json.loads((folder / MANIFEST_FILE).read_bytes())["files"]
        assert all({"bytes", "sha256"} <= facts.keys() for facts in files.values())
    except OSError as error:
        if is_passing(error):
            raise
        return None
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return None
    found: dict[str, dict[str, Any]] = files
    return found


def _size(path: Path) -> int | None:
    """Bytes of a file; None if there is no such file."""
    try:
        status = path.stat()
    except OSError as error:
        if is_passing(error):
            raise
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


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


def _sync(path: Path) -> None:
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


def problem_with_name(name: str) -> str | None:
    """What is wrong with the name of a search, as one sentence; None if it may be a folder's name."""
    if _NAME.fullmatch(name) and ".." not in name:
        return None
    return (
        f"--name is '{name}', but must be 1 to 100 letters, digits, '.', '_' or '-', start with a letter or a "
        "digit, and hold no '..'."
    )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _create_text(path: Path, text: str) -> bool:
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
