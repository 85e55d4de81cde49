"""An experiment: K trials that differ in λ, learning rate, weight decay and seed alone, in one process on K CUDA
streams, against the same K one after another.

Each has a network, an optimiser, a thread and a stream of its own; teacher, feature bank and images are there once. A
thread launches kernels while another one's run; what takes the interpreter's lock is still done in turn.

    python -m benchmarks.cohort --check                       # on a CPU: that each trains as if it were alone
    python -m benchmarks.cohort --data FOLDER --trials 4      # on a GPU: how many times as fast; CIFAR-10 seen at 8×8

Prints lines of JSON; --check ends with 1 if a loss is another one. Trials with dropout can't be trained so: they draw
from one random state. Not for: trials packed by process, as a search does it (--gpus-per-worker), nor any use of this
in a search.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks.baselines.ratios import ratio_of
from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.distill.arithmetic import compute
from dfd_tune.distill.distillation import Distillation
from dfd_tune.distill.process import EpochMetrics, SingleProcess
from dfd_tune.distill.student import _distillation, initial_student
from dfd_tune.distill.training import train_network
from dfd_tune.distill.workbench import BankPlan, Workbench
from dfd_tune.models import Network
from dfd_tune.store import Store, open_store

LAMBDAS = (0.1, 0.5, 1.0, 2.0)
LEARNING_RATES = (0.1, 0.05, 0.02)
WEIGHT_DECAYS = (5e-4, 1e-4)
RECIPE: dict[str, Any] = {
    "flip": True,
    "dropout": 0.0,
    "schedule": "one_cycle",
    "reduction": "sum",
    "student_start": "scratch",
    "teacher_epochs": 1,
    "teacher_learning_rate": 0.05,
    "teacher_schedule": "one_cycle",
    "teacher_momentum": 0.9,
    "teacher_weight_decay": 5e-4,
    "teacher_dropout": 0.0,
}
DIFFERENT = {"lambda_", "learning_rate", "weight_decay", "seed"}
"""In which the trials of a cohort may differ."""


def cohort_of(config: TrialConfig, count: int) -> list[TrialConfig]:
    """So many trials like `config`, no two of which share a seed."""
    return [
        dataclasses.replace(
            config,
            lambda_=LAMBDAS[seed % len(LAMBDAS)],
            learning_rate=config.learning_rate * LEARNING_RATES[seed % len(LEARNING_RATES)] / LEARNING_RATES[0],
            weight_decay=WEIGHT_DECAYS[seed % len(WEIGHT_DECAYS)],
            seed=seed,
        )
        for seed in range(count)
    ]


def refuse_strangers(configs: Sequence[TrialConfig]) -> None:
    """Refuse trials that can't be trained together.

    Raises:
        ValueError: they differ in something else, or have dropout.
    """
    for config in configs:
        ours, first = dataclasses.asdict(config), dataclasses.asdict(configs[0])
        others = {name for name, value in ours.items() if value != first[name]} - DIFFERENT
        if others:
            raise ValueError(f"trials of a cohort differ in {', '.join(sorted(DIFFERENT))} alone, not {sorted(others)}")
        if config.dropout > 0:
            raise ValueError(f"dropout is {config.dropout:g}, but must be 0: it draws from one random state")


@dataclass(frozen=True)
class Member:
    """A trial of a cohort, about to be trained."""

    config: TrialConfig
    student: Network
    distillation: Distillation | None

    def train(self, bench: Workbench) -> list[EpochMetrics]:
        """Train it on the current stream; returns its history."""
        return train_network(
            self.student,
            bench.images_for(self.config),
            bench.validation_images(self.config.low_res),
            recipe=self.config.recipe,
            process=SingleProcess(device=bench.device),
            distillation=self.distillation,
        )


def members(configs: Sequence[TrialConfig], bench: Workbench) -> list[Member]:
    """What is to be trained, made in turn: seeds pass through torch's global state, and what is shared is made once."""
    refuse_strangers(configs)
    found = []
    for config in configs:
        student = initial_student(config, bench).to(bench.device)
        found.append(Member(config, student, _distillation(config, student, bench)))
        bench.images_for(config)
        bench.validation_images(config.low_res)
    return found


def one_after_another(configs: Sequence[TrialConfig], bench: Workbench) -> tuple[list[list[EpochMetrics]], float]:
    """Histories, and the seconds that training took."""
    made = members(configs, bench)
    started = _now(bench.device)
    histories = [member.train(bench) for member in made]
    return histories, _now(bench.device) - started


def together(configs: Sequence[TrialConfig], bench: Workbench) -> tuple[list[list[EpochMetrics]], float]:
    """Likewise of all at once."""
    made = members(configs, bench)
    threads = torch.get_num_threads()

    def train(member: Member) -> list[EpochMetrics]:
        torch.set_num_threads(threads)  # of its own in each thread
        with _stream_of_its_own(bench.device):
            return member.train(bench)

    with ThreadPoolExecutor(len(made)) as pool:
        started = _now(bench.device)
        histories = list(pool.map(train, made))
        return histories, _now(bench.device) - started


