"""One thread that writes updates while its owner goes on; of each key, only the latest is kept.

An update holds the whole of what is known, so that a newer one replaces an older that still waits: the outbox
never holds more than one a key, never blocks its owner, and loses nothing. Not for: updates that add up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Update = TypeVar("Update")


class Outbox(Generic[Update]):
    """Calls `write(update)` in a thread of its own. A write that fails is remembered, not raised.

    Args:
        write: writes one update; may raise.
        describe: puts a failure into one sentence.
    """

    def __init__(self, write: Callable[[Update], None], describe: Callable[[Exception], str]):
        self._write = write
        self._describe = describe
        self._waiting: dict[str, Update] = {}
        self._problems: dict[str, str] = {}
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="dfd-tune-mlflow", daemon=True)
        self._thread.start()

    def put(self, key: str, update: Update) -> None:
        """Leave an update to be written; returns at once."""
        with self._changed:
            assert not self._closed, "the outbox is closed"
            self._waiting[key] = update
            self._changed.notify_all()

    def flush(self, patience: float) -> list[str]:
        """Wait up to `patience` seconds until all is written; the problems of keys whose latest write failed.

        The same sentence is listed once. What still waits then keeps waiting, and is a problem too.
        """
        end = time.monotonic() + patience
        with self._changed:
            while (self._waiting or self._busy) and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
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
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                key = next(iter(self._waiting))
                update = self._waiting.pop(key)
                self._busy = True
            problem = self._attempt(update)
            with self._changed:
                self._busy = False
                self._problems.pop(key, None)
                if problem is not None:
                    self._problems[key] = problem
                self._changed.notify_all()

    def _attempt(self, update: Update) -> str | None:
        try:
            self._write(update)
        except Exception as error:
            return self._describe(error)
        return None
