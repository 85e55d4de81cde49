"""Checkpoints of a training in the store, one for each epoch at which one was taken; the highest whole one counts.

    checkpoints/<key>/<epoch>/  state.safetensors  state.json

Named by epoch, so that a node that was cut off and comes back does not overwrite what is newer. Not for: what a
checkpoint is made of, or how several processes agree on one (resume.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from dfd_tune.store import CHECKPOINTS as FOLDER
from dfd_tune.store import LATE_SECONDS, Store, write_json

STATE_FILE, FACTS_FILE = "state.safetensors", "state.json"

_SYSTEM_CODE = re.compile(r"\bcode: (\d+)|\bos error (\d+)")


def training_name(kind: str, key: str) -> str:
    """The key of a training's checkpoints.

    Args:
        kind: of the network: the folder of the store in which it will be kept.
        key: under which it will.
    """
    return f"{kind}-{key}"


@dataclass(frozen=True)
class Snapshot:
    """A training as it stands at the end of an epoch."""

    epoch: int
    """How many are done."""
    tensors: Mapping[str, Tensor]
    """On the CPU, contiguous; by names that the training gives."""
    history: list[dict[str, float]]
    """Metrics of the epochs done."""
    seconds: float
    """That these epochs took, in all attempts together."""


class Checkpoints:
    """Checkpoints of one network's training under one key.

    Args:
        store: where they are kept.
        key: of the training, among all kinds of networks: no two share one.
        every_seconds: how long to wait, since the start or the last one, until the next is due.
        clock: seconds that only grow.
        stop_asked: whether the training is about to be stopped, so that a checkpoint is due at once.
        say: takes a line for each checkpoint that is kept, and where one can't be used.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        *,
        every_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        stop_asked: Callable[[], bool] | None = None,
        say: Callable[[str], None] | None = None,
    ):
        self.key = key
        self.say = say or (lambda line: None)
        self.earlier_seconds = 0.0
        """Of the checkpoint from which the training goes on: what earlier attempts took for its epochs."""
        self._store = store
        self._every_seconds = every_seconds
        self._clock = clock
        self._stop_asked = stop_asked
        self._last = clock()

    def latest(self) -> Snapshot | None:
        """The checkpoint of the highest epoch that is whole; None if there is none. Damaged ones are set aside.

        Raises:
            OSError: the disk can't be read just now.
        """
        tried: set[int] = set()
        # Listed anew each time: another attempt, cut off from its node, may have written meanwhile, and cleared away.
        while left := [epoch for epoch in self._epochs() if epoch not in tried]:
            epoch = left[-1]
            tried.add(epoch)
            snapshot = self._read(epoch)
            if snapshot is not None:
                return snapshot
            self.say(f"The checkpoint of epoch {epoch} of {self.key} is damaged; an earlier one is looked for.")
            self._store.set_aside(FOLDER, self.key, _name(epoch))
        return None

    def at(self, epoch: int, patience: float = LATE_SECONDS) -> Snapshot:
        """The checkpoint of that epoch, which another process has found; waited for, as this one may see it later.

        Raises:
            OSError: it is not there or not whole, as this process sees the store.
        """
        self._store.seen(FOLDER, self.key, _name(epoch), patience=patience)
        snapshot = self._read(epoch)
        if snapshot is None:
            raise OSError(f"the checkpoint of epoch {epoch} of {self.key} is not seen in {self._store.location}")
        return snapshot

    def stop_asked(self) -> bool:
        """Whether the training is about to be stopped, once a checkpoint is kept."""
        return self._stop_asked is not None and self._stop_asked()

    def due(self) -> bool:
        """Whether it is time for one, or one is asked for."""
        return self.stop_asked() or self._clock() - self._last >= self._every_seconds

    def save(self, snapshot: Snapshot) -> None:
        """Keep a checkpoint, and then remove those of earlier epochs."""
        with self._store.publish(FOLDER, self.key, _name(snapshot.epoch)) as folder:
            with full_disks_told(folder / STATE_FILE):
                safetensors.torch.save_file(dict(snapshot.tensors), folder / STATE_FILE)
            facts = {"epoch": snapshot.epoch, "seconds": snapshot.seconds, "history": snapshot.history}
            write_json(folder / FACTS_FILE, facts)
        self._last = self._clock()
        self.say(f"checkpoint of epoch {snapshot.epoch} kept")
        epochs = self._epochs()
        kept = next((epoch for epoch in reversed(epochs) if self._store.whole(FOLDER, self.key, _name(epoch))), 0)
        for epoch in epochs:
            if epoch < kept:
                self._store.discard(FOLDER, self.key, _name(epoch))

    def clear(self) -> None:
        """Remove all of them: the training is over, and what it gave is kept elsewhere."""
        self._store.discard(FOLDER, self.key)

    def _epochs(self) -> list[int]:
        """Of what lies there, whole or not; lowest first."""
        return sorted(int(name) for name in self._store.entries(FOLDER, self.key) if name.isdecimal())

    def _read(self, epoch: int) -> Snapshot | None:
        entry = (FOLDER, self.key, _name(epoch))
        if not self._store.whole(*entry):
            return None
        # Read in one piece anyway, so the digest is as good as free.
        facts = self._store.facts(*entry, FACTS_FILE)
        state = self._store.content(*entry, STATE_FILE)
        if facts is None or state is None:
            return None
        try:
            return Snapshot(facts["epoch"], safetensors.torch.load(state), facts["history"], facts["seconds"])
        except (KeyError, SafetensorError):
            return None


@contextlib.contextmanager
def full_disks_told(file: Path) -> Iterator[None]:
    """What safetensors raises where a file can't be written is told as an error of the disk, which it is.

    Raises:
        OSError: in its place.
    """
    try:
        yield
    except SafetensorError as error:
        code = _SYSTEM_CODE.search(str(error))
        if code is None:
            raise
        number = int(code[1] or code[2])
        raise OSError(number, os.strerror(number), str(file)) from None


def _name(epoch: int) -> str:
    return f"{epoch:06}"
