"""What a person sees while a search runs: a live table on a terminal, plain lines elsewhere.

Not for: results as such (report/).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dfd_tune.record import TrialRecord, describe_point
from dfd_tune.search.ledger import Ledger

ENDED = ("FINISHED", "FAILED", "KILLED")


class Progress:
    """Watches a ledger; enter it to show a live table.

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
        self._ran: set[str] = set()
        self._told: set[str] = set()
        self._ledger: Ledger | None = None
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

    def __call__(self, ledger: Ledger) -> None:
        """The ledger has changed."""
        self._ledger = ledger
        running = ledger.with_status("RUNNING")
        if running and self._began is None:
            self._began = self.clock()
        self._ran.update(trial.key for trial in running)
        for trial in list(ledger.trials.values()):
            # A live table shows what runs and the best; what went wrong stays on the screen above it.
            worth_a_line = trial.status == "FAILED" or (self._live is None and trial.status in ENDED)
            if worth_a_line and trial.key not in self._told:
                self.console.print(self._line(trial, ledger), markup=False, highlight=False, soft_wrap=True)
                self._told.add(trial.key)

    def table(self) -> Group | Text:
        """The live table: running trials and the best so far, under one line of totals."""
        ledger = self._ledger
        if ledger is None:
            return Text("starting the trials …")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column, justify in (
            ("trial", "left"),
            ("epoch", "right"),
            ("val. accuracy", "right"),
            ("images/s", "right"),
        ):
            table.add_column(column, justify="right" if justify == "right" else "left")
        for trial in ledger.with_status("RUNNING"):
            last = trial.history[-1] if trial.history else {}
            table.add_row(
                describe_point(trial.config, self.explored),
                f"{last.get('epoch', 0):.0f}/{trial.config['epochs']}",
                f"{last['val_accuracy']:.1%}" if last else "",
                f"{last['images_per_second']:,.0f}" if last else "",
            )
        return Group(Text(self._totals(ledger)), table)

    def _line(self, trial: TrialRecord, ledger: Ledger) -> str:
        done = sum(other.status in ENDED for other in ledger.trials.values())
        name = describe_point(trial.config, self.explored)
        head = f"[{done:>{len(str(self.total))}}/{self.total}] {name}: "
        if trial.status == "FINISHED":
            took = trial.metrics["seconds"]
            return f"{head}validation accuracy {trial.metrics['val_accuracy']:.1%} in {took:.0f} s{self._left(ledger)}"
        if trial.status == "FAILED":
            return f"{head}FAILED: {(trial.error or '').strip().splitlines()[-1]}"
        return f"{head}{trial.status}"

    def _totals(self, ledger: Ledger) -> str:
        finished, failed = ledger.with_status("FINISHED"), ledger.with_status("FAILED")
        running = ledger.with_status("RUNNING")
        rate = sum(trial.history[-1]["images_per_second"] for trial in running if trial.history)
        parts = [f"{len(finished)}/{self.total} trials done, {len(running)} running"]
        if failed:
            parts.append(f"{len(failed)} failed")
        if finished:
            best = max(finished, key=lambda trial: trial.metrics["val_accuracy"])
            name = describe_point(best.config, self.explored)
            parts.append(f"best {best.metrics['val_accuracy']:.1%} ({name})")
        if rate:
            parts.append(f"{rate:,.0f} images/s")
        return ", ".join(parts) + self._left(ledger)

    def _left(self, ledger: Ledger) -> str:
        """The time left, from the trials that ran under this clock; those found in the store took none of it."""
        ended = {trial.key for trial in ledger.trials.values() if trial.status in ENDED}
        ran = len(ended & self._ran)
        if self._began is None or ran == 0 or len(ended) >= self.total:
            return ""
        seconds = (self.clock() - self._began) / ran * (self.total - len(ended))
        return f", about {_duration(seconds)} left"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
