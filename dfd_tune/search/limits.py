"""How much of a search one launch may do: seconds, and trials that it begins. What is begun is finished, and concluded.

Not for: how large the search is (`--trials`), or how long a trial is (early_stopping.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Limits:
    """Counts from when it is made.

    Args:
        max_seconds: None for no limit; likewise `max_trials`.
        max_trials: of the search's own trials, begun for the first time.
        say: takes a line once a limit is reached.
        clock: seconds.
    """

    def __init__(
        self,
        max_seconds: float | None = None,
        max_trials: int | None = None,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._until = None if max_seconds is None else clock() + max_seconds
        self._max_trials = max_trials
        self._say = say
        self._clock = clock

    def reached(self, begun: int) -> str | None:
        """The limit that lets no further trial begin where so many have; None if none does."""
        if self._max_trials is not None and begun >= self._max_trials:
            return f"--max-trials {self._max_trials}"
        if self._until is not None and self._clock() >= self._until:
            return "--max-time"
        return None

    def tell(self, limit: str) -> None:
        """Say that a limit was reached."""
        self._say(f"{limit} is reached: what runs is finished, and the search concluded; a launch without it goes on.")
