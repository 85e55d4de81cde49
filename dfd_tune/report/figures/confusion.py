"""Where the best student errs: its confusion matrix on the test images.

Not for: the images themselves (pictures.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dfd_tune.report.figures.style import POINTS_PER_INCH, head, literal, save, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Confusion matrix of the best student"
MOST_CLASSES_WITH_NUMBERS = 20
MOST_NAMES = 100
"""More names than that along an axis can't be read."""
LONGEST_NAME = 24


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], notes: Sequence[str], folder: Path, salt: str
) -> list[Path]:
    """True classes by row, predicted ones by column, in per cent of the row.

    Args:
        labels: int64 (N,).
        predicted: int64 (N,).
        classes: their names by label.
        notes: what the figure is of.
        folder: where the files go.
        salt: makes the files' ids.

    Returns:
        The PNG and SVG files written.
    """
    from matplotlib.figure import Figure

    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(14.0, 2.4 + 0.4 * len(classes))
    figure = Figure(figsize=(max(side + 1, 5.0), side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    every = -(-len(classes) // MOST_NAMES)
    _name_classes(axes, classes, every, POINTS_PER_INCH * side / len(classes))
    if len(classes) <= MOST_CLASSES_WITH_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "black" if shares[row, column] > 55 else "white"
            text = f"{shares[row, column]:.0f}" if shares[row, column] >= 0.5 else "<1"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="% of the true class")
    some = [f"One class in {every} is named."] if every > 1 else []
    head(figure, TITLE, [*notes, "Per cent of each true class's test images.", *some])
    return save(figure, folder, "confusion_matrix", salt)


def _name_classes(axes: Axes, classes: Sequence[str], every: int, points: float) -> None:
    """The names of one class in `every` along both axes; a class has `points` of room."""
    size = max(4.0, min(8.0, 0.75 * points * every))
    names = [literal(shortened(name, LONGEST_NAME)) for name in classes[::every]]
    places = range(0, len(classes), every)
    if len(classes) <= MOST_CLASSES_WITH_NUMBERS:
        axes.set_xticks(places, names, fontsize=size, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(places, names, fontsize=size, rotation=90)
    axes.set_yticks(places, names, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
