"""Learning curves: validation accuracy by epoch, of each cell's base network and chosen student.

Not for: final accuracies (lambda_curve.py and the tables).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.report.cells import cells_of, lambda_of
from dfd_tune.report.figures.style import COLOURS, plain_axes, save
from dfd_tune.report.points import Point

MOST_PANELS = 12


def learning_curves(search: SearchRecord, trials: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """A panel a cell: the mean over seeds by epoch, and the range from the worst seed to the best.

    Returns:
        The PNG and SVG files written; none if no finished trial has a history.
    """
    cells = [cell for cell in cells_of(search, trials) if any(_histories(point) for point in cell.points)]
    cells = cells[:MOST_PANELS]
    if not cells:
        return []
    from matplotlib.figure import Figure

    columns = min(3, len(cells))
    rows = math.ceil(len(cells) / columns)
    figure = Figure(figsize=(1.2 + 3.1 * columns, 0.9 + 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for number, cell in enumerate(cells):
        axes = panels[number // columns][number % columns]
        for point, colour, style in ((cell.base, COLOURS[6], "--"), (cell.chosen, COLOURS[0], "-")):
            if point is None or not (histories := _histories(point)):
                continue
            epochs = range(1, min(map(len, histories)) + 1)
            columns_of = list(zip(*histories, strict=False))
            label = "λ = 0" if point is cell.base else f"λ = {lambda_of(point):.4g}"
            axes.plot(epochs, [statistics.fmean(values) for values in columns_of], style, color=colour, label=label)
            axes.fill_between(epochs, list(map(min, columns_of)), list(map(max, columns_of)), color=colour, alpha=0.15)
        axes.set_title(cell.name, fontsize=9, loc="left")
        axes.legend(fontsize=8, frameon=False, loc="lower right")
        plain_axes(axes)
    for axes in panels.flat[len(cells) :]:
        axes.set_visible(False)
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("validation accuracy, %", fontsize=10)
    return save(figure, folder, "learning_curves", search.search)


def _histories(point: Point) -> list[list[float]]:
    """Validation accuracy in per cent by epoch, of each seed."""
    return [[100 * epoch["val_accuracy"] for epoch in trial.history] for trial in point.trials if trial.history]
