"""What all figures share: colours, markers, and how a figure becomes files.

Not for: any figure itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart by colour-blind readers: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
DOTS_PER_INCH = 150


def save(figure: Figure, folder: Path, name: str, salt: str) -> list[Path]:
    """Write a figure as PNG and SVG, atomically; equal figures with an equal `salt` give equal files."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
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
