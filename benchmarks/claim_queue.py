"""A claim's trainings, done one after the other by any number of processes, each training once.

A finished training is one JSON file in the results' folder, written whole or not at all; it stays for good, and what
has one is not trained again. A lock beside it says that a process is at it, and the operating system lets go of it when
that process dies. Teachers, prepared images and checkpoints lie in a store and are made anew where they are missing.
Not for: which trainings there are (claim_plan.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.claim_plan import Plan, Training
from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.distill.checkpoints import Checkpoints
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import train_student
from dfd_tune.distill.testing import network_right_on_test_images
from dfd_tune.distill.training import DivergedError
from dfd_tune.distill.workbench import Workbench
from dfd_tune.errors import UserError
from dfd_tune.locks import HeldError, holding
from dfd_tune.machine import usable_cores
from dfd_tune.models import Network
from dfd_tune.parts import PretrainedConfig
from dfd_tune.record import test_record
from dfd_tune.store import Store, read_json, write_json

Say = Callable[[str], None]

CPU = torch.device("cpu")
CHECKPOINT_SECONDS = 60.0
POLL_SECONDS = 5.0
"""Between two looks for work, while other processes train what this one waits for."""


class StoppedError(Exception):
    """The process is to stop; what it trains has a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Watched(SingleProcess):
    """A process that is asked after every epoch whether it is to stop."""

    stop_asked: Callable[[], bool]

    def report(self, metrics: Any) -> None:
        """Keep the metrics.

        Raises:
            StoppedError: it is to stop.
        """
        super().report(metrics)
        if self.stop_asked():
            raise StoppedError


def load_results(plan: Plan, folder: Path) -> dict[str, dict[str, Any]]:
    """What finished trainings of the plan left, by name.

    Raises:
        UserError: one was trained with other settings, or on other images, than the plan's.
    """
    trainings = plan.trainings()
    found = {training.name: read_json(folder / f"{training.name}.json") for training in trainings}
    results = {name: value for name, value in found.items() if value is not None}
    for training in trainings:
        if training.name not in results or not all(name in results for name in training.after):
            continue
        theirs = dict(plan.implied) | results[training.name]["settings"]
        ours = dict(plan.implied) | plan.resolved(training, results)
        other = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        if results[training.name]["dataset"]["settings"] != dict(plan.dataset):
            other.append("the dataset")
        if other:
            raise UserError(
                f"'{folder / training.name}.json' is of another plan: {', '.join(other)} differ; name another folder "
                "with --results, or move the file away to have it trained again."
            )
    return results


