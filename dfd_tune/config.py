"""What a dataset selection and a trial are: frozen, checked, complete descriptions, and the keys they give.

Every setting is declared once, as a dataclass field with its range, and everything else (checks, `--set`,
`--show-config`, MLflow's params) is read off these fields. Not for: which values a search explores (space.py),
nor for what a dataset recommends (data/recipes.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from dfd_tune.digest import digest_json
from dfd_tune.errors import nearest, raise_all, unknown_name

TRAINING_SEMANTICS = 1
"""Raised by hand when the same configuration would train differently, so that old results are not reused."""

LARGEST_SEED = 2**31 - 1
"""So much fits into the seeds of everything that draws numbers."""

Backbone = Literal["alexnet", "vgg16", "resnet18"]
Resampling = Literal["bicubic", "bilinear", "area", "nearest"]
Schedule = Literal["one_cycle", "cosine", "step", "constant"]
Reduction = Literal["mean", "sum"]
StudentStart = Literal["scratch", "base", "teacher"]


def _setting(
    help_: str, *, low: float | None = None, high: float | None = None, above: float | None = None, **default: Any
) -> Any:
    """A dataclass field with its allowed range: low <= value <= high, or value > above."""
    return field(metadata={"help": help_, "low": low, "high": high, "above": above}, **default)


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Which images a search sees. The same for all of its trials."""

    dataset: str = _setting("name of the source: see `dfd-tune datasets`")
    data: str | None = _setting("where the source's files are", default=None)
    image_size: int | None = _setting(
        "side in pixels to which images are resized; none keeps their own size", low=8, high=64, default=None
    )
    train_images: int | None = _setting(
        "size of a fixed, stratified subset of the training images; none takes all", low=4, default=None
    )
    test_images: int | None = _setting(
        "size of a fixed, stratified subset of the test images; none takes all", low=2, default=None
    )
    validation_fraction: float = _setting(
        "share of the training images held out to choose by", low=0.01, high=0.5, default=0.1
    )


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One trial, complete: two equal TrialConfigs on the same dataset are the same trial.

    Raises:
        UserError: one or more values are out of range; all are named.
    """

    # What the student sees.
    resolution: int = _setting("side of the low-resolution image in pixels, before up-sampling", low=2, high=64)
    downsample: Resampling = _setting("how the low-resolution image is made (anti-aliased)", default="bicubic")
    upsample: Resampling = _setting("how it is brought back to the network's input size", default="bicubic")
    crop_padding: int = _setting("pixels of padding for random crops; 0 means no crops", low=0, high=16)
    flip: bool = _setting("random horizontal flips")
    augment_seed: int = _setting(
        "seed of crops and flips, shared by all trials of a search", low=0, high=LARGEST_SEED, default=0
    )
    # The network.
    backbone: Backbone = _setting("architecture of teacher and student")
    width: float = _setting("multiplier on the number of channels", above=0, high=4)
    dropout: float = _setting("dropout before the fully connected layers", low=0, high=0.9)
    # How the student is trained.
    epochs: int = _setting("passes over the training images", low=1, high=10_000)
    batch_size: int = _setting("images per step, over all workers of a trial", low=2, high=65_536)
    learning_rate: float = _setting("peak learning rate of SGD", above=0, high=100)
    schedule: Schedule = _setting("course of the learning rate over the steps")
    momentum: float = _setting("momentum of SGD", low=0, high=0.999, default=0.9)
    weight_decay: float = _setting("weight decay of SGD", low=0, high=1, default=5e-4)
    seed: int = _setting("seed of initial weights and batch order", low=0, high=LARGEST_SEED, default=0)
    # What it is taught.
    lambda_: float = _setting("λ, the weight of the distillation loss; 0 is plain training", low=0, high=1e6)
    reduction: Reduction = _setting("how squared feature differences are reduced over the feature dimension")
    student_start: StudentStart = _setting("initial weights: random, of the base network, or of the teacher")
    workers: int = _setting(
        "processes, one device each, that share a trial's batches; batch norm is per worker",
        low=1,
        high=1024,
        default=1,
    )
    # How the networks that come before the search, teacher and base network, are trained.
    teacher_epochs: int = _setting("as `epochs`, for teacher and base network", low=1, high=10_000)
    teacher_batch_size: int = _setting("as `batch_size`, for teacher and base network", low=2, high=65_536)
    teacher_learning_rate: float = _setting("as `learning_rate`, for teacher and base network", above=0, high=100)
    teacher_schedule: Schedule = _setting("as `schedule`, for teacher and base network")
    teacher_momentum: float = _setting("as `momentum`, for teacher and base network", low=0, high=0.999)
    teacher_weight_decay: float = _setting("as `weight_decay`, for teacher and base network", low=0, high=1)
    teacher_dropout: float = _setting("as `dropout`, for teacher and base network", low=0, high=0.9)
    teacher_seed: int = _setting("as `seed`, for teacher and base network", low=0, high=LARGEST_SEED, default=0)

    def __post_init__(self) -> None:
        raise_all(problems_in(TrialConfig, dataclasses.asdict(self)))
        for name, kind in _KINDS[TrialConfig].items():
            if kind is float:  # 2 and 2.0 are one trial, so they must give one key
                object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def distills(self) -> bool:
        """Whether the trial looks at a teacher's features at all."""
        return self.lambda_ > 0

    @property
    def needs_teacher(self) -> bool:
        """Whether the trial needs a teacher's features or weights."""
        return self.distills or self.student_start == "teacher"

    def teacher(self) -> PretrainedConfig:
        """The frozen teacher of this trial: the same network, trained on high-resolution images."""
        return self._pretrained(None)

    def base(self) -> PretrainedConfig:
        """The base network that `student_start: base` starts from: trained on low-resolution images, λ = 0."""
        return self._pretrained(LowRes(self.resolution, self.downsample, self.upsample))

    def _pretrained(self, low_res: LowRes | None) -> PretrainedConfig:
        return PretrainedConfig(
            low_res=low_res,
            crop_padding=self.crop_padding,
            flip=self.flip,
            augment_seed=self.augment_seed,
            network=NetworkConfig(self.backbone, self.width, self.teacher_dropout),
            recipe=Recipe(
                epochs=self.teacher_epochs,
                batch_size=self.teacher_batch_size,
                learning_rate=self.teacher_learning_rate,
                schedule=self.teacher_schedule,
                momentum=self.teacher_momentum,
                weight_decay=self.teacher_weight_decay,
                seed=self.teacher_seed,
            ),
        )

    @property
    def low_res(self) -> LowRes:
        """How this trial's low-resolution images are made."""
        return LowRes(self.resolution, self.downsample, self.upsample)

    @property
    def network(self) -> NetworkConfig:
        """The student's architecture."""
        return NetworkConfig(self.backbone, self.width, self.dropout)

    @property
    def recipe(self) -> Recipe:
        """How the student is optimised."""
        return Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def key(self, dataset_digest: str) -> str:
        """The trial key. What cannot change the result (a teacher that is never looked at) is left out."""
        identity = dataclasses.asdict(self)
        if not self.distills:
            del identity["reduction"]
        if not self.distills and self.student_start == "scratch":
            identity = {name: value for name, value in identity.items() if not name.startswith("teacher_")}
        return digest_json({"trial": identity, "dataset": dataset_digest, "semantics": TRAINING_SEMANTICS})


