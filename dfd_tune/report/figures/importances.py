"""Which explored settings mattered, as bars.

Not for: working that out (analysis/importances.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dfd_tune.axes import axes_from_json, in_space
from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.report.captions import facts_of
from dfd_tune.report.figures.style import COLOURS, head, save
from dfd_tune.samplers import SAMPLERS

TITLE = "What mattered"


def importances(search: SearchRecord, trials: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """One bar a setting, most important first.

    Returns:
        The PNG and SVG files written; none if there are no importances.
    """
    if not search.importances:
        return []
    from matplotlib.figure import Figure

    names = sorted(search.importances, key=lambda name: search.importances[name])
    shares = [100 * search.importances[name] for name in names]
    figure = Figure(figsize=(6.4, 0.9 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(["λ" if name == "lambda_" else name for name in names], shares, color=COLOURS[0])
    axes.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=9)
    axes.set_xlim(0, 1.15 * (max(shares) or 1))
    axes.set_xlabel("share in what sets the best tenth apart, % (PED-ANOVA)")
    axes.spines[["top", "right"]].set_visible(False)
    notes = [
        facts_of(search, trials),
        f"{_origin(search, trials)} Of few trials, the best tenth are two or three.",
    ]
    head(figure, f"{TITLE} among the explored settings", notes)
    return save(figure, folder, "importances", search.search)


def _origin(search: SearchRecord, trials: Sequence[TrialRecord]) -> str:
    explore = axes_from_json(search.explored)
    count = sum(trial.status == "FINISHED" and in_space(trial.config, explore) for trial in trials)
    return f"From {count} trials {SAMPLERS[search.sampler].drawn}, on validation images."
