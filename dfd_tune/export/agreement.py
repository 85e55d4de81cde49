"""What ONNX Runtime makes of a student's model, held against what the student makes of the same images.

Not for: lighter weights, which need not agree (gain.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dfd_tune.data.degradation import enlarge, normalise, resize
from dfd_tune.errors import UserError
from dfd_tune.export.onnx_model import INPUT, OUTPUT, session
from dfd_tune.models.cost import BATCH, example_images, latency, latency_of
from dfd_tune.models.deployed import Deployed
from dfd_tune.models.portable import Portable

if TYPE_CHECKING:
    from onnx import ModelProto

SIDES = ((20, 20), (21, 34), (33, 32), (64, 48), (97, 51), (128, 128), (200, 143), (199, 200))
"""Height and width of the images that a model is tried on."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What ONNX Runtime makes of images, beside what the stored student makes of them."""

    images: int
    same_class: int
    """Of how many images both say the same class."""
    largest_difference: float
    """Of a probability, over all images."""
    on_same_bytes: float
    """Likewise, where both networks see the very same bytes."""
    rounded_otherwise: int
    """Of how many images a value just between two bytes was rounded to the other one, somewhere on the way."""

    seconds: tuple[float, float]
    """On one thread of ONNX Runtime, for one image of the network's own side, and for 64 at once: medians."""
    torch_seconds: tuple[float, float]
    """Likewise of the stored student in torch."""

    def in_words(self) -> list[str]:
        """A line each: what was compared, what was rounded otherwise if anything was, and how fast it is."""
        heights = [side for sides in SIDES for side in sides]
        lines = [
            f"ONNX Runtime says the student's class of {self.same_class} of {self.images} images with sides of "
            f"{min(heights)} to {max(heights)} pixels; on the same bytes, probabilities differ by at most "
            f"{self.on_same_bytes:.1e}."
        ]
        if self.rounded_otherwise:
            lines.append(
                f"Of {self.rounded_otherwise} of them, resized values just between two bytes were rounded to the other "
                f"one; probabilities then differ by at most {self.largest_difference:.1e}."
            )
        one, many = (f"{1000 * value:.3g} ms" for value in self.seconds)
        torch_one, torch_many = (f"{1000 * value:.3g} ms" for value in self.torch_seconds)
        lines.append(
            f"On one thread of this machine ONNX Runtime takes {one} for one image and {many} for {BATCH} at once; "
            f"torch {torch_one} and {torch_many}."
        )
        return lines


def compare(portable: Portable, model: ModelProto) -> Agreement:
    """ONNX Runtime beside the stored student, on images of many sizes.

    Resized values that lie just between two bytes may be rounded either way, as sums are not taken in the same order.
    So from one rounding to the next each runtime's own bytes are followed: none may be further off than 1, and the
    probabilities are compared on the bytes that ONNX Runtime saw.

    Raises:
        UserError: bytes differ by more than 1.
    """
    outputs = session(model)
    difference = on_same_bytes = 0.0
    images = same = rounded = 0
    for sample in _samples(portable.deployed.channels):
        theirs, *stages = (torch.from_numpy(value) for value in outputs.run(None, {INPUT: sample.numpy()}))
        with torch.inference_mode():
            ours = portable.deployed(sample)
            steps = _steps(portable.deployed, sample, stages)
            again = _classify(portable.deployed, stages[-1])
        otherwise = torch.zeros(len(sample), dtype=torch.bool)
        for name, expected, found in zip(portable.stages, steps, stages, strict=True):
            apart = (expected.to(torch.float32) - found).abs().flatten(1).amax(dim=1)
            if apart.max() > 1:
                raise UserError(
                    f"The ONNX model was not written: on ONNX Runtime its images '{name}' differ from torch's by up to "
                    f"{apart.max():.0f} of 255; other versions of onnxruntime or onnxscript may agree."
                )
            otherwise |= apart > 0
        images += len(sample)
        same += int((ours.argmax(1) == theirs.argmax(1)).sum())
        rounded += int(otherwise.sum())
        difference = max(difference, float((ours - theirs).abs().max()))
        on_same_bytes = max(on_same_bytes, float((again - theirs).abs().max()))
    return Agreement(
        images=images,
        same_class=same,
        largest_difference=difference,
        on_same_bytes=on_same_bytes,
        rounded_otherwise=rounded,
        **_latencies(portable.deployed, outputs),
    )


def _latencies(deployed: Deployed, outputs: Any) -> dict[str, tuple[float, float]]:
    images = example_images(BATCH, deployed.image_size, deployed.channels)
    batches = (images[:1], images)
    theirs = [latency(partial(outputs.run, [OUTPUT], {INPUT: batch.numpy()})) for batch in batches]
    ours = [latency_of(deployed, batch) for batch in batches]
    return {"seconds": (theirs[0], theirs[1]), "torch_seconds": (ours[0], ours[1])}


def _steps(deployed: Deployed, images: Tensor, stages: list[Tensor]) -> list[Tensor]:
    """What torch makes of the images, then of each stage that another runtime reached; uint8 (N, C, S, S)."""
    given = images.permute(0, 3, 1, 2).contiguous()
    steps = [resize(given, deployed.resolution, deployed.downsample)]
    before = [stage.to(torch.uint8) for stage in stages]
    if deployed.frontend is not None:
        steps.append(deployed.frontend.restore(before[0]))
    steps.append(enlarge(before[-2], deployed.image_size, deployed.upsample))
    return steps


def _classify(deployed: Deployed, seen: Tensor) -> Tensor:
    logits: Tensor = deployed.network(normalise(seen, deployed.mean, deployed.std))
    return torch.softmax(logits, dim=1)


def _samples(channels: int) -> Iterator[Tensor]:
    """Images uint8 (N, H, W, C) of each of `SIDES`: noise, black and white, and smooth ones."""
    generator = torch.Generator().manual_seed(0)
    for height, width in SIDES:
        noise = torch.randint(0, 256, (2, height, width, channels), generator=generator, dtype=torch.uint8)
        coarse = torch.randint(0, 256, (2, channels, 6, 6), generator=generator).to(torch.float32)
        smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").to(torch.uint8)
        yield torch.cat([noise[:1], (noise[1:] > 127).to(torch.uint8) * 255, smooth.permute(0, 2, 3, 1)])
