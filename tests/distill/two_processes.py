"""Two or more spawned processes, and what they do in the tests of this folder. Not tests."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from tiny import DEVICE, bits, network, trial, without_times, workbench

from dfd_tune.distill.checkpoints import Checkpoints
from dfd_tune.distill.distillation import Distillation, adapters_for, outputs_of, reuse_classifier, terms_of
from dfd_tune.distill.features import LiveFeatures, class_means
from dfd_tune.distill.process import Process, SingleProcess
from dfd_tune.distill.training import train_network
from dfd_tune.methods import METHODS
from dfd_tune.parts import FrontendConfig, Recipe
from dfd_tune.store import FolderStore

_together: Any = None
"""A barrier that all processes reach before any starts its task."""


@contextlib.contextmanager
def group(size: int) -> Iterator[Callable[..., list[Any]]]:
    """Gives a function that calls `task(number, *arguments)` in all processes, with numbers from 0, at once."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(size, spawn, _initialise, (spawn.Barrier(size),)) as pool:

        def call(task: Callable[..., Any], *arguments: Any) -> list[Any]:
            futures = [pool.submit(_at_once, task, number, *arguments) for number in range(size)]
            return [future.result(timeout=120) for future in futures]

        yield call


def _initialise(barrier: Any) -> None:
    global _together
    _together = barrier
    torch.set_num_threads(1)


def _at_once(task: Callable[..., Any], number: int, *arguments: Any) -> Any:
    _together.wait(timeout=120)
    return task(number, *arguments)


@dataclass(frozen=True)
class Rank:
    """One of several processes that train together."""

    rank: int
    world_size: int = 2
    device: torch.device = DEVICE
    reported: list[dict[str, float]] = field(default_factory=list)

    restored: list[dict[str, float]] = field(default_factory=list)

    def report(self, metrics: Mapping[str, float]) -> None:
        self.reported.append(dict(metrics))

    def resumed(self, history: list[dict[str, float]]) -> None:
        self.restored.extend(history)


def mostly_of_one_class(labels: torch.Tensor) -> torch.Tensor:
    """The labels, four of five in a row made class 0."""
    place = torch.arange(len(labels), device=labels.device)
    return torch.where(place % 5 == 0, labels, torch.zeros_like(labels))


def prepare_teacher(_number: int, root: Path) -> tuple[bool, str]:
    """Whether this process trained the teacher, and the digest of the teacher it got."""
    found, trained, _ = workbench(FolderStore(root)).prepare(trial(teacher_epochs=3).teacher(), SingleProcess())
    return trained, found.weights_digest


def prepare_frontend(_number: int, root: Path, config: FrontendConfig) -> tuple[bool, dict[str, bytes]]:
    """Whether this process trained the front end, and the weights of the one it got."""
    found, trained = workbench(FolderStore(root)).prepare_frontend(config, SingleProcess())
    return trained, bits(found.network)


def train_distributed(rank: int, root: Path, meeting: Path, *arguments: Any) -> dict[str, Any]:
    """`train_distilled` as one of two ranks, which meet by the file `meeting`."""
    torch.distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=2)
    try:
        return train_distilled(Rank(rank), root, *arguments)
    finally:
        torch.distributed.destroy_process_group()


class KilledError(Exception):
    """In the place of a kill: what follows it is not run."""


def train_and_resume(rank: int, size: int, root: Path, meeting: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """`train_distilled` with dropout as one of `size` ranks: undisturbed, and killed after two epochs and resumed."""
    torch.distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=size)
    process = partial(Rank, rank, size)
    train = partial(train_distilled, root=root, recipe=recipe, method="fitnets", dropout=0.5)

    def kept() -> Checkpoints:
        # Only rank 0 decides, so the others may think what they like.
        return Checkpoints(FolderStore(root), "trials-key", every_seconds=0.0 if rank == 0 else 1e9)

    try:
        undisturbed = train(process())
        with contextlib.suppress(KilledError):
            train(KilledAfter(rank, size, epochs=2), checkpoints=kept())
        return [undisturbed, train(process(), checkpoints=kept())]
    finally:
        torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class KilledAfter(Rank):
    """A process that is killed when so many epochs are done."""

    epochs: int = 1

    def report(self, metrics: Mapping[str, float]) -> None:
        if metrics["epoch"] == self.epochs:
            raise KilledError


def train_distilled(
    process: Process,
    root: Path,
    recipe: Recipe,
    method: str = "dfd",
    backbone: str = "alexnet",
    dropout: float = 0.0,
    checkpoints: Checkpoints | None = None,
    unbalanced: bool = False,
) -> dict[str, Any]:
    """Train an AlexNet by an untrained teacher; plain values, for they may come from another process."""
    bench, config = workbench(FolderStore(root)), trial(lambda_=2.0, method=method)
    images = bench.images_for(config)
    if unbalanced:
        images = dataclasses.replace(images, labels=mostly_of_one_class(images.labels))
    student = network(seed=1, dropout=dropout)
    teacher = network(seed=2, backbone=backbone).eval().requires_grad_(False)
    live = LiveFeatures(teacher, bench.images_for(config.teacher()), "float32")
    adapters = adapters_for(config, student, [teacher])
    if METHODS[method].reuses_classifier:
        reuse_classifier(student, teacher)
    history = train_network(
        student,
        images,
        bench.validation_images(config.low_res),
        recipe=recipe,
        process=process,
        checkpoints=checkpoints,
        distillation=Distillation(
            config.lambda_,
            terms_of(config),
            (outputs_of(config, live, features=lambda: live, class_means=lambda: class_means(live)),),
            layer=config.hint_layer,
            adapters=adapters,
        ),
    )
    trained = torch.nn.ModuleDict({"student": student, "adapter": adapters[0][0]})
    return {
        "history": without_times(history),
        "reported": without_times(process.reported),
        "restored": without_times(process.restored),
        "weights": {name: tensor.numpy() for name, tensor in trained.state_dict().items()},
    }
