"""What a dataset selection and a trial are: frozen, checked, complete descriptions, and the keys they give.

Every setting is declared once, as a dataclass field with its range (rules.py), and everything else (checks, `--set`,
`--show-config`, MLflow's params) is read off these fields. Not for: which values a search explores (space.py),
nor for what a dataset recommends (data/recipes.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dfd_tune.backbones import BACKBONES, OTHERS, is_other
from dfd_tune.digest import digest_json
from dfd_tune.errors import UserError, raise_all
from dfd_tune.methods import DEFAULT, METHODS, read_by_methods
from dfd_tune.parts import (
    TRAINING_SEMANTICS,
    Camera,
    ClassWeights,
    Frontend,
    FrontendConfig,
    Guide,
    ImportedConfig,
    LowRes,
    NetworkConfig,
    Precision,
    PretrainedConfig,
    Recipe,
    Resampling,
    Schedule,
)
from dfd_tune.rules import OWN, kinds_of, like, problems_in, setting, settings_of
from dfd_tune.teacher_file import parse

LARGEST_SEED = 2**31 - 1
"""So much fits into the seeds of everything that draws numbers."""

Reduction = Literal["mean", "sum"]
StudentStart = Literal["scratch", "base", "teacher"]
TeacherSees = Literal["high_res", "low_res"]
FrontendContent = Literal["auto", "vgg19", "teacher"]
Projector = Literal["auto", "always"]


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Which images a search sees. The same for all of its trials."""

    dataset: str = setting("name of the source: see `dfd-tune datasets`")
    data: str | None = setting("where the source's files are", default=None)
    image_size: int | None = setting(
        "side in pixels to which images are resized; none keeps their own size", low=8, high=64, default=None
    )
    train_images: int | None = setting(
        "size of a fixed, stratified subset of the training images; none takes all", low=4, default=None
    )
    train_offset: int = setting(
        "how many training images, in the fixed order of such subsets, are passed over before `train_images` are taken",
        low=0,
        default=0,
    )
    test_images: int | None = setting(
        "size of a fixed, stratified subset of the test images; none takes all", low=2, default=None
    )
    validation_fraction: float = setting(
        "share of the training images held out to choose by", low=0.01, high=0.5, default=0.1
    )


