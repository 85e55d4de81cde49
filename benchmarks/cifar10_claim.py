"""The planned run on CIFAR-10: does distillation from high resolution beat plain training, at convergence?

    uv run python -m benchmarks.cifar10_claim --data FOLDER --store FOLDER [--processes 2]
    uv run python -m benchmarks.cifar10_claim --report

Networks, seeds, comparisons and what counts as a result were written down before any student met a test image:
docs/results.md, "CIFAR-10". Each finished training is a small file in the results' folder and is not trained again; the
run can be killed at any time and begun again. Not for: another recipe on these test images.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.claim_plan import Choice, Contrast, Plan, Row
from benchmarks.claim_report import report
from dfd_tune.errors import UserError
from dfd_tune.signals import Signals
from dfd_tune.store import open_store

EPOCHS = 60
TEACHER_EPOCHS = 60
LAMBDAS = (0.2, 0.5, 1.0, 2.0, 5.0)
PLAIN = {"lambda_": 0.0}
FROM_TEACHER = {"student_start": "teacher", "start_rate_factor": 1.0}

PLAN = Plan(
    dataset={
        "dataset": "cifar10",
        "image_size": None,
        "train_images": 3500,
        "train_offset": 6000,  # the scale of λ was seen with the first 6,000
        "test_images": None,
        "validation_fraction": 2 / 7,  # 2,500 to train on, 1,000 to choose by
    },
    # All of them, so that the defaults of another version change nothing.
    settings={
        "resolution": 8,
        "downsample": "bicubic",
        "upsample": "bicubic",
        "blur": 0.0,
        "noise": 0.0,
        "jpeg_quality": None,
        "frontend": "none",
        "crop_padding": 4,
        "flip": True,
        "augment_seed": 0,
        "width": 0.125,
        "dropout": 0.0,
        "epochs": EPOCHS,
        "batch_size": 64,
        "learning_rate": 0.1,
        "schedule": "one_cycle",
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "method": "dfd",
        "reduction": "sum",
        "teachers": "own",
        "teacher_sees": "high_res",
        "student_start": "scratch",
        "workers": 1,
        "precision": "float32",
        "teacher_epochs": TEACHER_EPOCHS,
        "teacher_batch_size": 64,
        "teacher_learning_rate": 0.1,
        "teacher_schedule": "one_cycle",
        "teacher_momentum": 0.9,
        "teacher_weight_decay": 5e-4,
        "teacher_dropout": 0.0,
        "teacher_seed": 0,
    },
    choices=(
        Choice(name="resnet18-lambda", setting="lambda_", values=LAMBDAS, backbone="resnet18"),
        Choice(name="vgg16-lambda", setting="lambda_", values=LAMBDAS, backbone="vgg16"),
        # One cycle to the peak of a start from scratch would undo the start.
        Choice(
            name="resnet18-start_rate",
            setting="learning_rate",
            values=(0.01, 0.03, 0.1),
            backbone="resnet18",
            settings=FROM_TEACHER | PLAIN,
        ),
    ),
    rounds=(
        (
            Row(name="plain", backbone="resnet18", settings=PLAIN),
            Row(name="dfd", backbone="resnet18", choices=("resnet18-lambda",)),
            Row(name="half_longer", backbone="resnet18", settings=PLAIN | {"epochs": EPOCHS * 3 // 2}),
            Row(name="longer", backbone="resnet18", settings=PLAIN | {"epochs": EPOCHS + TEACHER_EPOCHS}),
        ),
        (
            Row(name="plain", backbone="vgg16", settings=PLAIN),
            Row(name="dfd", backbone="vgg16", choices=("vgg16-lambda",)),
        ),
        (
            Row(
                name="low_res_teacher",
                backbone="resnet18",
                settings={"teacher_sees": "low_res"},
                choices=("resnet18-lambda",),
            ),
        ),
        (
            Row(
                name="plain_from_teacher",
                backbone="resnet18",
                settings=FROM_TEACHER | PLAIN,
                choices=("resnet18-start_rate",),
            ),
            Row(
                name="dfd_from_teacher",
                backbone="resnet18",
                settings=FROM_TEACHER,
                choices=("resnet18-lambda", "resnet18-start_rate"),
            ),
        ),
    ),
    contrasts=(
        Contrast("resnet18", "dfd", "plain"),
        Contrast("resnet18", "half_longer", "plain"),
        Contrast("resnet18", "longer", "plain"),
        Contrast("resnet18", "low_res_teacher", "plain"),
        Contrast("resnet18", "plain_from_teacher", "plain"),
        Contrast("resnet18", "dfd_from_teacher", "plain"),
        Contrast("vgg16", "dfd", "plain"),
        Contrast("resnet18", "dfd", "longer"),
        Contrast("resnet18", "dfd", "low_res_teacher"),
        Contrast("resnet18", "dfd_from_teacher", "plain_from_teacher"),
    ),
    seeds={"resnet18": tuple(range(1000, 1008)), "vgg16": tuple(range(1000, 1005))},
    implied={"start_rate_factor": 1.0},  # most files are of a version in which it could not be set
)


def main() -> None:
    """Train what is left, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of CIFAR-10's files; without it, they are downloaded")
    parser.add_argument("--store", type=Path, default=Path("dfd-tune-store"), help="for images, teachers, checkpoints")
    parser.add_argument("--results", type=Path, default=Path("docs/cifar10_claim"), help="a file for each training")
    parser.add_argument("--processes", type=int, default=2, help="that train side by side, of one thread each")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="that they train on")
    parser.add_argument("--report", action="store_true", help="print the tables; train nothing")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.report:
            from benchmarks.claim_queue import load_results

            print(report(PLAN, load_results(PLAN, given.results)), end="")
        elif given.processes == 1:
            _work(given)
        else:
            sys.exit(_work_side_by_side(given.processes))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _work(given: argparse.Namespace) -> None:
    """Train in this process; a child stops when its parent is gone."""
    import torch

    from benchmarks.claim_queue import StoppedError, work

    torch.set_num_threads(1)
    parent = os.getppid()
    try:
        work(
            PLAN,
            given.results.absolute(),
            open_store(given.store),
            given.data,
            _say,
            device=torch.device(given.device),
            stop_asked=lambda: given.child and os.getppid() != parent,
        )
    except StoppedError:
        _say("stopped")


def _work_side_by_side(processes: int) -> int:
    """The worst exit code of so many processes of this script, which share the work."""
    command = [sys.executable, "-m", "benchmarks.cifar10_claim", *sys.argv[1:], "--processes", "1", "--child"]
    with Signals():
        children = [subprocess.Popen(command) for _ in range(processes)]
        try:
            return max(abs(child.wait()) for child in children)
        finally:
            for child in children:
                child.terminate()
                child.wait()


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    main()
