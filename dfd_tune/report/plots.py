"""Figures of a search, drawn with matplotlib without a display.

Not for: tables (tables.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfd_tune.config import TrialConfig
from dfd_tune.record import SearchRecord, TrialRecord, describe_point
from dfd_tune.report.points import Point, points_of
from dfd_tune.space import Axis, Choice, Range, axis_from_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart by colour-blind readers: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
MOST_CURVES = 12
"""More can't be told apart in one figure; the best are drawn."""


@dataclass(frozen=True)
class _Curve:
    """What is drawn in one colour and marker."""

    name: str
    distilled: tuple[Point, ...]
    """By λ, all above 0."""
    plain: tuple[Point, ...]
    """With λ = 0."""
    teacher: float | None
    """Validation accuracy on high-resolution images; None if the points have no teacher in common."""

    @property
    def points(self) -> tuple[Point, ...]:
        return self.plain + self.distilled

    @property
    def is_line(self) -> bool:
        """Whether there is one point a λ, so that joining them makes sense."""
        lambdas = [_lambda(point) for point in self.distilled]
        return len(set(lambdas)) == len(lambdas)


def lambda_curve(search: SearchRecord, trials: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """Validation accuracy against λ, one curve for each combination of the other listed axes.

    A list of λ gives evenly spaced places, a range its own scale; λ = 0 stands apart at the left, as open markers.
    Plain training (λ = 0) and the teacher on high-resolution images are level lines of the curve's colour.
    Intervals are 95 % over seeds, where there are several. Of many curves the best are drawn.

    Returns:
        The PNG and SVG files written; none if λ was not explored or fewer than two points have finished.
    """
    points = points_of(trials)
    if "lambda_" not in search.explored or len(points) < 2:
        return []
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    curves = _curves(search, points)
    shown = _best(curves)
    styles = _styles(search, shown)
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    canvas = _canvas(figure, axis_from_json(search.explored["lambda_"]), points, len(shown))
    for number, (curve, style) in enumerate(zip(shown, styles, strict=True)):
        _draw(canvas, number, curve, *style)
    _label(canvas.axes, search, points, left_out=len(curves) - len(shown))
    _legend(figure, shown, styles)
    files = []
    for kind in ("png", "svg"):
        file = folder / f"lambda_curve.{kind}"
        draft = file.with_name(f".{file.name}")
        with rc_context({"svg.hashsalt": search.search}):  # equal records give equal files
            figure.savefig(draft, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        files.append(draft.replace(file))
    return files


def _canvas(figure: Figure, axis: Axis, points: Sequence[Point], curves: int) -> _Canvas:
    """Axes with the scale of λ, yet without curves."""
    axes = figure.add_subplot()
    place, ticks = _scale(axis, points)
    texts = [f"{tick:g}" if tick else "0\n(plain)" for tick in ticks]
    axes.set_xticks([place(tick) for tick in ticks], texts, rotation=45 if len(ticks) > 14 else 0)
    listed = isinstance(axis, Choice)
    apart = listed or axis.log
    last = place(ticks[-1]) if listed else 6.0
    first = 0 if ticks[0] == 0 or not apart else 1
    axes.set_xlim(first - 0.5, last + 0.5)
    if apart and first == 0:  # λ = 0 is no point of the scale
        axes.axvline(0.5, color="gray", linewidth=0.6, zorder=1)
    return _Canvas(axes, place, last + 0.5, curves, listed)


def _curves(search: SearchRecord, points: Sequence[Point]) -> list[_Curve]:
    others = _others(search)
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(describe_point(point.config, others) or point.config["backbone"], []).append(point)
    twins = {_plain_key(point): point for point in points if _lambda(point) == 0}
    curves = []
    for name, group in groups.items():
        distilled = tuple(sorted((point for point in group if _lambda(point) > 0), key=_lambda))
        plain = tuple(point for point in group if _lambda(point) == 0)
        if not plain:  # one λ = 0 trial serves the curves that differ in what it does not look at, as `reduction`
            found = {key: twins[key] for point in distilled if (key := _plain_key(point)) in twins}
            plain = tuple(found.values())
        curves.append(_Curve(name, distilled, plain, _teacher_accuracy(search, group)))
    return curves


def _others(search: SearchRecord) -> list[str]:
    return [
        name
        for name, axis in search.explored.items()
        if name not in ("lambda_", "seed") and isinstance(axis_from_json(axis), Choice)
    ]


def _lambda(point: Point) -> float:
    return float(point.config["lambda_"])


def _plain_key(point: Point) -> str:
    """Equal for points that would be the same with λ = 0."""
    return TrialConfig(**{**point.config, "lambda_": 0.0, "seed": 0}).key("")


def _teacher_accuracy(search: SearchRecord, points: Sequence[Point]) -> float | None:
    keys = {trial.teacher for point in points for trial in point.trials if trial.teacher}
    accuracies = [teacher.val_accuracy for teacher in search.teachers if teacher.key in keys]
    return accuracies[0] if len(accuracies) == 1 else None


def _best(curves: Sequence[_Curve]) -> list[_Curve]:
    """The curves that reach highest, in their order."""
    order = sorted(curves, key=lambda curve: -max(point.val_accuracy for point in curve.points))
    chosen = [curve.name for curve in order[:MOST_CURVES]]
    return [curve for curve in curves if curve.name in chosen]


def _styles(search: SearchRecord, curves: Sequence[_Curve]) -> list[tuple[str, str]]:
    """A colour and a marker for each curve. Of many, the colour tells the first axis, the marker the others."""
    if len(curves) <= len(COLOURS):
        return list(zip(COLOURS, MARKERS, strict=True))[: len(curves)]
    others = _others(search)
    firsts = [describe_point(curve.points[0].config, others[:1]) for curve in curves]
    rests = [describe_point(curve.points[0].config, others[1:]) for curve in curves]
    colour, marker = ({value: number for number, value in enumerate(dict.fromkeys(part))} for part in (firsts, rests))
    if max(len(colour), len(marker)) <= len(COLOURS):
        return [(COLOURS[colour[one]], MARKERS[marker[other]]) for one, other in zip(firsts, rests, strict=True)]
    size = len(COLOURS)
    return [(COLOURS[number % size], MARKERS[(number + number // size) % size]) for number in range(len(curves))]


def _scale(axis: Axis, points: Sequence[Point]) -> tuple[Callable[[float], float], list[float]]:
    """Where each λ stands on the horizontal axis, and which λ have ticks.

    λ = 0 stands at 0; listed values at 1, 2, …; a logarithmic range from 1 to 6; a plain range from 0 to 6.
    """
    seen = {_lambda(point) for point in points}
    zero = [0.0] if 0 in seen else []
    if isinstance(axis, Choice):
        listed = sorted(value for value in {*map(float, axis.values), *seen} if value > 0)
        return lambda value: listed.index(value) + 1 if value else 0, zero + listed
    if axis.log:
        span = math.log(axis.high / axis.low)
        return lambda value: 1 + 5 * math.log(value / axis.low) / span if value else 0, zero + _ticks(axis)
    return lambda value: 6 * value / axis.high, [axis.high * part / 5 for part in range(6)]


def _ticks(axis: Range) -> list[float]:
    """Round numbers of a logarithmic range: 1, 2 and 5 of each power of ten, or the powers alone if these do."""
    powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    for digits in ((1,), (1, 2, 5)):
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if axis.low <= tick <= axis.high]
        if len(ticks) >= 4:
            return ticks
    return [axis.low, *(tick for tick in ticks if axis.low < tick < axis.high), axis.high]


@dataclass(frozen=True)
class _Canvas:
    """What the curves of a figure share."""

    axes: Axes
    place: Callable[[float], float]
    """Where a λ stands on the horizontal axis."""
    end: float
    """Where level lines stop."""
    curves: int
    joined: bool
    """Whether points of successive λ are joined by lines."""


def _draw(canvas: _Canvas, number: int, curve: _Curve, colour: str, marker: str) -> None:
    """Points, intervals and level lines of a curve, a little beside those of the others."""
    shift = (number - (canvas.curves - 1) / 2) * min(0.08, 0.5 / canvas.curves) if canvas.joined else 0.0
    for points, fill in ((curve.distilled, colour), (curve.plain, "white")):
        canvas.axes.errorbar(
            [canvas.place(_lambda(point)) + shift for point in points],
            [100 * point.val_accuracy for point in points],
            yerr=[100 * (point.half_width or math.nan) for point in points],
            color=colour,
            marker=marker,
            markerfacecolor=fill,
            linestyle="-" if canvas.joined and curve.is_line else "",
            linewidth=1.4,
            elinewidth=1,
            capsize=3,
            zorder=3,
        )
    levels = [(curve.plain[0].val_accuracy, 6.0, shift)] if len(curve.plain) == 1 else []
    levels += [] if curve.teacher is None else [(curve.teacher, 1.5, -0.5)]
    for level, dash, start in levels:
        # Each curve's dashes begin elsewhere, so that lines that lie on one another all show.
        pattern = (2 * dash * number / canvas.curves, (dash, dash))
        ends = ([start, canvas.end], [100 * level] * 2)
        canvas.axes.plot(*ends, color=colour, linestyle=pattern, linewidth=1.2, alpha=0.8, zorder=2)


def _label(axes: Axes, search: SearchRecord, points: Sequence[Point], left_out: int) -> None:
    facts, shared = search.dataset, search.settings
    axes.set_xlabel("λ, the weight of the distillation loss")
    axes.set_ylabel("validation accuracy, %")
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    sides = f" at {shared['resolution']}×{shared['resolution']} pixels" if "resolution" in shared else ""
    seeds = sorted({len(point.trials) for point in points})
    few = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    parts = [
        f"{facts['train_images']:,} training and {facts['validation_images']:,} validation images",
        *([f"{shared['epochs']} epochs"] if "epochs" in shared else []),
        "one seed" if seeds == [1] else f"{few} seeds a point, with the mean's 95 % interval",
    ]
    notes = ["λ is chosen on these validation images, not on test images"]
    if left_out:
        notes.append(f"the best {MOST_CURVES} of {left_out + MOST_CURVES} curves")
    axes.set_title(f"{facts['dataset']}{sides}", loc="left", fontsize=11, pad=34)
    text = ", ".join(parts) + "\n" + "; ".join(notes)
    axes.annotate(text, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=8)


def _legend(figure: Figure, curves: Sequence[_Curve], styles: Sequence[tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=curve.name)
        for curve, (colour, marker) in zip(curves, styles, strict=True)
    ]
    grey = {"color": "gray", "linewidth": 1.2}
    if any(curve.plain for curve in curves):
        label = "λ = 0: plain training"
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", linestyle="--", label=label, **grey))
    if any(curve.teacher is not None for curve in curves):
        handles.append(Line2D([], [], linestyle=":", label="teacher on high-resolution images", **grey))
    figure.legend(handles=handles, loc="outside lower center", fontsize=8, ncols=3, frameon=False)
