"""What all figures share: colours, markers, the heading, and how a figure becomes files.

Not for: any figure itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart by colour-blind readers: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
DOTS_PER_INCH = 150
POINTS_PER_INCH = 72
TITLE_SIZE, NOTE_SIZE = 11, 8
"""Of letters, in points."""
LINE_HEIGHT = 1.4
"""Of a line of text, in heights of its letters."""
EDGE = 0.08
"""Inches that text keeps from the edges of a figure."""


def head(figure: Figure, title: str, notes: Sequence[str]) -> None:
    """Say above a figure what it shows and, in small letters, what it is of, so that it can stand alone.

    The figure grows by the height of this text, and lines are broken where the figure ends.

    Args:
        figure: its size is settled; what it shows keeps that.
        title: what it shows, in a few words.
        notes: what it is of; each begins a line.
    """
    inches, body = figure.get_figwidth(), figure.get_figheight()
    lines = [(line, TITLE_SIZE) for line in broken(title, TITLE_SIZE, inches - 2 * EDGE)]
    lines += [(line, NOTE_SIZE) for note in notes for line in broken(note, NOTE_SIZE, inches - 2 * EDGE)]
    heights = [LINE_HEIGHT * size / POINTS_PER_INCH for _, size in lines]
    height = body + sum(heights) + 2 * EDGE
    figure.set_figheight(height)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, body / height))
    top = height - EDGE
    for (line, size), line_height in zip(lines, heights, strict=True):
        figure.text(EDGE / inches, top / height, line, fontsize=size, va="top")
        top -= line_height


def broken(text: str, size: float, inches: float) -> list[str]:
    """Text in lines that are no longer than `inches` in letters of `size` points; words stay whole."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        fits = not lines or _width(longer, size) <= inches
        lines = [*lines[:-1], longer] if fits else [*lines, word]
    return [literal(line) for line in lines]


def _width(text: str, size: float) -> float:
    """Of a line in letters of `size` points, in inches."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    large = 100.0  # so that no width is rounded to whole pixels
    font.set_size(large, POINTS_PER_INCH)
    font.set_text(text)
    pixels: float = font.get_width_height()[0] / 64  # FreeType counts in 64ths
    return pixels / POINTS_PER_INCH * size / large


def literal(text: str) -> str:
    """Text that means itself: its dollars begin no formula."""
    return text.replace("$", r"\$")


def shortened(name: str, most: int) -> str:
    """A name of `most` characters at most, cut where it is longer."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def save(figure: Figure, folder: Path, name: str, salt: str) -> list[Path]:
    """Write a figure as PNG and SVG, atomically; equal figures with an equal `salt` give equal files."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    # Laid out once: both files show the same places, and a layout takes as long as a file.
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    files = []
    for kind in ("png", "svg"):
        file = folder / f"{name}.{kind}"
        draft = file.with_name(f".{file.name}")
        with rc_context({"svg.hashsalt": salt}):
            figure.savefig(draft, format=kind, dpi=DOTS_PER_INCH, metadata={"Date": None} if kind == "svg" else None)
        files.append(draft.replace(file))
    return files


def plain_axes(axes: Axes) -> None:
    """Axes without a frame above and at the right, with a light grid."""
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def within_per_cent(axes: Axes) -> None:
    """Let the vertical axis, in per cent, end at 0 and 100 at the latest, however far intervals reach."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(0.0, bottom), min(100.0, top))
