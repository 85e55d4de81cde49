"""Searches with made-up results, for the tests of reports: real configurations, numbers chosen by the test."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dfd_tune.analysis.confirmation import Anew, anew
from dfd_tune.axes import grid_points, parse_axis
from dfd_tune.config import TrialConfig
from dfd_tune.confirm import Confirm
from dfd_tune.data.recipes import DIGITS, PAPER, SVHN
from dfd_tune.record import BestRecord, SearchRecord, Stage, TeacherRecord, TrialRecord, test_record
from dfd_tune.settings import Request, resolve
from dfd_tune.space import SearchSpace

DIGEST = "0123456789abcdef"
RECIPES = {"digits": DIGITS, "cifar10": PAPER, "svhn": SVHN}
FACTS = {
    "digits": {"image_size": 8, "train_images": 1149, "validation_images": 288, "test_images": 360, "channels": 1},
    "cifar10": {
        "image_size": 32,
        "train_images": 45000,
        "validation_images": 5000,
        "test_images": 10000,
        "channels": 3,
    },
    "svhn": {"image_size": 32, "train_images": 65932, "validation_images": 7325, "test_images": 26032, "channels": 3},
}


def make_request(
    explore: Mapping[str, Any], sampler: Any = "grid", trials: int | None = None, *, dataset: str = "digits"
) -> Request:
    """The dataset's recipe, and these axes as they would stand in a YAML file."""
    axes = {}
    for name, value in explore.items():
        axis, problems = parse_axis(name, value, sampler, axes)
        assert not problems
        axes[name] = axis
    space = SearchSpace("made_up", "", sampler, axes, {}, trials)
    return resolve(space, dataset=dataset, data=None, recipe={**RECIPES[dataset], "precision": "float32"})


def make_trial(
    request: Request,
    point: Mapping[str, Any],
    accuracy: float,
    *,
    val_loss: float = 0.5,
    status: Any = "FINISHED",
    history: Sequence[float] = (),
) -> TrialRecord:
    """A trial with this validation accuracy; `history` gives that of each epoch."""
    return trial_of(request.trial(point), accuracy, val_loss=val_loss, status=status, history=history)


def trial_of(
    config: TrialConfig,
    accuracy: float,
    *,
    val_loss: float = 0.5,
    status: Any = "FINISHED",
    history: Sequence[float] = (),
    stage: Stage = "search",
) -> TrialRecord:
    """The record of a trial with this configuration and validation accuracy."""
    metrics = {
        "loss": 0.4,
        "train_accuracy": 0.97,
        "val_accuracy": accuracy,
        "val_loss": val_loss,
        "seconds": 12.3,
    }
    return TrialRecord(
        key=config.key(DIGEST),
        status=status,
        stage=stage,
        config=dataclasses.asdict(config),
        teacher=config.teacher().key(DIGEST) if config.needs_teacher else None,
        metrics=metrics if status == "FINISHED" else {},
        history=[{"epoch": float(epoch), "val_accuracy": value} for epoch, value in enumerate(history, 1)],
        error="Traceback: boom" if status == "FAILED" else None,
    )


def grid_trials(
    request: Request,
    accuracy: Callable[[Mapping[str, Any]], float],
    history: Callable[[Mapping[str, Any]], Sequence[float]] = lambda point: (),
) -> list[TrialRecord]:
    """A finished trial at each point of a grid, with the accuracy that the test wants there.

    Points that differ in what cannot matter are one trial, that of the first, as in a search.
    """
    trials: dict[str, TrialRecord] = {}
    for point in grid_points(request.explore):
        trial = make_trial(request, point, accuracy(point), history=history(point))
        trials.setdefault(trial.key, trial)
    return list(trials.values())


def make_search(request: Request, teachers: Mapping[str, float], **changes: Any) -> SearchRecord:
    """The record of a search; `teachers` gives each backbone's accuracy on high-resolution validation images."""
    records = [
        TeacherRecord(
            key=dataclasses.replace(request.trial(_first_point(request)), backbone=backbone).teacher().key(DIGEST),
            role="teacher",
            backbone=backbone,
            width=0.25,
            val_accuracy=accuracy,
            test_accuracy=accuracy - 0.01,
        )
        for backbone, accuracy in teachers.items()
    ]
    name = request.dataset.dataset
    record = SearchRecord(
        search=f"made_up-{name}",
        space="made_up",
        explored={name: axis.as_json() for name, axis in request.explore.items()},
        dataset={
            **dataclasses.asdict(request.dataset),
            "digest": DIGEST,
            "classes": [f"class {number}" for number in range(10)],
            **FACTS[name],
            "prepared": f"{name}-{DIGEST}",
        },
        settings=dict(request.settings),
        sampler=request.space.sampler,
        num_trials=0,
        seed=0,
        planned=[],
        teachers=records,
    )
    return dataclasses.replace(record, **changes)


