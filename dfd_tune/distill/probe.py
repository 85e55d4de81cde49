"""How fast a training runs on this machine: a few of its steps, timed, with as many beside it as there will be.

The loops are those that trials and front ends are trained by; teachers are untrained networks, which cost the same.
Nothing is kept. Not for: what a whole search costs (forecast.py), nor for who asks (search/estimate.py).
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import mean
from typing import Literal

import torch

from dfd_tune.config import TrialConfig
from dfd_tune.data.degradation import resize
from dfd_tune.data.pairs import EvaluationImages, TrainingImages
from dfd_tune.data.prepared import Dataset, open_dataset
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill.arithmetic import compute
from dfd_tune.distill.distillation import (
    Distillation,
    TargetSource,
    adapters_for,
    outputs_of,
    reuse_classifier,
    terms_of,
)
from dfd_tune.distill.features import BankedFeatures, LiveFeatures, bank_identity, class_means
from dfd_tune.distill.frontends import content_loss, train_frontend
from dfd_tune.distill.imported import network_of
from dfd_tune.distill.networks import network_for
from dfd_tune.distill.process import EpochMetrics
from dfd_tune.distill.training import train_network
from dfd_tune.methods import METHODS
from dfd_tune.models import Network
from dfd_tune.models.super_resolution import build_frontend
from dfd_tune.own_backbones import run_those_of
from dfd_tune.parts import FrontendConfig, Guide, ImportedConfig, PretrainedConfig, Recipe
from dfd_tune.store import Store

ROUNDS = 2
MOST_BATCHES = 16
"""Of an epoch of the probe."""
EVALUATED = 500
"""Validation images, looked at after each epoch of the probe."""
START_SECONDS = 120.0
"""So long the processes wait for each other."""
HARMLESS = 1e-6
"""Learning rate and λ under which nothing that is not trained diverges."""

Look = Literal["bank", "live", "maps"]


@dataclass(frozen=True)
class Kind:
    """What the speed of a training depends on, beside images, machine and device."""

    backbone: str
    width: float
    batch_size: int
    precision: str
    workers: int
    threads: int
    """Of torch, in each worker."""
    method: str = ""
    """What is distilled; empty for plain training."""
    looks: tuple[tuple[str, Look], ...] = ()
    """Each teacher's backbone, or which file it came in, and how it is looked at."""
    mixed: bool = False
    """Whether images are."""
    example: TrialConfig | PretrainedConfig | None = field(default=None, compare=False, repr=False)
    """One of its trainings."""


@dataclass(frozen=True)
class FrontendKind:
    """Likewise of a front end's training."""

    kind: str
    size: float
    resolution: int
    batch_size: int
    content: str
    threads: int
    example: FrontendConfig | None = field(default=None, compare=False, repr=False)


def kind_of_trial(config: TrialConfig, banks: Mapping[str, object], dataset_digest: str, threads: int) -> Kind:
    """The kind of a student's training.

    Args:
        config: of the trial.
        banks: by teacher key, those that there are.
        dataset_digest: part of every key.
        threads: of each worker.
    """

    def look(guide: Guide) -> Look:
        if not METHODS[config.method].has_bank:
            return "maps"
        return "bank" if config.has_bank and guide.key(dataset_digest) in banks else "live"

    return Kind(
        backbone=config.backbone,
        width=config.width,
        batch_size=config.batch_size,
        precision=config.recipe.precision,
        workers=config.workers,
        threads=threads,
        method=config.method if config.distills else "",
        looks=tuple((_looker(guide), look(guide)) for guide in config.guides()),
        mixed=config.mixup > 0,
        example=config,
    )


def _looker(guide: Guide) -> str:
    return str(guide.file) if isinstance(guide, ImportedConfig) else guide.network.backbone


def kind_of_network(config: PretrainedConfig, threads: int) -> Kind:
    """The kind of a teacher's or base network's training: that of a plain student on one worker."""
    network, recipe = config.network, config.recipe
    return Kind(
        network.backbone, network.width, recipe.batch_size, recipe.precision, workers=1, threads=threads, example=config
    )


def kind_of_frontend(config: FrontendConfig, threads: int) -> FrontendKind:
    """The kind of a front end's training."""
    content = config.content
    looked_at = f"{content.network}" if isinstance(content, PretrainedConfig) else content or ""
    return FrontendKind(
        config.kind, config.size, config.camera.resolution, config.batch_size, looked_at, threads, example=config
    )


@dataclass(frozen=True)
class Timing:
    """How long a training takes for an image."""

    training: float
    """Seconds per training image and epoch, all workers of a trial together."""
    evaluation: float
    """Seconds per image that is only looked at."""


