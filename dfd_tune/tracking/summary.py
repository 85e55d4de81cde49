"""What MLflow is told of a search as a whole, beside its trials.

Not for: gathering it (report/summary.py), or sending it (tracker.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came of a search."""

    metrics: Mapping[str, float]
    """To compare searches by."""
    tables: Sequence[Path]
    """Files that lie beside the summary."""
    report_folder: Path
    report: Sequence[Path]
    """Files in that folder, at any depth."""
    student: Path | None
    """The best student's file, if there is one."""
    front: Sequence[str] = ()
    """Keys of the trials on the front of a search with two objectives."""
    description: str
    """Of the best student, beside its registered version."""
