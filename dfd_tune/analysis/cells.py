"""Cells: what a search compares, each a base network (λ = 0) beside the distilled student at a chosen λ.

A cell is one combination of the listed axes other than λ and seed; of a sampled search there is one, around its best
distilled trial. Not for: what the test images say of them (comparisons.py), or showing them (report/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dfd_tune.analysis.choice import best_tested, chosen_of, complete, ranked
from dfd_tune.analysis.points import Point, lambda_of, points_of
from dfd_tune.axes import Choice, axes_from_json, axis_from_json, explored_at, point_at
from dfd_tune.config import TrialConfig
from dfd_tune.confirm import Arm
from dfd_tune.record import ConfirmedCell, SearchRecord, TeacherRecord, TrialRecord, describe_point


@dataclass(frozen=True)
class Confirmed:
    """What a cell chose, trained anew with fresh seeds, beside what it is held against."""

    arms: Mapping[Arm, Point]
    """Those of which a trial has finished."""
    seeds: int
    """How many are planned for each arm."""
    teachers: Mapping[int, TeacherRecord]
    """Seed -> the student's own teacher: the same for all, or one each."""


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
    """The distilled point that is best in the mean: by what the search chooses by on validation images, or by accuracy
    on test images under `paper`."""
    teacher: TeacherRecord | None
    """The student's own teacher, whose accuracy is the HR baseline; None if the search has none or several."""
    confirmed: Confirmed | None = None
    """None where nothing is, or not yet."""

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


