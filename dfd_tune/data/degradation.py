"""How a low-resolution image is made: down-sampled to `resolution` pixels, then up-sampled again.

One function makes both the training data and the first layers of the deployed model, so they can't drift
apart; that is why it is written in operations that torch.export follows for any batch, height and width.
Also the step from bytes to what networks are fed. Not for: crops and flips (data/views.py), nor for
restoring detail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dfd_tune.errors import UserError, unknown_name

VALUES_PER_CHUNK = 2**24
"""How many values are held as float32 at once: 64 MiB."""

Resampler = Callable[[Tensor, int, bool], Tensor]


def _bicubic(images: Tensor, size: int, antialias: bool) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="bicubic", align_corners=False, antialias=antialias)


def _bilinear(images: Tensor, size: int, antialias: bool) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)


def _area(images: Tensor, size: int, antialias: bool) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="area")


def _nearest(images: Tensor, size: int, antialias: bool) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="nearest-exact")


RESAMPLERS: Mapping[str, Resampler] = {
    "bicubic": _bicubic,
    "bilinear": _bilinear,
    "area": _area,
    "nearest": _nearest,
}


def resize(images: Tensor, size: int, method: str, antialias: bool = True) -> Tensor:
    """Resize images to size x size pixels; those that have this size already come back unchanged.

    The methods are torch's
    (https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html): `bicubic` and
    `bilinear` widen their kernel by the factor of reduction if `antialias` is set, as Pillow does; `area`
    is the mean of the pixels that a new pixel touches; `nearest` takes one pixel, aliasing included, and
    `antialias` means nothing to these two.

    Args:
        images: uint8 (N, C, H, W), any H and W.
        size: the new height and width in pixels.
        method: a name in `RESAMPLERS`.
        antialias: whether the kernel is widened when images become smaller.

    Returns:
        uint8 (N, C, size, size), rounded and cut to 0..255, as a camera would deliver it.

    Raises:
        UserError: there is no such method.
    """
    if method not in RESAMPLERS:
        raise UserError(unknown_name("resampling method", method, RESAMPLERS))
    resized = RESAMPLERS[method](images.to(torch.float32), size, antialias)
    return resized.round().clamp(0, 255).to(torch.uint8)


def degrade(images: Tensor, *, resolution: int, image_size: int, downsample: str, upsample: str) -> Tensor:
    """Low-resolution images at the network's size: what a camera with so few pixels sees, enlarged.

    Images that are smaller than `resolution` are enlarged to it first.

    Args:
        images: uint8 (N, C, H, W), any H and W; a side ratio other than 1:1 is squeezed.
        resolution: side of the low-resolution image in pixels.
        image_size: side of the result in pixels.
        downsample: method of the way down, anti-aliased.
        upsample: method of the way back.

    Returns:
        uint8 (N, C, image_size, image_size).

    Raises:
        UserError: there is no such method.
    """
    # Kernels may round differently by memory layout, so training and deployment get the same one.
    low_res = resize(images.contiguous(), resolution, downsample)
    # Anti-aliasing an enlargement would only swap the bicubic kernel for a softer one.
    return resize(low_res, image_size, upsample, antialias=image_size < resolution)


def degrade_array(images: np.ndarray, *, resolution: int, image_size: int, downsample: str, upsample: str) -> Tensor:
    """`degrade` for a whole dataset: in chunks, so that only a part of it is held as float32 at a time.

    Args:
        images: uint8 (N, C, H, W); may be memory-mapped and read-only.
        resolution: as for `degrade`, like the other arguments.

    Returns:
        uint8 (N, C, image_size, image_size), on the CPU.

    Raises:
        UserError: there is no such method.
    """
    count, channels, height, width = images.shape
    result = torch.empty((count, channels, image_size, image_size), dtype=torch.uint8)
    step = max(1, VALUES_PER_CHUNK // (channels * max(height * width, image_size * image_size)))
    for start in range(0, count, step):
        result[start : start + step] = degrade(
            torch.tensor(images[start : start + step]),
            resolution=resolution,
            image_size=image_size,
            downsample=downsample,
            upsample=upsample,
        )
    return result


def normalise(images: Tensor, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> Tensor:
    """What networks are fed: scaled to 0..1, then standardised per channel.

    Args:
        images: uint8 (N, C, H, W).
        mean: C means, of values scaled to 0..1.
        std: C standard deviations, likewise, above 0.

    Returns:
        float32 (N, C, H, W).
    """
    per_channel = (1, -1, 1, 1)
    mean = torch.as_tensor(mean, dtype=torch.float32, device=images.device).reshape(per_channel)
    std = torch.as_tensor(std, dtype=torch.float32, device=images.device).reshape(per_channel)
    return (images.to(torch.float32) / 255 - mean) / std
