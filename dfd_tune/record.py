"""What is known of a search: one record of the search, one of each of its trials, kept in the store.

The driver is the only writer; `results`, reports and MLflow are all made from these records, so they agree.
Not for: a trial's result as such (that is found under its trial key and serves every search: distill/student.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dfd_tune.errors import UserError, unknown_name
from dfd_tune.store import Store, read_json, write_json

Protocol = Literal["validation", "paper"]
BEST_FOLDER, REPORT_FOLDER = "best", "report"
"""In a search's folder: the best student, and the report."""
PREDICTIONS_FILE = "test_predictions.npz"
"""Beside the best student: `labels`, int64 (N,), and `probabilities`, float32 (N, K), of the test images."""

TrialStatus = Literal["PENDING", "RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of one search. Accuracies are fractions in 0..1; losses are means per image."""

    key: str
    status: TrialStatus
    config: dict[str, Any]
    """Every setting of the TrialConfig, by name."""
    teacher: str | None = None
    """Key of the teacher whose features or weights the trial used."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Those of the last epoch: loss, cross_entropy, distillation, train_accuracy, val_accuracy, val_loss,
    images_per_second, learning_rate; `seconds`, the training time of all epochs; and of a trial that has ended, in
    whatever way, `device_hours` of all its attempts and `peak_memory_bytes`."""
    history: list[dict[str, float]] = field(default_factory=list)
    """The same per epoch, with `epoch` counted from 1."""
    error: str | None = None
    """The traceback of a trial that FAILED."""
    cause: str | None = None
    """Why it FAILED, in one line."""
    host: str | None = None
    """Name of the machine of its last attempt; likewise `device`, cpu or cuda."""
    device: str | None = None
    attempts: int = 0
    """How often it was begun, over all launches of the search."""


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """One network trained before the search."""

    key: str
    role: Literal["teacher", "base"]
    backbone: str
    width: float
    val_accuracy: float
    test_accuracy: float | None = None
    """On high-resolution test images, measured when the search is concluded: the HR baseline."""


@dataclass(frozen=True, kw_only=True)
class FrontendRecord:
    """One super-resolution front end trained before the search; measured on validation images, against high-resolution
    ones of its output's side."""

    key: str
    kind: str
    """vdsr, espcn or srgan."""
    size: float
    """Multiplier on the published numbers of channels and layers."""
    resolution: int
    """Side of its input in pixels; its output has twice that."""
    content: str | None
    """Whose features SRGAN's content loss compared: "vgg19" or "teacher BACKBONE"; None for the others."""
    psnr: float
    """Peak signal-to-noise ratio in dB."""
    ssim: float
    """Structural similarity, at most 1."""
    bicubic_psnr: float
    """Of plain bicubic enlargement, in dB; likewise `bicubic_ssim`."""
    bicubic_ssim: float
    camera: dict[str, Any]
    """How its input comes about: resolution, downsample, blur, noise, jpeg_quality."""


@dataclass(frozen=True, kw_only=True)
class BestRecord:
    """The student chosen on validation images, and what the test images say of it."""

    key: str
    config: dict[str, Any]
    val_accuracy: float
    test_accuracy: float
    teacher: str | None
    """Key of its teacher; None if it looked at none."""
    base_key: str | None
    """The λ = 0 trial that differs from the best student in nothing else, if the search has one."""
    base_test_accuracy: float | None
    model: str | None
    """Address of the registered model, as in models:/NAME@best."""


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """A search as planned, and its outcome so far."""

    search: str
    space: str
    explored: dict[str, Any]
    """The space's axes: setting -> values or range."""
    dataset: dict[str, Any]
    """The DatasetConfig's settings, with digest, classes, channels, image_size, the splits' sizes, and `prepared`, the
    name of the folder in the store."""
    settings: dict[str, Any]
    """Settings that all trials share."""
    dataset_settings: dict[str, Any] = field(default_factory=dict)
    """The DatasetConfig as it was asked for: what is not set is None."""
    sampler: str
    num_trials: int
    seed: int
    planned: list[str]
    """Trial keys known ahead, in order; of a sampled space, none."""
    teachers: list[TeacherRecord] = field(default_factory=list)
    frontends: list[FrontendRecord] = field(default_factory=list)
    protocol: Protocol = "validation"
    """How λ is chosen: on validation images or, as the paper appears to, on test images."""
    tested: dict[str, float] = field(default_factory=dict)
    """Trial key -> accuracy on low-resolution test images, a fraction, of the trials that were tested: those of every
    cell's chosen and λ = 0 points or, under the protocol `paper`, all."""
    importances: dict[str, float] = field(default_factory=dict)
    """Explored setting -> its share of the variance of validation accuracy, where a sampler ran."""
    best: BestRecord | None = None
    mlflow: str | None = None
    """Where its runs are in MLflow: the address of a server or a database, without user and password; None for the
    store's own database."""


def save_search(store: Store, record: SearchRecord) -> None:
    """Write the search's own record."""
    write_json(store.path("searches", record.search, "search.json"), dataclasses.asdict(record))


def save_trial(store: Store, search: str, record: TrialRecord) -> None:
    """Write one trial's record."""
    write_json(store.path("searches", search, "trials", f"{record.key}.json"), dataclasses.asdict(record))


def search_names(store: Store) -> list[str]:
    """The searches in a store, the one written last at the end."""
    files = store.path("searches").glob("*/search.json")
    return [file.parent.name for file in sorted(files, key=lambda file: file.stat().st_mtime)]


def find_search(store: Store, name: str) -> SearchRecord | None:
    """The record of a search; None if there is none of that name."""
    value = read_json(store.path("searches", name, "search.json"))
    return None if value is None else _search_from(value)


def load_search(store: Store, name: str) -> SearchRecord:
    """The record of a search.

    Raises:
        UserError: the store holds no search of that name.
    """
    record = find_search(store, name) if Path(name).name == name else None
    if record is None:
        raise UserError(f"In the store '{store.root}': " + unknown_name("search", name, search_names(store)))
    return record


def load_trials(store: Store, search: SearchRecord) -> list[TrialRecord]:
    """The records of a search's trials: the planned ones in their order, then others by key."""
    records = {}
    for file in store.path("searches", search.search, "trials").glob("[!.]*.json"):
        value = read_json(file)
        if value is not None:
            records[value["key"]] = TrialRecord(**value)
    order = {key: place for place, key in enumerate(search.planned)}
    return sorted(records.values(), key=lambda record: (order.get(record.key, len(order)), record.key))


def _search_from(value: Mapping[str, Any]) -> SearchRecord:
    parts = dict(value)
    parts["teachers"] = [TeacherRecord(**teacher) for teacher in value["teachers"]]
    parts["frontends"] = [FrontendRecord(**frontend) for frontend in value.get("frontends", [])]
    parts["best"] = None if value["best"] is None else BestRecord(**value["best"])
    return SearchRecord(**parts)


SAID_BY_VALUE = ("backbone", "method", "student_start", "reduction", "downsample")
"""Settings whose value says what it is of."""
SAID_IF_THERE = ("blur", "noise", "jpeg_quality")
"""Settings that go without saying where they are 0 or none."""


def describe_point(config: Mapping[str, Any], explored: Iterable[str]) -> str:
    """The explored settings of a trial in a few words, as in "resnet18 λ=2 seed=1"."""
    words = []
    for name in explored:
        value = config[name]
        if name in SAID_IF_THERE and not value:
            continue
        text = "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
        words.append(text if name in SAID_BY_VALUE else f"{'λ' if name == 'lambda_' else name}={text}")
    return " ".join(words)
