"""How the gain shrinks as labelled images grow: a table and a figure, from finished searches.

    dfd-tune launch --space lambda_grid --set backbone=resnet18 --set "lambda_=[0,0.5,2]" \\
        --set train_images=N --name NAME                                                       # for several N
    uv run python benchmarks/gain_by_images.py --store FOLDER --figure FILE NAME...

Of each search, the first cell that was confirmed. Not for: training anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.analysis.cells import cells_of
from dfd_tune.analysis.comparisons import compare, compare_controls
from dfd_tune.analysis.points import Interval
from dfd_tune.confirm import Control
from dfd_tune.record import load_search, load_trials
from dfd_tune.report.figures.style import COLOURS, DOTS_PER_INCH, plain_axes
from dfd_tune.store import Store, existing_store

CONTROL: Control = "half_longer"


@dataclass(frozen=True)
class Gain:
    """What distillation gave with so many images to train on."""

    images: int
    plain: Interval
    distilled: Interval
    to_plain: Interval
    to_longer: Interval
    """Against plain training for half as many epochs again."""


def gain_of(store: Store, name: str) -> Gain:
    """That of a search."""
    search = load_search(store, name)
    cell = next(cell for cell in cells_of(search, load_trials(store, search)) if cell.confirmed is not None)
    found = compare(search, cell)
    longer = compare_controls(search, cell)[CONTROL].difference
    values = (found.base, found.distilled, found.difference, longer)
    plain, distilled, to_plain, to_longer = (value for value in values if value is not None)
    return Gain(search.dataset["train_images"], plain, distilled, to_plain, to_longer)


def table(gains: Sequence[Gain]) -> str:
    """One row a search, as Markdown."""
    head = ["| images to train on | seeds | plain, % | distilled, % | difference | to half as many epochs again |"]
    rows = [
        f"| {gain.images} | {gain.plain.seeds} | {_text(gain.plain)} | {_text(gain.distilled)} "
        f"| {_text(gain.to_plain, '+')} | {_text(gain.to_longer, '+')} |"
        for gain in gains
    ]
    return "\n".join([*head, "|---|---|---|---|---|---|", *rows])


def _text(value: Interval, sign: str = "") -> str:
    digits = 2 if sign else 1
    return f"{100 * value.mean:{sign}.{digits}f} ± {100 * (value.half or 0.0):.{digits}f}"


def draw(gains: Sequence[Gain], file: Path) -> None:
    """Both differences against the number of images, with their 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for shift, colour, marker, label, values in (
        (0.985, COLOURS[0], "o", "plain training", [gain.to_plain for gain in gains]),
        (1.015, COLOURS[1], "s", "plain training, half as many epochs again", [gain.to_longer for gain in gains]),
    ):
        axes.errorbar(
            [shift * gain.images for gain in gains],
            [100 * value.mean for value in values],
            [100 * (value.half or 0.0) for value in values],
            color=colour,
            marker=marker,
            capsize=3,
            label=f"against {label}",
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([gain.images for gain in gains], [f"{gain.images:,}" for gain in gains])
    axes.minorticks_off()
    axes.set_xlabel("labelled images to train on")
    axes.set_ylabel("gain in test accuracy, points")
    axes.legend(fontsize=8, frameon=False)
    plain_axes(axes)
    figure.savefig(file, dpi=DOTS_PER_INCH)


def main() -> None:
    """Print the table, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="where the searches are")
    parser.add_argument("--figure", type=Path, required=True, help="a PNG file to be written")
    parser.add_argument("names", nargs="+", help="of searches")
    given = parser.parse_args()
    store = existing_store(str(given.store))
    gains = sorted((gain_of(store, name) for name in given.names), key=lambda gain: gain.images)
    print(table(gains))
    draw(gains, given.figure)


if __name__ == "__main__":
    main()
