"""What trials are made of and share: cameras, front ends, networks, recipes, and networks that come before a search;
each frozen, with what tells it from others, and the key under which it is stored.

Not for: settings as a person gives them, with their ranges (config.py).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from dfd_tune.digest import digest_json
from dfd_tune.teacher_file import TeacherFile

TRAINING_SEMANTICS = 1
"""Raised by hand when the same configuration would train differently, so that old results are not reused."""

FRONTEND_FACTOR = 2
"""A front end doubles the side of its images: the paper's turn 8×8 into 16×16."""

Resampling = Literal["bicubic", "bilinear", "area", "nearest"]
Schedule = Literal["one_cycle", "cosine", "step", "constant"]
Frontend = Literal["none", "vdsr", "espcn", "srgan"]
Precision = Literal["float32", "bf16"]
ClassWeights = Literal["none", "balanced"]


@dataclass(frozen=True)
class Camera:
    """How a low-resolution image of `resolution` pixels comes about: blurred, down-sampled, noisy, compressed."""

    resolution: int
    downsample: Resampling = "bicubic"
    blur: float = 0.0
    """Standard deviation in pixels of the high-resolution image."""
    noise: float = 0.0
    """Standard deviation in grey values of 0 to 255."""
    jpeg_quality: int | None = None

    def identity(self) -> dict[str, Any]:
        """What tells it from other cameras; what is not there is left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    def key(self, dataset_digest: str) -> str:
        """The key under which a dataset's images, as this camera sees them, are stored."""
        return digest_json({"camera": self.identity(), "dataset": dataset_digest, "semantics": TRAINING_SEMANTICS})


@dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """A network that doubles the side of a camera's images, trained before the search."""

    camera: Camera
    kind: Frontend
    size: float
    """Multiplier on the published numbers of channels and layers."""
    epochs: int
    batch_size: int
    learning_rate: float
    """Of Adam."""
    seed: int
    content: PretrainedConfig | Literal["vgg19"] | None
    """Whose features SRGAN's content loss compares; None for the others."""

    @property
    def resolution(self) -> int:
        """Side of its output in pixels."""
        return FRONTEND_FACTOR * self.camera.resolution

    def identity(self) -> dict[str, Any]:
        """What tells it from other front ends."""
        content = self.content.identity() if isinstance(self.content, PretrainedConfig) else self.content
        return dataclasses.asdict(self) | {"camera": self.camera.identity(), "content": content}

    def key(self, dataset_digest: str) -> str:
        """The key under which the trained front end is stored."""
        return digest_json({"frontend": self.identity(), "dataset": dataset_digest, "semantics": TRAINING_SEMANTICS})


@dataclass(frozen=True)
class LowRes:
    """The low-resolution side of a pair as a network sees it: a camera's image, perhaps through a front end,
    up-sampled to the network's input size."""

    camera: Camera
    upsample: Resampling = "bicubic"
    frontend: FrontendConfig | None = None

    def identity(self) -> dict[str, Any]:
        """What tells it from others; what is not there is left out."""
        parts = self.camera.identity() | {"upsample": self.upsample}
        return parts if self.frontend is None else parts | {"frontend": self.frontend.identity()}


@dataclass(frozen=True)
class NetworkConfig:
    """An architecture, but for its input size and number of classes, which the dataset gives."""

    backbone: str
    width: float
    dropout: float
    batch_norm: bool = True


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
    precision: Precision
    evaluate_every: int = 1
    mixup: float = 0.0
    class_weights: ClassWeights = "none"


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """A network trained by cross entropy alone before the search: a teacher (`low_res` is None) or a base.

    Students can be distilled from either (`teacher_sees`); each looks at images of the side it was trained on.
    """

    low_res: LowRes | None
    crop_padding: int
    flip: bool
    augment_seed: int
    network: NetworkConfig
    recipe: Recipe

    @property
    def architecture(self) -> str:
        """The backbone's name."""
        return self.network.backbone

    @property
    def precision(self) -> Precision:
        """In which the network is trained and looks."""
        return self.recipe.precision

    @property
    def role(self) -> Literal["teacher", "base"]:
        """By the images it was trained on: a teacher's are of high resolution, a base network's of low."""
        return "teacher" if self.low_res is None else "base"

    def identity(self) -> dict[str, Any]:
        """What tells it from other networks."""
        low_res = None if self.low_res is None else self.low_res.identity()
        recipe = dataclasses.asdict(self.recipe)
        del recipe["evaluate_every"]  # what is looked at on the way changes nothing
        if not self.recipe.mixup:
            del recipe["mixup"]
        if self.recipe.class_weights == "none":
            del recipe["class_weights"]
        return dataclasses.asdict(self) | {"low_res": low_res, "recipe": recipe}

    def key(self, dataset_digest: str) -> str:
        """The key under which the trained network is stored."""
        return digest_json({"pretrained": self.identity(), "dataset": dataset_digest, "semantics": TRAINING_SEMANTICS})


@dataclass(frozen=True, kw_only=True)
class ImportedConfig:
    """A teacher that was trained elsewhere, and the views in which it looks at high-resolution images."""

    file: TeacherFile
    crop_padding: int
    flip: bool
    augment_seed: int
    precision: Precision
    """In which it looks; a program as it was exported, in float32."""

    role: ClassVar[Literal["teacher"]] = "teacher"
    low_res: ClassVar[None] = None

    @property
    def architecture(self) -> str:
        """A backbone's name, or "program"."""
        return self.file.architecture

    def identity(self) -> dict[str, Any]:
        """What tells it from other networks."""
        return dataclasses.asdict(self) | {"file": str(self.file)}

    def key(self, dataset_digest: str) -> str:
        """The key under which it is stored what was measured of it on a dataset."""
        return digest_json({"imported": self.identity(), "dataset": dataset_digest, "semantics": TRAINING_SEMANTICS})


Guide = PretrainedConfig | ImportedConfig
"""A network that is there before the search."""
