"""What the searches of a store refer to: trials, the networks and front ends before them, images, texts of backbones.

Worked out from records alone: from the trials there are, and from those that the request may still come to. Where that
can't be done for one of the searches, nothing is known to be useless. Not for: removing anything (useless.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dfd_tune.anew import cells_anew
from dfd_tune.axes import grid_points, standing_points
from dfd_tune.backbones import is_pinned
from dfd_tune.config import TrialConfig
from dfd_tune.errors import UserError, raise_all
from dfd_tune.frozen_request import request_from_json
from dfd_tune.liveness import State, state_of
from dfd_tune.own_backbones import entry_of
from dfd_tune.parts import Guide, ImportedConfig, PretrainedConfig
from dfd_tune.record import SearchRecord, TrialRecord, find_search, load_trials, lock_of
from dfd_tune.settings import Request
from dfd_tune.store import BucketStore, Store
from dfd_tune.teacher_file import KIND as TEACHERS
from dfd_tune.teacher_file import parse

TICK_SECONDS, BUCKET_TICK_SECONDS = 0.01, 1.0
"""A file's time may lag behind the clock by so much; likewise an object's."""
Entry = tuple[str, str]
"""Kind and key; of a backbone's text, its folder and name."""


@dataclass(frozen=True)
class Standing:
    """A search as it is now."""

    name: str
    state: State
    search: SearchRecord | None
    """None where it has no record yet, or one that can't be read."""
    trials: tuple[TrialRecord, ...]
    begins: bool
    """Whether a launch has begun that has not written down yet what it is after."""

    @property
    def runs(self) -> bool:
        """Whether somebody runs it."""
        return self.state.kind == "running"


@dataclass(frozen=True)
class References:
    """What all searches of a store refer to."""

    entries: frozenset[Entry]
    running: frozenset[Entry]
    """Those that a running search does."""
    datasets: frozenset[str]
    """Digests of their images."""


def standings(store: Store) -> list[Standing]:
    """All searches of a store, by name.

    Raises:
        OSError: it can't be read just now.
    """
    return store.each(lambda name: standing(store, name), store.names("searches"))


def standing(store: Store, name: str, touching: Collection[str] | None = None) -> Standing:
    """One search of a store.

    Args:
        store: where it is.
        name: of the search.
        touching: keys of trials; its trials are read only if it refers to one of them. None reads them in any case.

    Raises:
        OSError: it can't be read just now.
    """
    state = state_of(store, name)
    store.pull("searches", name, lock=lock_of(name))
    search = find_search(store, name)
    trials: tuple[TrialRecord, ...] = ()
    if search is not None and (touching is None or not keys_of(store, search).isdisjoint(touching)):
        trials = tuple(load_trials(store, search))
    written = store.changed("searches", name, "search.json")
    tick = BUCKET_TICK_SECONDS if isinstance(store, BucketStore) else TICK_SECONDS
    begun = None if state.since is None else int((state.since - tick) * 1e9)
    begins = state.kind == "running" and (written is None or begun is None or written < begun)
    return Standing(name, state, search, trials, begins)


def references(store: Store, searches: Iterable[Standing]) -> References:
    """What these searches, all of a store's, refer to.

    Raises:
        UserError: of some that can't be told.
        OSError: the store can't be read just now.
    """
    problems, found = [], dict[str, frozenset[Entry]]()
    known = list(searches)
    for one in known:
        if one.begins:
            problems.append(
                f"The search '{one.name}' is just beginning, so that what it needs is not known; try again in a minute."
            )
        elif one.search is None and store.changed("searches", one.name, "search.json") is not None:
            problems.append(f"The record of the search '{one.name}' can't be read, {_UNKNOWN}.")
        elif one.search is not None:
            try:
                found[one.name] = frozenset(entries_of(store, one.search, one.trials))
            except (UserError, KeyError, TypeError, ValueError):
                problems.append(f"The record of the search '{one.name}' is of another version, {_UNKNOWN}.")
    raise_all(problems)
    return References(
        frozenset().union(*found.values()),
        frozenset().union(*(found[one.name] for one in known if one.runs and one.name in found)),
        frozenset(one.search.dataset["digest"] for one in known if one.search is not None),
    )


_UNKNOWN = "so that what it needs is not known; put it back from a copy, or remove the search with `dfd-tune store rm`"


def entries_of(store: Store, search: SearchRecord, trials: Iterable[TrialRecord]) -> Iterator[Entry]:
    """What a search refers to, now or once it goes on; some of it several times.

    Raises:
        UserError, KeyError, TypeError, ValueError: its record is of another version.
    """
    digest = search.dataset["digest"]
    request = request_from_json(search.request, search=search.search)
    yield "datasets", search.dataset["prepared"]
    for key in keys_of(store, search):
        yield "trials", key
    for teacher in search.teachers:
        yield "pretrained", teacher.key
    for frontend in search.frontends:
        yield "frontends", frontend.key
    known = [trial.config for trial in trials]
    for config in _told_apart([*known, *(vars(config) for config in may_come(request))]):
        yield from needs_of(config, digest)


def needs_of(config: TrialConfig, digest: str) -> Iterator[Entry]:
    """What a trial is made of, on the dataset of that digest."""
    yield "low_res", config.camera.key(digest)
    networks: list[Guide] = [*config.pretrained()]
    frontend = config.low_res.frontend
    if frontend is not None:
        yield "frontends", frontend.key(digest)
        if isinstance(frontend.content, PretrainedConfig):
            networks.append(frontend.content)
    for network in networks:
        yield "pretrained", network.key(digest)
        if isinstance(network, ImportedConfig):
            yield TEACHERS, network.file.digest
    file = None if config.teacher_file is None else parse(config.teacher_file)
    if file is not None:
        yield TEACHERS, file.digest
    for backbone in filter(is_pinned, (config.backbone, *config.teacher_backbones)):
        kind, _, name = entry_of(backbone).partition("/")
        yield kind, name


def may_come(request: Request) -> Iterator[TrialConfig]:
    """Trials that stand for all that a search may come to, its confirmation included, as far as what comes before them
    goes."""
    if request.space.sampler == "grid":
        own = [request.trial(point) for point in grid_points(request.explore) if request.allows(point)]
        number = len(own)
    else:
        own = [request.trial(point) for point in standing_points(request.explore)]
        number = request.trials or 0
    yield from own
    for cell in cells_anew(request, own, number):
        yield from cell.trials()


def _told_apart(configs: Iterable[Mapping[str, Any]]) -> Iterator[TrialConfig]:
    """Those that differ in more than λ above 0 and the seed, on which nothing that comes before a trial depends."""
    settings = {
        frozenset((dict(config) | {"lambda_": float(config["lambda_"] > 0), "seed": 0}).items()) for config in configs
    }
    for some in settings:
        yield TrialConfig(**dict(some))


def keys_of(store: Store, search: SearchRecord) -> set[str]:
    """Keys of the trials that a search refers to, also of those whose records can't be read."""
    records = store.path("searches", search.search, "trials").glob("[!.]*.json")
    anew = (key for cell in search.confirmation for keys in (cell.tuning, *cell.arms.values()) for key in keys)
    return {*search.planned, *search.tested, *anew, *(file.stem for file in records)}
