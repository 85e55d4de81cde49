"""What is known of a search: one record of the search, one of each of its trials, kept in the store.

The driver is the only writer; `results`, reports and MLflow are all made from these records, so they agree.
Not for: a trial's result as such (that is found under its trial key and serves every search: distill/student.py).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from dfd_tune import criteria
from dfd_tune.axes import explored_at
from dfd_tune.confirm import NOTHING_ANEW, Arm, Confirm, confirm_as_json, confirm_from_json
from dfd_tune.errors import UserError, cause_of, unknown_name
from dfd_tune.objectives import ACCURACY, ALONE
from dfd_tune.store import Store, manifest_of, read_json, read_whole, sealed

Protocol = Literal["validation", "paper"]
Record = TypeVar("Record")
BEST_FOLDER, REPORT_FOLDER = "best", "report"
"""In a search's folder: the best student, and the report."""
PREDICTIONS_FILE = "test_predictions.npz"
"""Beside the best student: `labels`, int64 (N,), and `probabilities`, float32 (N, K), of the test images."""

Stage = Literal["search", "confirm", "control"]
"""What a trial is for: to choose by; one of a confirmation's arms; or to choose plain training's own settings by, for
the control `tuned_base`."""
Fault = Literal["machine", "unknown", "trial"]
TrialStatus = Literal["PENDING", "RUNNING", "FINISHED", "STOPPED", "FAILED", "KILLED", "INTERRUPTED"]
"""INTERRUPTED is never stored: it is what RUNNING means where nobody runs the search any more (liveness.py)."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of one search. Accuracies are fractions in 0..1; losses are means per image."""

    key: str
    status: TrialStatus
    config: dict[str, Any]
    """Every setting of the TrialConfig, by name."""
    stage: Stage = "search"
    teacher: str | None = None
    """Key of the teacher whose features or weights the trial used."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Those of the last epoch: loss, cross_entropy, distillation, train_accuracy, val_accuracy, val_balanced_accuracy,
    val_macro_f1, val_loss, images_per_second, learning_rate; `seconds`, the training time of all epochs; what its
    student costs: `parameters`, `multiply_adds` and, where a search is after it, `image_seconds`; and of a trial that
    has ended, in whatever way, `device_hours` of all its attempts and `peak_memory_bytes`."""
    history: list[dict[str, float]] = field(default_factory=list)
    """The same per epoch, with `epoch` counted from 1."""
    error: str | None = None
    """The traceback of a trial that FAILED."""
    cause: str | None = None
    """Why it FAILED, in one line."""
    fault: Fault | None = None
    """Whose fault that was: the trial's own, which would come again, or the machine's; unknown where nobody tried."""
    host: str | None = None
    """Name of the machine of its last attempt; likewise `device`, cpu or cuda."""
    device: str | None = None
    gpus: float | None = None
    """Share of a GPU that each worker of its last attempt had, where the search's did not do for it."""
    attempts: int = 0
    """How often it was begun, over all launches of the search."""
    number: int | None = None
    """Of a point that a sampler has drawn, the place of its draw among all, from 0."""
    started: float | None = None
    """When its first attempt began, in seconds since 1970 by the clock of who ran the search; None if it was not begun
    in this search, as a trial whose result another one left."""
    ended: float | None = None
    """Likewise, when it was recorded as FINISHED, FAILED or KILLED."""


@dataclass(frozen=True, kw_only=True)
class TestRecord:
    """What the test images say of one student or, in high resolution, of one teacher; they are asked once."""

    key: str
    """The trial's or the teacher's."""
    accuracy: float
    """A fraction."""
    images: int
    correct: str
    """Which test images it got right, in their order: bits packed as by `numpy.packbits`, in base64."""
    balanced_accuracy: float | None = None
    """The mean of recall over the classes that occur; None in records of older versions, as what follows is."""
    macro_f1: float | None = None
    """Likewise of F1."""
    class_images: list[int] = field(default_factory=list)
    """By class, how many test images it has; likewise `class_right`, how many of them were told right."""
    class_right: list[int] = field(default_factory=list)

    def right(self) -> np.ndarray:
        """bool (images,), whether each test image is classified rightly."""
        packed = np.frombuffer(base64.b64decode(self.correct), dtype=np.uint8)
        return np.unpackbits(packed, count=self.images).astype(bool)


