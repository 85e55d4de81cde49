"""Comparisons: what the test images say of a student beside the one that it is held against, pair by pair of seeds.

Not for: which points are compared (cells.py), or what follows of several comparisons at once (verdicts.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dfd_tune.analysis.cells import Cell
from dfd_tune.analysis.paired import PairedDifference, as_differences, difference_of, gap_recovered
from dfd_tune.analysis.points import Interval, Point, interval_of, test_accuracies
from dfd_tune.confirm import Control
from dfd_tune.record import SearchRecord, TeacherRecord

State = Literal["compared", "not tested yet", "not confirmed", "nothing to compare"]
Teachers = Mapping[int, TeacherRecord]
"""Seed of a pair -> the teacher whose accuracy is its HR baseline."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A student beside a plain one on low-resolution test images; None where they are not tested."""

    base: Interval | None
    """Of the plain student, over its seeds; likewise `distilled`."""
    distilled: Interval | None
    state: State
    difference: Interval | None = None
    """Distilled − base, over pairs of the same seed: its interval is over seeds and test images, or over seeds alone
    where `paired` is None."""
    paired: PairedDifference | None = None
    """The difference as a sample of seeds and test images; None where the records lack which images were right."""
    gap_recovered: Interval | None = None
    """(distilled − base) / (HR baseline − base), over the same pairs. Of several seeds whose images are recorded, only
    where the gap itself is beyond its interval; else without an interval, and where the HR baseline is above the
    base."""
    fresh: bool = False
    """Whether the seeds are such as no choice has seen; only of these a verdict can be made."""


def pair_of(search: SearchRecord, cell: Cell) -> tuple[Point | None, Point | None]:
    """The student that a cell is judged by, and the plain one: those trained anew where anything is confirmed, else
    those that were chosen."""
    if not search.confirm.seeds:
        return cell.chosen, cell.base
    arms = cell.confirmed.arms if cell.confirmed is not None else {}
    return arms.get("student"), arms.get("plain")


def teachers_of(cell: Cell) -> Teachers:
    """The teacher of each pair of `pair_of`."""
    if cell.confirmed is not None:
        return cell.confirmed.teachers
    if cell.teacher is None:
        return {}
    return {int(trial.config["seed"]): cell.teacher for point in cell.points for trial in point.trials}


def compare(search: SearchRecord, cell: Cell) -> Comparison:
    """What the test images say of a cell's student beside its base network: both trained anew, or both as chosen."""
    student, plain = pair_of(search, cell)
    found = compare_points(search, student, plain, teachers_of(cell))
    if not search.confirm.seeds:
        return found
    waits = None if cell.chosen is None else _waits(search, cell)
    return replace(found, fresh=True) if waits is None else replace(found, state=waits)


def compare_plain(search: SearchRecord, cell: Cell, other: Cell | None) -> Comparison:
    """What the test images say of a cell's plain training beside another's, as behind a front end and without one:
    both trained anew, or both as they are."""
    own, bare = (None if one is None else pair_of(search, one)[1] for one in (cell, other))
    found = compare_points(search, own, bare, {})
    if not search.confirm.seeds:
        return found
    waits = _waits(search, *(one for one in (cell, other) if one is not None))
    return replace(found, fresh=True) if waits is None else replace(found, state=waits)


def compare_controls(search: SearchRecord, cell: Cell) -> dict[Control, Comparison]:
    """A cell's student beside each of its controls, all trained anew with the same seeds."""
    if cell.confirmed is None or "student" not in cell.confirmed.arms:
        return {}
    arms, teachers = cell.confirmed.arms, teachers_of(cell)
    return {
        control: replace(compare_points(search, arms["student"], arms.get(control), teachers), fresh=True)
        for control in search.confirm.controls
    }


def compare_points(search: SearchRecord, student: Point | None, plain: Point | None, teachers: Teachers) -> Comparison:
    """What the test images say of a student's point beside a plain one's; nothing where trials are not tested yet.

    Args:
        search: holds what the test images said.
        student: None if there is none; likewise `plain`.
        plain: what the student is held against, pair by pair of equal seeds.
        teachers: by seed, whose accuracy is the HR baseline; empty if there is none.
    """
    base, distilled = (test_accuracies(search, point) for point in (plain, student))
    means = [None if values is None else interval_of(list(values.values())) for values in (base, distilled)]
    waits = (plain is not None and base is None) or (student is not None and distilled is None)
    seeds = [seed for seed in distilled or {} if seed in (base or {})]
    if base is None or distilled is None or not seeds:
        state: State = "not tested yet" if waits else "nothing to compare"
        return Comparison(base=means[0], distilled=means[1], state=state)
    gains = _differences(search, student, plain, seeds)
    over_seeds = interval_of([distilled[seed] - base[seed] for seed in seeds])
    paired = None if gains is None else difference_of(gains)
    if gains is not None and len(seeds) > 1:
        gap = _gap(gains, _gaps(search, teachers, plain, seeds))
    else:
        gap = _plain_gap(over_seeds.mean, statistics.fmean(base[seed] for seed in seeds), teachers, seeds)
    return Comparison(
        base=means[0],
        distilled=means[1],
        state="compared",
        difference=over_seeds if paired is None else _as_interval(paired),
        paired=paired,
        gap_recovered=gap,
    )


