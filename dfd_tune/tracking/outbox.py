"""One thread that writes updates while its owner goes on; of each key, only the latest is kept.

An update holds the whole of what is known, so that a newer one replaces an older that still waits: the outbox never
holds more than one a key, never blocks its owner, and forgets nothing that is not written. While the receiver is away
it tries again after growing pauses. Not for: updates that add up.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Update = TypeVar("Update")


@dataclass(frozen=True)
class Pauses:
    """Seconds between attempts while the receiver is away: doubled each time, from the first to the longest."""

    first: float = 0.5
    longest: float = 15.0

    def after(self, failures: int) -> float:
        """How long to wait after so many failures in a row, at least one."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 60))


PAUSES = Pauses()


class Outbox(Generic[Update]):
    """Calls `write(update)` in a thread of its own. A write that fails is remembered, not raised, and tried again.

    One that was refused is tried once more, as `write` may look again at what is there; after that it waits for a
    newer update of its key, or for a flush.

    Args:
        write: writes one update; may raise. It is called again with the same or a newer update after it has raised.
        describe: puts a failure into one sentence.
        is_away: whether a failure means that nobody answers just now, and not that this one update is refused.
        pauses: between attempts while nobody answers.
        clock: seconds, never going back.
        wait: waits on the condition, which the caller holds, for some seconds or, given None, until it is notified.
    """

    def __init__(
        self,
        write: Callable[[Update], None],
        describe: Callable[[Exception], str],
        is_away: Callable[[Exception], bool],
        *,
        pauses: Pauses = PAUSES,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float | None], object] = threading.Condition.wait,
    ):
        self._write = write
        self._describe = describe
        self._is_away = is_away
        self._pauses = pauses
        self._clock = clock
        self._wait = wait
        # Ordered, as taking the first of a plain dict again and again costs the square of its length.
        self._waiting: OrderedDict[str, Update] = OrderedDict()
        self._refused: dict[str, Update] = {}
        self._refusals: dict[str, int] = {}
        self._problems: dict[str, str] = {}
        self._busy = False
        self._closed = False
        self._failures = 0
        self._not_before = self._written_at = clock()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="dfd-tune-mlflow", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Updates that are not written yet, be it that they wait, are being written, or were refused."""
        with self._changed:
            return len(self._waiting) + self._busy + len(self._refused)

    def put(self, key: str, update: Update, *, says_the_same: Callable[[Update], bool] = lambda waiting: False) -> None:
        """Leave an update to be written; returns at once. One that still waits and says the same is kept instead."""
        with self._changed:
            assert not self._closed, "the outbox is closed"
            waiting = self._waiting.get(key, self._refused.get(key))
            if waiting is not None and says_the_same(waiting):
                return
            self._refused.pop(key, None)
            self._refusals.pop(key, None)
            self._waiting[key] = update
            self._changed.notify_all()

    def flush(self, patience: float, *, while_it_goes_on: bool = False) -> list[str]:
        """Wait until all is written; the problems of keys whose latest write failed.

        The same sentence is listed once. What still waits then keeps waiting, and is a problem too.

        Args:
            patience: seconds to wait.
            while_it_goes_on: count them anew from every write.
        """
        start = self._clock()
        with self._changed:
            self._waiting.update(self._refused)
            self._refused.clear()
            self._failures, self._not_before = 0, start
            self._changed.notify_all()
            while self._waiting or self._busy:
                since = max(start, self._written_at) if while_it_goes_on else start
                left = since + patience - self._clock()
                if left <= 0:
                    break
                self._wait(self._changed, left)
            problems = list(dict.fromkeys(self._problems.values()))
            unwritten = len(self._waiting) + self._busy
        if unwritten:
            problems.append(f"MLflow was too slow: {unwritten} trials not written within {patience:g} s.")
        return problems

    def close(self, patience: float) -> list[str]:
        """Flush, then end the thread. What could not be written is dropped and named."""
        problems = self.flush(patience)
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        return problems

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            key, update = taken
            error = self._attempt(update)
            problem = None if error is None else self._describe(error)
            away = error is not None and self._is_away(error)
            with self._changed:
                self._busy = False
                self._settle(key, update, problem, away)
                self._changed.notify_all()

    def _take(self) -> tuple[str, Update] | None:
        """The next update, once it is time; None at the end."""
        with self._changed:
            while not self._closed:
                pause = self._not_before - self._clock()
                if self._waiting and pause <= 0:
                    self._busy = True
                    return self._waiting.popitem(last=False)
                self._wait(self._changed, pause if self._waiting else None)
        return None

    def _attempt(self, update: Update) -> Exception | None:
        try:
            self._write(update)
        except Exception as error:
            return error
        return None

    def _settle(self, key: str, update: Update, problem: str | None, away: bool) -> None:
        if problem is None:
            self._failures, self._written_at = 0, self._clock()
            self._problems.pop(key, None)
            self._refusals.pop(key, None)
            return
        self._problems[key] = problem
        if away:
            self._failures += 1
            self._not_before = self._clock() + self._pauses.after(self._failures)
            self._waiting.setdefault(key, update)
            return
        self._failures = 0
        if key in self._waiting:
            return  # the newer one has its own two attempts
        self._refusals[key] = self._refusals.get(key, 0) + 1
        (self._waiting if self._refusals[key] < 2 else self._refused)[key] = update
