"""Small real objects that several tests start from: the digits' recipe, resolved, and datasets made on the spot."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from dfd_tune.config import TrialConfig, teacher_defaults
from dfd_tune.data.arrow import Split
from dfd_tune.data.prepared import Dataset
from dfd_tune.data.recipes import DIGITS
from dfd_tune.data.sources import SOURCES
from dfd_tune.rules import settings_of
from dfd_tune.settings import Request, resolve
from dfd_tune.space import read_space


def digits_trial(**changes: Any) -> TrialConfig:
    """The digits' recommended trial, changed."""
    settings = {name: value for name, value in DIGITS.items() if name in settings_of(TrialConfig)}
    settings |= teacher_defaults(settings)
    return dataclasses.replace(TrialConfig(**settings, precision="float32"), **changes)


def request_for(space: str | Path, *assignments: str, dataset: str = "digits", **options: Any) -> Request:
    """A space, shipped or in a file, on a dataset's recipe with `--set` assignments; in the precision of a CPU."""
    recipe = SOURCES[dataset].recipe
    request = resolve(
        read_space(str(space)), dataset=dataset, data=None, recipe=recipe, assignments=assignments, **options
    )
    if any(text.startswith("precision") for text in assignments):
        return request
    return dataclasses.replace(request, settings={**request.settings, "precision": "float32"})


def tiny_dataset(train: int = 100, image_size: int = 8, channels: int = 1) -> Dataset:
    """A dataset without files: noise of two classes."""

    def split(count: int) -> Split:
        images = np.random.default_rng(count).integers(0, 256, (count, channels, image_size, image_size), np.uint8)
        return Split(images, np.arange(count, dtype=np.int64) % 2)

    return Dataset(
        folder=Path("datasets") / "tiny",
        digest="feedfacefeedface",
        name="digits",
        classes=("even", "odd"),
        channels=channels,
        image_size=image_size,
        mean=(0.5,) * channels,
        std=(0.3,) * channels,
        train=split(train),
        validation=split(20),
        test=split(30),
    )
