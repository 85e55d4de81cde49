"""Where the best student errs: its confusion matrix on the test images.

Not for: the images themselves (pictures.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfd_tune.report.figures.style import save

MOST_CLASSES_WITH_NUMBERS = 20


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], folder: Path, salt: str
) -> list[Path]:
    """True classes by row, predicted ones by column, in per cent of the row.

    Args:
        labels: int64 (N,).
        predicted: int64 (N,).
        classes: their names by label.
        folder: where the files go.
        salt: makes the files' ids.

    Returns:
        The PNG and SVG files written.
    """
    from matplotlib.figure import Figure

    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(12.0, 2.4 + 0.52 * len(classes))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(places, classes, fontsize=8)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(classes) <= MOST_CLASSES_WITH_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "black" if shares[row, column] > 55 else "white"
            text = f"{shares[row, column]:.0f}" if shares[row, column] >= 0.5 else "<1"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="% of the true class")
    return save(figure, folder, "confusion_matrix", salt)
