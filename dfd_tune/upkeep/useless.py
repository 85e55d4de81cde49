"""What nobody needs: entries that no search refers to, checkpoints of trainings that are over, killed writers' drafts.

It is looked for and shown; then, once a person has agreed, looked for again with no launch beginning meanwhile, and
removed. Not for: what searches refer to (references.py), nor for removing a search (removal.py).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import compress

from dfd_tune.liveness import UPKEEP
from dfd_tune.locks import HeldError
from dfd_tune.store import (
    BACKBONES,
    CHECKPOINTS,
    KINDS,
    RESULT_FILE,
    STUDENT_FILE,
    Litter,
    Store,
    clock_of,
    each,
    listing,
    litter_of,
    remove_litter,
)
from dfd_tune.upkeep.references import Entry, References, Standing, references, standings
from dfd_tune.upkeep.students import spare_students, students_in

OLD_NANOSECONDS = 24 * 3600 * 10**9
"""What lies as if left by a killed writer is taken for that once nobody has written to it for a day."""


@dataclass(frozen=True)
class Useless:
    """Something that may go."""

    parts: tuple[str, ...]
    """Of its name in the store."""
    why: str
    bytes: int
    litter: Litter | None = None

    @property
    def name(self) -> str:
        """In the store, with slashes."""
        return "/".join(self.parts)


def useless_in(store: Store) -> list[Useless]:
    """What may go from a store; by name.

    Raises:
        UserError: what one of the searches refers to can't be told.
        OSError: the store can't be read just now.
    """
    searches = standings(store)
    refers = references(store, searches)
    found = [*_entries(store, refers), *_trainings(store, refers), *_texts(store, refers), *_left(store, searches)]
    gone = {item.parts for item in found}
    for key, size in students_in(store, spare_students(store, searches)).items():
        if ("trials", key) not in gone:
            found.append(Useless(("trials", key, STUDENT_FILE), "student that no search needs", size))
    return sorted(found, key=lambda item: item.parts)


def remove(store: Store, agreed: Iterable[Useless], say: Callable[[str], None]) -> list[Useless]:
    """Remove what was found before, so far as it is useless still; returns what was.

    Launches that begin meanwhile wait. What somebody works on stays, which is said.

    Raises:
        UserError: what one of the searches refers to can't be told.
        OSError: the store can't be read just now, or not be written.
    """
    wanted = {item.parts for item in agreed}
    with store.lease(UPKEEP, say):
        leases = _leases(store)

        def removed(item: Useless) -> bool:
            try:
                with _held(store, item, leases):
                    _remove(store, item)
                return True
            except HeldError:
                say(f"{item.name} stays, as somebody works on it.")
                return False

        found = [item for item in useless_in(store) if item.parts in wanted]
        return list(compress(found, each(removed, found)))


def _entries(store: Store, refers: References) -> Iterator[Useless]:
    banks_of = _weights_of(store, refers)
    for kind in KINDS:
        sizes = _sizes(store, kind)
        for key in store.entries(kind):
            used = _bank_is_used(store, key, banks_of, refers) if kind == "banks" else (kind, key) in refers.entries
            if not used:
                yield Useless((kind, key), "no search refers to it", sizes[key])


def _weights_of(store: Store, refers: References) -> set[str] | None:
    """Digests of the weights of the networks that searches refer to; None where one of them can't be told."""
    found = {key for kind, key in refers.entries if kind == "teachers"}
    for kind, key in refers.entries:
        if kind == "pretrained" and store.whole(kind, key):
            facts = store.facts(kind, key, "network.json")
            if facts is None or "weights_digest" not in facts:
                return None
            found.add(facts["weights_digest"])
    return found


def _bank_is_used(store: Store, key: str, weights: set[str] | None, refers: References) -> bool:
    """By the teacher and the images that the bank itself names; one that does not say stays, as it is damaged."""
    identity = store.facts("banks", key, "bank.json")
    if identity is None or weights is None:
        return True
    return identity.get("teacher_weights") in weights and identity.get("dataset") in refers.datasets


def _trainings(store: Store, refers: References) -> Iterator[Useless]:
    sizes = _sizes(store, CHECKPOINTS)
    for training in store.names(CHECKPOINTS):
        kind, _, key = training.partition("-")
        subject = (kind, key)
        if subject in refers.running:
            continue
        if subject not in refers.entries:
            yield Useless((CHECKPOINTS, training), "no search refers to what is trained", sizes[training])
        elif _is_trained(store, subject):
            yield Useless((CHECKPOINTS, training), "the training is over", sizes[training])


def _is_trained(store: Store, subject: Entry) -> bool:
    kind, key = subject
    return store.has(kind, key, RESULT_FILE) if kind == "trials" else store.whole(kind, key)


def _texts(store: Store, refers: References) -> Iterator[Useless]:
    for name, known in listing(store, BACKBONES).items():
        if not name.startswith(".") and (BACKBONES, name) not in refers.entries:
            yield Useless((BACKBONES, name), "no search refers to it", known.bytes)


def _left(store: Store, searches: Iterable[Standing]) -> Iterator[Useless]:
    """What killed writers left, at least a day ago."""
    running = {one.name for one in searches if one.runs}
    found = litter_of(store)
    now = {here: clock_of(store, here=here) for here in {litter.here for litter in found}}
    for litter in found:
        of_running = litter.parts[0] == "searches" and len(litter.parts) > 1 and litter.parts[1] in running
        if not of_running and now[litter.here] - litter.changed > OLD_NANOSECONDS:
            yield Useless(litter.parts, f"left over: {litter.what}", litter.bytes, litter)


def _sizes(store: Store, kind: str) -> Counter[str]:
    """Bytes under each name that lies directly in a folder of the store."""
    sizes = Counter[str]()
    for name, known in listing(store, kind).items():
        sizes[name.split("/")[0]] += known.bytes
    return sizes


def _leases(store: Store) -> set[str]:
    """Names of the locks that somebody may hold; most entries never had one, and get none for their removal."""
    return {name.rpartition(".")[0] for name in listing(store, "leases")}


@contextlib.contextmanager
def _held(store: Store, item: Useless, leases: set[str]) -> Iterator[None]:
    """Hold the lock under which an entry, or a draft of one, is made; what never had one needs none.

    Raises:
        HeldError: somebody is making it.
    """
    kind = item.parts[0]
    key = item.parts[1] if len(item.parts) > 1 else ""
    if item.litter is not None and item.litter.here:
        key = key.removeprefix(".").rpartition(".")[0]
    name = f"{kind}-{key}"
    if name not in leases:
        yield
        return
    with store.claim(name, patience=0):
        yield


def _remove(store: Store, item: Useless) -> None:
    if item.litter is not None:
        remove_litter(store, item.litter)
    elif item.parts[0] == BACKBONES:
        store.remove(*item.parts)
    elif item.parts[-1] == STUDENT_FILE:
        store.let_go(item.parts[0], item.parts[1], STUDENT_FILE)
    else:
        store.discard(*item.parts)
