"""Figures made of images: the paper's Figure 3 (what each network sees) and the best student's worst mistakes.

Every pixel is shown as a square, never smoothed. Not for: choosing which images (report/write.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfd_tune.report.figures.style import save


def examples(rows: Sequence[tuple[str, np.ndarray]], columns: Sequence[str], folder: Path, salt: str) -> list[Path]:
    """A row a kind of image (high resolution, low resolution, each front end), a column an image.

    Args:
        rows: a label and uint8 (N, C, S, S) each; S may differ by row.
        columns: the images' classes.
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
                axes.set_title(columns[place], fontsize=8)
        panels[number][0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
    return save(figure, folder, "examples", salt)


def worst_mistakes(images: np.ndarray, seen: np.ndarray, texts: Sequence[str], folder: Path, salt: str) -> list[Path]:
    """Pairs of images, as they are and as the student sees them, each pair under what is said of it.

    Args:
        images: high resolution, uint8 (N, C, S, S).
        seen: the same at low resolution, enlarged, uint8 (N, C, S, S).
        texts: what the student took each for.
        folder: where the files go.
        salt: makes the files' ids.

    Returns:
        The PNG and SVG files written.
    """
    from matplotlib.figure import Figure

    columns = min(4, len(texts))
    rows = math.ceil(len(texts) / columns)
    figure = Figure(figsize=(2.5 * columns, 1.75 * rows), layout="constrained")
    panels = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for number, text in enumerate(texts):
        row, column = divmod(number, columns)
        left, right = panels[row][2 * column], panels[row][2 * column + 1]
        _show(left, images[number])
        _show(right, seen[number])
        left.set_title(text, fontsize=8, loc="left")
    return save(figure, folder, "worst_mistakes", salt)


def _show(axes: object, image: np.ndarray) -> None:
    """One image, uint8 (C, S, S), its pixels as squares."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")  # type: ignore[attr-defined]
    axes.set_xticks([])  # type: ignore[attr-defined]
    axes.set_yticks([])  # type: ignore[attr-defined]
