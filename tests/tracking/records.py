"""Made-up searches and trials, and how MLflow is asked what it holds of them."""

from __future__ import annotations

import dataclasses

from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.tracking import Tracker

NAMES = (
    "loss",
    "cross_entropy",
    "distillation",
    "train_accuracy",
    "val_accuracy",
    "val_loss",
    "learning_rate",
)


def search_record(name: str, **changes: object) -> SearchRecord:
    dataset = {
        "dataset": "digits",
        "data": None,
        "digest": "d" * 16,
        "classes": 3,
        "channels": 3,
        "image_size": 32,
    }
    record = SearchRecord(
        search=name,
        space="tiny",
        explored={"lambda_": [0.0, 2.0]},
        dataset={**dataset, "train_size": 100, "validation_size": 10, "test_size": 20},
        settings={},
        sampler="grid",
        num_trials=2,
        seed=0,
        planned=[],
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def trial_record(key: str, *, epochs: int, status: str = "FINISHED", **changes: object) -> TrialRecord:
    history = [{"epoch": float(e), **{name: e + i / 10 for i, name in enumerate(NAMES)}} for e in range(1, epochs + 1)]
    metrics = {**(history[-1] if history else {}), **({"seconds": 7.5} if status == "FINISHED" else {})}
    metrics.pop("epoch", None)
    record = TrialRecord(
        key=key,
        status=status,  # type: ignore[arg-type]
        config={"backbone": "resnet18", "lambda_": 2.0, "seed": 0, "student_start": "scratch"},
        teacher="t" * 16,
        metrics=metrics,
        history=history,
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def history_of(tracker: Tracker, run_id: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of all that was ever written of a metric, by step."""
    history = tracker._client.get_metric_history(run_id, name)
    return [(metric.step, metric.value) for metric in sorted(history, key=lambda metric: metric.step)]


def runs_of(tracker: Tracker, search: str) -> list:
    """All runs of a search, its summary among them."""
    return list(tracker._client.search_runs([tracker.experiment_id(search_record(search))], max_results=1000))


def assert_one_value_a_step(tracker: Tracker, run_id: str) -> None:
    for name in tracker._client.get_run(run_id).data.metrics:
        steps = [step for step, _ in history_of(tracker, run_id, name)]
        assert len(set(steps)) == len(steps), f"{name} has several values at one of the steps {steps}"


def complaints_in(stderr: str) -> list[str]:
    """What a process had against something; that it waits for others, on a busy machine, is none."""
    return [line for line in stderr.splitlines() if not line.startswith("Waiting for 'mlflow'")]