@dataclass(frozen=True)
class LowRes:
    """How a low-resolution image is made: down-sampled to `resolution` pixels, then up-sampled again."""

    resolution: int
    downsample: Resampling = "bicubic"
    upsample: Resampling = "bicubic"


@dataclass(frozen=True)
class NetworkConfig:
    """An architecture, but for its input size and number of classes, which the dataset gives."""

    backbone: Backbone
    width: float
    dropout: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is optimised."""

    epochs: int
    batch_size: int
    learning_rate: float
    schedule: Schedule
    momentum: float
    weight_decay: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """A network trained by cross entropy alone before the search: a teacher (`low_res` is None) or a base."""

    low_res: LowRes | None
    crop_padding: int
    flip: bool
    augment_seed: int
    network: NetworkConfig
    recipe: Recipe

    @property
    def role(self) -> Literal["teacher", "base"]:
        """What the network is for."""
        return "teacher" if self.low_res is None else "base"

    def key(self, dataset_digest: str) -> str:
        """The key under which the trained network is stored."""
        identity = dataclasses.asdict(self)
        return digest_json({"pretrained": identity, "dataset": dataset_digest, "semantics": TRAINING_SEMANTICS})


ConfigClass = type[DatasetConfig] | type[TrialConfig]


def settings_of(config: ConfigClass) -> dict[str, dataclasses.Field[Any]]:
    """The settings that a configuration class declares, by name."""
    return {setting.name: setting for setting in dataclasses.fields(config)}


_KINDS: dict[Any, dict[str, Any]] = {config: get_type_hints(config) for config in (DatasetConfig, TrialConfig)}
"""The settings' types by name. Worked out once: it takes a millisecond, and a grid asks often."""

