"""A student's whole life: initial weights, training, its result under its trial key.

Not for: the loop itself (training.py) or choosing among students (search/conclude.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dfd_tune.backbones import is_pinned
from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import Dataset
from dfd_tune.distill.checkpoints import Checkpoints
from dfd_tune.distill.distillation import Distillation, adapters_for, outputs_of, reuse_classifier, terms_of
from dfd_tune.distill.networks import load_weights, network_for
from dfd_tune.distill.pretrained import Pretrained
from dfd_tune.distill.process import Process
from dfd_tune.distill.training import evaluate, train_network, validation_metrics
from dfd_tune.distill.workbench import Workbench
from dfd_tune.methods import METHODS
from dfd_tune.models import Network
from dfd_tune.models.deployed import ModelCard, load_deployed, save_student
from dfd_tune.own_backbones import text_of
from dfd_tune.store import RESULT_FILE, STUDENT_FILE, BucketStore, Store, write_json


@dataclass(frozen=True)
class TrialResult:
    """A finished trial, as it lies in the store under its key."""

    key: str
    config: dict[str, Any]
    dataset: str
    teacher: str | None
    metrics: dict[str, float]
    """Of the last epoch, and `seconds` of the whole training, in all attempts together."""
    history: list[dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """As it lies in the store."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrialResult:
        """The result that `to_json` made into `value`.

        Raises:
            ValueError: it is none.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if value.keys() != names or not isinstance(value["metrics"], dict) or not isinstance(value["history"], list):
            raise ValueError(f"a result has {', '.join(sorted(names))}, not {', '.join(sorted(value))}")
        return cls(**value)


def train_student(
    config: TrialConfig,
    workbench: Workbench,
    process: Process,
    checkpoints: Checkpoints | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Network, TrialResult]:
    """Train the student of `config`; the same call in one process or in each of several workers.

    Args:
        config: what to train.
        workbench: of the dataset.
        process: one of those that train the student together.
        checkpoints: of this trial, which goes on from the latest; `save_result` takes them too.
        clock: seconds that only grow.

    Raises:
        DivergedError: the loss did not stay finite.
        OSError: a checkpoint can't be written, or not be read just now.
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
        checkpoints=checkpoints,
        clock=clock,
    )
    metrics = {name: value for name, value in history[-1].items() if name != "epoch"}
    earlier = 0.0 if checkpoints is None else checkpoints.earlier_seconds
    metrics["seconds"] = earlier + clock() - started
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
    """A student with the weights it starts from: random by its seed, its base network's, or its teacher's.

    Where its method reuses the teacher's classifier, it has that, without gradients.
    """
    student = network_for(workbench.dataset, config.network, config.seed)
    source = config.start()
    if source is not None:
        start: Pretrained = workbench.pretrained(source)
        load_weights(student, start.weights)
    if config.distills and METHODS[config.method].reuses_classifier:
        (guide,) = config.guides()
        reuse_classifier(student, workbench.pretrained(guide).network)
    return student


def save_result(
    student: Network,
    result: TrialResult,
    config: TrialConfig,
    bench: Workbench,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Publish a finished trial: weights (a front end's too) and result appear together, or not at all.

    Then its checkpoints, if any were kept, are removed.
    """
    frontend = None if config.low_res.frontend is None else bench.frontend(config.low_res.frontend).network
    if find_result(bench.store, result.key) is None:
        bench.store.set_aside("trials", result.key)  # what may lie there is no result, however whole
    with bench.store.publish("trials", result.key) as folder:
        save_student(folder / STUDENT_FILE, student, _card(config, bench.dataset, result), frontend)
        write_json(folder / RESULT_FILE, result.to_json())
        if not student_there(bench.store, result.key):
            bench.store.set_aside("trials", result.key)  # a result whose student was let go of, whole as it is
    if checkpoints is not None:
        checkpoints.clear()


def find_result(store: Store, key: str, say: Callable[[str], None] | None = None) -> TrialResult | None:
    """The finished trial of that key, whose student may be gone; None if the store has none.

    Args:
        store: where trials are kept.
        key: of the trial.
        say: takes a line where there is one that can't be used.

    Raises:
        OSError: the disk can't be read just now.
    """
    value = store.facts("trials", key, RESULT_FILE)
    try:
        if value is not None:
            return TrialResult.from_json(value)
    except ValueError:
        pass
    if say is not None and store.is_there("trials", key):
        say(f"The result of trial {key} is damaged and counts as absent.")
    return None


def measured_anew(result: TrialResult, config: TrialConfig, bench: Workbench) -> TrialResult:
    """A result with all that is said of validation images today, by its student, which lies in the store.

    What the store holds stays as it is, and so does the history, but for its last epoch.
    """
    network = load_deployed(student_file(bench.store, result.key))[0].network.to(bench.device)
    found = validation_metrics(evaluate(network, bench.validation_images(config.low_res)))
    history = [*result.history[:-1], found | result.history[-1]]
    return dataclasses.replace(result, metrics=found | result.metrics, history=history)


def student_there(store: Store, key: str, *, patience: float = 0.0) -> bool:
    """Whether a finished trial's student lies in the store: what was written, in a folder; in a bucket, its size.

    Args:
        store: where trials are kept.
        key: of the trial.
        patience: seconds to wait for the trial, if another node has just published it.

    Raises:
        OSError: the disk can't be read just now.
    """
    if not store.seen("trials", key, patience=patience) or not store.has("trials", key, STUDENT_FILE):
        return False
    # Weights with a flipped bit would be tested, and deployed, as well as any.
    return isinstance(store, BucketStore) or store.content("trials", key, STUDENT_FILE) is not None


def student_file(store: Store, key: str) -> Path:
    """Where a finished trial's student lies: a file that `predict` takes; of a bucket, this node's copy."""
    return store.here("trials", key) / STUDENT_FILE


def _distillation(config: TrialConfig, student: Network, bench: Workbench) -> Distillation | None:
    if not config.distills:
        return None
    guides = config.guides()
    teachers = [bench.pretrained(guide).network for guide in guides]
    return Distillation(
        lambda_=config.lambda_,
        terms=terms_of(config),
        targets=tuple(
            outputs_of(
                config,
                bench.live(guide),
                features=partial(bench.features if config.has_bank else bench.live, guide),
                class_means=partial(bench.class_means, guide),
            )
            for guide in guides
        ),
        layer=config.hint_layer,
        adapters=adapters_for(config, student, teachers),
    )


def teacher_key(config: TrialConfig, dataset_digest: str) -> str | None:
    """Key of the first network that the student was distilled from, or of the teacher whose weights it started from."""
    used = [*config.guides(), *([config.teacher()] if config.student_start == "teacher" else [])]
    return used[0].key(dataset_digest) if used else None


def _card(config: TrialConfig, dataset: Dataset, result: TrialResult) -> ModelCard:
    return ModelCard(
        backbone=config.backbone,
        width=config.width,
        dropout=config.dropout,
        batch_norm=config.batch_norm,
        channels=dataset.channels,
        image_size=dataset.image_size,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        resolution=config.resolution,
        downsample=config.downsample,
        upsample=config.upsample,
        source=text_of(config.backbone) if is_pinned(config.backbone) else None,
        frontend=None if config.frontend == "none" else {"kind": config.frontend, "size": config.frontend_size},
        extras={"trial_key": result.key, "config": result.config, "val_accuracy": result.metrics["val_accuracy"]},
    )
