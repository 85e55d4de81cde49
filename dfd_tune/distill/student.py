"""A student's whole life: initial weights, training, its result under its trial key.

Not for: the loop itself (training.py) or choosing among students (search/conclude.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_tune.config import PretrainedConfig, TrialConfig
from dfd_tune.data.prepared import Dataset
from dfd_tune.distill.features import LiveMaps
from dfd_tune.distill.methods import COMPARED, Distillation, LogitTargets, TargetSource, adapters_for, loss_of
from dfd_tune.distill.networks import load_weights, network_for
from dfd_tune.distill.pretrained import Pretrained
from dfd_tune.distill.process import Process
from dfd_tune.distill.training import train_network
from dfd_tune.distill.workbench import Workbench
from dfd_tune.models import Network
from dfd_tune.models.deployed import ModelCard, save_student
from dfd_tune.store import Store, read_json, write_json

STUDENT_FILE, RESULT_FILE = "student.safetensors", "result.json"


@dataclass(frozen=True)
class TrialResult:
    """A finished trial, as it lies in the store under its key."""

    key: str
    config: dict[str, Any]
    dataset: str
    teacher: str | None
    metrics: dict[str, float]
    """Of the last epoch, and `seconds` of the whole training."""
    history: list[dict[str, float]]


def train_student(
    config: TrialConfig,
    workbench: Workbench,
    process: Process,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Network, TrialResult]:
    """Train the student of `config`; the same call in one process or in each of several workers.

    Raises:
        DivergedError: the loss did not stay finite.
    """
    dataset = workbench.dataset
    started = clock()
    student = initial_student(config, workbench).to(process.device)
    history = train_network(
        student,
        workbench.images_for(config),
        workbench.validation_images(config.low_res),
        recipe=config.recipe,
        process=process,
        distillation=_distillation(config, student, workbench),
    )
    metrics = {name: value for name, value in history[-1].items() if name != "epoch"}
    metrics["seconds"] = clock() - started
    result = TrialResult(
        key=config.key(dataset.digest),
        config=dataclasses.asdict(config),
        dataset=dataset.digest,
        teacher=teacher_key(config, dataset.digest),
        metrics=metrics,
        history=history,
    )
    return student, result


def initial_student(config: TrialConfig, workbench: Workbench) -> Network:
    """A student with the weights it starts from: random by its seed, its base network's, or its teacher's."""
    student = network_for(workbench.dataset, config.network, config.seed)
    if config.student_start != "scratch":
        source = config.teacher() if config.student_start == "teacher" else config.base()
        start: Pretrained = workbench.pretrained(source)
        load_weights(student, start.weights)
    return student


def save_result(student: Network, result: TrialResult, config: TrialConfig, bench: Workbench) -> None:
    """Publish a finished trial: weights (a front end's too) and result appear together, or not at all."""
    frontend = None if config.low_res.frontend is None else bench.frontend(config.low_res.frontend).network
    with bench.store.publish("trials", result.key) as folder:
        save_student(folder / STUDENT_FILE, student, _card(config, bench.dataset, result), frontend)
        write_json(folder / RESULT_FILE, dataclasses.asdict(result))


def find_result(store: Store, key: str) -> TrialResult | None:
    """The finished trial of that key; None if the store has none."""
    value = read_json(store.path("trials", key, RESULT_FILE))
    return None if value is None else TrialResult(**value)


def student_file(store: Store, key: str) -> Path:
    """Where a finished trial's student lies: a file that `predict` takes."""
    return store.path("trials", key, STUDENT_FILE)


def _distillation(config: TrialConfig, student: Network, bench: Workbench) -> Distillation | None:
    if not config.distills:
        return None
    guides = config.guides()
    teachers = [bench.pretrained(guide).network for guide in guides]
    return Distillation(
        lambda_=config.lambda_,
        compare=loss_of(config),
        targets=tuple(_target(config, guide, bench) for guide in guides),
        output=COMPARED[config.method],
        layer=config.hint_layer,
        adapters=adapters_for(config, student, teachers),
    )


def _target(config: TrialConfig, guide: PretrainedConfig, bench: Workbench) -> TargetSource:
    """What the trial's method compares with of one teacher."""
    output = COMPARED[config.method]
    if output == "maps":
        return LiveMaps(bench.live(guide), config.hint_layer)
    features = bench.features(guide)
    return LogitTargets(features, bench.pretrained(guide).network) if output == "logits" else features


def teacher_key(config: TrialConfig, dataset_digest: str) -> str | None:
    """Key of the first teacher that the student was distilled from, or of the one whose weights it started from."""
    used = [*config.guides(), *([config.teacher()] if config.student_start == "teacher" else [])]
    return used[0].key(dataset_digest) if used else None


def _card(config: TrialConfig, dataset: Dataset, result: TrialResult) -> ModelCard:
    return ModelCard(
        backbone=config.backbone,
        width=config.width,
        dropout=config.dropout,
        channels=dataset.channels,
        image_size=dataset.image_size,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        resolution=config.resolution,
        downsample=config.downsample,
        upsample=config.upsample,
        frontend=None if config.frontend == "none" else {"kind": config.frontend, "size": config.frontend_size},
        extras={"trial_key": result.key, "config": result.config, "val_accuracy": result.metrics["val_accuracy"]},
    )
