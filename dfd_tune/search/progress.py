"""What a person is told while a search runs, put into words for whatever screen there is.

Each change costs the same however many trials there are. Not for: how it is drawn (screen.py), or results as such
(report/).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dfd_tune.parts import FrontendConfig, Guide, ImportedConfig
from dfd_tune.record import TrialRecord, name_of
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.screen import Row, Screen

ENDED = ("FINISHED", "STOPPED", "FAILED", "KILLED")


class Progress:
    """Is told of every change.

    Args:
        screen: where to show it.
        total: number of trials.
        explored: settings that tell the trials apart.
        clock: seconds, for the time left.
        price_of: what so many seconds of the machines cost, in words; told once, when the first trial has been
            measured. None to tell of no such estimate.
    """

    def __init__(
        self,
        screen: Screen,
        total: int,
        explored: list[str],
        clock: Callable[[], float] = time.monotonic,
        price_of: Callable[[float], str] | None = None,
    ):
        self.screen = screen
        self.total = total
        self.explored = explored
        self.clock = clock
        self._price_of = price_of
        self._began: float | None = None
        self._ran = 0
        self._begun: set[str] = set()
        self._networks: dict[str, Row] = {}

    def changed(self, ledger: Ledger, trial: TrialRecord) -> None:
        """A trial's record has changed."""
        if trial.status == "RUNNING":
            if self._began is None:
                self._began = self.clock()
            self._begun.add(trial.key)
            row = Row(name_of(ledger.search, trial, self.explored), trial.config["epochs"], _latest(trial.history))
            self._show(trial.key, row, ledger)
            return
        if trial.status in ENDED and trial.key in self._begun:
            self._begun.discard(trial.key)
            self._ran += 1
        self._show(trial.key, None, ledger)
        # A live table shows what runs and the best; what went wrong stays on the screen above it.
        if trial.status in ENDED:
            self.screen.line(self._line(trial, ledger), in_table=trial.status != "FAILED")
        if trial.status == "FINISHED" and self._ran and self._price_of is not None:
            self._estimate(trial, ledger, self._price_of)
            self._price_of = None

    def planned(self, total: int) -> None:
        """So many trials there are to be in all, as is known by now."""
        self.total = total

    def network_started(self, key: str, title: str, config: Guide | FrontendConfig) -> None:
        """The training of a network that trials need has begun."""
        epochs = 0
        if not isinstance(config, ImportedConfig):
            epochs = config.epochs if isinstance(config, FrontendConfig) else config.recipe.epochs
        self._networks[key] = Row(title, epochs, {})
        self.screen.row(key, self._networks[key])

    def network_epoch(self, key: str, metrics: Mapping[str, float]) -> None:
        """It reports an epoch."""
        known = self._networks.get(key)
        if known is not None:
            self.screen.row(key, Row(known.name, known.epochs, metrics))

    def network_ended(self, key: str) -> None:
        """It has ended."""
        self._networks.pop(key, None)
        self.screen.row(key, None)

    def _show(self, key: str, row: Row | None, ledger: Ledger) -> None:
        if self.screen.has_table:
            self.screen.row(key, row)
            self.screen.totals(self._totals_of(ledger))

    def _estimate(self, first: TrialRecord, ledger: Ledger, price_of: Callable[[float], str]) -> None:
        """Tell how long the search will take, from the first trial that was measured and how many run beside it."""
        left = self.total - _ended(ledger)
        if left > 0:
            seconds = first.metrics["seconds"] * left / (len(ledger.running) + 1)
            self.screen.line(
                f"By the first trial, the other {left} take about {_duration(seconds)}{price_of(seconds)}."
            )

    def _line(self, trial: TrialRecord, ledger: Ledger) -> str:
        name, by = name_of(ledger.search, trial, self.explored), ledger.search.criterion
        head = f"[{_ended(ledger):>{len(str(self.total))}}/{self.total}] {name}: "
        if trial.status == "FINISHED":
            took = trial.metrics["seconds"]
            value = by.text(by.of(trial.metrics))
            return f"{head}validation {by.words} {value} in {took:.0f} s{self._left(ledger)}"
        if trial.status == "STOPPED":
            value = by.text(_latest(trial.history).get(by.column, math.nan))
            epochs = f"{len(trial.history)} of {trial.config['epochs']} epochs"
            return f"{head}stopped early after {epochs}, validation {by.words} {value}{self._left(ledger)}"
        return f"{head}FAILED: {trial.cause}" if trial.status == "FAILED" else f"{head}{trial.status}"

    def _totals_of(self, ledger: Ledger) -> str:
        finished, stopped, failed = (ledger.counts[status] for status in ("FINISHED", "STOPPED", "FAILED"))
        rate = sum(trial.history[-1]["images_per_second"] for trial in ledger.running.values() if trial.history)
        parts = [f"{finished}/{self.total} trials done, {len(ledger.running)} running"]
        if stopped:
            parts.append(f"{stopped} stopped early")
        if failed:
            parts.append(f"{failed} failed")
        if ledger.best is not None:
            name, by = name_of(ledger.search, ledger.best, self.explored), ledger.search.criterion
            parts.append(f"best {by.text(by.of(ledger.best.metrics))} ({name})")
        if rate:
            parts.append(f"{rate:,.0f} images/s")
        return ", ".join(parts) + self._left(ledger)

    def _left(self, ledger: Ledger) -> str:
        """The time left, from the trials that ran under this clock; those found in the store took none of it."""
        left = self.total - _ended(ledger)
        if self._began is None or self._ran == 0 or left <= 0:
            return ""
        return f", about {_duration((self.clock() - self._began) / self._ran * left)} left"


def _ended(ledger: Ledger) -> int:
    counts: Mapping[Any, int] = ledger.counts
    return sum(counts[status] for status in ENDED)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _latest(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each metric as last reported: validation images are not looked at in every epoch."""
    found: dict[str, float] = {}
    for epoch in reversed(history):
        found = {**epoch, **found}
        if "val_accuracy" in epoch:
            break
    return found
