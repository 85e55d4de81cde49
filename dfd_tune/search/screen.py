"""Where a launch shows how it goes: a terminal with a live table, plain lines, or JSON lines for a screen elsewhere.

What is shown is three things only: lines that stay, what runs just now, and one line of totals; so a launch on a
cluster draws on the screen of a laptop what it would draw on its own. Not for: what the lines say (progress.py).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

MARK = "dfd-tune"
"""Of every JSON object that `JsonLines` writes, the key that tells it from what else stands in a job's log."""
FLUSH_SECONDS = 1.0
"""`JsonLines` tells of what runs at most this often; lines that stay are written at once."""


@dataclass(frozen=True)
class Row:
    """One thing that runs."""

    name: str
    epochs: int
    last: Mapping[str, float]
    """Metrics of its last epoch."""


class Screen(Protocol):
    """What a launch shows itself on."""

    @property
    def has_table(self) -> bool:
        """Whether rows and totals are shown, now or elsewhere."""

    def line(self, text: str, *, in_table: bool = False) -> None:
        """A line that stays; where a live table shows the same thing, `in_table`, it is left out."""

    def row(self, key: str, row: Row | None) -> None:
        """What runs under `key` is at `row`; None if it no longer runs."""

    def totals(self, text: str) -> None:
        """All of it in one line."""

    def __enter__(self) -> Self:
        """From now on there are rows and totals to show."""

    def __exit__(self, *error: object) -> None:
        """There are no more."""


class Terminal:
    """A person's terminal; where the output goes elsewhere, as into a file, lines alone."""

    def __init__(self, console: Console):
        self.console = console
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._totals = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self.table, console=self.console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def has_table(self) -> bool:
        """Whether there is a live table now."""
        return self._live is not None

    def line(self, text: str, *, in_table: bool = False) -> None:
        """Print a line, above the live table if there is one."""
        if not (in_table and self.has_table):
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def row(self, key: str, row: Row | None) -> None:
        """Take a row for the table, which a thread draws twice a second."""
        with self._lock:
            if row is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = row

    def totals(self, text: str) -> None:
        """Take the line above the table."""
        with self._lock:
            self._totals = text

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


class JsonLines:
    """A screen that writes what it is told as JSON objects, one a line, for `shown_on` to draw elsewhere.

    Args:
        stream: takes the lines.
        clock: seconds.
    """

    has_table = True

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[str, Row | None] = {}
        self._totals: str | None = None
        self._flushed = float("-inf")

    def __enter__(self) -> Self:
        self.tell("table", True)
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._flush()
        self.tell("table", False)

    def line(self, text: str, *, in_table: bool = False) -> None:
        """Write it at once."""
        self.tell("line", {"text": text, "in_table": in_table})

    def row(self, key: str, row: Row | None) -> None:
        """Keep it until the next time that rows are written."""
        with self._lock:
            self._rows[key] = row
            self._flush_if_due()

    def totals(self, text: str) -> None:
        """Keep it likewise."""
        with self._lock:
            self._totals = text
            self._flush_if_due()

    def tell(self, what: str, value: Any) -> None:
        """Write one object: {MARK: what, "value": value}."""
        # In one write, as other threads write there too.
        self._stream.write(json.dumps({MARK: what, "value": value}, ensure_ascii=False) + "\n")
        self._stream.flush()

    def _flush_if_due(self) -> None:
        if self._clock() - self._flushed >= FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        for key, row in self._rows.items():
            self.tell("row", {"key": key} | ({} if row is None else vars(row)))
        if self._totals is not None:
            self.tell("totals", self._totals)
        self._rows, self._totals, self._flushed = {}, None, self._clock()


def told_in(line: str) -> tuple[str, Any] | None:
    """What a line of a job's log tells and its value; None if `JsonLines` did not write it."""
    if not line.startswith(f'{{"{MARK}": '):
        return None
    try:
        told = json.loads(line)
        return told[MARK], told["value"]
    except (ValueError, KeyError):
        return None


def show(what: str, value: Any, screen: Screen) -> bool:
    """Draw what `told_in` found on a screen; False if it is nothing to draw."""
    if what == "line":
        screen.line(value["text"], in_table=value["in_table"])
    elif what == "row":
        key = value["key"]
        screen.row(key, Row(value["name"], value["epochs"], value["last"]) if "name" in value else None)
    elif what == "totals":
        screen.totals(value)
    elif what == "table" and value:
        screen.__enter__()
    elif what == "table":
        screen.__exit__(None, None, None)
    else:
        return False
    return True
