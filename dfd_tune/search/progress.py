"""What a person sees while a search runs: a live table on a terminal, plain lines elsewhere.

Each change costs the same however many trials there are. The live table is drawn by a thread of its own, from a copy
that is made with each change. Not for: results as such (report/).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dfd_tune.config import FrontendConfig, PretrainedConfig
from dfd_tune.record import TrialRecord, describe_point
from dfd_tune.search.ledger import Ledger

ENDED = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class _Row:
    """One thing that runs."""

    name: str
    epochs: int
    last: Mapping[str, float]


class Progress:
    """Is told of every change; enter it to show a live table.

    Args:
        console: where to write; a live table needs a terminal.
        total: number of trials.
        explored: settings that tell the trials apart.
        clock: seconds, for the time left.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        explored: list[str],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.console = console
        self.total = total
        self.explored = explored
        self.clock = clock
        self._began: float | None = None
        self._ran = 0
        self._begun: set[str] = set()
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self._totals = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self.table, console=self.console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def changed(self, ledger: Ledger, trial: TrialRecord) -> None:
        """A trial's record has changed."""
        if trial.status == "RUNNING":
            if self._began is None:
                self._began = self.clock()
            self._begun.add(trial.key)
            last = trial.history[-1] if trial.history else {}
            row = _Row(describe_point(trial.config, self.explored), trial.config["epochs"], last)
            self._set(trial.key, row, ledger)
            return
        if trial.status in ENDED and trial.key in self._begun:
            self._begun.discard(trial.key)
            self._ran += 1
        self._set(trial.key, None, ledger)
        # A live table shows what runs and the best; what went wrong stays on the screen above it.
        if trial.status == "FAILED" or (self._live is None and trial.status in ENDED):
            self.console.print(self._line(trial, ledger), markup=False, highlight=False, soft_wrap=True)

    def network_started(self, key: str, title: str, config: PretrainedConfig | FrontendConfig) -> None:
        """The training of a network that trials need has begun."""
        epochs = config.epochs if isinstance(config, FrontendConfig) else config.recipe.epochs
        self._set(key, _Row(title, epochs, {}), None)

    def network_epoch(self, key: str, metrics: Mapping[str, float]) -> None:
        """It reports an epoch."""
        known = self._rows.get(key)
        if known is not None:
            self._set(key, _Row(known.name, known.epochs, metrics), None)

    def network_ended(self, key: str) -> None:
        """It has ended."""
        self._set(key, None, None)

    def table(self) -> Group | Text:
        """The live table: what runs and the best so far, under one line of totals."""
        with self._lock:
            rows, totals = list(self._rows.values()), self._totals
        if not rows and not totals:
            return Text("starting …")
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("running")
        for column in ("epoch", "val. accuracy", "images/s"):
            table.add_column(column, justify="right")
        for row in rows:
            accuracy, rate = row.last.get("val_accuracy"), row.last.get("images_per_second")
            table.add_row(
                row.name,
                f"{row.last.get('epoch', 0):.0f}/{row.epochs}",
                "" if accuracy is None else f"{accuracy:.1%}",
                "" if rate is None else f"{rate:,.0f}",
            )
        return Group(Text(totals), table)

    def _set(self, key: str, row: _Row | None, ledger: Ledger | None) -> None:
        if self._live is None:
            return
        totals = self._totals if ledger is None else self._totals_of(ledger)
        with self._lock:
            self._totals = totals
            if row is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = row

    def _line(self, trial: TrialRecord, ledger: Ledger) -> str:
        name = describe_point(trial.config, self.explored)
        head = f"[{_ended(ledger):>{len(str(self.total))}}/{self.total}] {name}: "
        if trial.status == "FINISHED":
            took = trial.metrics["seconds"]
            return f"{head}validation accuracy {trial.metrics['val_accuracy']:.1%} in {took:.0f} s{self._left(ledger)}"
        return f"{head}FAILED: {trial.cause}" if trial.status == "FAILED" else f"{head}{trial.status}"

    def _totals_of(self, ledger: Ledger) -> str:
        finished, failed = ledger.counts["FINISHED"], ledger.counts["FAILED"]
        rate = sum(trial.history[-1]["images_per_second"] for trial in ledger.running.values() if trial.history)
        parts = [f"{finished}/{self.total} trials done, {len(ledger.running)} running"]
        if failed:
            parts.append(f"{failed} failed")
        if ledger.best is not None:
            name = describe_point(ledger.best.config, self.explored)
            parts.append(f"best {ledger.best.metrics['val_accuracy']:.1%} ({name})")
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
