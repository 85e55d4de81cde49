"""Figures made of images: the paper's Figure 3 (what each network sees) and the best student's worst mistakes.

Every pixel is shown as a square, never smoothed. Not for: choosing which images (report/images.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dfd_tune.report.figures.style import NOTE_SIZE, broken, head, literal, save, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXAMPLES_TITLE = "What each network sees"
MISTAKES_TITLE = "The best student's worst mistakes"
PAIR_WIDTH = 2.5
"""Inches for a mistake: the image as it is, and as the student sees it."""
LONGEST_NAME = 20


@dataclass(frozen=True)
class Mistake:
    """One image that was taken for something else."""

    true: str
    predicted: str
    """Classes."""
    probability: float
    """That the student gave the predicted class, a fraction."""


def examples(
    rows: Sequence[tuple[str, np.ndarray]], columns: Sequence[str], notes: Sequence[str], folder: Path, salt: str
) -> list[Path]:
    """A row a kind of image (high resolution, low resolution, each front end), a column an image.

    Args:
        rows: a label and uint8 (N, C, S, S) each; S may differ by row.
        columns: the images' classes.
        notes: what the figure is of.
        folder: where the files go.
        salt: makes the files' ids.

    Returns:
        The PNG and SVG files written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 0.95 * len(columns), 0.5 + 1.0 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for number, (label, images) in enumerate(rows):
        for place, image in enumerate(images):
            axes = panels[number][place]
            _show(axes, image)
            if number == 0:
                axes.set_title(literal(shortened(columns[place], 14)), fontsize=NOTE_SIZE)
        panels[number][0].set_ylabel(label, fontsize=NOTE_SIZE, rotation=0, ha="right", va="center")
    head(figure, EXAMPLES_TITLE, [*notes, "Every pixel is shown as a square."])
    return save(figure, folder, "examples", salt)


def worst_mistakes(
    images: np.ndarray, seen: np.ndarray, mistakes: Sequence[Mistake], notes: Sequence[str], folder: Path, salt: str
) -> list[Path]:
    """Pairs of images, as they are and as the student sees them, each pair under what the student took it for.

    Args:
        images: high resolution, uint8 (N, C, S, S).
        seen: the same at low resolution, enlarged, uint8 (N, C, S, S).
        mistakes: what the student took each for.
        notes: what the figure is of.
        folder: where the files go.
        salt: makes the files' ids.

    Returns:
        The PNG and SVG files written.
    """
    from matplotlib.figure import Figure

    columns = max(2, min(4, len(mistakes)))  # one pair alone is too narrow for what is said above it
    rows = math.ceil(len(mistakes) / columns)
    figure = Figure(figsize=(PAIR_WIDTH * columns, 1.75 * rows), layout="constrained")
    panels = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for number, mistake in enumerate(mistakes):
        row, column = divmod(number, columns)
        left, right = panels[row][2 * column], panels[row][2 * column + 1]
        _show(left, images[number])
        _show(right, seen[number])
        left.set_title(_text(mistake), fontsize=NOTE_SIZE, loc="left")
    head(figure, MISTAKES_TITLE, [*notes, "Left: the image as it is; right: as the student sees it."])
    return save(figure, folder, "worst_mistakes", salt)


def _text(mistake: Mistake) -> str:
    true, predicted = (shortened(name, LONGEST_NAME) for name in (mistake.true, mistake.predicted))
    lines = broken(f"{true} taken for {predicted}", NOTE_SIZE, 0.9 * PAIR_WIDTH)
    if len(lines) > 1:
        lines = [literal(f"{true} taken for"), literal(predicted)]
    return "\n".join([*lines, f"({mistake.probability:.0%} sure)"])


def _show(axes: Axes, image: np.ndarray) -> None:
    """One image, uint8 (C, S, S), its pixels as squares."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
