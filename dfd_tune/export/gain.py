"""What a student's lighter weights bring and cost, measured beside the same model in float32.

Not for: how weights are made lighter (lighter.py), or what loss is allowed (onnx_file.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dfd_tune.export.onnx_model import INPUT, OUTPUT, session
from dfd_tune.export.trained_on import TrainedOn
from dfd_tune.models.cost import BATCH, example_images, latencies
from dfd_tune.models.portable import Portable

if TYPE_CHECKING:
    from onnx import ModelProto

_REPEATS, _PATIENCE_SECONDS = 101, 2.0
"""Of what is measured in turn, one image and 64 at once: the two models may be nearly as fast."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What lighter weights bring and cost: of each pair, float32 comes first."""

    weights: str
    sizes: tuple[int, int]
    """Bytes of the files."""
    image_seconds: tuple[float, float]
    """On one thread of ONNX Runtime, for one image of the network's own side: medians."""
    batch_seconds: tuple[float, float]
    """Likewise for 64 at once."""
    accuracies: tuple[float, float]
    """On the validation images, a fraction."""
    images: int
    """How many these are."""

    @property
    def loss(self) -> float:
        """Percentage points of validation accuracy; below 0 if it rose."""
        before, after = self.accuracies
        return 100 * (before - after)

    def in_words(self) -> list[str]:
        """Size and time, then accuracy, in a line each."""
        one, many = (
            f"{before / after:.1f} times as fast on {what} ({1000 * before:.3g} → {1000 * after:.3g} ms)"
            for what, (before, after) in (("one image", self.image_seconds), (f"{BATCH} at once", self.batch_seconds))
        )
        before, after = (f"{100 * accuracy:.1f}" for accuracy in self.accuracies)
        return [
            f"{self.weights}: {self.sizes[1] / self.sizes[0]:.2f} of the size, {one}, {many}.",
            f"{self.weights}: validation accuracy {before} → {after} % ({self.images} images).",
        ]


def gain_of(portable: Portable, model: ModelProto, lighter: ModelProto, weights: str, images: TrainedOn) -> Gain:
    """Both models measured: the files, both in turn for the seconds, and the validation images."""
    sessions = (session(model), session(lighter))
    deployed = portable.deployed
    examples = example_images(BATCH, deployed.image_size, deployed.channels).numpy()
    one, many = (
        latencies(
            [partial(outputs.run, [OUTPUT], {INPUT: batch}) for outputs in sessions],
            repeats=_REPEATS,
            patience=_PATIENCE_SECONDS,
        )
        for batch in (examples[:1], examples)
    )
    pictures, labels = images.validation()
    before, after = (_accuracy(outputs, pictures, labels) for outputs in sessions)
    return Gain(
        weights=weights,
        sizes=(model.ByteSize(), lighter.ByteSize()),
        image_seconds=(one[0], one[1]),
        batch_seconds=(many[0], many[1]),
        accuracies=(before, after),
        images=len(labels),
    )


def _accuracy(outputs: Any, images: np.ndarray, labels: np.ndarray) -> float:
    right = 0
    for start in range(0, len(images), BATCH):
        (probabilities,) = outputs.run([OUTPUT], {INPUT: images[start : start + BATCH]})
        right += int((probabilities.argmax(1) == labels[start : start + BATCH]).sum())
    return right / len(labels)
