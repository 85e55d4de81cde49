"""Searches with made-up results, for the tests of reports: real configurations, numbers chosen by the test."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dfd_tune.data.recipes import DIGITS
from dfd_tune.record import SearchRecord, TeacherRecord, TrialRecord
from dfd_tune.settings import Request, resolve
from dfd_tune.space import SearchSpace, grid_points, parse_axis

DIGEST = "0123456789abcdef"


def make_request(explore: Mapping[str, Any], sampler: Any = "grid", trials: int | None = None) -> Request:
    """The digits' recipe, and these axes as they would stand in a YAML file."""
    axes = {}
    for name, value in explore.items():
        axis, problems = parse_axis(name, value, sampler)
        assert not problems
        axes[name] = axis
    return resolve(SearchSpace("made_up", "", sampler, axes, {}, trials), dataset="digits", data=None, recipe=DIGITS)


def make_trial(
    request: Request, point: Mapping[str, Any], accuracy: float, *, val_loss: float = 0.5, status: Any = "FINISHED"
) -> TrialRecord:
    config = request.trial(point)
    metrics = {
        "epoch": 20.0,
        "loss": 0.4,
        "train_accuracy": 0.97,
        "val_accuracy": accuracy,
        "val_loss": val_loss,
        "seconds": 12.3,
    }
    return TrialRecord(
        key=config.key(DIGEST),
        status=status,
        config=dataclasses.asdict(config),
        teacher=config.teacher().key(DIGEST) if config.needs_teacher else None,
        metrics=metrics if status == "FINISHED" else {},
        error="Traceback: boom" if status == "FAILED" else None,
    )


def grid_trials(request: Request, accuracy: Callable[[Mapping[str, Any]], float]) -> list[TrialRecord]:
    """A finished trial at each point of a grid, with the accuracy that the test wants there."""
    return [make_trial(request, point, accuracy(point)) for point in grid_points(request.explore)]


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
    record = SearchRecord(
        search="made_up-digits",
        space="made_up",
        explored={name: axis.as_json() for name, axis in request.explore.items()},
        dataset={
            "dataset": "digits",
            "digest": DIGEST,
            "image_size": 8,
            "train_images": 1149,
            "validation_images": 288,
            "test_images": 360,
        },
        settings=dict(request.settings),
        sampler=request.space.sampler,
        num_trials=0,
        seed=0,
        planned=[],
        teachers=records,
    )
    return dataclasses.replace(record, **changes)


def _first_point(request: Request) -> dict[str, Any]:
    return {name: axis.values[0] if hasattr(axis, "values") else axis.low for name, axis in request.explore.items()}