def test_record(key: str, right: np.ndarray, **by_class: Any) -> TestRecord:
    """The record of a network that classified the test images as `right` says, bool (images,); `by_class` are the
    fields that need the classes too."""
    packed = base64.b64encode(np.packbits(right).tobytes()).decode("ascii")
    return TestRecord(key=key, accuracy=float(right.mean()), images=len(right), correct=packed, **by_class)


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """One network that is there before the search."""

    key: str
    role: Literal["teacher", "base"]
    backbone: str
    """Or "program"."""
    width: float | None
    """None of a program."""
    val_accuracy: float
    """A fraction; of a program that gives features, of the nearest class mean."""
    test_accuracy: float | None = None
    """On high-resolution test images, measured when the search is concluded: the HR baseline."""
    file: str | None = None
    """Name of the file that it came in, without folders; None of one that was trained here. Likewise `digest`, of the
    file and what is declared of it, and `gives`: network, logits or features."""
    digest: str | None = None
    gives: str | None = None


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
class ConfirmedCell:
    """What one cell chose, and the trials with fresh seeds that say how good it is."""

    cell: str
    """Name of the cell."""
    student: dict[str, Any]
    """Settings of the chosen point's first trial."""
    seeds: list[int]
    arms: dict[Arm, list[str]]
    """Arm -> trial keys, one a seed in the same order."""
    tuning: list[str] = field(default_factory=list)
    """Keys of the trials by which plain training's own settings are chosen, for the control `tuned_base`."""


@dataclass(frozen=True, kw_only=True)
class CostRecord:
    """What a deployed student costs. Resizing counts among the seconds, not among the multiply-adds."""

    parameters: int
    """Numbers learned, those of its front end too."""
    multiply_adds: int
    """Of convolutions and fully connected layers, for one image."""
    file_bytes: int
    image_seconds: float
    """From one raw image of the network's own side to probabilities, on one thread of a CPU: a median."""
    batch_seconds: float
    """Likewise of 64 images at once."""
    host: str
    """The machine on which the seconds were measured."""

    def numbers(self) -> dict[str, float]:
        """All but the host, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "host"}


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
    cost: CostRecord | None = None
    """None where it was not measured; so are these, of what an older version chose."""
    val_balanced_accuracy: float | None = None
    val_macro_f1: float | None = None
    val_loss: float | None = None
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None


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
    objectives: list[str] = field(default_factory=lambda: list(ALONE))
    """What the search is after: accuracy, and perhaps a cost (objectives.py)."""
    choose: str = ACCURACY
    """Which students may be chosen, as `--choose` says it."""
    choose_by: str = criteria.DEFAULT
    """By which metric of validation images points, λ and the best student are chosen: one of `criteria.CRITERIA`."""
    tested: dict[str, float] = field(default_factory=dict)
    """Trial key -> accuracy on low-resolution test images, a fraction, of the trials that were tested: those of the
    confirmation; where nothing is confirmed, those of every cell's chosen and λ = 0 points; under `paper`, all."""
    confirm: Confirm = NOTHING_ANEW
    """What is trained anew once the search has chosen."""
    confirmation: list[ConfirmedCell] = field(default_factory=list)
    """What that is, once it is known."""
    tests: dict[str, TestRecord] = field(default_factory=dict)
    """By key, what the test images said of these trials and, in high resolution, of the teachers: image by image.
    Kept in files of their own; a trial that is tested but not in here has its accuracy alone."""
    importances: dict[str, float] = field(default_factory=dict)
    """Explored setting -> its share in what sets the best trials apart, where a sampler ran."""
    best: BestRecord | None = None
    resources: dict[str, Any] = field(default_factory=dict)
    """What the search's processes get, decided when it was first planned: device, cpus, gpus, network_cpus."""
    forecast: dict[str, Any] = field(default_factory=dict)
    """What the last launch that had something to run was forecast to cost, and what it did (forecast.py)."""
    request: dict[str, Any] = field(default_factory=dict)
    """The request as it was first launched (settings.request_as_json), for `resume`."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options of that launch, without a password."""
    home: str | None = None
    """Identity of the store in which it was planned; a copy of the search in another store keeps it, and is found in
    MLflow by it."""
    experiment: str = ""
    """The experiment in MLflow that it shares with others of its launch; empty for one of its own name."""
    mlflow: str | None = None
    """Where its runs are in MLflow: the address of a server or a database, without user and password; None for the
    store's own database."""

    @property
    def criterion(self) -> criteria.Criterion:
        """What it chooses by."""
        return criteria.CRITERIA[self.choose_by]


