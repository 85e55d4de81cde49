"""What a search chooses by, accuracy as a rule, against λ, as the paper's Figure 2: one curve a cell.

Not for: what belongs into a curve (analysis/cells.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfd_tune.analysis.cells import Cell, best_curves, curves_of, other_axes
from dfd_tune.analysis.points import Interval, Point, lambda_of, points_of, tested_accuracy
from dfd_tune.axes import Axis, Choice, Range, axis_from_json
from dfd_tune.criteria import DEFAULT
from dfd_tune.record import SearchRecord, TrialRecord, describe_point
from dfd_tune.report.captions import INTERVALS, by_what, facts_of, seeds_of
from dfd_tune.report.figures.style import COLOURS, MARKERS, head, literal, plain_axes, save, within_per_cent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CURVES = 9
"""More can't be told apart in one figure; the best are drawn."""

Style = tuple[str, str]
"""Colour and marker."""


@dataclass(frozen=True)
class _Canvas:
    """What the curves of a figure share."""

    axes: Axes
    place: Callable[[float], float]
    """Where a λ stands on the horizontal axis."""
    end: float
    """Where level lines stop."""
    curves: int
    listed: bool
    """Whether λ comes from a list, so that the points of a curve may be joined."""
    search: SearchRecord

    def height(self, point: Point) -> Interval | None:
        """What the search chooses by, of a point: on validation images or, under `paper`, accuracy on test images."""
        if is_on_test(self.search):
            return tested_accuracy(self.search, point)
        return point.interval(self.search.criterion)

    @property
    def unit(self) -> float:
        """By how much values are multiplied: shares are shown in per cent."""
        return 100.0 if self.search.criterion.is_share else 1.0

    def teacher(self, curve: Cell) -> float | None:
        """The HR baseline of a curve, on the same images; None as well where another metric than accuracy is shown,
        which the records lack."""
        if curve.teacher is None or self.search.choose_by != DEFAULT:
            return None
        return curve.teacher.test_accuracy if is_on_test(self.search) else curve.teacher.val_accuracy


def title_of(search: SearchRecord) -> str:
    """What the figure shows."""
    words = search.criterion.words
    return f"{words[0].upper()}{words[1:]} against λ"


def is_on_test(search: SearchRecord) -> bool:
    """Whether the figure is of test images: under the protocol `paper`, once the search is concluded."""
    return search.protocol == "paper" and bool(search.tested)