FOLLOWED_BY_TEACHER = (
    "epochs",
    "batch_size",
    "learning_rate",
    "schedule",
    "momentum",
    "weight_decay",
    "dropout",
)


def teacher_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The `teacher_*` settings that were not given: they follow the student's, as they stand before the search.

    What a search explores of the student's recipe leaves the teacher's alone, so one teacher serves all trials.
    """
    return {
        f"teacher_{name}": settings[name]
        for name in FOLLOWED_BY_TEACHER
        if name in settings and f"teacher_{name}" not in settings
    }


def problems_in(config: ConfigClass, values: Mapping[str, Any], where: str = "") -> list[str]:
    """Every problem in `values`, one sentence each: unknown names, wrong types, values out of range.

    Args:
        config: the class whose settings are meant.
        values: some or all of its settings by name.
        where: where the values come from ("--set", a file's name), put before each sentence.
    """
    known = settings_of(config)
    prefix = f"{where}: " if where else ""
    problems = []
    for name, value in values.items():
        if name not in known:
            problems.append(prefix + unknown_name("setting", name, known))
        elif (rule := broken_rule(config, name, value)) is not None:
            problems.append(f"{prefix}{name} is {value!r}, but must be {rule}.")
    return problems


def coerce(config: ConfigClass, name: str, value: Any) -> Any:
    """`value` as the setting `name` means it: YAML reads 1e-3 as text and 2 as an integer.

    What can't be meant is returned as it is, for `broken_rule` to refuse.
    """
    if name not in settings_of(config) or _KINDS[config][name] is not float:
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    try:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    except OverflowError:
        return value


def broken_rule(config: ConfigClass, name: str, value: Any) -> str | None:
    """The rule that `value` breaks for the setting `name`, in words; None if it is allowed."""
    kind = _KINDS[config][name]
    options = get_args(kind)
    if type(None) in options:
        if value is None:
            return None
        kind = next(option for option in options if option is not type(None))
        options = ()
    if options:
        close = nearest(value, options)
        rule = f"one of {', '.join(options)}" + (f" (did you mean {close}?)" if close else "")
        return None if isinstance(value, str) and value in options else rule
    rule = _rule_in_words(kind, settings_of(config)[name].metadata)
    return None if _is_kind(kind, value) and _in_range(value, settings_of(config)[name].metadata) else rule


def _is_kind(kind: type, value: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, kind)


def _in_range(value: Any, limits: Mapping[str, Any]) -> bool:
    low, high, above = limits["low"], limits["high"], limits["above"]
    return (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)


def _rule_in_words(kind: type, limits: Mapping[str, Any]) -> str:
    noun = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    bounds: Iterable[str] = (
        f"{word} {limits[name]:.10g}"
        for name, word in (("above", "above"), ("low", "at least"), ("high", "at most"))
        if limits[name] is not None
    )
    return " ".join([noun, " and ".join(bounds)]).strip()
