"""Figures of a search, drawn with matplotlib without a display.

Not for: tables (tables.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfd_tune.record import SearchRecord, TrialRecord, describe_point
from dfd_tune.report.points import Point, points_of
from dfd_tune.space import Choice, Range, axis_from_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's palette, told apart by colour-blind readers: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


def lambda_curve(search: SearchRecord, trials: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """Validation accuracy against λ, one curve for each combination of the other listed axes.

    Plain training (λ = 0) and the teacher on high-resolution images are level lines of the curve's colour.
    Intervals are 95 % over seeds, where there are several.

    Returns:
        The PNG and SVG files written; none if λ was not explored or fewer than two trials finished.
    """
    points = points_of(trials)
    if "lambda_" not in search.explored or len(points) < 2:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axis = axis_from_json(search.explored["lambda_"])
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    curves = _curves(search, points)
    shown = list(curves.items())[: len(COLOURS)]
    for number, (name, curve) in enumerate(shown):
        teacher = _teacher_accuracy(search, curve)
        if isinstance(axis, Choice):
            _draw_curve(axes, name, curve, sorted(axis.values), COLOURS[number], MARKERS[number], teacher)
        else:
            _draw_cloud(axes, name, curve, COLOURS[number], MARKERS[number])
    _label(axes, search, axis, left_out=len(curves) - len(shown))
    files = [folder / "lambda_curve.png", folder / "lambda_curve.svg"]
    for file in files:
        figure.savefig(file, dpi=150)
    return files


def _curves(search: SearchRecord, points: Sequence[Point]) -> dict[str, list[Point]]:
    others = [
        name
        for name, axis in search.explored.items()
        if name not in ("lambda_", "seed") and isinstance(axis_from_json(axis), Choice)
    ]
    curves: dict[str, list[Point]] = {}
    for point in points:
        curves.setdefault(describe_point(point.config, others) or point.config["backbone"], []).append(point)
    return curves


def _draw_curve(
    axes: Axes,
    name: str,
    curve: list[Point],
    lambdas: list[float],
    colour: str,
    marker: str,
    teacher: float | None,
) -> None:
    places = {value: place for place, value in enumerate(lambdas)}
    curve = sorted(curve, key=lambda point: point.config["lambda_"])
    base = next((point for point in curve if point.config["lambda_"] == 0), None)
    axes.errorbar(
        [places[point.config["lambda_"]] for point in curve if point.config["lambda_"] in places],
        [100 * point.val_accuracy for point in curve if point.config["lambda_"] in places],
        yerr=[100 * (point.half_width or 0) for point in curve if point.config["lambda_"] in places],
        color=colour,
        marker=marker,
        capsize=3,
        label=name,
    )
    if base is not None:
        axes.axhline(100 * base.val_accuracy, color=colour, linestyle="--", linewidth=1, alpha=0.7)
    if teacher is not None:
        axes.axhline(100 * teacher, color=colour, linestyle=":", linewidth=1, alpha=0.7)
    axes.set_xticks(list(places.values()), [f"{value:g}" for value in lambdas])


def _draw_cloud(axes: Axes, name: str, curve: list[Point], colour: str, marker: str) -> None:
    axes.scatter(
        [point.config["lambda_"] for point in curve],
        [100 * point.val_accuracy for point in curve],
        color=colour,
        marker=marker,
        label=name,
    )


def _label(axes: Axes, search: SearchRecord, axis: Choice | Range, left_out: int) -> None:
    facts = search.dataset
    shared: dict[str, Any] = search.settings
    if isinstance(axis, Range) and axis.log:
        axes.set_xscale("symlog", linthresh=axis.low)
    axes.set_xlabel(
        "λ, the weight of the distillation loss" + (" (0: plain training)" if isinstance(axis, Choice) else "")
    )
    axes.set_ylabel("validation accuracy, %")
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    if isinstance(axis, Choice):
        handles += [_line("--"), _line(":")]
        labels += ["plain training (λ = 0)", "teacher on high resolution"]
    axes.legend(handles, labels, fontsize=8, ncols=2)
    resolution = shared.get("resolution")
    sides = f" at {resolution}×{resolution}" if resolution else ""
    parts = [
        f"{facts['dataset']}{sides}, {facts['train_images']:,} training and {facts['validation_images']:,} validation images"
    ]
    recipe = [f"{shared[name]} {word}" for name, word in (("epochs", "epochs"),) if name in shared]
    seeds = search.explored.get("seed")
    recipe.append(f"{len(seeds)} seeds, 95 % intervals" if seeds else "one seed")
    recipe.append("λ to be chosen on these validation images")
    if left_out > 0:
        recipe.append(f"{left_out} more curves not drawn")
    axes.set_title("\n".join([parts[0], ", ".join(recipe)]), fontsize=9)


def _line(style: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color="gray", linestyle=style, linewidth=1)


def _teacher_accuracy(search: SearchRecord, curve: list[Point]) -> float | None:
    keys = {trial.teacher for point in curve for trial in point.trials if trial.teacher}
    accuracies = {teacher.val_accuracy for teacher in search.teachers if teacher.key in keys}
    return accuracies.pop() if len(accuracies) == 1 else None
