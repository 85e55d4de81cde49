"""A bucket: objects by name, each written whole or not at all, and no locks.

Any file system that pyarrow reaches by an address (https://arrow.apache.org/docs/python/filesystems.html): `s3://`,
`gs://`, `abfs://`. Credentials come from the environment, as its SDK finds them; they are never part of an address
here. Not for: what the objects are (bucket_entries.py), nor when a file is brought here (replica.py, copies.py).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dfd_tune.errors import UserError, cause_of

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem, S3FileSystem

AT_ONCE = 16
"""So many objects are read, written or removed at a time, as each one takes a round trip."""
CHUNK_BYTES = 1 << 20
SCHEMES = {"s3": "Amazon S3 and what speaks its protocol", "gs": "Google", "gcs": "Google", "abfs": "Azure"}
SCHEMES |= {"abfss": "Azure"}
S3_OPTIONS = ("endpoint_override", "force_virtual_addressing", "region", "scheme", "tls_ca_file_path")
"""What may follow the '?' of an address that begins with s3://."""
PATIENT, HASTY = 10, 2
"""How often a request to S3 is tried again, after 50 ms at first and each time after twice as long: for 25 s while work
is under way, and hardly at all when a store is opened."""

_SECRET_OPTION = re.compile(r"key|secret|token|password|signature|sas|credential", re.IGNORECASE)
_SECRETS = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
_LEAST = 8
"""A value of the environment so short is taken for no secret: to cut it out of a message would spoil that."""

_away: set[str] = set()
"""Addresses of which a request failed for good: until one is answered again, none is waited for."""

Item = TypeVar("Item")
Found = TypeVar("Found")


class BucketError(OSError):
    """A bucket can't be read or written just now; never said of an object that is not there."""

    def __init__(self, message: str):
        super().__init__(errno.EIO, message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror,)


@dataclass(frozen=True)
class Known:
    """What a bucket says of an object without reading it."""

    bytes: int
    changed: int
    """Nanoseconds since 1970 by the bucket's clock."""


