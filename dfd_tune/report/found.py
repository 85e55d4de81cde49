"""A search with its trials, as reports take it, and which of its cells a table of the paper can show.

Not for: the tables (paper_tables.py, cell_tables.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dfd_tune.analysis.cells import Cell, cells_of
from dfd_tune.record import SearchRecord, TrialRecord, describe_point
from dfd_tune.report.captions import caption_of


@dataclass(frozen=True)
class Found:
    """A search and its trials."""

    search: SearchRecord
    trials: Sequence[TrialRecord]

    @property
    def cells(self) -> list[Cell]:
        """The cells that have at least one point."""
        return cells_of(self.search, self.trials)

    @property
    def caption(self) -> str:
        """What its numbers are of."""
        return caption_of(self.search, self.trials)


def plainest(found: Found, free: set[str], needed: Mapping[str, str]) -> list[Cell]:
    """Of the cells that have the settings `needed`, those that differ in `free` alone: those whose other axes have the
    values of the first such cell."""
    # A λ = 0 point serves the cells of all methods, so what an axis decides is read from the cell, not from a point.
    cells = [
        cell
        for cell in found.cells
        if all(cell.setting.get(name, cell.config[name]) == value for name, value in needed.items())
    ]
    fixed = {name: value for name, value in cells[0].setting.items() if name not in free} if cells else {}
    return [cell for cell in cells if all(cell.setting[name] == value for name, value in fixed.items())]


def share_of_cells(found: Found, cells: Sequence[Cell], free: set[str]) -> str:
    """Which of a search's cells a table shows, as a sentence; empty if it shows all or none."""
    if len(cells) in (0, len(found.cells)):
        return ""
    words = describe_point(cells[0].setting, [name for name in cells[0].setting if name not in free])
    return f"Of its {len(found.cells)} cells, the {len(cells)} with {words or 'nothing but this'}."
