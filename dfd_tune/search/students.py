"""Students that a conclusion needs: those that are to be tested, the best; and those of them that the store has not.

They are trained again, as their results alone were kept (upkeep/students.py). Worked out from records. Not for: making
jobs of them (conclude.py), or what they cost (works.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from dfd_tune.analysis.cells import trials_to_test
from dfd_tune.analysis.choice import best_trial
from dfd_tune.analysis.confirmation import anew
from dfd_tune.config import TrialConfig
from dfd_tune.confirm import twin_of
from dfd_tune.distill.student import student_there
from dfd_tune.models.deployed import load_deployed
from dfd_tune.record import BEST_FOLDER, PREDICTIONS_FILE, SearchRecord, TrialRecord
from dfd_tune.store import STUDENT_FILE, Store, sound


def to_test(search: SearchRecord, trials: Sequence[TrialRecord], best: TrialRecord) -> dict[str, TrialConfig]:
    """By key, the students that are to be tested and are not yet: those that the report speaks of, and the best with
    its λ = 0 twin."""
    wanted = {trial.key: TrialConfig(**trial.config) for trial in (*trials_to_test(search, trials), best)}
    twin = twin_of(TrialConfig(**best.config))
    twin_key = twin.key(search.dataset["digest"])
    if any(trial.key == twin_key and trial.status == "FINISHED" for trial in trials):
        wanted[twin_key] = twin
    return {key: config for key, config in wanted.items() if key not in search.tested}


def lacking(
    store: Store, search: SearchRecord, trials: Sequence[TrialRecord], best: TrialRecord, *, patience: float = 0.0
) -> dict[str, TrialConfig]:
    """By key, the trials whose students are to be tested or deployed, and are not in the store.

    Args:
        store: where trials are kept.
        search: its record.
        trials: its trials.
        best: the one that is deployed.
        patience: seconds to wait for a trial that another node may just have published.

    Raises:
        OSError: the store can't be read just now.
    """
    needed = to_test(search, trials, best)
    if not is_deployed(store, search, best):
        needed[best.key] = TrialConfig(**best.config)
    return {key: config for key, config in needed.items() if not student_there(store, key, patience=patience)}


def trained_again(store: Store, search: SearchRecord, trials: Sequence[TrialRecord]) -> dict[str, TrialConfig]:
    """The same, for a forecast; none before all trials have ended, the confirmation's too, as what will be chosen is
    not known by then.

    Raises:
        OSError: the store can't be read just now.
    """
    ended = {trial.key for trial in trials if trial.status in ("FINISHED", "STOPPED", "FAILED")}
    own = sum(trial.stage == "search" and trial.key in ended for trial in trials)
    best = best_trial(search, trials)
    if best is None or own < search.num_trials:
        return {}
    confirming = anew(search, trials)
    if not ended >= confirming.arms.keys() | confirming.tuning.keys():
        return {}
    return lacking(store, search, trials, best)


def is_deployed(store: Store, search: SearchRecord, best: TrialRecord) -> bool:
    """Whether the best student's own files lie in the search's folder, every byte of them what was written.

    By what the student's file says of itself: a record may be of a moment before or after.
    """
    folder = store.path("searches", search.search, BEST_FOLDER)
    if not ((folder / STUDENT_FILE).is_file() and (folder / PREDICTIONS_FILE).is_file() and sound(folder)):
        return False
    return load_deployed(folder / STUDENT_FILE)[1].extras.get("trial_key") == best.key