@dataclass(frozen=True)
class Bucket:
    """A bucket, or a part of one. Names of objects are given in parts, of which slashes are made."""

    address: str
    """As the user gave it, without a slash at its end; holds no credentials (`problem_with`)."""

    def read(self, *parts: str) -> bytes | None:
        """The content of an object; None if it is not there.

        Raises:
            BucketError: it can't be told.
        """
        with self.telling(f"read '{'/'.join(parts)}' in"):
            try:
                with self._system().open_input_stream(self._place(*parts)) as stream:
                    content: bytes = stream.read()
                    return content
            except FileNotFoundError:
                return None
            except OSError:
                if self.known(*parts) is None:  # removed since it was opened, which SDKs tell as they like
                    return None
                raise

    def has(self, *parts: str) -> bool:
        """Whether an object is there; one request, where `known` may take three.

        Raises:
            BucketError: it can't be told.
        """
        try:
            self.open(*parts).close()
        except FileNotFoundError:
            return False
        return True

    def open(self, *parts: str) -> RawIOBase:
        """An object to read from start to end.

        Raises:
            FileNotFoundError: it is not there.
            BucketError: it can't be read just now.
        """
        with self.telling(f"read '{'/'.join(parts)}' in"):
            return _Stream(self, "/".join(parts), self._system().open_input_stream(self._place(*parts)))

    def write(self, content: bytes, *parts: str) -> None:
        """Have an object hold this, whatever it held before.

        Raises:
            BucketError: it can't be written.
        """
        with (
            self.telling(f"write '{'/'.join(parts)}' in"),
            self._system().open_output_stream(self._place(*parts)) as stream,
        ):
            stream.write(content)

    def upload(self, file: Path, *parts: str) -> None:
        """Have an object hold what a file does. A reader may see a part of a file that could not be read to its end, so
        it must be told of the object only once this has returned.

        Raises:
            BucketError: it can't be written.
        """
        with (
            file.open("rb", buffering=0) as source,
            self.telling(f"write '{'/'.join(parts)}' in"),
            self._system().open_output_stream(self._place(*parts)) as stream,
        ):
            while chunk := source.read(CHUNK_BYTES):
                stream.write(chunk)

    def files(self, *parts: str) -> dict[str, Known]:
        """All objects whose names begin with these parts, by the rest of their names, with slashes.

        Raises:
            BucketError: it can't be told.
        """
        from pyarrow.fs import FileSelector, FileType

        with self.telling(f"list '{'/'.join(parts)}' in"):
            place = self._place(*parts)
            found = self._system().get_file_info(FileSelector(place, allow_not_found=True, recursive=True))
        return {
            info.path[len(place) + 1 :]: Known(info.size or 0, info.mtime_ns or 0)
            for info in found
            if info.type == FileType.File
        }

    def folders(self, *parts: str) -> list[str]:
        """What follows directly on these parts in names of objects that go on after it, or did so; sorted.

        Raises:
            BucketError: it can't be told.
        """
        from pyarrow.fs import FileSelector, FileType

        with self.telling(f"list '{'/'.join(parts)}' in"):
            found = self._system().get_file_info(FileSelector(self._place(*parts), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def known(self, *parts: str) -> Known | None:
        """What is known of one object; None if it is not there.

        Raises:
            BucketError: it can't be told.
        """
        from pyarrow.fs import FileType

        with self.telling(f"look at '{'/'.join(parts)}' in"):
            info = self._system().get_file_info(self._place(*parts))
        return Known(info.size or 0, info.mtime_ns or 0) if info.type == FileType.File else None

    def remove(self, *parts: str) -> None:
        """Remove one object, if it is there.

        Raises:
            BucketError: it can't be removed.
        """
        with self.telling(f"remove '{'/'.join(parts)}' in"), contextlib.suppress(FileNotFoundError):
            self._system().delete_file(self._place(*parts))

    def remove_all(self, *parts: str) -> None:
        """Remove all objects whose names go on after these parts, many by one request, and what pyarrow has put there
        to keep an empty folder.

        Raises:
            BucketError: they can't be removed.
        """
        with self.telling(f"remove '{'/'.join(parts)}' in"), contextlib.suppress(FileNotFoundError):
            self._system().delete_dir(self._place(*parts))

    def fetch(self, to: Path, *parts: str) -> str | None:
        """Copy an object into a file, whose folder is there; returns its SHA-256, None if there is no such object.

        Raises:
            BucketError: it can't be read.
            OSError: the file can't be written.
        """
        digest = hashlib.sha256()
        try:
            source = self.open(*parts)
        except FileNotFoundError:
            return None
        with source, to.open("wb") as file:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def _system(self) -> FileSystem:
        return _system_at(self.address, HASTY if self.address in _away else PATIENT, os.getpid())

    def _place(self, *parts: str) -> str:
        return "/".join([_place_in(self.address), *parts])

    @contextlib.contextmanager
    def telling(self, what: str) -> Iterator[None]:
        """What its SDK raises becomes an error that says what could not be done, and is never taken for a loss."""
        try:
            yield
        except BucketError:
            raise
        except FileNotFoundError:
            _away.discard(self.address)
            raise
        except OSError as error:
            _away.add(self.address)
            raise BucketError(f"can't {what} '{self.address}': {without_secrets(cause_of(error))}") from None
        _away.discard(self.address)


class _Stream(RawIOBase):
    """An object that is read, with errors of its SDK told as those of a bucket."""

    def __init__(self, bucket: Bucket, name: str, stream: NativeFile):
        self._bucket, self._name, self._stream = bucket, name, stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, none at the end."""
        with self._bucket.telling(f"read '{self._name}' in"):
            content: bytes = self._stream.read(None if size < 0 else size)
            return content

    def close(self) -> None:
        """Let go of the object."""
        if not self.closed:
            self._stream.close()
        super().close()


def each(work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """`work` done on all items, many at a time, as each one waits for a bucket; the first error is raised."""
    there = list(items)
    if len(there) < 2:
        return [work(item) for item in there]
    with ThreadPoolExecutor(min(AT_ONCE, len(there)), thread_name_prefix="bucket") as threads:
        return list(threads.map(work, there))


def is_address(location: str) -> bool:
    """Whether a location names a bucket, or tries to, and not a folder."""
    return "://" in location


def problem_with(address: str) -> str | None:
    """What is wrong with a bucket's address, as one sentence without credentials; None if it may be one."""
    try:
        parts = urlsplit(address)
        options = parse_qsl(parts.query, keep_blank_values=True)
        secret = parts.password is not None or (parts.username is not None and parts.scheme in ("s3", "gs", "gcs"))
    except ValueError:
        return "--store is an address that can't be read; it must look like s3://BUCKET/PREFIX."
    if parts.scheme not in SCHEMES:
        return (
            f"--store begins with '{parts.scheme}://', but must be a folder or begin with "
            f"{', '.join(f'{scheme}://' for scheme in SCHEMES)}."
        )
    secret = secret or any(_SECRET_OPTION.search(name) for name, _ in options)
    if secret:
        return (
            f"--store is a {parts.scheme}:// address that holds credentials; leave them out and put them into the "
            "environment (S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile), as addresses are written "
            "down and shown."
        )
    unknown = sorted({name for name, _ in options} - set(S3_OPTIONS)) if parts.scheme == "s3" else []
    if unknown:
        return f"--store has the option '{unknown[0]}' in its address; S3's may have {', '.join(S3_OPTIONS)}."
    if not parts.netloc:
        return f"--store is '{address}', but names no bucket; it must look like {parts.scheme}://BUCKET/PREFIX."
    if not parts.path.strip("/"):
        return (
            f"--store is '{address}', a whole bucket; name a prefix in it, as {parts.scheme}://{parts.netloc}/dfd-tune."
        )
    return None


def bucket_at(address: str) -> Bucket:
    """The bucket at an address, once it was seen that it can be read.

    Raises:
        UserError: it is no address of a bucket, or there is none that can be read.
    """
    problem = problem_with(address)
    if problem is not None:
        raise UserError(problem)
    head, mark, options = address.partition("?")
    address = head.rstrip("/") + mark + options
    try:
        there = _is_there(address)
    except (OSError, ValueError, NotImplementedError, ImportError) as error:
        reason = without_secrets(cause_of(error))
        raise UserError(
            f"The store '{address}' can't be read ({reason}); see that the bucket is there and answers, and that the "
            "environment has credentials for it."
        ) from None
    if not there:
        raise UserError(
            f"The store '{address}' is in a bucket that is not there; make the bucket '{urlsplit(address).netloc}', or "
            "name another with --store or DFD_TUNE_STORE."
        )
    return Bucket(address)


def _is_there(address: str) -> bool:
    """Whether there is the bucket of an address, which is asked without patience.

    Raises:
        OSError: it can't be read.
    """
    from pyarrow.fs import FileType

    system = _system_at(address, HASTY, os.getpid())
    place = _place_in(address)
    if system.get_file_info(f"{place}/store.json").type != FileType.NotFound:
        return True
    try:
        return bool(system.get_file_info(place.partition("/")[0]).type != FileType.NotFound)
    except OSError:
        return True  # whoever may use a prefix need not be let look at the bucket


def without_secrets(text: str) -> str:
    """A message without what the environment holds of credentials, which an SDK might repeat."""
    for name, value in os.environ.items():
        if _SECRETS.search(name) and len(value) >= _LEAST:
            text = text.replace(value, "***")
    return text


@lru_cache(maxsize=8)
def _system_at(address: str, tries: int, process: int) -> FileSystem:
    """The file system of an address, made anew in a forked process, as its threads do not come along."""
    from pyarrow.fs import FileSystem

    parts = urlsplit(address)
    if parts.scheme == "s3":
        return _s3(parts, tries)
    if parts.scheme in ("gs", "gcs") and "retry_limit_seconds" not in parts.query:  # else a quarter of an hour
        address += f"{'&' if parts.query else '?'}retry_limit_seconds={25 if tries == PATIENT else 3}"
    return FileSystem.from_uri(address)[0]


def _s3(parts: SplitResult, tries: int) -> S3FileSystem:
    """As pyarrow makes one of an address, but that small objects are written by one request instead of three, and that
    what fails is tried again in a way of our own."""
    from pyarrow.fs import AwsDefaultS3RetryStrategy, S3FileSystem, resolve_s3_region

    options = dict(parse_qsl(parts.query))
    if "endpoint_override" not in options and "region" not in options:
        options["region"] = resolve_s3_region(parts.netloc)
    virtual = options.pop("force_virtual_addressing", "false").lower() == "true"
    return S3FileSystem(
        **options,
        force_virtual_addressing=virtual,
        allow_delayed_open=True,
        retry_strategy=AwsDefaultS3RetryStrategy(max_attempts=tries),
    )


@lru_cache(maxsize=8)
def _place_in(address: str) -> str:
    """What the names of a bucket's objects begin with, without a slash at its end."""
    from pyarrow.fs import FileSystem

    parts = urlsplit(address)
    if parts.scheme == "s3":
        return f"{parts.netloc}{unquote(parts.path)}".rstrip("/")
    place: str = FileSystem.from_uri(address)[1]
    return place.rstrip("/")