def save_search(store: Store, record: SearchRecord) -> None:
    """Write the search's own record, without its tests, which have files of their own."""
    fields = dataclasses.asdict(dataclasses.replace(record, tests={}))
    del fields["tests"]
    fields["confirm"] = confirm_as_json(record.confirm)
    store.write_json(fields, "searches", record.search, "search.json")


def save_trial(store: Store, search: str, record: TrialRecord) -> None:
    """Write one trial's record, a field a line: laid out further, it would take several times as long."""
    fields = (f"  {_as_json(name)}: {_as_json(value)}" for name, value in vars(record).items())
    text = "{\n" + ",\n".join(fields) + "\n}\n"
    store.write_text(sealed(text), "searches", search, "trials", f"{record.key}.json")


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def save_test(store: Store, search: str, record: TestRecord) -> None:
    """Write what the test images say of one network."""
    store.write_json(dataclasses.asdict(record), "searches", search, "tests", f"{record.key}.json")


def load_tests(store: Store, search: str) -> dict[str, TestRecord]:
    """What the test images said so far, by trial key."""
    records = (
        _readable(file, lambda value: TestRecord(**value)) for file in _records_in(store, "searches", search, "tests")
    )
    return {record.key: record for record in records if record is not None}


def best_file(store: Store, search: str, name: str) -> Path | None:
    """A file of the best student's folder, as this node has it; None if it is not there, or not what was written.

    Raises:
        OSError: the store can't be read just now.
    """
    folder = store.path("searches", search, BEST_FOLDER)
    has_manifest = manifest_of(folder) is not None  # those of older versions have none
    there = read_whole(folder, name) is not None if has_manifest else (folder / name).is_file()
    return folder / name if there else None


def search_names(store: Store) -> list[str]:
    """The searches in a store, the one written last at the end."""
    names = store.names("searches")
    times = store.each(lambda name: store.changed("searches", name, "search.json"), names)
    written = dict(zip(names, times, strict=True))
    return sorted((name for name in written if written[name] is not None), key=lambda name: written[name] or 0)


def lock_of(name: str) -> str:
    """Name of the lock that whoever runs a search holds, and alone writes its records."""
    return f"search-{name}"


def known_search(store: Store, name: str) -> SearchRecord | None:
    """As `find_search`, for who would overwrite it, or goes by it alone.

    Raises:
        UserError: there is a record, but it is damaged.
        OSError: the store can't be read just now.
    """
    found = find_search(store, name)
    file = store.path("searches", name, "search.json")
    if found is None and file.is_file():
        store.bring("searches", name, file.name)  # a copy may be damaged alone
        found = find_search(store, name)
    if found is None and file.is_file():
        raise UserError(
            f"In the store '{store.location}', the record 'searches/{name}/{file.name}' is damaged; put it back from a "
            "copy, or delete it and launch the search again with the options that it had: its trials are kept, and "
            "found by what they are."
        )
    return found


def find_search(store: Store, name: str) -> SearchRecord | None:
    """The record of a search, as this node has it; None if there is none of that name, or none that can be read.

    Raises:
        OSError: the store can't be read just now.
    """
    found = _readable(store.path("searches", name, "search.json"), _search_from)
    if found is None:
        return None
    tests = load_tests(store, name)
    # By the trials' own files, as networks are tested too, and a record that was made anew may not know of them.
    trials = {file.stem for file in _records_in(store, "searches", name, "trials")}
    tested = {key: record.accuracy for key, record in tests.items() if key in trials}
    return dataclasses.replace(found, tested=found.tested | tested, tests=tests)


def load_search(store: Store, name: str) -> SearchRecord:
    """The record of a search.

    Raises:
        UserError: the store holds no search of that name, or its record is damaged.
        OSError: the store can't be read just now.
    """
    record = None
    if Path(name).name == name:
        store.pull("searches", name, lock=lock_of(name))
        record = known_search(store, name)
    if record is None:
        raise UserError(f"In the store '{store.location}': " + unknown_name("search", name, search_names(store)))
    return record


