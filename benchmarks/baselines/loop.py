"""A search as an author would run it: the teacher's script, a script a trial in a loop, then the best one's test.

    python -m benchmarks.baselines.loop --work FOLDER --trials '[[0, 0], [0.5, 0]]' --at-once 2 --threads 1

Trials are pairs of λ and seed. The loop starts one, or `--at-once` of them and the next when one ends (as `xargs -P`
does). Not for: how a trial is trained (plain_script.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def script(*arguments: object) -> dict[str, Any]:
    """Run plain_script.py to its end; what it said last.

    Raises:
        CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.baselines.plain_script", *map(str, arguments)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    said: dict[str, Any] = json.loads(lines[-1])
    return said


def search(given: argparse.Namespace, folder: Path) -> tuple[list[float], float]:
    """Each trial's last training loss, and the test accuracy of the one with the best validation accuracy."""
    teacher = folder / "teacher.safetensors"
    cores = given.at_once * given.threads
    script("--work", given.work, "--train-teacher", "--save", teacher, "--threads", cores, "--loaders", given.loaders)

    def trial(number: int) -> dict[str, Any]:
        lambda_, seed = given.trials[number]
        where = ["--work", given.work, "--teacher", teacher, "--save", folder / f"{number}.safetensors"]
        how = ["--threads", given.threads, "--loaders", given.loaders]
        return script(*where, *how, "--lambda", lambda_, "--seed", seed)

    with ThreadPoolExecutor(given.at_once) as pool:
        found = list(pool.map(trial, range(len(given.trials))))
    best = max(range(len(found)), key=lambda number: found[number]["val_accuracy"])
    return [one["loss"] for one in found], tested(given.work, folder / f"{best}.safetensors", cores)


def tested(work_folder: Path, weights: Path, threads: int) -> float:
    """The test accuracy of a student whose weights lie in a file."""
    import torch

    from benchmarks.baselines.plain_script import LOW, evaluate, evaluation_loader
    from benchmarks.baselines.work import read_work

    torch.set_num_threads(threads)
    work, device = read_work(work_folder), torch.device("cpu")
    loader = evaluation_loader(work, work_folder, "test", LOW, device)
    return evaluate(work.network(weights), loader, device)


def search_arguments(description: str | None) -> argparse.ArgumentParser:
    """What every script that runs a whole search takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the work (work.py)")
    parser.add_argument("--results", type=Path, required=True, help="an empty folder, for weights")
    parser.add_argument("--trials", type=json.loads, required=True, help="JSON: a list of pairs of λ and seed")
    parser.add_argument("--at-once", type=int, default=1, help="trials")
    parser.add_argument("--threads", type=int, default=1, help="of each trial")
    parser.add_argument("--loaders", type=int, default=0, help="processes of each DataLoader")
    return parser


def main() -> None:
    """Run the search."""
    given = search_arguments(__doc__).parse_args()
    started = time.perf_counter()
    losses, accuracy = search(given, given.results)
    seconds = time.perf_counter() - started
    print(json.dumps({"losses": losses, "test_accuracy": accuracy, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
