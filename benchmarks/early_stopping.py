"""What early stopping saves on digits, and how well early ranks tell final ones.

    uv run python benchmarks/early_stopping.py --trials 24 --epochs 27        # a quarter of an hour on two cores

The same sampled search twice, in stores of their own: all trials to their end, then with ASHA. Of both: seconds from
command to report, epochs trained, and the best validation accuracy. Of the first: Kendall's tau between the validation
accuracies after the epochs at which ASHA decides and those at the end, over all trials and over the better half, whose
order a search is for. Prints lines of JSON. Not for: whether another scheduler, space or dataset would do as well.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from dfd_tune.record import TrialRecord, load_search, load_trials
from dfd_tune.schedulers import EarlyStop
from dfd_tune.store import FolderStore

NAME = "tried"
EXPLORE = {
    "lambda_": {"low": 0.05, "high": 20, "log": True},
    "learning_rate": {"low": 0.001, "high": 0.5, "log": True},
}


def searched(folder: Path, scheduler: str, given: argparse.Namespace) -> tuple[float, list[TrialRecord]]:
    """Run the search; seconds from command to report, and its sampled trials."""
    content = {"sampler": "random", "trials": given.trials, "explore": EXPLORE, "settings": {"epochs": given.epochs}}
    space, store = folder / "space.yaml", folder / scheduler
    space.write_text(yaml.safe_dump(content))
    words = ["launch", "--space", space, "--dataset", "digits", "--store", store, "--name", NAME, "--device", "cpu"]
    words += ["--scheduler", scheduler, "--confirm-seeds", 0, "--seed", given.seed]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dfd_tune.cli", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    trials = load_trials(FolderStore(store), load_search(FolderStore(store), NAME))
    return seconds, [trial for trial in trials if trial.config["lambda_"] > 0]


def summary(scheduler: str, seconds: float, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """What a search cost, and what it found."""
    finished = [trial for trial in trials if trial.status == "FINISHED"]
    return {
        "scheduler": scheduler,
        "seconds": round(seconds, 1),
        "trials": len(trials),
        "finished": len(finished),
        "epochs": sum(len(trial.history) for trial in trials),
        "best_val_accuracy": round(max(trial.metrics["val_accuracy"] for trial in finished), 4),
    }


def agreement(trials: Sequence[TrialRecord], epochs: int) -> list[dict[str, Any]]:
    """Kendall's tau between ranks after each rung and at the end."""
    from scipy.stats import kendalltau

    course = EarlyStop(kind="asha").course(epochs)
    final = [trial.history[-1]["val_accuracy"] for trial in trials]
    median = sorted(final)[len(final) // 2]
    found, rung = [], course.grace_epochs
    while rung < epochs:
        early = [trial.history[rung - 1]["val_accuracy"] for trial in trials]
        better = [(one, other) for one, other in zip(early, final, strict=True) if other >= median]
        found.append(
            {
                "after_epochs": rung,
                "kendall_tau": round(float(kendalltau(early, final).statistic), 3),
                "kendall_tau_of_the_better_half": round(float(kendalltau(*zip(*better, strict=True)).statistic), 3),
            }
        )
        rung *= course.factor
    return found


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="early-stopping-") as folder:
        for scheduler in ("none", "asha"):
            seconds, trials = searched(Path(folder), scheduler, given)
            print(json.dumps(summary(scheduler, seconds, trials)), flush=True)
            if scheduler == "none":
                for line in agreement(trials, given.epochs):
                    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
