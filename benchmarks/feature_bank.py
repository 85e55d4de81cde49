"""Trials that read a teacher's features from a bank against trials that run the teacher live, in one process.

Both sides train the same students on the embedded digits; the bank's filling counts. Prints seconds and the ratio
for a grid of several values of λ, and how far the two sides' losses are apart. Not for: Ray (a launch).

    uv run python benchmarks/feature_bank.py --trials 7
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time

import torch

from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.data.sources import SOURCES
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import train_student
from dfd_tune.distill.workbench import BankPlan, Workbench
from dfd_tune.settings import Request, resolve
from dfd_tune.space import read_space
from dfd_tune.store import Store, open_store

LAMBDAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def timed_side(
    store: Store, key: str, banks: dict[str, BankPlan], request: Request, backbone: str, trials: int
) -> tuple[float, float]:
    """Seconds from a trained teacher to the last student's end, and that student's last loss."""
    workbench = Workbench(store, key, banks, torch.device("cpu"))
    process = SingleProcess()
    teacher = request.trial({"backbone": backbone, "lambda_": 1.0}).teacher()
    started = time.perf_counter()
    workbench.prepare(teacher, process)
    loss = 0.0
    for lambda_ in LAMBDAS[:trials]:
        _, result = train_student(request.trial({"backbone": backbone, "lambda_": lambda_}), workbench, process)
        loss = result.metrics["loss"]
    return time.perf_counter() - started, loss


def main() -> None:
    """Run both sides and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=len(LAMBDAS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--backbones", nargs="+", default=["alexnet", "resnet18"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__}, digits")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        recipe = SOURCES["digits"].recipe
        request = resolve(
            read_space("lambda_grid"),
            dataset="digits",
            data=None,
            recipe=recipe,
            assignments=[f"epochs={options.epochs}", "precision=float32"],
        )
        dataset = prepare_dataset(request.dataset, store, lambda line: None)
        for backbone in options.backbones:
            teacher = request.trial({"backbone": backbone, "lambda_": 1.0}).teacher()
            Workbench(store, dataset.folder.name, {}, torch.device("cpu")).prepare(teacher, SingleProcess())
            banks = {teacher.key(dataset.digest): BankPlan("views", options.epochs)}
            live, live_loss = timed_side(store, dataset.folder.name, {}, request, backbone, options.trials)
            bank, bank_loss = timed_side(store, dataset.folder.name, banks, request, backbone, options.trials)
            print(
                f"{backbone}: {options.trials} trials, live {live:.1f} s, bank {bank:.1f} s, ratio {live / bank:.2f}; "
                f"last losses {live_loss:.5f} and {bank_loss:.5f}"
            )


if __name__ == "__main__":
    main()
