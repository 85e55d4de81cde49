"""Which students a search needs once it has ended, and the others let go of: 10,000 ResNet-18 would take 450 GB.

Results and histories always stay. A student stays as long as any search of the store needs it; one that is needed later
all the same, as another limit is chosen by, is trained again (search/students.py). Not for: entries that nobody refers
to (useless.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence

from dfd_tune.analysis.cells import cells_of, trials_to_test
from dfd_tune.analysis.front import front_of
from dfd_tune.errors import UserError, cause_of
from dfd_tune.liveness import UPKEEP
from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.store import STUDENT_FILE, BucketStore, Store, each, listing
from dfd_tune.upkeep.references import Standing, keys_of, standing

ALL = "all"
"""A value of `--keep-students`."""
_ENDED = ("FINISHED", "STOPPED", "FAILED")


def needed_by(store: Store, search: SearchRecord, trials: Sequence[TrialRecord]) -> set[str]:
    """Keys of the trials whose students a search needs, once it has ended: the best and its λ = 0 twin, all that are or
    may be tested, what each cell has chosen and plain training beside it, and the front of one that is after a cost.

    All of them, where it keeps all or is not over.
    """
    if keeps(search) == ALL or not is_over(search, trials):
        return keys_of(store, search)
    points = [point for cell in cells_of(search, trials) for point in (*cell.plain, cell.chosen) if point is not None]
    needed = {trial.key for point in (*points, *front_of(search, trials)) for trial in point.trials}
    needed |= set(search.tested) | {trial.key for trial in trials_to_test(search, trials)}
    assert search.best is not None
    return needed | {search.best.key} | ({search.best.base_key} if search.best.base_key else set())


def keeps(search: SearchRecord) -> str:
    """Which students a search keeps; one of an older version was told nothing, and keeps all."""
    return str(search.options.get("keep_students", ALL))


def is_over(search: SearchRecord, trials: Iterable[TrialRecord]) -> bool:
    """Whether all of a search's own trials have ended, and one was chosen."""
    ended = sum(trial.stage == "search" and trial.status in _ENDED for trial in trials)
    return search.best is not None and ended >= search.num_trials


def let_go_of_students(
    store: Store, search: SearchRecord, trials: Sequence[TrialRecord], say: Callable[[str], None]
) -> None:
    """At the end of a search, remove the students of its trials that no search of the store needs.

    A store that can't be read or written just now has them stay, which is said.

    Args:
        store: of the search.
        search: the one that ends; who calls runs it.
        trials: all of its records.
        say: takes a line, if there is anything to say.
    """
    if keeps(search) == ALL or not is_over(search, trials):
        return
    finished = {trial.key for trial in trials if trial.status == "FINISHED"}
    spare = finished - needed_by(store, search, trials)
    try:
        spare &= students_in(store, spare).keys()
        if not spare:
            return
        with store.lease(UPKEEP, say):
            spare = _without_those_of_others(store, search.search, spare)
            freed = sum(each(lambda key: store.let_go("trials", key, STUDENT_FILE), sorted(spare)))
    except OSError as error:
        say(f"The students that are not needed any more stay, as the store can't be changed ({cause_of(error)}).")
        return
    if spare:
        say(
            f"Let go of {len(spare)} of {len(finished)} students, {freed / 1e6:,.1f} MB, that nothing needs any more; "
            "their results stay (--keep-students all keeps students, too)."
        )


def spare_students(store: Store, searches: Sequence[Standing]) -> set[str]:
    """Keys of the trials whose students are needed by no search, though some refer to them, be they there or not.

    Args:
        store: where they are.
        searches: all of its searches.
    """
    refers: set[str] = set()
    needed: set[str] = set()
    for one in searches:
        if one.search is not None:
            refers |= keys_of(store, one.search)
            needed |= _needed_by(store, one)
    return refers - needed


def _without_those_of_others(store: Store, name: str, spare: set[str]) -> set[str]:
    """Those of `spare` that no other search needs; records are read of the searches that refer to any."""
    for other in store.names("searches"):
        if other == name or not spare:
            continue
        one = standing(store, other, touching=spare)
        if one.begins or (one.search is None and store.changed("searches", other, "search.json") is not None):
            return set()  # what it needs is not known
        if one.search is not None:
            spare = spare - _needed_by(store, one)
    return spare


def _needed_by(store: Store, one: Standing) -> set[str]:
    """The students that a search which may be under way needs; of one that can't be made out, all."""
    assert one.search is not None
    if one.runs:
        return keys_of(store, one.search)
    try:
        return needed_by(store, one.search, one.trials)
    except (UserError, KeyError, TypeError, ValueError):  # of another version
        return keys_of(store, one.search)


def students_in(store: Store, keys: Collection[str]) -> dict[str, int]:
    """Of these trials, those whose students lie in the store, whole or not, with their bytes.

    Raises:
        OSError: the store can't be read just now.
    """
    if isinstance(store, BucketStore):
        files = ((name.split("/"), known.bytes) for name, known in listing(store, "trials").items())
        return {parts[0]: size for parts, size in files if parts[-1] == STUDENT_FILE and parts[0] in keys}
    found = {}
    for key in keys:
        with contextlib.suppress(FileNotFoundError):
            found[key] = store.path("trials", key, STUDENT_FILE).stat().st_size
    return found
