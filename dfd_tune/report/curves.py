"""Curves: the points of a search that differ in λ (and in sampled settings) alone, each with what it is held against.

Not for: drawing them (plots.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dfd_tune.config import TrialConfig
from dfd_tune.record import SearchRecord, describe_point
from dfd_tune.report.points import Point
from dfd_tune.space import Choice, axis_from_json


@dataclass(frozen=True)
class Curve:
    """Accuracy against λ for one combination of the other listed axes."""

    name: str
    distilled: tuple[Point, ...]
    """By λ, all above 0."""
    plain: tuple[Point, ...]
    """With λ = 0."""
    teacher: float | None
    """Its teacher's validation accuracy on high-resolution images; None if the points have no teacher in common."""

    @property
    def points(self) -> tuple[Point, ...]:
        """All points, by λ."""
        return self.plain + self.distilled

    @property
    def is_line(self) -> bool:
        """Whether there is one point a λ, so that joining them makes sense."""
        lambdas = [lambda_of(point) for point in self.distilled]
        return len(set(lambdas)) == len(lambdas)


def curves_of(search: SearchRecord, points: Sequence[Point]) -> list[Curve]:
    """One curve for each combination of the listed axes other than λ and seed, in the order of the lists."""
    others = other_axes(search)
    groups: dict[str, list[Point]] = {}
    listed = {name: search.explored[name] for name in others}
    for point in sorted(points, key=lambda point: [listed[name].index(point.config[name]) for name in others]):
        groups.setdefault(describe_point(point.config, others) or point.config["backbone"], []).append(point)
    twins = {_plain_key(point): point for point in points if lambda_of(point) == 0}
    curves = []
    for name, group in groups.items():
        distilled = tuple(sorted((point for point in group if lambda_of(point) > 0), key=lambda_of))
        plain = tuple(point for point in group if lambda_of(point) == 0)
        if not plain:  # one λ = 0 trial serves all curves that differ in what it does not look at, as `reduction`
            found = {key: twins[key] for point in distilled if (key := _plain_key(point)) in twins}
            plain = tuple(found.values())
        curves.append(Curve(name, distilled, plain, _teacher_accuracy(search, group)))
    return curves


def best_curves(curves: Sequence[Curve], most: int) -> list[Curve]:
    """At most `most` curves, those that reach highest, in the order given."""
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


def _plain_key(point: Point) -> str:
    """Equal for points that would be the same with λ = 0."""
    return TrialConfig(**{**point.config, "lambda_": 0.0, "seed": 0}).key("")


def _teacher_accuracy(search: SearchRecord, points: Sequence[Point]) -> float | None:
    keys = {trial.teacher for point in points for trial in point.trials if trial.teacher}
    accuracies = [teacher.val_accuracy for teacher in search.teachers if teacher.key in keys]
    return accuracies[0] if len(accuracies) == 1 else None
