"""Students trained in bf16 against the same students in float32: by how much their accuracy differs, over seeds.

Embedded digits, plain and distilled, the same seeds on both sides, each with a teacher of its own precision. Prints
each side's mean test accuracy and the mean paired difference with its 95 % interval (Student's t over seeds); the two
agree if that holds zero. On a CPU that has no instructions for bf16, torch emulates it, many times slower but with the
same rounding of what is multiplied. Not for: speed (compare.py).

    uv run python benchmarks/precision.py --seeds 6
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import statistics
import tempfile

import torch

from dfd_tune.analysis.points import half_width
from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.data.sources import SOURCES
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import save_result, student_file, train_student
from dfd_tune.distill.testing import accuracy_on_test_images
from dfd_tune.distill.workbench import Workbench
from dfd_tune.machine import multiplies_bf16
from dfd_tune.settings import resolve
from dfd_tune.space import read_space
from dfd_tune.store import open_store


def accuracy(config: TrialConfig, bench: Workbench) -> float:
    """Train a student; its accuracy on the test images, in per cent."""
    student, result = train_student(config, bench, SingleProcess())
    save_result(student, result, config, bench)
    return 100 * accuracy_on_test_images(student_file(bench.store, config.key(bench.dataset.digest)), config, bench)


def main() -> None:
    """Train both sides and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.0, 1.0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    emulated = "" if multiplies_bf16() else ", bf16 emulated"
    print(f"{platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__}{emulated}, digits")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        request = resolve(
            read_space("lambda_grid"),
            dataset="digits",
            data=None,
            recipe=SOURCES["digits"].recipe,
            assignments=[f"epochs={options.epochs}", f"width={options.width}", "precision=float32"],
        )
        dataset = prepare_dataset(request.dataset, store, lambda line: None)
        bench = Workbench(store, dataset.folder.name, {}, torch.device("cpu"))
        for lambda_ in options.lambdas:
            first = request.trial({"backbone": "resnet18", "lambda_": lambda_})
            if first.distills:
                for precision in ("float32", "bf16"):
                    bench.prepare(dataclasses.replace(first, precision=precision).teacher(), SingleProcess())
            pairs = []
            for seed in range(options.seeds):
                single = dataclasses.replace(first, seed=seed)
                halved = dataclasses.replace(single, precision="bf16")
                pairs.append((accuracy(single, bench), accuracy(halved, bench)))
                print(
                    f"λ = {lambda_:g}, seed {seed}: float32 {pairs[-1][0]:.2f} %, bf16 {pairs[-1][1]:.2f} %", flush=True
                )
            differences = [bf16 - float32 for float32, bf16 in pairs]
            half = half_width(differences)
            means = [statistics.fmean(side) for side in zip(*pairs, strict=True)]
            print(
                f"λ = {lambda_:g}: float32 {means[0]:.2f} %, bf16 {means[1]:.2f} %, bf16 minus float32 "
                f"{statistics.fmean(differences):+.2f}" + ("" if half is None else f" ± {half:.2f} points")
            )


if __name__ == "__main__":
    main()
