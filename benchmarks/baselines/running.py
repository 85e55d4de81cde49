"""Starts the scripts of a comparison in processes of their own, and reads the clock around what counts.

Training alone: processes set themselves up, then begin when all are ready; from there to the last one's end. A whole
search: from the command to its end. Not for: which sides there are, nor in which order (compare.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent.parent
SHOWN = 2000
"""Characters of what a failed command wrote."""
OURS = ("DFD_TUNE_STORE", "RAY_ADDRESS", "RAY_TMPDIR", "MLFLOW_TRACKING_URI")
"""Variables of a user's environment that bear on a search, and are kept away from it."""


class CommandFailedError(Exception):
    """A script ended without having done its work; the text says which, and what it wrote last."""


@dataclass(frozen=True)
class Layout:
    """How a side shares the cores among its trials."""

    at_once: int
    """Trials."""
    threads: int
    """Of torch, in each."""
    loaders: int = 0
    """Processes of each DataLoader."""

    def __str__(self) -> str:
        text = f"{self.at_once} at once, {self.threads} thread{'s' * (self.threads != 1)}"
        return text + (f", {self.loaders} loader process{'es' * (self.loaders != 1)}" if self.loaders else "")


def layouts(cores: int, trials: int, loads: bool) -> list[Layout]:
    """The ways to train so many trials that are tried: one after the other on all cores, or as many at once as there
    are cores.

    Args:
        cores: of the machine.
        trials: how many.
        loads: whether there is a DataLoader, whose processes (none, one, or one a core) are tried too.
    """
    together = min(cores, trials)
    shapes = dict.fromkeys([(1, cores), (together, max(1, cores // together))])
    return [
        Layout(at_once, threads, loaders)
        for at_once, threads in shapes
        for loaders in (dict.fromkeys([0, 1, threads]) if loads else [0])
    ]


def environment(threads: int) -> dict[str, str]:
    """For a process with so many threads: a user's who has set nothing that bears on a search."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def train_trials(
    script: str, trials: Sequence[tuple[float, int]], layout: Layout, arguments: Sequence[object]
) -> tuple[float, list[float]]:
    """Seconds of training, and each trial's last loss.

    Args:
        script: name of a module beside this one.
        trials: λ and seed of each.
        layout: how many at once; the next ones begin when all of these have ended.
        arguments: of the script, but for those that differ from trial to trial or say the layout.

    Raises:
        CommandFailedError: a script failed.
    """
    seconds, losses = 0.0, []
    how = ["--threads", layout.threads, "--loaders", layout.loaders]
    for first in range(0, len(trials), layout.at_once):
        commands = [
            [script, *arguments, *how, "--lambda", lambda_, "--seed", seed]
            for lambda_, seed in trials[first : first + layout.at_once]
        ]
        taken, said = together(commands, layout.threads)
        seconds += taken
        losses += [one["loss"] for one in said]
    return seconds, losses


def together(commands: Sequence[Sequence[object]], threads: int) -> tuple[float, list[dict[str, Any]]]:
    """Run scripts side by side; seconds from when all are ready to the last one's end, and what each said then.

    Args:
        commands: name of a module beside this one, and its arguments.
        threads: of each.

    Raises:
        CommandFailedError: one failed.
    """
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(_Script(command, threads)) for command in commands]
        for script in running:
            script.hear()
        started = time.perf_counter()
        for script in running:
            script.go()
        said = [script.hear() for script in running]
        return time.perf_counter() - started, said


class _Script:
    """A script that waits for a line before it trains; it is ended with the block."""

    def __init__(self, command: Sequence[object], threads: int):
        name, *arguments = command
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        self.words = [sys.executable, "-m", f"benchmarks.baselines.{name}", *map(str, arguments), "--wait"]
        self.process = subprocess.Popen(
            self.words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment(threads),
            cwd=ROOT,
            text=True,
        )

    def __enter__(self) -> _Script:
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is not None:
            self.process.kill()
        self.process.communicate()
        self.errors.close()

    def go(self) -> None:
        """Have it train."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Its next line of JSON; what else it prints is passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                said: dict[str, Any] = json.loads(line)
                return said
        self.process.wait()
        self.errors.seek(0)
        raise CommandFailedError(_failure(self.words, self.errors.read().decode(errors="replace")))


def timed_command(arguments: Sequence[object], threads: int, changes: Mapping[str, str]) -> tuple[float, str]:
    """Run a module of Python's to its end; seconds from start to end, and what it printed.

    Args:
        arguments: the module's name and its arguments.
        threads: what the environment says of them; 0 says nothing, as a user's.
        changes: of the environment.

    Raises:
        CommandFailedError: it failed.
    """
    words = [sys.executable, "-m", *map(str, arguments)]
    surroundings = environment(threads) | dict(changes)
    if not threads:
        del surroundings["OMP_NUM_THREADS"]
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, env=surroundings, cwd=ROOT)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise CommandFailedError(_failure(words, done.stdout + done.stderr))
    return seconds, done.stdout


def _failure(words: Sequence[str], wrote: str) -> str:
    return f"{' '.join(words[1:])} failed:\n{wrote[-SHOWN:]}"
