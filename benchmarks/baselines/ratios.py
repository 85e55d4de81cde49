"""From seconds and losses of repeats to what is shown: medians, a ratio with its interval, and whether losses agree.

Not for: how anything is measured (running.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
SHARE = 0.95


@dataclass(frozen=True)
class Ratio:
    """How many times as long they take as we do."""

    ours_s: float
    """Median over the repeats, seconds; likewise `theirs_s`."""
    theirs_s: float
    ratio: float
    """Of the medians, theirs over ours."""
    low: float
    """Of the 95 % bootstrap interval; likewise `high`."""
    high: float
    repeats: int


def ratio_of(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Ratio:
    """The ratio of medians, and its percentile interval over resampled repeats.

    A repeat's two measurements were made one after the other, and are drawn together.

    Args:
        ours: seconds, one a repeat, above 0.
        theirs: likewise, in the same order.
        seed: of the resampling.

    Raises:
        ValueError: there are none, or not as many of both.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} repeats of ours and {len(theirs)} of theirs")
    mine, yours = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(mine), size=(RESAMPLES, len(mine)))
    ratios = np.median(yours[drawn], axis=1) / np.median(mine[drawn], axis=1)
    low, high = np.quantile(ratios, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    middle = float(np.median(mine)), float(np.median(yours))
    return Ratio(*middle, middle[1] / middle[0], float(low), float(high), len(mine))


def apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How far the means of two sides' losses are apart, as a share of ours."""
    mean = float(np.mean(ours))
    return abs(float(np.mean(theirs)) - mean) / abs(mean)
