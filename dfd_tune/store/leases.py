"""Leases in a bucket, which has no locks: an object says who holds one, and shows that its holder lives by changing.

Nobody's clock is asked: who waits watches whether the object changes. Two who ask at the same moment may both come to
hold it, rarely; so it may keep work from being done twice, and nothing may rest on it. Not for: the locks of folders,
which are real (locks.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dfd_tune.locks import SAY_AFTER_SECONDS, HeldError, Holder
from dfd_tune.machine import Process, this_process
from dfd_tune.store.bucket import Bucket, BucketError
from dfd_tune.store.files import as_json
from dfd_tune.store.manifests import json_in

Parts = tuple[str, str]
"""Name of a lease's object."""


@dataclass(frozen=True)
class Pace:
    """How fast a lease's holder shows that it lives, and how patient others are. In seconds."""

    beat: float = 5.0
    """Between two changes of the object."""
    silent: float = 20.0
    """After so long without a change, who waits takes the lease over."""
    settle: float = 0.5
    """After it has written its name, who takes a lease looks whether somebody else has, too."""


@contextlib.contextmanager
def leased(
    bucket: Bucket, name: str, say: Callable[[str], None], *, waits: bool = True, pace: Pace | None = None
) -> Iterator[None]:
    """Hold the lease `name` for the length of the block, as far as one can be held in a bucket.

    Args:
        bucket: where.
        name: of the lease.
        say: is told on whom it waits, if it takes long.
        waits: whether for one that another holds; one whose holder is silent is waited for in any case.
        pace: of beats and patience.

    Raises:
        HeldError: somebody else holds it, and is not waited for.
        BucketError: the bucket can't be read or written, at the start.
    """
    pace = pace or Pace()
    parts = ("leases", f"{name}.json")
    token, since = uuid.uuid4().hex, time.time()
    _acquire(bucket, parts, token, since, say, waits, pace)
    try:
        with beating(pace.beat, lambda beat: _write(bucket, parts, token, since, beat)):
            yield
    finally:
        with contextlib.suppress(BucketError):  # goes stale by itself
            if _token_in(bucket.read(*parts)) == token:
                bucket.remove(*parts)


@contextlib.contextmanager
def beating(seconds: float, beat: Callable[[int], None]) -> Iterator[None]:
    """Have `beat` called with 1, 2, … at this distance while the block lasts; a beat that fails is passed over."""
    over = threading.Event()

    def work() -> None:
        number = 0
        while not over.wait(seconds):
            number += 1
            with contextlib.suppress(OSError):
                beat(number)

    thread = threading.Thread(target=work, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _acquire(
    bucket: Bucket, parts: Parts, token: str, since: float, say: Callable[[str], None], waits: bool, pace: Pace
) -> None:
    """Come to hold a lease; where one that lives is not waited for, its first sign of life ends this."""
    began, told = time.monotonic(), False
    last, changed = bucket.read(*parts), began
    while True:
        now = _read(bucket, parts, last)
        if now != last:
            if now is not None and not waits:
                raise HeldError(_holder_in(now))
            last, changed = now, time.monotonic()
        if now is None or time.monotonic() - changed >= pace.silent:
            _write(bucket, parts, token, since, 0)
            time.sleep(pace.settle)
            last = _read(bucket, parts, None)
            if _token_in(last) == token:
                return
            changed = time.monotonic()
        if not told and time.monotonic() - began >= max(SAY_AFTER_SECONDS, 0 if waits else 1.5 * pace.beat):
            who = _holder_in(now) or "another process"
            say(
                f"Waiting for '{parts[-1].removesuffix('.json')}', which is in the hands of {who}"
                + ("." if waits else f"; whether that lives is seen within {pace.silent:g} s.")
            )
            told = True
        time.sleep(min(1.0, pace.beat / 4))


def _read(bucket: Bucket, parts: Parts, otherwise: bytes | None) -> bytes | None:
    """What the object holds; `otherwise` where that can't be read just now, as who waits has time to look again. A
    bucket that stays away comes out at the next write."""
    try:
        return bucket.read(*parts)
    except BucketError:
        return otherwise


def _write(bucket: Bucket, parts: Parts, token: str, since: float, beat: int) -> None:
    # A lease that somebody else has taken over is theirs.
    if beat and _token_in(bucket.read(*parts)) not in (token, None):
        return
    holder = dataclasses.asdict(Holder(this_process(), since))
    bucket.write(as_json({"token": token, "beat": beat, **holder}).encode(), *parts)


def _token_in(content: bytes | None) -> str | None:
    return (json_in(content) or {}).get("token")


def _holder_in(content: bytes | None) -> Holder | None:
    value = json_in(content) or {}
    try:
        return Holder(Process(**value["process"]), float(value["since"]))
    except (KeyError, TypeError, ValueError):
        return None
