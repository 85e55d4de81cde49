"""Accuracy against cost: every point of a search with two objectives, and the front among them.

Not for: which points those are (analysis/front.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dfd_tune.analysis.front import cost_of_point, front_of, second_objective
from dfd_tune.analysis.points import points_of
from dfd_tune.objectives import COSTS, choose_from
from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.report.captions import facts_of
from dfd_tune.report.figures.style import COLOURS, head, save

TITLE = "Accuracy against cost"


def front(search: SearchRecord, trials: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """A dot a point, the front joined by steps, and the limit of the choice, if there is one.

    Returns:
        The PNG and SVG files written; none if the search is after accuracy alone, or nothing has finished.
    """
    cost, found = second_objective(search), front_of(search, trials)
    if cost is None or not found:
        return []
    from matplotlib.figure import Figure

    by = search.criterion
    scale = 1e3 if COSTS[cost].unit else 1.0
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for points, colour, size, name in (
        (points_of(trials), "#999999", 18, "points"),
        (found, COLOURS[0], 42, "front"),
    ):
        places = [scale * cost_of_point(point, cost) for point in points]
        heights = [(100 if by.is_share else 1) * point.value(by) for point in points]
        axes.scatter(places, heights, s=size, color=colour, label=name, zorder=3 if name == "front" else 2)
        if name == "front":
            axes.plot(places, heights, drawstyle="steps-post", color=colour, linewidth=1.2, zorder=2)
    limit = choose_from(search.choose)
    if limit.cost == cost:
        axes.axvline(scale * limit.at_most, color=COLOURS[1], linestyle="--", label="limit of the choice")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds an image, on one thread" if COSTS[cost].unit else COSTS[cost].noun)
    axes.set_ylabel(f"validation {by.words}{', %' if by.is_share else ''}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    head(figure, TITLE, [facts_of(search, trials), "On the front is what no other point beats in both."])
    return save(figure, folder, "front", search.search)