def pooled(search: SearchRecord, cells: Sequence[Cell]) -> Comparison | None:
    """All cells together: each seed's mean over the cells, on the same test images.

    Cells may share seeds, images and base networks: a seed's mean difference over the cells is one pair's, so what they
    share is no sample more. None unless two cells at least are recorded image by image and have seeds in common.
    """
    both = [(cell, *pair_of(search, cell)) for cell in cells if compare(search, cell).paired is not None]
    seeds = _common_seeds([point for _, *points in both for point in points])
    if len(both) < 2 or not seeds:
        return None
    gains, gaps, accuracies = [], [], []
    for cell, student, plain in both:
        gain = _differences(search, student, plain, seeds)
        assert gain is not None
        gains.append(gain)
        gaps.append(_gaps(search, teachers_of(cell), plain, seeds))
        accuracies.append([test_accuracies(search, point) or {} for point in (plain, student)])
    gain = np.mean(gains, axis=0)
    known = [gap for gap in gaps if gap is not None]
    base, distilled = (
        interval_of([statistics.fmean(values[which][seed] for values in accuracies) for seed in seeds])
        for which in (0, 1)
    )
    paired = difference_of(gain)
    return Comparison(
        base=base,
        distilled=distilled,
        state="compared",
        difference=_as_interval(paired),
        paired=paired,
        gap_recovered=_gap(gain, np.mean(known, axis=0)) if len(known) == len(both) else None,
        fresh=bool(search.confirm.seeds),
    )


def high_resolution(search: SearchRecord, cell: Cell) -> Interval | None:
    """The HR baseline of a cell: its teacher's accuracy on high-resolution test images or, where each seed has a
    teacher of its own, their mean; None where there is none or it is not known yet."""
    found = {teacher.key: teacher.test_accuracy for teacher in teachers_of(cell).values()}
    known = [accuracy for accuracy in found.values() if accuracy is not None]
    return interval_of(known) if known and len(known) == len(found) else None


def _waits(search: SearchRecord, *cells: Cell) -> State | None:
    """Why there is nothing to compare of cells that could be: others were confirmed, or nothing is tested yet."""
    if any(cell.confirmed is None for cell in cells):
        return "not confirmed" if search.confirmation else "not tested yet"
    return None if search.tested else "not tested yet"


def _common_seeds(points: Sequence[Point | None]) -> list[int]:
    """The seeds that all of the points have, in order."""
    sets = [{int(trial.config["seed"]) for trial in point.trials} for point in points if point is not None]
    return sorted(set.intersection(*sets)) if sets else []


def _rights(search: SearchRecord, point: Point | None, seeds: Sequence[int]) -> np.ndarray | None:
    """bool (S, I), whether the student of each seed is right on each test image; None if that is not recorded."""
    keys = {trial.config["seed"]: trial.key for trial in point.trials} if point is not None else {}
    records = [search.tests[keys[seed]] for seed in seeds if keys.get(seed) in search.tests]
    return np.stack([record.right() for record in records]) if len(records) == len(seeds) else None


def _differences(
    search: SearchRecord, student: Point | None, plain: Point | None, seeds: Sequence[int]
) -> np.ndarray | None:
    rights = [_rights(search, point, seeds) for point in (student, plain)]
    if rights[0] is None or rights[1] is None:
        return None
    return as_differences(rights[0], rights[1])


def _gaps(search: SearchRecord, teachers: Teachers, plain: Point | None, seeds: Sequence[int]) -> np.ndarray | None:
    """Teacher − plain, float (S, I); None where a pair has no teacher, or its test images are not recorded."""
    right = _rights(search, plain, seeds)
    keys = [teachers[seed].key for seed in seeds if seed in teachers]
    if right is None or len(keys) < len(seeds) or not all(key in search.tests for key in keys):
        return None
    return as_differences(np.stack([search.tests[key].right() for key in keys]), right)


def _gap(gains: np.ndarray, gaps: np.ndarray | None) -> Interval | None:
    found = None if gaps is None else gap_recovered(gains, gaps)
    return None if found is None else Interval(found.share, found.half, found.gap.seeds)


def _plain_gap(gain: float, plain: float, teachers: Teachers, seeds: Sequence[int]) -> Interval | None:
    """The share of the gap without an interval."""
    known = [teachers[seed].test_accuracy for seed in seeds if seed in teachers]
    accuracies = [accuracy for accuracy in known if accuracy is not None]
    if len(accuracies) < len(seeds) or statistics.fmean(accuracies) <= plain:
        return None
    return Interval(gain / (statistics.fmean(accuracies) - plain), None, 1)


def _as_interval(paired: PairedDifference) -> Interval:
    return Interval(paired.difference, paired.half, paired.seeds)