def work(
    plan: Plan,
    folder: Path,
    store: Store,
    data: str | None,
    say: Say,
    *,
    device: torch.device = CPU,
    stop_asked: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Train what is left of a plan, beside other processes that do the same, until nothing is left.

    Args:
        plan: what there is to train.
        folder: of the results.
        store: for images, teachers and checkpoints.
        data: the folder of the dataset's source.
        say: takes a line for each training that begins or ends.
        device: where networks are trained, in float32 throughout.
        stop_asked: whether to stop at the end of the epoch.
        checkpoint_seconds: between two checkpoints.
        poll_seconds: between two looks for work.

    Raises:
        StoppedError: it was asked to stop.
    """
    # Otherwise a GPU's convolutions round to 10 bits what is called float32.
    torch.backends.cudnn.allow_tf32 = False
    bench = _bench(plan, store, data, say, device, stop_asked, checkpoint_seconds)
    locks = folder / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    (locks / ".gitignore").write_text("*\n")
    while True:
        results = load_results(plan, folder)
        left = [training for training in plan.trainings() if training.name not in results]
        if not left:
            return
        ready = [training for training in left if all(name in results for name in training.after)]
        if not any(_done_by_us(training, plan, folder, bench, say, stop_asked) for training in ready):
            if stop_asked():
                raise StoppedError
            time.sleep(poll_seconds)


def _done_by_us(
    training: Training, plan: Plan, folder: Path, bench: Workbench, say: Say, stop_asked: Callable[[], bool]
) -> bool:
    """Whether a training was done now: not if another process is at it, or has been meanwhile."""
    file = folder / f"{training.name}.json"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(holding(folder / ".locks" / f"{training.name}.lock", patience=0))
        except HeldError:
            return False
        if file.exists():
            return False
        say(f"{training.name}: begun")
        record = _record(
            training, plan, load_results(plan, folder), bench, Watched(stop_asked=stop_asked, device=bench.device)
        )
        write_json(file, record)
        say(f"{training.name}: {_outcome(record)}")
        return True


def _record(
    training: Training, plan: Plan, results: dict[str, dict[str, Any]], bench: Workbench, process: Watched
) -> dict[str, Any]:
    """What a training leaves, done now; test images are met by confirming ones and teachers alone."""
    settings = plan.resolved(training, results)
    config = TrialConfig(**settings)
    record = {
        "name": training.name,
        "stage": training.stage,
        "row": training.row,
        "backbone": training.backbone,
        "seed": training.seed,
        "status": "FINISHED",
        "settings": settings,
        "config": dataclasses.asdict(config),
        "dataset": {"digest": bench.dataset.digest, "settings": dict(plan.dataset)},
        "machine": _machine(bench.device),
    }
    if training.stage == "teacher":
        (network,) = config.guides()
        assert isinstance(network, PretrainedConfig)
        return record | _teacher(network, bench, process)
    networks = [bench.prepare(network, process)[0] for network in config.pretrained()]
    record["teachers"] = {network.key: network.weights_digest for network in networks}
    checkpoints = bench.checkpoints_of("claim", f"{training.name}-{config.key(bench.dataset.digest)}")
    try:
        student, result = train_student(config, bench, process, checkpoints)
    except DivergedError as error:
        return record | {"status": "DIVERGED", "cause": str(error), "epoch": error.epoch}
    record["key"] = result.key
    record |= _metrics(result.history) | {"seconds": round(result.metrics["seconds"], 1)}
    if training.stage == "confirming":
        record["test"] = dataclasses.asdict(test_record(result.key, _right_on_test_images(student, config, bench)))
    if checkpoints is not None:
        checkpoints.clear()
    return record


def _teacher(network: PretrainedConfig, bench: Workbench, process: Watched) -> dict[str, Any]:
    started = time.perf_counter()
    found, _, _ = bench.prepare(network, process)
    return {
        "key": found.key,
        "teachers": {found.key: found.weights_digest},
        **_metrics(found.history),
        "seconds": round(time.perf_counter() - started, 1),
        "test": dataclasses.asdict(test_record(found.key, network_right_on_test_images(network, bench))),
    }


def _metrics(history: list[dict[str, float]]) -> dict[str, Any]:
    last = {name: value for name, value in history[-1].items() if name != "images_per_second"}
    return {
        "val_accuracy": last["val_accuracy"],
        "metrics": last,
        "val_accuracies": [metrics["val_accuracy"] for metrics in history],
    }


@torch.no_grad()
def _right_on_test_images(student: Network, config: TrialConfig, bench: Workbench) -> np.ndarray:
    """bool (N,), whether a student is right on each low-resolution test image."""
    student.eval()
    images = bench.test_images(config.low_res)
    return np.concatenate([(student(inputs).argmax(1) == labels).cpu().numpy() for inputs, labels in images.batches()])


def _bench(
    plan: Plan,
    store: Store,
    data: str | None,
    say: Say,
    device: torch.device,
    stop_asked: Callable[[], bool],
    checkpoint_seconds: float,
) -> Workbench:
    dataset = prepare_dataset(DatasetConfig(**plan.dataset, data=data), store, say)

    def checkpoints(key: str) -> Checkpoints:
        return Checkpoints(store, key, every_seconds=checkpoint_seconds, stop_asked=stop_asked)

    return Workbench(store, dataset.folder.name, {}, device, checkpoints=checkpoints)


def _machine(device: torch.device) -> dict[str, Any]:
    """What may make weights differ from those of another machine; not its name."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": _processor(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _outcome(record: dict[str, Any]) -> str:
    if record["status"] != "FINISHED":
        return f"{record['status']}: {record['cause']}"
    test = f", test {100 * record['test']['accuracy']:.2f}" if "test" in record else ""
    return f"validation {100 * record['val_accuracy']:.1f}{test}, {record['seconds']:.0f} s"
