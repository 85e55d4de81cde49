"""What a search trains anew once all of its own trials have ended: which cells, which points, with which seeds.

Worked out from records alone, so that a resumed search finds the same again. Not for: what the arms are (confirm.py),
or what comes of them (comparisons.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dfd_tune.analysis.cells import Cell, cells_of
from dfd_tune.analysis.choice import best_trial, complete, ranked
from dfd_tune.analysis.points import Point
from dfd_tune.config import TrialConfig
from dfd_tune.confirm import arms_of, fresh_seeds, tuning_of, twin_of, with_seed
from dfd_tune.record import ConfirmedCell, SearchRecord, TrialRecord

ENDED = ("FINISHED", "FAILED")


@dataclass(frozen=True)
class Anew:
    """What is to be trained anew, be it done already or not."""

    cells: list[ConfirmedCell]
    arms: dict[str, TrialConfig]
    """By trial key, what the verdicts are made of."""
    tuning: dict[str, TrialConfig]
    """By trial key, what the control `tuned_base` searches among."""


def anew(search: SearchRecord, trials: Sequence[TrialRecord]) -> Anew:
    """What is to be trained anew, as far as the records tell: plain training's own best settings are known once its
    search has ended.

    Args:
        search: whose own trials have all ended.
        trials: all of its records.
    """
    found = Anew([], {}, {})
    if not search.confirm.seeds:
        return found
    seen = {int(trial.config["seed"]) for trial in trials if trial.stage == "search"}
    seeds = fresh_seeds(search.confirm.seeds, search.seed, seen)
    by_key = {trial.key: trial for trial in trials}
    for cell, point in _chosen(search, trials):
        student = TrialConfig(**point.config)
        tuning = _tuning(search, cell, student)
        arms = arms_of(student, search.confirm.controls, _best_of(search, tuning, by_key))
        keys = {}
        for arm, config in arms.items():
            seeded = {
                key: made
                for seed in seeds
                for made in [with_seed(config, seed, search.confirm.replicate)]
                for key in [made.key(search.dataset["digest"])]
            }
            found.arms.update(seeded)
            keys[arm] = list(seeded)
        found.tuning.update(tuning)
        found.cells.append(
            ConfirmedCell(cell=cell.name, student=dict(point.config), seeds=seeds, arms=keys, tuning=list(tuning))
        )
    return found


def _chosen(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[tuple[Cell, Point]]:
    """The cells that are confirmed, each with its point: the distilled one that it chose; where nothing is distilled,
    the best plain one."""
    cells = cells_of(search, trials)
    if search.confirm.cells == "all":
        return [(cell, point) for cell in cells if (point := cell.chosen or _best_plain(search, cell)) is not None]
    distilled = [(cell, cell.chosen) for cell in cells if cell.chosen is not None]
    plain = [(cell, point) for cell in cells if (point := _best_plain(search, cell)) is not None]
    best = best_trial(search, [trial for trial in trials if trial.stage == "search"])
    found = [pair for pair in distilled if _holds(pair[0], best)] or distilled or plain
    first = next(iter(ranked(search, [point for _, point in found])), None)
    return [pair for pair in found if pair[1] is first][:1]


def _best_plain(search: SearchRecord, cell: Cell) -> Point | None:
    return next(iter(ranked(search, complete(search, cell.plain))), None)


def _holds(cell: Cell, best: TrialRecord | None) -> bool:
    return best is not None and any(trial.key == best.key for point in cell.points for trial in point.trials)


def _tuning(search: SearchRecord, cell: Cell, student: TrialConfig) -> dict[str, TrialConfig]:
    """As many trials of plain training with settings of its own as the cell has points, by key; a sampled search has
    had them all for its one cell."""
    if "tuned_base" not in search.confirm.controls or not student.distills:
        return {}
    count = len(cell.points) if search.sampler == "grid" else search.num_trials
    return {config.key(search.dataset["digest"]): config for config in tuning_of(twin_of(student), count)}


def _best_of(
    search: SearchRecord, tuning: Mapping[str, TrialConfig], records: Mapping[str, TrialRecord]
) -> TrialConfig | None:
    """The best by what the search chooses by; None before all have ended, and where none has finished."""
    ended = [records[key] for key in tuning if key in records and records[key].status in ENDED]
    finished = [record for record in ended if record.status == "FINISHED"]
    if len(ended) < len(tuning) or not finished:
        return None
    by = search.criterion
    best = min(finished, key=lambda record: (by.cost(by.of(record.metrics)), record.metrics["val_loss"]))
    return tuning[best.key]