def confirmed(
    search: SearchRecord,
    trials: Sequence[TrialRecord],
    right: Callable[[Mapping[str, Any]], np.ndarray] | None = None,
    *,
    accuracy: Callable[[Mapping[str, Any]], float] = lambda config: 0.9 + 0.01 * (config["lambda_"] > 0),
    failed: Callable[[Mapping[str, Any]], bool] = lambda config: False,
    **confirm: Any,
) -> tuple[SearchRecord, list[TrialRecord]]:
    """The search with what it chose trained anew, as a launch goes about it, and all of its trials.

    Args:
        search: all of whose own trials have ended.
        trials: these.
        right: which test images each student of an arm is right on, bool (N,); without it none is tested.
        accuracy: the validation accuracy of a trial with these settings; likewise `failed`, whether it FAILED.
        failed: see `accuracy`.
        confirm: settings of `Confirm`.
    """
    search, known = dataclasses.replace(search, confirm=Confirm(**confirm)), list(trials)
    while new := to_train(found := anew(search, known), known):
        for config, stage in new:
            status = "FAILED" if failed(dataclasses.asdict(config)) else "FINISHED"
            known.append(trial_of(config, accuracy(dataclasses.asdict(config)), status=status, stage=stage))
    search = dataclasses.replace(search, confirmation=found.cells, num_trials=len(trials))
    if right is None:
        return search, known
    return with_each_image(search, [trial for trial in known if trial.key in found.arms], right), known


def to_train(found: Anew, trials: Sequence[TrialRecord]) -> list[tuple[TrialConfig, Stage]]:
    """What is to be trained anew and is not among the trials, each with its stage."""
    known = {trial.key for trial in trials}
    stages: list[tuple[Stage, Mapping[str, TrialConfig]]] = [("control", found.tuning), ("confirm", found.arms)]
    return [(config, stage) for stage, some in stages for key, config in some.items() if key not in known]


def make_best(trial: TrialRecord, **changes: Any) -> BestRecord:
    """The record of a best student: `trial`, with 94 % on test images where plain training has 90 %."""
    best = BestRecord(
        key=trial.key,
        config=trial.config,
        val_accuracy=trial.metrics["val_accuracy"],
        test_accuracy=0.94,
        teacher=trial.teacher,
        base_key="b",
        base_test_accuracy=0.90,
        model=None,
    )
    return dataclasses.replace(best, **changes)


def with_tests(
    search: SearchRecord, trials: Sequence[TrialRecord], accuracy: Callable[[Mapping[str, Any]], float]
) -> SearchRecord:
    """The search, concluded: every finished trial tested, with the accuracy that the test wants there, and no more.

    So are searches whose tests are not at hand image by image; those of a launch are (`with_each_image`).
    """
    tested = {trial.key: accuracy(trial.config) for trial in trials if trial.status == "FINISHED"}
    return dataclasses.replace(search, tested=tested, num_trials=search.num_trials or len(trials))


def with_each_image(
    search: SearchRecord, trials: Sequence[TrialRecord], right: Callable[[Mapping[str, Any]], np.ndarray]
) -> SearchRecord:
    """The search, concluded: of every finished trial the record that a launch keeps of it, with each image that the
    test wants right, bool (N,)."""
    records = [test_record(trial.key, right(trial.config)) for trial in trials if trial.status == "FINISHED"]
    tested = {record.key: record.accuracy for record in records}
    tests = {record.key: record for record in records}
    planned = search.num_trials or len(trials)
    return dataclasses.replace(search, tested=tested, tests=search.tests | tests, num_trials=planned)


def with_teachers_images(search: SearchRecord, right: np.ndarray) -> SearchRecord:
    """The search, its teachers tested, with these images right, bool (N,)."""
    records = [test_record(teacher.key, right) for teacher in search.teachers]
    teachers = [
        dataclasses.replace(teacher, test_accuracy=record.accuracy)
        for teacher, record in zip(search.teachers, records, strict=True)
    ]
    return dataclasses.replace(search, teachers=teachers, tests=search.tests | {one.key: one for one in records})


def students(
    gain: float, images: int = 360, *, spread: float = 0.01, plain: float = 0.7
) -> Callable[[Mapping[str, Any]], np.ndarray]:
    """Made-up students for `with_each_image`: right on `plain` of the images, with λ > 0 on `gain` more, give or take.

    Images differ in difficulty, seeds in their luck; the same settings always give the same answer.
    """
    hard = np.random.default_rng(1).uniform(-0.25, 0.25, images)

    def right(config: Mapping[str, Any]) -> np.ndarray:
        draw = np.random.default_rng([config["seed"], int(10 * config["lambda_"]), len(config["backbone"])])
        chance = plain + hard + (gain + spread * draw.standard_normal()) * (config["lambda_"] > 0)
        return draw.random(images) < chance

    return right


def _first_point(request: Request) -> dict[str, Any]:
    return {name: axis.values[0] if hasattr(axis, "values") else axis.low for name, axis in request.explore.items()}


REQUEST = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1]})
"""Two backbones, plain and distilled: what the fixtures `trials` and `search` are of."""
TEACHERS = {"resnet18": 0.99, "vgg16": 0.97}
ACCURACIES = {("resnet18", 0.0): 0.90, ("resnet18", 1.0): 0.92, ("vgg16", 0.0): 0.91, ("vgg16", 1.0): 0.95}