def lambda_curve(search: SearchRecord, trials: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """What the search chooses by against λ, one curve for each combination of the other listed axes.

    On validation images; under the protocol `paper` accuracy on test images, once the search is concluded.

    A list of λ gives evenly spaced places, a range its own scale; λ = 0 has open markers and, unless the range
    starts there, stands apart at the left. Plain training (λ = 0) and the teacher on high-resolution images are
    level lines of the curve's colour. Intervals are 95 % over seeds, where there are several.

    Returns:
        The PNG and SVG files written; none if λ was not explored or fewer than two points have finished.
    """
    points = points_of(trials)
    if "lambda_" not in search.explored or len(points) < 2:
        return []
    from matplotlib.figure import Figure

    curves = curves_of(search, trials)
    shown = best_curves(search, curves, MOST_CURVES)
    styles = _styles(search, shown)
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    canvas = _canvas(figure, search, points, len(shown))
    for number, (curve, style) in enumerate(zip(shown, styles, strict=True)):
        _draw_points(canvas, curve, style, number - (len(shown) - 1) / 2)
    has_base_lines = _draw_levels(canvas, shown, styles)
    images = "TEST" if is_on_test(search) else "validation"
    axes = canvas.axes
    axes.set_xlabel("λ, the weight of the distillation loss")
    axes.set_ylabel(f"{images} {search.criterion.words}{', %' if search.criterion.is_share else ''}")
    plain_axes(axes)
    if search.criterion.is_share:
        within_per_cent(axes)
    _legend(canvas, figure, shown, styles, has_base_lines)
    head(figure, f"{title_of(search)}, on {images} images", _notes(search, trials, left_out=len(curves) - len(shown)))
    return save(figure, folder, "lambda_curve", search.search)


def _styles(search: SearchRecord, curves: Sequence[Cell]) -> list[Style]:
    """A colour and a marker for each curve. Of many, the colour tells the first axis, the marker the others."""
    if len(curves) <= len(COLOURS):
        return list(zip(COLOURS, MARKERS, strict=True))[: len(curves)]
    others = other_axes(search)
    firsts = [describe_point(curve.points[0].config, others[:1]) for curve in curves]
    rests = [describe_point(curve.points[0].config, others[1:]) for curve in curves]
    colour, marker = ({text: number for number, text in enumerate(dict.fromkeys(part))} for part in (firsts, rests))
    if max(len(colour), len(marker)) <= len(COLOURS):
        return [(COLOURS[colour[one]], MARKERS[marker[other]]) for one, other in zip(firsts, rests, strict=True)]
    size = len(COLOURS)
    return [(COLOURS[number % size], MARKERS[(number + number // size) % size]) for number in range(len(curves))]


def _canvas(figure: Figure, search: SearchRecord, points: Sequence[Point], curves: int) -> _Canvas:
    """Axes with the scale of λ, yet without curves."""
    axis = axis_from_json(search.explored["lambda_"])
    axes = figure.add_subplot()
    place, ticks = _scale(axis, points)
    texts = [f"{tick:g}" if tick else "0\n(plain)" for tick in ticks]
    axes.set_xticks([place(tick) for tick in ticks], texts, rotation=45 if len(ticks) > 14 else 0)
    listed = isinstance(axis, Choice)
    last = place(ticks[-1]) if listed else 6.0
    apart = isinstance(axis, Choice) or axis.log
    first = 0 if ticks[0] == 0 or not apart else 1
    axes.set_xlim(first - 0.5, last + 0.5)
    if apart and first == 0:  # λ = 0 is no point of the scale
        axes.axvline(0.5, color="gray", linewidth=0.6, zorder=1)
    return _Canvas(axes, place, last + 0.5, curves, listed, search)


def _scale(axis: Axis, points: Sequence[Point]) -> tuple[Callable[[float], float], list[float]]:
    """Where each λ stands on the horizontal axis, and which λ have ticks.

    λ = 0 stands at 0; listed values at 1, 2, …; a logarithmic range from 1 to 6; a plain range from 0 to 6.
    """
    seen = {lambda_of(point) for point in points}
    zero = [0.0] if 0 in seen else []
    if isinstance(axis, Choice):
        listed = sorted(value for value in {*map(float, axis.values), *seen} if value > 0)
        return lambda value: listed.index(value) + 1 if value else 0, zero + listed
    if axis.log:
        span = math.log(axis.high / axis.low)
        return lambda value: 1 + 5 * math.log(value / axis.low) / span if value else 0, zero + _ticks(axis)
    return lambda value: 6 * value / axis.high, [axis.high * part / 5 for part in range(6)]


def _ticks(axis: Range) -> list[float]:
    """Round numbers of a logarithmic range: the powers of ten, or 1, 2 and 5 of each where those are few."""
    powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    for digits in ((1,), (1, 2, 5)):
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if axis.low <= tick <= axis.high]
        if len(ticks) >= 4:
            return ticks
    return [axis.low, *(tick for tick in ticks if axis.low < tick < axis.high), axis.high]


def _draw_points(canvas: _Canvas, curve: Cell, style: Style, number: float) -> None:
    """Points and intervals of a curve; `number`, counted from the middle curve, keeps it beside the others."""
    colour, marker = style
    shift = min(0.14, 0.7 / canvas.curves) * number if canvas.listed else 0.0
    for points, filled in ((curve.distilled, True), (curve.plain, False)):
        heights = [(point, height) for point in points if (height := canvas.height(point)) is not None]
        if not heights:
            continue
        drawn = canvas.axes.errorbar(
            [canvas.place(lambda_of(point)) + shift for point, _ in heights],
            [canvas.unit * height.mean for _, height in heights],
            yerr=[canvas.unit * (math.nan if height.half is None else height.half) for _, height in heights],
            color=colour,
            marker=marker,
            markersize=7,
            markeredgewidth=0.6 if filled else 1.2,
            markerfacecolor=colour if filled else "white",
            markeredgecolor="white" if filled else colour,
            linestyle="-" if canvas.listed and curve.is_line and filled else "",
            linewidth=1.4,
            elinewidth=1,
            capsize=3,
            zorder=3,
        )
        drawn.lines[0].set_clip_on(False)  # a marker at 100 % is whole


def _draw_levels(canvas: _Canvas, curves: Sequence[Cell], styles: Sequence[Style]) -> bool:
    """Level lines of plain training and of teachers, each once; returns whether plain training has any.

    Where they would be many, plain training has none: the lines could not be told apart.
    """
    colours = list(dict.fromkeys(colour for colour, _ in styles))
    bases = sum(len(curve.plain) == 1 for curve in curves)
    lines = {}
    for curve, (colour, _) in zip(curves, styles, strict=True):
        base = None if curve.base is None else canvas.height(curve.base)
        if base is not None and bases <= len(COLOURS):
            lines[base.mean, colour] = (6.0, 0.0)
        teacher = canvas.teacher(curve)
        if teacher is not None:
            lines[teacher, colour] = (1.5, -0.5)
    for (level, colour), (dash, start) in lines.items():
        # Each colour's dashes begin elsewhere, so that lines that lie on one another all show.
        pattern = (2 * dash * colours.index(colour) / len(colours), (dash, dash))
        ends = ([start, canvas.end], [canvas.unit * level] * 2)
        canvas.axes.plot(*ends, color=colour, linestyle=pattern, linewidth=1.3, alpha=0.8, zorder=2)
    return any(start == 0 for _, start in lines.values())


def _notes(search: SearchRecord, trials: Sequence[TrialRecord], left_out: int) -> list[str]:
    bars = [f"Bars: {INTERVALS}."] if max(seeds_of(trials)) > 1 else []
    if is_on_test(search):
        chosen = "Every λ was tested: the best of them is chosen on TEST images, as the paper appears to do."
    elif search.protocol == "paper":
        chosen = "λ will be chosen on TEST images, which are looked at when the search is concluded."
    else:
        chosen = f"λ is chosen{by_what(search)} on these validation images, not on test images."
    some = [f"The best {MOST_CURVES} of {left_out + MOST_CURVES} curves."] if left_out else []
    return [facts_of(search, trials), " ".join([*bars, chosen, *some])]


def _legend(
    canvas: _Canvas, figure: Figure, curves: Sequence[Cell], styles: Sequence[Style], has_base_lines: bool
) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=literal(curve.name))
        for curve, (colour, marker) in zip(curves, styles, strict=True)
    ]
    if any(curve.plain for curve in curves):
        line = "--" if has_base_lines else ""
        label = "λ = 0: plain training"
        handles.append(Line2D([], [], color="gray", marker="o", markerfacecolor="white", linestyle=line, label=label))
    if any(canvas.teacher(curve) is not None for curve in curves):
        handles.append(Line2D([], [], color="gray", linestyle=":", label="teacher on high-resolution images"))
    figure.legend(handles=handles, loc="outside lower center", fontsize=8, ncols=3, frameon=False)