def load_trials(store: Store, search: SearchRecord) -> list[TrialRecord]:
    """The records of a search's trials: the planned ones in their order, then others by key."""
    files = _records_in(store, "searches", search.search, "trials")
    found = (_readable(file, lambda value: TrialRecord(**value)) for file in files)
    return in_planned_order(search, {record.key: record for record in found if record is not None}.values())


def in_planned_order(search: SearchRecord, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials in an order that does not depend on how the search went: the planned ones in theirs, then others by key.

    Where two are equally good, the first one is chosen.
    """
    order = {key: place for place, key in enumerate(search.planned)}
    return sorted(trials, key=lambda record: (order.get(record.key, len(order)), record.key))


def unreadable_records(store: Store, name: str) -> list[tuple[Path, str]]:
    """The files of a search's records that can't be read, as this node has them, each with the cause."""
    folder = store.path("searches", name)
    makers: list[tuple[Path, Callable[[dict[str, Any]], Any]]] = [(folder / "search.json", _search_from)]
    makers.append((folder / "run.json", dict))
    makers += [(file, lambda value: TrialRecord(**value)) for file in _records_in(store, "searches", name, "trials")]
    makers += [(file, lambda value: TestRecord(**value)) for file in _records_in(store, "searches", name, "tests")]
    found = []
    for file, make in makers:
        try:
            _record_in(file, make)
        except _UNREADABLE as error:
            found.append((file, cause_of(error)))
    return found


_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)


def _record_in(file: Path, make: Callable[[dict[str, Any]], Record]) -> Record | None:
    value = read_json(file)
    return None if value is None else make(value)


def _records_in(store: Store, *parts: str) -> list[Path]:
    """The files of records in a folder, as this node has it; sorted.

    Raises:
        OSError: it can't be told, as the folder can't be read just now, or by whoever asks.
    """
    try:
        names = sorted(os.listdir(store.path(*parts)))
    except FileNotFoundError:
        return []
    return [store.path(*parts, name) for name in names if name.endswith(".json") and not name.startswith(".")]


def _readable(file: Path, make: Callable[[dict[str, Any]], Record]) -> Record | None:
    """The record in a file; None if there is none. One that can't be read counts as none, and is named."""
    try:
        return _record_in(file, make)
    except _UNREADABLE as error:
        logging.getLogger(__name__).warning(
            "The record '%s' can't be read (%s) and is left out.", file, cause_of(error)
        )
        return None


def _search_from(value: Mapping[str, Any]) -> SearchRecord:
    parts = dict(value)
    parts["teachers"] = [TeacherRecord(**teacher) for teacher in value["teachers"]]
    parts["frontends"] = [FrontendRecord(**frontend) for frontend in value.get("frontends", [])]
    parts["confirm"] = confirm_from_json(value["confirm"])
    parts["confirmation"] = [ConfirmedCell(**cell) for cell in value["confirmation"]]
    parts["best"] = None if value["best"] is None else _best_from(value["best"])
    return SearchRecord(**parts)


def _best_from(value: Mapping[str, Any]) -> BestRecord:
    cost = value.get("cost")
    return BestRecord(**{**value, "cost": None if cost is None else CostRecord(**cost)})


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


def arm_of(search: SearchRecord, key: str) -> Arm | None:
    """Which arm of a confirmation a trial belongs to; the first one of those that share it, None if to none."""
    found = (arm for cell in search.confirmation for arm, keys in cell.arms.items() if key in keys)
    return next(found, None)


def name_of(search: SearchRecord, trial: TrialRecord, explored: Iterable[str]) -> str:
    """A trial in a few words: its explored settings; of one that is trained anew its seed, and what it is for."""
    there = explored_at(trial.config, search.explored)
    explored = [name for name in explored if name in there or name not in search.explored]
    if trial.stage == "search":
        return describe_point(trial.config, explored)
    own = ("learning_rate", "weight_decay", "dropout") if trial.stage == "control" else ("seed",)
    use = "tuning plain training" if trial.stage == "control" else ARMS_IN_WORDS[arm_of(search, trial.key)]
    return f"{describe_point(trial.config, dict.fromkeys([*explored, *own]))} ({use})"


ARMS_IN_WORDS: Mapping[Arm | None, str] = {
    "student": "confirming",
    "plain": "confirming: plain",
    "half_longer": "control: half longer",
    "longer": "control: longer",
    "low_res_teacher": "control: low-resolution teacher",
    "tuned_base": "control: tuned plain training",
    None: "not used any more",
}
