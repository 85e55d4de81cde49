"""Learning curves: what a search chooses by, epoch by epoch, of each cell's base network and chosen student.

Not for: final accuracies (lambda_curve.py and the tables).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dfd_tune.analysis.cells import Cell, cells_of
from dfd_tune.analysis.comparisons import pair_of
from dfd_tune.analysis.points import Point, lambda_of
from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.report.captions import chosen_by, facts_of
from dfd_tune.report.figures.style import COLOURS, head, literal, plain_axes, save, within_per_cent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Learning curves"
MOST_PANELS = 12
FEW_EPOCHS = 12
"""So few are marked one by one."""


def learning_curves(search: SearchRecord, trials: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """A panel a cell: the mean over seeds by epoch, and the range from the worst seed to the best.

    Returns:
        The PNG and SVG files written; none if neither base network nor chosen student of any cell has a history.
    """
    cells = [
        cell for cell in cells_of(search, trials) if any(_histories(search, point) for point in _shown(search, cell))
    ]
    shown = cells[:MOST_PANELS]
    if not shown:
        return []
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    words = search.criterion.words
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(1.2 + 3.1 * columns, 0.9 + 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    for number, (axes, cell) in enumerate(zip(panels, shown, strict=False)):
        _draw(axes, search, cell)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        if number + columns >= len(shown):  # no panel stands below
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("epoch")
        if number % columns == 0:
            axes.set_ylabel(f"validation {words}{', %' if search.criterion.is_share else ''}")
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    if search.criterion.is_share:
        within_per_cent(panels[0])
    drawn = "Of several seeds the mean, shaded from the worst to the best. " + chosen_by(search)
    if len(shown) < len(cells):
        drawn += f" The first {MOST_PANELS} of {len(cells)} cells."
    head(figure, f"{TITLE}: validation {words} by epoch", [facts_of(search, trials), drawn])
    return save(figure, folder, "learning_curves", search.search)


def _shown(search: SearchRecord, cell: Cell) -> tuple[Point | None, Point | None]:
    """Plain and distilled students: those that were trained anew or, where there are none yet, those to choose by."""
    student, plain = pair_of(search, cell)
    return plain or cell.base, student or cell.chosen


def _draw(axes: Axes, search: SearchRecord, cell: Cell) -> None:
    base, chosen = _shown(search, cell)
    for point, colour, style in ((base, COLOURS[6], "--"), (chosen, COLOURS[0], "-")):
        histories = _histories(search, point)
        if point is None or not histories:
            continue
        epochs = sorted(set.intersection(*map(set, histories)))
        by_epoch = [[history[epoch] for history in histories] for epoch in epochs]
        label = "λ = 0" if point is base else f"λ = {lambda_of(point):.4g}"
        marker = "." if len(epochs) <= FEW_EPOCHS else ""
        means = [statistics.fmean(values) for values in by_epoch]
        axes.plot(epochs, means, linestyle=style, marker=marker, color=colour, label=label)
        axes.fill_between(epochs, list(map(min, by_epoch)), list(map(max, by_epoch)), color=colour, alpha=0.15)
    axes.set_title(literal(cell.name), fontsize=9, loc="left")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    plain_axes(axes)


def _histories(search: SearchRecord, point: Point | None) -> list[dict[int, float]]:
    """What the search chooses by, a share in per cent, by epoch, of each seed."""
    if point is None:
        return []
    by = search.criterion
    unit = 100 if by.is_share else 1
    found = [
        {int(epoch["epoch"]): unit * by.of(epoch) for epoch in trial.history if by.column in epoch}
        for trial in point.trials
    ]
    return [history for history in found if history]
