"""Cells: what a search compares, each a base network (λ = 0) beside the distilled student at a chosen λ.

A cell is one combination of the listed axes other than λ and seed; of a sampled search there is one, around its best
trial. Not for: showing cells (layouts.py, figures/).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dfd_tune.config import TrialConfig
from dfd_tune.record import SearchRecord, TeacherRecord, TrialRecord, describe_point
from dfd_tune.report.points import Point, best_trial, half_width, points_of
from dfd_tune.space import Choice, axis_from_json

Verdict = Literal[
    "better",
    "no significant difference",
    "worse",
    "too few seeds for a verdict",
    "not tested yet",
    "nothing to compare",
]

FEWEST_SEEDS = 3
"""For a verdict: two differences are equal now and then by chance, and their interval is then as good as nothing."""


@dataclass(frozen=True)
class Cell:
    """One combination of the listed axes other than λ and seed."""

    name: str
    setting: Mapping[str, Any]
    """Value of each of these axes."""
    plain: tuple[Point, ...]
    """With λ = 0: one for a cell of a grid."""
    distilled: tuple[Point, ...]
    """By λ, all above 0."""
    chosen: Point | None
    """The distilled point with the best mean accuracy: on validation images, or on test images under `paper`."""
    teacher: TeacherRecord | None
    """The student's own teacher, whose accuracy is the HR baseline; None if the search has none or several."""

    @property
    def base(self) -> Point | None:
        """The λ = 0 point; None if there is none yet, or several that differ in more than λ."""
        return self.plain[0] if len(self.plain) == 1 else None

    @property
    def points(self) -> tuple[Point, ...]:
        """All points, by λ."""
        return self.plain + self.distilled

    @property
    def config(self) -> dict[str, Any]:
        """The settings of its first point, for what all its points share."""
        return self.points[0].config

    @property
    def is_line(self) -> bool:
        """Whether there is one point a λ, so that joining them makes sense."""
        lambdas = [lambda_of(point) for point in self.distilled]
        return len(set(lambdas)) == len(lambdas)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, a fraction, with half of its 95 % interval (Student's t); None for a single seed."""

    mean: float
    half: float | None
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """A cell's base network and chosen student on low-resolution test images; None where they are not tested."""

    base: Interval | None
    distilled: Interval | None
    difference: Interval | None
    """Distilled − base, over pairs of the same seed."""
    gap_recovered: float | None
    """(distilled − base) / (HR baseline − base), over the same pairs; None where the HR baseline is not above the
    base."""
    verdict: Verdict


@dataclass(frozen=True)
class SeedsOfBest:
    """The cell of a search's best student, and what the test images say of it over several seeds."""

    cell: Cell
    chosen: Point
    """Its distilled point; of it, or of the λ = 0 point, the best student is one seed."""
    comparison: Comparison
    difference: Interval
    """The comparison's, over at least two seeds."""


def cells_of(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[Cell]:
    """A grid's cells, in the order of the axes' lists; of a sampled search, the one of its best trial.

    One λ = 0 trial serves all cells that differ in what plain training does not look at, as `method`.
    """
    points = points_of(trials)
    if search.sampler != "grid":
        return _sampled_cell(search, trials, points)
    others = other_axes(search)
    listed = {name: search.explored[name] for name in others}
    groups: dict[str, list[Point]] = {}
    order = [point for point in points if all(point.config[name] in listed[name] for name in others)]
    for point in sorted(order, key=lambda point: [listed[name].index(point.config[name]) for name in others]):
        groups.setdefault(describe_point(point.config, others) or point.config["backbone"], []).append(point)
    twins = {_plain_key(point): point for point in points if lambda_of(point) == 0}
    cells = []
    for name, group in groups.items():
        distilled = tuple(sorted((point for point in group if lambda_of(point) > 0), key=lambda_of))
        plain = tuple(point for point in group if lambda_of(point) == 0)
        if not plain:
            found = {key: twins[key] for point in distilled if (key := _plain_key(point)) in twins}
            plain = tuple(found.values())
        cells.append(_cell(search, name, {axis: group[0].config[axis] for axis in others}, plain, distilled))
    return cells


def curves_of(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[Cell]:
    """As `cells_of`, but for a sampled search one for each combination of its listed axes: what a figure shows."""
    if search.sampler == "grid":
        return cells_of(search, trials)
    others = other_axes(search)
    groups: dict[str, list[Point]] = {}
    for point in points_of(trials):
        groups.setdefault(describe_point(point.config, others) or point.config["backbone"], []).append(point)
    cells = []
    for name, group in groups.items():
        distilled = tuple(sorted((point for point in group if lambda_of(point) > 0), key=lambda_of))
        plain = tuple(point for point in group if lambda_of(point) == 0)
        cells.append(_cell(search, name, {axis: group[0].config[axis] for axis in others}, plain, distilled))
    return cells


def trials_to_test(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials whose accuracy on test images the report speaks of: all seeds of every cell's chosen and λ = 0 points.

    Under the protocol `paper`, every finished trial.
    """
    if search.protocol == "paper":
        return [trial for trial in trials if trial.status == "FINISHED"]
    wanted: dict[str, TrialRecord] = {}
    for cell in cells_of(search, trials):
        for point in (cell.base, cell.chosen):
            if point is not None:
                wanted |= {trial.key: trial for trial in point.trials}
    return list(wanted.values())


def compare(search: SearchRecord, cell: Cell) -> Comparison:
    """What the test images say of a cell; nothing where its trials are not tested yet."""
    base, distilled = (_tested(search, point) for point in (cell.base, cell.chosen))
    means = [None if values is None else _interval(list(values.values())) for values in (base, distilled)]
    if base is None or distilled is None:
        waits = (cell.base is not None and base is None) or (cell.chosen is not None and distilled is None)
        return Comparison(means[0], means[1], None, None, "not tested yet" if waits else "nothing to compare")
    pairs = [distilled[seed] - base[seed] for seed in distilled if seed in base]
    if not pairs:
        return Comparison(means[0], means[1], None, None, "nothing to compare")
    difference = _interval(pairs)
    high = cell.teacher.test_accuracy if cell.teacher is not None else None
    plain = statistics.fmean(base[seed] for seed in distilled if seed in base)
    gap = None if high is None or high <= plain else difference.mean / (high - plain)
    return Comparison(means[0], means[1], difference, gap, verdict_of(difference))


def seeds_of_best(search: SearchRecord, trials: Sequence[TrialRecord]) -> SeedsOfBest | None:
    """The best student's cell with all its seeds.

    None where there is one seed; where the best student, being plain, stands in several cells; and where it stands in
    none, as the protocol `paper` chose the cell's λ otherwise.
    """
    key = search.best.key if search.best is not None else None
    cells = cells_of(search, trials)
    holding = [cell for cell in cells if _holds(cell.chosen, key)]
    if not holding and search.protocol == "validation":
        holding = [cell for cell in cells if _holds(cell.base, key)]
    if len(holding) != 1 or holding[0].chosen is None:
        return None
    comparison = compare(search, holding[0])
    if comparison.difference is None or comparison.difference.seeds < 2:
        return None
    return SeedsOfBest(holding[0], holding[0].chosen, comparison, comparison.difference)


def _holds(point: Point | None, key: str | None) -> bool:
    return point is not None and any(trial.key == key for trial in point.trials)


def verdict_of(difference: Interval) -> Verdict:
    """What a paired difference says, by its 95 % interval."""
    if difference.half is None or difference.seeds < FEWEST_SEEDS:
        return "too few seeds for a verdict"
    if difference.mean - difference.half > 0:
        return "better"
    return "worse" if difference.mean + difference.half < 0 else "no significant difference"


def best_curves(curves: Sequence[Cell], most: int) -> list[Cell]:
    """At most `most` cells, those that reach highest on validation images, in the order given."""
    order = sorted(curves, key=lambda curve: -max(point.val_accuracy for point in curve.points))
    chosen = {curve.name for curve in order[:most]}
    return [curve for curve in curves if curve.name in chosen]


def other_axes(search: SearchRecord) -> list[str]:
    """The listed axes other than λ and seed."""
    return [
        name
        for name, axis in search.explored.items()
        if name not in ("lambda_", "seed") and isinstance(axis_from_json(axis), Choice)
    ]


def lambda_of(point: Point) -> float:
    """The point's λ."""
    return float(point.config["lambda_"])


def tested_accuracy(search: SearchRecord, point: Point) -> Interval | None:
    """Mean test accuracy over a point's seeds; None unless all of them are tested."""
    values = _tested(search, point)
    return None if values is None else _interval(list(values.values()))


def _cell(
    search: SearchRecord, name: str, setting: Mapping[str, Any], plain: tuple[Point, ...], distilled: tuple[Point, ...]
) -> Cell:
    return Cell(name, setting, plain, distilled, _chosen(search, distilled), _own_teacher(search, plain + distilled))


def _sampled_cell(search: SearchRecord, trials: Sequence[TrialRecord], points: Sequence[Point]) -> list[Cell]:
    home = _best_point(search, trials, points)
    if home is None:
        return []
    twins = tuple(point for point in points if lambda_of(point) == 0 and _plain_key(point) == _plain_key(home))
    plain, distilled = ((home,), twins[:0]) if lambda_of(home) == 0 else (twins, (home,))
    others = other_axes(search)
    setting = {axis: home.config[axis] for axis in others}
    return [_cell(search, describe_point(home.config, others) or home.config["backbone"], setting, plain, distilled)]


def _best_point(search: SearchRecord, trials: Sequence[TrialRecord], points: Sequence[Point]) -> Point | None:
    """The point around which a sampled search has its cell; by test images where λ is chosen by these."""
    best = best_trial(trials)
    tested = _best_tested(search, points) if search.protocol == "paper" else None
    return tested or next((point for point in points if best in point.trials), None)


def _chosen(search: SearchRecord, distilled: Sequence[Point]) -> Point | None:
    if search.protocol == "paper":
        return _best_tested(search, distilled)
    return max(distilled, key=lambda point: (point.val_accuracy, -point.val_loss), default=None)


def _best_tested(search: SearchRecord, points: Sequence[Point]) -> Point | None:
    """The point of the best mean accuracy on test images; None if none is tested."""
    tested = [(found.mean, point) for point in points if (found := tested_accuracy(search, point)) is not None]
    return max(tested, key=lambda pair: pair[0])[1] if tested else None


def _tested(search: SearchRecord, point: Point | None) -> dict[int, float] | None:
    """Test accuracy by seed; None unless all trials of the point are tested."""
    if point is None or not all(trial.key in search.tested for trial in point.trials):
        return None
    return {trial.config["seed"]: search.tested[trial.key] for trial in point.trials}


def _interval(values: Sequence[float]) -> Interval:
    return Interval(statistics.fmean(values), half_width(values), len(values))


def _own_teacher(search: SearchRecord, points: Sequence[Point]) -> TeacherRecord | None:
    """The one teacher of the students' own backbone, if the points agree on it."""
    # No teacher depends on λ or seed, in which most points of a cell differ alone.
    settings = {frozenset((point.config | {"lambda_": 0.0, "seed": 0}).items()) for point in points}
    own = {TrialConfig(**dict(some)).teacher().key(search.dataset["digest"]) for some in settings}
    found = [teacher for teacher in search.teachers if teacher.key in own]
    return found[0] if len(found) == 1 else None


def _plain_key(point: Point) -> str:
    """Equal for points that would be the same with λ = 0."""
    return TrialConfig(**{**point.config, "lambda_": 0.0, "seed": 0}).key("")
