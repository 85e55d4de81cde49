"""What signals do to a command that takes long: the first one begins a graceful stop, a second Ctrl-C leaves at once.

Not for: what a graceful stop consists of; that is for whoever catches the KeyboardInterrupt.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

STOPPED = 130
"""Exit code of a command that was stopped."""
ONE_PRESS = 0.3
"""SIGINTs within so many seconds are one press of Ctrl-C: one that goes to a whole process group reaches this process
twice where a wrapper in the group, as `uv run` or `timeout`, passes its own on."""


class Signals:
    """While entered, Ctrl-C, SIGTERM and SIGHUP raise one KeyboardInterrupt in the main thread, and no more after it.

    A second Ctrl-C kills the processes that this one has started, and ends it with code 130. What was ignored at the
    start stays so: SIGINT in a background job, SIGHUP under nohup. Outside the main thread, entering does nothing.

    Args:
        kill: called before leaving at once, with what must not outlive this process; by default its descendants.
        clock: seconds.
    """

    def __init__(self, kill: Callable[[], None] | None = None, clock: Callable[[], float] = time.monotonic):
        self.stopping = False
        """Whether a stop was asked for. To be polled where a KeyboardInterrupt could get lost, as in a callback."""
        self._kill = kill if kill is not None else kill_descendants
        self._clock = clock
        self._pressed: float | None = None
        """When Ctrl-C was pressed first."""
        self._closing = 0
        self._held_back = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def install(self) -> None:
        """Put the handlers in place, again where a library has put its own in theirs. In the main thread alone."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = self._before.setdefault(number, signal.getsignal(number))
            if before != signal.SIG_IGN or number == signal.SIGTERM:
                signal.signal(number, self._handle)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """No signal interrupts the block, but for a second Ctrl-C. May be nested.

        One that came meanwhile raises at the end of the block, unless an exception is on its way already.
        """
        self._closing += 1
        try:
            yield
        finally:
            self._closing -= 1
        if self._held_back and not self._closing:
            self._held_back = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.stopping = not self.stopping, True
        if number == signal.SIGINT:
            now = self._clock()
            if self._pressed is not None:
                if now - self._pressed < ONE_PRESS:
                    return
                with contextlib.suppress(Exception):
                    self._kill()
                os._exit(STOPPED)
            self._pressed = now
        if first or number == signal.SIGINT:
            _say("Stopping; Ctrl-C again to leave at once" if number == signal.SIGINT else "Stopping")
        if first and self._closing:
            self._held_back = True
        elif first:
            raise KeyboardInterrupt


def kill_descendants() -> None:
    """Kill every process that descends from this one, wherever /proc tells of them; elsewhere nothing."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name, in parentheses, may hold blanks; the parent is the second field after it.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    doomed = list(children.get(os.getpid(), []))
    for pid in doomed:  # grows while it is gone through
        doomed += children.get(pid, [])
    for pid in doomed:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _say(line: str) -> None:
    """Written past Python's buffers, which the signal may have interrupted. A terminal that is gone is let go of."""
    try:
        os.write(2, f"\n{line}\n".encode())
    except OSError:
        # What is written later would fail as well, and end a stop that is under way.
        nothing = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if not _writable(stream.fileno()):  # type: ignore[union-attr]
                    os.dup2(nothing, stream.fileno())  # type: ignore[union-attr]
        os.close(nothing)


def _writable(descriptor: int) -> bool:
    try:
        os.write(descriptor, b"")
    except OSError:
        return False
    return True