def _stream_of_its_own(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))


def _now(device: torch.device) -> float:
    """Seconds, once all that was begun on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def apart(ours: Sequence[list[EpochMetrics]], theirs: Sequence[list[EpochMetrics]]) -> float:
    """How far the losses of any epoch are apart at most, as a share of theirs."""
    return max(
        abs(a["loss"] - b["loss"]) / abs(b["loss"])
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def check(configs: Sequence[TrialConfig], bench: Workbench) -> bool:
    """Whether each trains together as it does alone: every metric but the speed, bit by bit."""
    alone, _ = one_after_another(configs, bench)
    at_once, _ = together(configs, bench)
    same = [_without_speed(one) == _without_speed(other) for one, other in zip(at_once, alone, strict=True)]
    say(what="check", trials=len(configs), same=same, apart=apart(at_once, alone))
    return all(same)


def _without_speed(history: list[EpochMetrics]) -> list[EpochMetrics]:
    return [{name: value for name, value in epoch.items() if name != "images_per_second"} for epoch in history]


def speed(configs: Sequence[TrialConfig], bench: Workbench, repeats: int) -> None:
    """Print how many times as fast a cohort is, and what memory it takes."""
    seconds: dict[str, list[float]] = {"one_after_another": [], "together": []}
    memory: dict[str, int] = {}
    histories: dict[str, list[list[EpochMetrics]]] = {}
    for number in range(repeats + 1):
        for side, run in (("one_after_another", one_after_another), ("together", together)):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            histories[side], took = run(configs, bench)
            memory[side] = torch.cuda.max_memory_allocated()
            if number:  # the first round warms up
                seconds[side].append(took)
                say(what="round", side=side, number=number, seconds=round(took, 3))
    found = ratio_of(seconds["together"], seconds["one_after_another"])
    say(
        what="cohort",
        gpu=torch.cuda.get_device_name(),
        torch=torch.__version__,
        trials=len(configs),
        times_as_fast=[round(value, 3) for value in (found.ratio, found.low, found.high)],
        repeats=found.repeats,
        peak_memory_bytes=memory,
        losses_apart=apart(histories["together"], histories["one_after_another"]),
    )


def say(**line: Any) -> None:
    """Print a line of JSON."""
    print(json.dumps(line), flush=True)


def bench_for(store: Store, given: argparse.Namespace, device: torch.device) -> tuple[Workbench, TrialConfig]:
    """A workbench, whose store has the teacher and its bank, and a trial that a cohort is made of."""
    name = "digits" if given.data is None else "cifar10"
    dataset = DatasetConfig(dataset=name, data=given.data, train_images=given.train_images)
    found = prepare_dataset(dataset, store, lambda line: None)
    config = TrialConfig(
        **RECIPE
        | {
            "resolution": found.image_size // 4 if given.data is not None else found.image_size // 2,
            "crop_padding": 4 if given.data is not None else 1,
            "backbone": given.backbone,
            "width": given.width,
            "epochs": given.epochs,
            "batch_size": given.batch_size,
            "learning_rate": LEARNING_RATES[0],
            "lambda_": LAMBDAS[0],
            "teacher_batch_size": given.batch_size,
            "precision": "bf16" if device.type == "cuda" else "float32",
        }
    )
    banks = {config.teacher().key(found.digest): BankPlan("epochs", given.epochs)}
    bench = Workbench(store, found.folder.name, banks, device)
    bench.prepare(config.teacher(), SingleProcess(device=device))
    return bench, config


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare losses alone; on a CPU where there is no GPU")
    parser.add_argument("--data", help="folder of CIFAR-10's files; without it, the embedded digits")
    parser.add_argument("--store", type=Path, help="for images, teacher and bank; else a folder that is removed")
    parser.add_argument("--trials", type=int, default=4, help="how many train at once")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count, after one that warms up")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--train-images", type=int, help="a subset; else all")
    return parser


def main() -> int:
    """Do what is asked for; 1 where a loss is another one, 2 for bad input."""
    parser = arguments()
    given = parser.parse_args()
    if given.trials < 1 or given.repeats < 1:
        parser.error(f"--trials is {given.trials} and --repeats {given.repeats}, but both must be at least 1.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not given.check and device.type != "cuda":
        parser.error("torch finds no GPU on this machine, on which alone a speed is measured; take --check.")
    torch.set_num_threads(1)
    compute(deterministic=given.check)
    with contextlib.ExitStack() as stack:
        folder = given.store or stack.enter_context(tempfile.TemporaryDirectory(prefix="cohort-"))
        bench, config = bench_for(open_store(folder), given, device)
        configs = cohort_of(config, given.trials)
        if given.check:
            return 0 if check(configs, bench) else 1
        speed(configs, bench, given.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
