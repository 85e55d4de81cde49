"""What a search needs of this machine's store, sent to the cluster's once: prepared images, and weights.

Into a bucket that this machine reaches it is published from here. Else, over the SSH of a cluster file it is copied as
it is; where there is the job port alone, in pieces, which the job puts together (incoming.py). Not for: dfd-tune's own
code (package.py).
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dfd_tune.cluster.incoming import BESIDE, PIECE_FILE, entry_of, take_in_file
from dfd_tune.digest import sha256_of
from dfd_tune.errors import UserError
from dfd_tune.store import INCOMING, MANIFEST_FILE, Store
from dfd_tune.store.bucket import is_address

PIECE_BYTES = 64 * 2**20
"""Ray's job port takes requests of at most 100 MiB."""
MOST_PIECES_BYTES = 10**9
"""What is sent through the job port lies in the head node's memory for a while."""


@dataclass(frozen=True)
class SentFile:
    """A file of a store that is sent."""

    path: str
    """In the store, with slashes."""
    bytes: int
    sha256: str


def files_to_send(store: Store, entries: Iterable[str]) -> list[SentFile]:
    """The files of some entries, each KIND/KEY or KIND/FILE, of a store."""
    found = []
    for entry in entries:
        for name, file in files_of_entry(store, entry).items():
            if file.name != MANIFEST_FILE:
                found.append(SentFile(name, file.stat().st_size, sha256_of(file)))
    return found


def files_of_entry(store: Store, entry: str) -> dict[str, Path]:
    """The files of an entry, or the one that it is, by their paths in a store; none if it is not there.

    Args:
        store: a folder or a bucket, from which they are brought here.
        entry: KIND/KEY or KIND/FILE.

    Raises:
        OSError: they can't be read just now.
    """
    kind, key = entry.split("/")
    loose = store.file(kind, key)
    if loose is not None:
        return {entry: loose}
    place = store.here(kind, key)
    files = [file for file in sorted(place.rglob("*")) if file.is_file()]
    return {f"{entry}/{file.relative_to(place).as_posix()}": file for file in files}


def publish_into(there: Store, store: Store, files: Iterable[SentFile]) -> None:
    """Have a bucket's store hold entries of this machine's.

    Args:
        there: the bucket's.
        store: this machine's.
        files: all of the entries' files.

    Raises:
        OSError: the bucket can't be written.
    """
    for entry in sorted({entry_of(file.path) for file in files}):
        found = files_of_entry(store, entry)
        if entry in found:
            take_in_file(there, found[entry], entry)
            continue
        with there.publish(*entry.split("/")) as draft:
            for name, file in found.items():
                if file.name != MANIFEST_FILE:
                    target = draft / name.removeprefix(f"{entry}/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)


def refuse_too_much(size: int, cluster_store: str) -> None:
    """Refuse to send more through a job port than a head node's memory should hold.

    Args:
        size: bytes that would be sent.
        cluster_store: where they would go.

    Raises:
        UserError: it is more.
    """
    if size > MOST_PIECES_BYTES:
        remedy = (
            "give this machine credentials for the bucket, into which it then puts them itself"
            if is_address(cluster_store)
            else f"put their folder where all nodes see it, beside '{cluster_store}' for example, and give its path "
            "there as --data"
        )
        raise UserError(
            f"The images are {size / 1e9:.1f} GB, but at most {MOST_PIECES_BYTES / 1e9:g} GB are sent through "
            f"--address; {remedy}."
        )


def send_over_ssh(
    copy: Callable[[Path, str], None], store: Store, files: Sequence[SentFile], cluster_store: str
) -> dict[str, Any]:
    """Copy files to the head node of a cluster: into its store, if that is a folder; returns what its job must know to
    take them in.

    Args:
        copy: copies a file or, with its content, a folder to an absolute path on the head node.
        store: this machine's.
        files: what is sent.
        cluster_store: where it goes.
    """
    token = uuid.uuid4().hex
    place = f"{BESIDE}-{token}" if is_address(cluster_store) else f"{cluster_store}/{INCOMING}/{token}"
    for entry in sorted({entry_of(file.path) for file in files}):
        loose = store.file(*entry.split("/"))
        copy(store.here(*entry.split("/")) if loose is None else loose, f"{place}/{entry}")
    return {"place": place, "pieces": [], "files": [asdict(file) for file in files]}


def cut_into_pieces(
    store: Store, files: Sequence[SentFile], folder: Path, piece_bytes: int = PIECE_BYTES
) -> tuple[dict[str, Any], list[Path]]:
    """Lay files down as pieces of one stream, each a folder that Ray takes along with a job.

    Args:
        store: this machine's.
        files: what is sent.
        folder: an empty one for the pieces.
        piece_bytes: largest size of one.

    Returns:
        What the job must know to take them in, and the folders.
    """
    folders = list[Path]()
    for part in _parts(store, files, piece_bytes):
        # Named by content: a piece that the cluster has from a launch that failed is not sent again.
        place = folder / f"dfd_piece_{len(folders)}_{hashlib.sha256(part).hexdigest()[:16]}"
        place.mkdir(parents=True)
        (place / PIECE_FILE).write_bytes(part)
        folders.append(place)
    names = [place.name for place in folders]
    return {"place": None, "pieces": names, "files": [asdict(file) for file in files]}, folders


def _parts(store: Store, files: Sequence[SentFile], size: int) -> Iterator[bytes]:
    held, found = bytearray(), dict[str, Path]()
    for file in files:
        if file.path not in found:
            found = files_of_entry(store, entry_of(file.path))
        with found[file.path].open("rb") as stream:
            while part := stream.read(size - len(held)):
                held += part
                if len(held) == size:
                    yield bytes(held)
                    held.clear()
    if held:
        yield bytes(held)
