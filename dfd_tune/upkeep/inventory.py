"""What lies in a store: its searches, and its entries by kind, with numbers and sizes. Nothing is opened but records.

Not for: whether any of it is sound (soundness.py), or needed (references.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dfd_tune.liveness import State, state_of
from dfd_tune.store import CHECKPOINTS, KINDS, Store, listing

OTHERS = ("backbones", "rescans", "downloads", "mlflow.db", "mlflow_artifacts")
"""What else lies there, and is not under a key."""
OF_THE_NODE = ("downloads", "mlflow.db", "mlflow_artifacts")
"""What of these lies on this node, where the store is in a bucket; of downloads, a part."""


@dataclass(frozen=True)
class SearchLine:
    """A search."""

    name: str
    state: State
    trials: int
    """How many of its trials have a record."""
    bytes: int
    """Of its records, logs, report and best student; the students of its trials are among the entries."""


@dataclass(frozen=True)
class KindLine:
    """What lies in one of the store's folders."""

    kind: str
    entries: int
    """Of checkpoints, trainings that have any; of downloads and MLflow's, files."""
    bytes: int
    """Drafts and what else was left there are counted in."""


@dataclass(frozen=True)
class Inventory:
    """What lies in a store."""

    searches: tuple[SearchLine, ...]
    """By name."""
    kinds: tuple[KindLine, ...]
    """Those of which there is anything."""

    @property
    def bytes(self) -> int:
        """In all."""
        return sum(line.bytes for line in self.searches) + sum(line.bytes for line in self.kinds)


def inventory(store: Store) -> Inventory:
    """Look a store over.

    Raises:
        OSError: it can't be read just now.
    """
    sizes, trials = Counter[str](), Counter[str]()
    for name, known in listing(store, "searches").items():
        search, *rest = name.split("/")
        sizes[search] += known.bytes
        trials[search] += len(rest) == 2 and rest[0] == "trials" and rest[1].endswith(".json") and rest[1][0] != "."
    # By their files: a bucket may keep the name of one that has none, as its launch was refused.
    searches = [SearchLine(name, state_of(store, name), trials[name], sizes[name]) for name in sorted(sizes)]
    lines = [_line(store, kind) for kind in (*KINDS, CHECKPOINTS, *OTHERS)]
    return Inventory(tuple(searches), tuple(line for line in lines if line.entries or line.bytes))


def _line(store: Store, kind: str) -> KindLine:
    found = listing(store, kind, here=kind in OF_THE_NODE)
    names = {name.split("/")[0] for name in found}
    entries = len(found) if kind in OTHERS else sum(not name.startswith(".") for name in names)
    return KindLine(kind, entries, sum(known.bytes for known in found.values()))