def _of_teacher(name: str, student: Any, **default: Any) -> Any:
    """What teacher and base network are trained with, allowed the values of the student's setting of that name."""
    return like(student, f"as `{name}`, for teacher and base network", **default)


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One trial, complete: two equal TrialConfigs on the same dataset are the same trial.

    Raises:
        UserError: one or more values are out of range; all are named.
    """

    # What the student sees.
    resolution: int = setting(
        "side of the low-resolution image in pixels, before up-sampling", low=2, high=64, share=True
    )
    downsample: Resampling = setting("how the low-resolution image is made (anti-aliased)", default="bicubic")
    upsample: Resampling = setting("how it is brought back to the network's input size", default="bicubic")
    blur: float = setting(
        "Gaussian blur before down-sampling: standard deviation in pixels of the high-resolution image; 0 is none",
        low=0,
        high=16,
        default=0.0,
    )
    noise: float = setting(
        "Gaussian noise on the low-resolution image: standard deviation in grey values of 0 to 255; 0 is none",
        low=0,
        high=128,
        default=0.0,
    )
    jpeg_quality: int | None = setting(
        "quality at which the low-resolution image went through JPEG; none means it did not",
        low=1,
        high=100,
        default=None,
    )
    frontend: Frontend = setting(
        "network that doubles the side of the low-resolution image before the student sees it", default="none"
    )
    crop_padding: int = setting("pixels of padding for random crops; 0 means no crops", low=0, high=16)
    flip: bool = setting("random horizontal flips")
    augment_seed: int = setting(
        "seed of crops and flips, shared by all trials of a search", low=0, high=LARGEST_SEED, default=0
    )
    # The network.
    backbone: str = setting("architecture of teacher and student", words=BACKBONES, others=(OTHERS, is_other))
    width: float = setting("multiplier on the number of channels", above=0, high=4)
    dropout: float = setting("dropout before the classifier; resnet18 has none", low=0, high=0.9)
    batch_norm: bool = setting("batch norm after each convolution, of teacher and student", default=True)
    # How the student is trained.
    epochs: int = setting("passes over the training images", low=1, high=10_000)
    batch_size: int = setting("images per step, over all workers of a trial", low=2, high=65_536)
    learning_rate: float = setting("peak learning rate of SGD", above=0, high=100)
    schedule: Schedule = setting("course of the learning rate over the steps")
    momentum: float = setting("momentum of SGD", low=0, high=0.999, default=0.9)
    weight_decay: float = setting("weight decay of SGD", low=0, high=1, default=5e-4)
    mixup: float = setting(
        "α of the Beta distribution of weights by which two pairs of images, and their labels, are mixed; 0 is none",
        low=0,
        high=100,
        default=0.0,
    )
    class_weights: ClassWeights = setting(
        "how much an image's cross entropy weighs: none is all alike, balanced is the more, the fewer its class has",
        default="none",
    )
    seed: int = setting("seed of initial weights and batch order", low=0, high=LARGEST_SEED, default=0)
    # What it is taught.
    lambda_: float = setting("λ, the weight of the distillation loss; 0 is plain training", low=0, high=1e6)
    method: str = setting("what is distilled: see docs/method.md", words=METHODS, default=DEFAULT)
    reduction: Reduction = setting("how squared feature differences are reduced over the feature dimension")
    temperature: float = setting(
        "of methods kd and cqd: both softmax functions are softened by it", above=0, high=100, default=4.0
    )
    hint_layer: str = setting("of methods fitnets and attention: the layer whose maps are matched", default="middle")
    projector: Projector = setting(
        "of methods dfd, cqd and norm_direction: whether the student's features are mapped linearly before they are "
        "compared; auto: where their dimension is not the teacher's",
        default="auto",
    )
    teachers: str = setting(
        "backbones of the teachers; own is one of the student's own backbone",
        joined=BACKBONES,
        others=(OTHERS, is_other),
        default=OWN,
    )
    teacher_sees: TeacherSees = setting(
        "images that teachers learn from and look at; low_res, the student's own, is a control without high resolution",
        default="high_res",
    )
    teacher_file: str | None = setting(
        "file of a teacher that was trained elsewhere, as docs/teacher.md says; none has teachers trained here",
        default=None,
    )
    student_start: StudentStart = setting("initial weights: random, of the base network, or of the teacher")
    start_rate_factor: float = setting(
        "of a student that starts from trained weights: its peak learning rate is so many times learning_rate",
        above=0,
        high=1,
        default=0.3,
    )
    workers: int = setting(
        "processes, one device each, that share a trial's batches; batch norm is per worker",
        low=1,
        high=1024,
        default=1,
    )
    precision: Literal["auto", "float32", "bf16"] = setting(
        "in what networks, but front ends, are trained: float32, or that mixed with bf16; auto is bf16 on a GPU only",
        default="auto",
    )
    evaluate_every: int = setting(
        "epochs from one look at the validation images to the next; the last epoch always has one, and teachers alike",
        low=1,
        high=10_000,
        default=1,
    )
    # How the networks that come before the search, teacher and base network, are trained.
    teacher_epochs: int = _of_teacher("epochs", epochs)
    teacher_batch_size: int = _of_teacher("batch_size", batch_size)
    teacher_learning_rate: float = _of_teacher("learning_rate", learning_rate)
    teacher_schedule: Schedule = _of_teacher("schedule", schedule)
    teacher_momentum: float = _of_teacher("momentum", momentum)
    teacher_weight_decay: float = _of_teacher("weight_decay", weight_decay)
    teacher_dropout: float = _of_teacher("dropout", dropout)
    teacher_class_weights: ClassWeights = _of_teacher("class_weights", class_weights, default="none")
    teacher_seed: int = _of_teacher("seed", seed, default=0)
    # How a front end is trained.
    frontend_size: float = setting(
        "multiplier on a front end's numbers of channels and layers; 1 is as published", above=0, high=2, default=1.0
    )
    frontend_epochs: int = setting("passes over the training images, for a front end", low=1, high=10_000, default=100)
    frontend_batch_size: int = setting("images per step, for a front end", low=1, high=65_536, default=64)
    frontend_learning_rate: float = setting("learning rate of Adam, for a front end", above=0, high=1, default=1e-3)
    frontend_content: FrontendContent = setting(
        "whose features SRGAN's content loss compares: VGG-19's, trained on ImageNet, or the teacher's; auto takes "
        "VGG-19 where its weights are at hand",
        default="auto",
    )
    frontend_seed: int = setting("seed of a front end's weights and batch order", low=0, high=LARGEST_SEED, default=0)

    def __post_init__(self) -> None:
        raise_all(problems_in(TrialConfig, vars(self)))
        assert isinstance(self.resolution, int), "a share of the side is settled once the images are known"
        assert self.precision != "auto", "settled once the device is known"
        if self.teacher_file is not None and parse(self.teacher_file) is None:
            raise UserError(
                f"teacher_file is {self.teacher_file!r}, which is no file in the store; launch with --teacher FILE."
            )
        for name, kind in kinds_of(TrialConfig).items():
            if kind is float:  # 2 and 2.0 are one trial, so they must give one key
                object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def distills(self) -> bool:
        """Whether the trial looks at a teacher's outputs at all."""
        return self.lambda_ > 0

    @property
    def has_bank(self) -> bool:
        """Whether a bank of features is enough of its teachers: there is none of images that are mixed."""
        return METHODS[self.method].has_bank and not self.mixup

    @property
    def needs_teacher(self) -> bool:
        """Whether the student needs a teacher's outputs or weights."""
        return self.distills or self.student_start == "teacher"

    @property
    def teacher_backbones(self) -> tuple[str, ...]:
        """The backbones of the networks that the student is distilled from, in alphabetical order."""
        return (self.backbone,) if self.teachers == OWN else tuple(sorted(self.teachers.split("+")))

    @property
    def imports_teacher(self) -> bool:
        """Whether the student needs the teacher of `teacher_file`; one that sees low resolution is trained here."""
        looks = self.distills and self.teacher_sees == "high_res"
        return self.teacher_file is not None and (looks or self.student_start == "teacher")

    def teacher(self) -> Guide:
        """The student's own teacher: that of `teacher_file` or, without one, the same network as the student, trained
        on high-resolution images."""
        file = None if self.teacher_file is None else parse(self.teacher_file)
        if file is None:
            return self.trained_teacher()
        return ImportedConfig(
            file=file,
            crop_padding=self.crop_padding,
            flip=self.flip,
            augment_seed=self.augment_seed,
            precision="float32" if file.backbone is None else self._precision,
        )

    def trained_teacher(self) -> PretrainedConfig:
        """The same network as the student, trained here on high-resolution images."""
        return self._pretrained(None, self.backbone)

    def guides(self) -> tuple[Guide, ...]:
        """The networks that the student is distilled from; none if λ is 0."""
        if not self.distills:
            return ()
        if self.teacher_file is not None and self.teacher_sees == "high_res":
            return (self.teacher(),)
        sees = self.low_res if self.teacher_sees == "low_res" else None
        return tuple(self._pretrained(sees, backbone) for backbone in self.teacher_backbones)

    def base(self) -> PretrainedConfig:
        """The base network that `student_start: base` starts from: trained on low-resolution images, λ = 0."""
        return self._pretrained(self.low_res, self.backbone)

    def start(self) -> Guide | None:
        """The network whose weights the student starts from; None if it starts from random ones."""
        if self.student_start == "scratch":
            return None
        return self.teacher() if self.student_start == "teacher" else self.base()

    def pretrained(self) -> Iterator[Guide]:
        """Every network that must be there before this trial, but for a front end, once; those that guide first."""
        yield from self.guides()
        start = self.start()
        if start is not None and start not in self.guides():
            yield start

    def _pretrained(self, low_res: LowRes | None, backbone: str) -> PretrainedConfig:
        return PretrainedConfig(
            low_res=low_res,
            crop_padding=self.crop_padding,
            flip=self.flip,
            augment_seed=self.augment_seed,
            network=NetworkConfig(backbone, self.width, self.teacher_dropout, self.batch_norm),
            recipe=self._recipe("teacher_"),
        )

    @property
    def camera(self) -> Camera:
        """How this trial's low-resolution images come about."""
        return Camera(self.resolution, self.downsample, self.blur, self.noise, self.jpeg_quality)

    @property
    def low_res(self) -> LowRes:
        """What this trial's student sees."""
        return LowRes(self.camera, self.upsample, self._frontend())

    def _frontend(self) -> FrontendConfig | None:
        if self.frontend == "none":
            return None
        content: PretrainedConfig | Literal["vgg19"] | None = None
        if self.frontend == "srgan":
            assert self.frontend_content != "auto", "settled once it is known what is at hand"
            content = "vgg19" if self.frontend_content == "vgg19" else self.trained_teacher()
        return FrontendConfig(
            camera=self.camera,
            kind=self.frontend,
            size=self.frontend_size,
            epochs=self.frontend_epochs,
            batch_size=self.frontend_batch_size,
            learning_rate=self.frontend_learning_rate,
            seed=self.frontend_seed,
            content=content,
        )

    @property
    def network(self) -> NetworkConfig:
        """The student's architecture."""
        return NetworkConfig(self.backbone, self.width, self.dropout, self.batch_norm)

    @property
    def recipe(self) -> Recipe:
        """How the student is optimised; from trained weights, at a rate of its own, lest it climb away from them."""
        factor = 1.0 if self.student_start == "scratch" else self.start_rate_factor
        recipe = self._recipe("")
        return replace(recipe, learning_rate=factor * recipe.learning_rate, mixup=self.mixup)

    def _recipe(self, whose: Literal["", "teacher_"]) -> Recipe:
        """That of the settings whose names begin so."""
        own = {name: getattr(self, whose + name) for name in _IN_BOTH_RECIPES}
        return Recipe(precision=self._precision, evaluate_every=self.evaluate_every, **own)

    @property
    def _precision(self) -> Precision:
        assert self.precision != "auto"
        return self.precision

    def key(self, dataset_digest: str) -> str:
        """The trial key. What cannot change the result (a teacher that is never looked at) is left out."""
        idle = set(self._idle())
        settings = vars(self) | {"teachers": "+".join(self.teacher_backbones)}
        identity = {name: value for name, value in settings.items() if name not in idle}
        return digest_json({"trial": identity, "dataset": dataset_digest, "semantics": TRAINING_SEMANTICS})

    def _idle(self) -> Iterator[str]:
        """The settings that cannot change the result as the others stand."""
        yield from (name for name in ("blur", "noise", "jpeg_quality", "mixup") if not getattr(self, name))
        yield "evaluate_every"  # what is looked at on the way changes nothing
        yield from (name for name in ("class_weights", "teacher_class_weights") if getattr(self, name) == "none")
        if self.projector == "auto":
            yield "projector"
        if not self.distills:
            yield from ("method", "teachers", "teacher_sees", *read_by_methods())
        else:
            yield from read_by_methods().difference(METHODS[self.method].reads)
            if self.method == DEFAULT:
                yield "method"
            if self.teacher_backbones == (self.backbone,):
                yield "teachers"
        if self.student_start == "scratch":
            yield "start_rate_factor"
        if not self.imports_teacher:
            yield "teacher_file"
        if self.frontend == "none":
            yield from (name for name in kinds_of(TrialConfig) if name.startswith("frontend"))
        elif self.frontend != "srgan":
            yield "frontend_content"
        if not self._trains_before():
            yield from (f"teacher_{name}" for name in (*FOLLOWED_BY_TEACHER, "seed"))

    def _trains_before(self) -> bool:
        """Whether a network, be it for a front end, is trained before this trial by the recipe of `teacher_*`."""
        if self.frontend == "srgan" and self.frontend_content == "teacher":
            return True
        if not self.imports_teacher:
            return self.needs_teacher or self.student_start == "base"
        return any(isinstance(network, PretrainedConfig) for network in self.pretrained())


FOLLOWED_BY_TEACHER = tuple(
    name for name in settings_of(TrialConfig) if f"teacher_{name}" in settings_of(TrialConfig) and name != "seed"
)
"""The student's settings that a teacher has, too, and takes over where its own are not given."""
_IN_BOTH_RECIPES = ("seed", *(name for name in FOLLOWED_BY_TEACHER if name != "dropout"))
"""Those of them that are of the recipe; dropout is of the network."""


def teacher_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The `teacher_*` settings that were not given: they follow the student's, as they stand before the search.

    What a search explores of the student's recipe leaves the teacher's alone, so one teacher serves all trials.
    """
    return {
        f"teacher_{name}": settings[name]
        for name in FOLLOWED_BY_TEACHER
        if name in settings and f"teacher_{name}" not in settings
    }
