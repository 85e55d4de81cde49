"""How an interval is written in reports: an accuracy, a difference with its sign, a share.

Not for: working them out (analysis/).
"""

from __future__ import annotations

from dfd_tune.analysis.points import Interval

NOTHING = "–"


def percent(fraction: float) -> str:
    """A fraction as per cent with two digits."""
    return f"{100 * fraction:.2f} %"


def text_of(interval: Interval | None) -> str:
    """An accuracy in per cent with its interval, as in 95.69 ± 1.35."""
    if interval is None:
        return NOTHING
    half = "" if interval.half is None else f" ± {100 * interval.half:.2f}"
    return f"{100 * interval.mean:.2f}{half}"


def signed(interval: Interval | None) -> str:
    """A difference in points with its sign, as in +0.62 ± 0.58."""
    if interval is None:
        return NOTHING
    half = "" if interval.half is None else f" ± {100 * interval.half:.2f}"
    points = round(100 * interval.mean, 2) + 0.0  # so that nothing is no less than nothing
    return f"{points:+.2f}{half}".replace("-", "−")


def share(interval: Interval | None) -> str:
    """A fraction in whole per cent with its interval, as in 41% ± 12."""
    if interval is None:
        return NOTHING
    half = "" if interval.half is None else f" ± {100 * interval.half:.0f}"
    return f"{round(interval.mean, 2) + 0.0:.0%}{half}".replace("-", "−")