def probe(
    store: Store,
    dataset: Dataset,
    kinds: Sequence[tuple[Kind | FrontendKind, int]],
    device: str,
    seconds: float,
) -> list[Timing]:
    """Time each of `kinds`, in processes of their own.

    Args:
        store: where VGG-19's weights may be, and the texts of backbones are.
        dataset: prepared; its high-resolution images are trained on, which cost what low-resolution ones do.
        kinds: each with the number of workers that run at once.
        device: cpu or cuda.
        seconds: for each kind.
    """
    most = max((at_once for _, at_once in kinds), default=0)
    if not most:
        return []
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(most, timeout=START_SECONDS)
    with ProcessPoolExecutor(most, mp_context=context, initializer=_begin, initargs=(barrier,)) as processes:
        asked = [
            processes.submit(_measure_all, number, store, dataset.folder, list(kinds), device, seconds)
            for number in range(most)
        ]
        try:
            found = [future.result() for future in asked]
        except BaseException:
            barrier.abort()  # none waits for one that is gone
            raise
    timings = [list(chain(*of_kind)) for of_kind in zip(*found, strict=True)]
    return [Timing(mean(one.training for one in of), mean(one.evaluation for one in of)) for of in timings]


_meet: list[Barrier] = []
"""Of a process of the probe: where it waits for the others."""


def _begin(barrier: Barrier) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the asking process's, which ends this one
    _meet.append(barrier)


def _measure_all(
    number: int,
    store: Store,
    folder: Path,
    kinds: Sequence[tuple[Kind | FrontendKind, int]],
    device: str,
    seconds: float,
) -> list[list[Timing]]:
    """One process's part: the kinds of which more than `number` run at once, each as often as there are rounds."""
    found: list[list[Timing]] = [[] for _ in kinds]
    try:
        compute(deterministic=False)
        dataset = open_dataset(folder)
        run_those_of(store)
        # In turns, so that what else the machine does meanwhile falls upon all kinds alike.
        for _ in range(ROUNDS):
            for place, (kind, at_once) in enumerate(kinds):
                torch.set_num_threads(kind.threads)
                _meet[0].wait()
                if number < at_once:
                    known = found[place][-1] if found[place] else None
                    found[place].append(measure(kind, store, dataset, torch.device(device), seconds / ROUNDS, known))
    except BaseException:
        _meet[0].abort()
        raise
    return found


def measure(
    kind: Kind | FrontendKind,
    store: Store,
    dataset: Dataset,
    device: torch.device,
    seconds: float,
    known: Timing | None = None,
) -> Timing:
    """Time one kind in this process, for about so many seconds after a step that warms it up.

    Args:
        kind: of training.
        store: where VGG-19's weights, and teacher files, may be.
        dataset: prepared.
        device: where it runs.
        seconds: about so long.
        known: what was found before in this process, which is warm then.
    """
    if isinstance(kind, FrontendKind):
        return _measure_frontend(kind, store, dataset, device, seconds)
    share = math.ceil(kind.batch_size / kind.workers)
    if known is None:
        found = _timed(kind, share, store, dataset, device, seconds=0.0)
    else:
        found = Timing(known.training * kind.workers, known.evaluation)
    if known is not None or share * found.training < seconds:
        batches = int(min(MOST_BATCHES, max(1.0, seconds / 4 / (share * found.training))))
        found = _timed(kind, batches * share, store, dataset, device, seconds)
    return Timing(found.training / kind.workers, found.evaluation)


class _TimeIsUpError(Exception):
    """Ends the training of a probe."""


class _Stopwatch:
    """A process (process.py) that ends the training at an epoch's end once time is up, with two behind it at least."""

    rank, world_size = 0, 1

    def __init__(self, device: torch.device, seconds: float):
        self.device = device
        self.epochs: list[tuple[float, float]] = []
        """When each ended, in seconds, and its training images per second."""
        self._seconds = seconds

    def report(self, metrics: Mapping[str, float]) -> None:
        """Note the time."""
        self.epochs.append((time.perf_counter(), metrics["images_per_second"]))
        if len(self.epochs) > 1 and self.epochs[-1][0] - self.epochs[0][0] >= self._seconds:
            raise _TimeIsUpError

    def resumed(self, history: list[EpochMetrics]) -> None:
        """Never: nothing is resumed."""