def cells_of(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[Cell]:
    """A grid's cells, in the order of the axes' lists; of a sampled search, the one of its best trial.

    One λ = 0 trial serves all cells that differ in what plain training does not look at, as `method`.
    """
    points = points_of(trials)
    if search.sampler != "grid":
        return _with_confirmation(search, _sampled_cell(search, points), trials)
    others = other_axes(search)
    groups: dict[str, list[Point]] = {}
    for _, point in sorted(_placed(search, points), key=lambda pair: pair[0]):
        groups.setdefault(_name_of(search, point, others), []).append(point)
    twins = {_plain_key(point): point for point in points if lambda_of(point) == 0}
    cells = []
    for name, group in groups.items():
        distilled = tuple(sorted((point for point in group if lambda_of(point) > 0), key=lambda_of))
        plain = tuple(point for point in group if lambda_of(point) == 0)
        if not plain:
            found = {key: twins[key] for point in distilled if (key := _plain_key(point)) in twins}
            plain = tuple(found.values())
        cells.append(_cell(search, name, {axis: group[0].config[axis] for axis in others}, plain, distilled))
    return _with_confirmation(search, cells, trials)


def curves_of(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[Cell]:
    """As `cells_of`, but for a sampled search one for each combination of its listed axes: what a figure shows."""
    if search.sampler == "grid":
        return cells_of(search, trials)
    others = other_axes(search)
    groups: dict[str, list[Point]] = {}
    for point in points_of(trials):
        groups.setdefault(_name_of(search, point, others), []).append(point)
    cells = []
    for name, group in groups.items():
        distilled = tuple(sorted((point for point in group if lambda_of(point) > 0), key=lambda_of))
        plain = tuple(point for point in group if lambda_of(point) == 0)
        cells.append(_cell(search, name, {axis: group[0].config[axis] for axis in others}, plain, distilled))
    return cells


def trials_to_test(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials whose accuracy on test images the report speaks of: those of the confirmation's arms.

    Where nothing is confirmed, all seeds of every cell's chosen and λ = 0 points; under the protocol `paper`, every
    finished trial.
    """
    if search.protocol == "paper":
        return [trial for trial in trials if trial.status == "FINISHED"]
    if search.confirm.seeds:
        anew = {key for cell in search.confirmation for keys in cell.arms.values() for key in keys}
        return [trial for trial in trials if trial.key in anew and trial.status == "FINISHED"]
    wanted: dict[str, TrialRecord] = {}
    for cell in cells_of(search, trials):
        for point in (cell.base, cell.chosen):
            if point is not None:
                wanted |= {trial.key: trial for trial in point.trials}
    return list(wanted.values())


def best_curves(search: SearchRecord, curves: Sequence[Cell], most: int) -> list[Cell]:
    """At most `most` cells, those that come to the best value on validation images, in the order given."""
    by = search.criterion
    order = sorted(curves, key=lambda curve: min(by.cost(point.value(by)) for point in curve.points))
    chosen = {curve.name for curve in order[:most]}
    return [curve for curve in curves if curve.name in chosen]


def other_axes(search: SearchRecord) -> list[str]:
    """The listed axes other than λ and seed."""
    return [
        name
        for name, axis in search.explored.items()
        if name not in ("lambda_", "seed") and isinstance(axis_from_json(axis), Choice)
    ]


def _cell(
    search: SearchRecord, name: str, setting: Mapping[str, Any], plain: tuple[Point, ...], distilled: tuple[Point, ...]
) -> Cell:
    return Cell(name, setting, plain, distilled, chosen_of(search, distilled), _own_teacher(search, plain + distilled))


def _placed(search: SearchRecord, points: Sequence[Point]) -> Iterator[tuple[list[int], Point]]:
    """The points that lie on the listed axes other than λ and seed, with the places of their values on these lists; 0
    where an axis is not explored."""
    axes = {name: axis for name, axis in axes_from_json(search.explored).items() if name != "seed"}
    for point in points:
        places = []
        found = point_at(point.config, axes)
        for name in other_axes(search):
            axis = axes[name]
            assert isinstance(axis, Choice)
            if name in found and found[name] not in axis.values:
                break
            places.append(axis.values.index(found[name]) if name in found else 0)
        else:
            yield places, point


def _name_of(search: SearchRecord, point: Point, axes: Sequence[str]) -> str:
    """A cell's name: the values of its axes at a point, as far as they are explored there."""
    there = explored_at(point.config, search.explored)
    return describe_point(point.config, [name for name in axes if name in there]) or str(point.config["backbone"])


def _sampled_cell(search: SearchRecord, points: Sequence[Point]) -> list[Cell]:
    home = _best_point(search, points)
    if home is None:
        return []
    twins = tuple(point for point in points if lambda_of(point) == 0 and _plain_key(point) == _plain_key(home))
    plain, distilled = ((home,), twins[:0]) if lambda_of(home) == 0 else (twins, (home,))
    others = other_axes(search)
    setting = {axis: home.config[axis] for axis in others}
    return [_cell(search, _name_of(search, home, others), setting, plain, distilled)]


def _best_point(search: SearchRecord, points: Sequence[Point]) -> Point | None:
    """The point around which a sampled search has its cell: the best distilled one, or the best if none is; by test
    images where λ is chosen by these."""
    distilled = [point for point in points if lambda_of(point) > 0] or list(points)
    tested = best_tested(search, distilled) if search.protocol == "paper" else None
    return tested or next(iter(ranked(search, complete(search, distilled))), None)


def _with_confirmation(search: SearchRecord, cells: Sequence[Cell], trials: Sequence[TrialRecord]) -> list[Cell]:
    """The cells with what was trained anew for them."""
    planned = {cell.cell: cell for cell in search.confirmation}
    if not planned:
        return list(cells)
    finished = {trial.key: trial for trial in trials if trial.status == "FINISHED"}
    return [
        replace(cell, confirmed=_confirmed(search, planned[cell.name], finished)) if cell.name in planned else cell
        for cell in cells
    ]


def _confirmed(search: SearchRecord, cell: ConfirmedCell, finished: Mapping[str, TrialRecord]) -> Confirmed:
    arms: dict[Arm, Point] = {}
    for arm, keys in cell.arms.items():
        trials = tuple(finished[key] for key in keys if key in finished)
        if trials:
            arms[arm] = Point(trials[0].config, trials, len(keys) - len(trials))
    records = {teacher.key: teacher for teacher in search.teachers}
    teachers = {}
    for trial in (trial for point in arms.values() for trial in point.trials):
        key = TrialConfig(**trial.config).teacher().key(search.dataset["digest"])
        if key in records:
            teachers[int(trial.config["seed"])] = records[key]
    return Confirmed(arms, len(cell.seeds), teachers)


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