def _timed(kind: Kind, count: int, store: Store, dataset: Dataset, device: torch.device, seconds: float) -> Timing:
    """Train on `count` images, epoch after epoch; the first, which warms up, does not count."""
    config = kind.example
    assert config is not None
    low, labels = dataset.train.images[:count], dataset.train.labels[:count]
    space = ViewSpace(config.crop_padding, config.flip)
    scale = [torch.tensor(values, device=device) for values in (dataset.mean, dataset.std)]
    images = TrainingImages(torch.tensor(low).to(device), torch.tensor(labels).to(device), space, 0, *scale)
    held_out = dataset.validation
    validation = EvaluationImages(
        torch.tensor(held_out.images[:EVALUATED]).to(device),
        torch.tensor(held_out.labels[:EVALUATED]).to(device),
        *scale,
    )
    student = network_for(dataset, config.network, 0).to(device)
    watch = _Stopwatch(device, seconds)
    with contextlib.suppress(_TimeIsUpError):
        train_network(
            student,
            images,
            validation,
            recipe=_harmless(config.recipe, math.ceil(kind.batch_size / kind.workers)),
            process=watch,
            distillation=_distillation(kind, student, images, store, dataset),
        )
    took = [ended - before for (before, _), (ended, _) in zip(watch.epochs, watch.epochs[1:], strict=False)]
    training = mean(1 / speed for _, speed in watch.epochs[1:])
    evaluation = max(0.0, mean(took) - training * len(images)) / len(validation.labels)
    return Timing(training, evaluation)


def _harmless(recipe: Recipe, batch_size: int) -> Recipe:
    return replace(
        recipe,
        epochs=10_000,
        batch_size=batch_size,
        learning_rate=HARMLESS,
        schedule="constant",
        weight_decay=0.0,
        evaluate_every=1,
    )


def _distillation(
    kind: Kind, student: Network, images: TrainingImages, store: Store, dataset: Dataset
) -> Distillation | None:
    config = kind.example
    if not kind.looks or not isinstance(config, TrialConfig):
        return None
    device = images.images.device
    teachers, targets = [], []
    for guide, (_, look) in zip(config.guides(), kind.looks, strict=True):
        if isinstance(guide, ImportedConfig):
            teacher, _ = network_of(store, guide.file, dataset, device)
        else:
            teacher = network_for(dataset, guide.network, 1).eval().requires_grad_(False)
        teacher.to(device).to(memory_format=torch.channels_last)
        teachers.append(teacher)
        live = LiveFeatures(teacher, images, guide.precision)
        targets.append(
            outputs_of(config, live, features=partial(_features, look, live), class_means=partial(class_means, live))
        )
    if METHODS[config.method].reuses_classifier:
        reuse_classifier(student, teachers[0])
    return Distillation(
        lambda_=HARMLESS,
        terms=terms_of(config),
        targets=tuple(targets),
        layer=config.hint_layer,
        adapters=adapters_for(config, student, teachers),
    )


def _features(look: Look, live: LiveFeatures) -> TargetSource:
    if look != "bank":
        return live
    identity = bank_identity("views", live, weights="", dataset="", low_res=None, epochs=1)
    # A bank's rows are gathered alike, whatever they hold; this one takes a row's memory.
    empty = torch.zeros(identity.feature_dim, dtype=torch.float16, device=live.images.images.device)
    return BankedFeatures(identity, empty.expand(identity.shape))


def _measure_frontend(
    kind: FrontendKind, store: Store, dataset: Dataset, device: torch.device, seconds: float
) -> Timing:
    """Two epochs on one batch, to warm up, then on as many as there is time for; of SRGAN, one with its adversary."""
    config = kind.example
    assert config is not None
    config = replace(config, epochs=2, learning_rate=HARMLESS)
    content = None
    if isinstance(config.content, PretrainedConfig):
        content = network_for(dataset, config.content.network, 1).eval().requires_grad_(False)
    loss = content_loss(store, config, dataset, content, device)

    def timed(count: int) -> float:
        images = torch.tensor(dataset.train.images[:count])
        low, high = (
            resize(images, side, config.camera.downsample).numpy()
            for side in (config.camera.resolution, config.resolution)
        )
        network = build_frontend(config.kind, channels=dataset.channels, size=config.size, seed=0).to(device)
        process = _Stopwatch(device, math.inf)
        began = time.perf_counter()
        train_frontend(network, config, low, high, loss, process, None)
        return (time.perf_counter() - began) / config.epochs / len(images)

    timed(config.batch_size)
    an_image = timed(config.batch_size)
    batches = int(min(MOST_BATCHES, max(1.0, seconds / 2 / (config.batch_size * an_image))))
    return Timing(timed(batches * config.batch_size), 0.0)
