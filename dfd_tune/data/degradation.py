"""How a low-resolution image is made: a camera takes it (`take_pictures`), then it is enlarged (`enlarge`).

The deployed model's first layers (`degrade`) are made of the same pieces, so they can't drift apart from the
training data; that is why these are written in operations that torch.export follows for any batch, height and width.
Also the step from bytes to what networks are fed. Not for: crops and flips (data/views.py), nor for
restoring detail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dfd_tune.errors import UserError, unknown_name
from dfd_tune.parts import Camera

VALUES_PER_CHUNK = 2**24
"""How many values are held as float32 at once: 64 MiB."""

Resampler = Callable[[Tensor, int, bool], Tensor]
Restore = Callable[[Tensor], Tensor]
"""A front end: uint8 (N, C, r, r) -> uint8 (N, C, 2r, 2r)."""


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
    return _as_bytes(_resampler(method)(images.to(torch.float32), size, antialias))


def enlarge(images: Tensor, size: int, method: str) -> Tensor:
    """Bring low-resolution images to the network's input size.

    Args:
        images: uint8 (N, C, r, r).
        size: the network's input size in pixels.
        method: a name in `RESAMPLERS`.

    Returns:
        uint8 (N, C, size, size).
    """
    # Anti-aliasing an enlargement would only swap the bicubic kernel for a softer one.
    return resize(images, size, method, antialias=size < images.shape[-1])


def degrade(
    images: Tensor,
    *,
    resolution: int,
    image_size: int,
    downsample: str,
    upsample: str,
    restore: Restore | None = None,
) -> Tensor:
    """What a deployed student sees of any image: no more than `resolution` pixels of it, enlarged.

    Images that are smaller than `resolution` are enlarged to it first. Blur, noise and JPEG are no part of this: the
    camera that took the image has done that already.

    Args:
        images: uint8 (N, C, H, W), any H and W; a side ratio other than 1:1 is squeezed.
        resolution: side of the low-resolution image in pixels.
        image_size: side of the result in pixels.
        downsample: method of the way down, anti-aliased.
        upsample: method of the way back.
        restore: a front end, between the way down and the way back.

    Returns:
        uint8 (N, C, image_size, image_size).

    Raises:
        UserError: there is no such method.
    """
    # Kernels may round differently by memory layout, so training and deployment get the same one.
    low_res = resize(images.contiguous(), resolution, downsample)
    return enlarge(low_res if restore is None else restore(low_res), image_size, upsample)


def take_pictures(images: np.ndarray, camera: Camera, random: np.random.Generator) -> np.ndarray:
    """Images as a camera sees them: blurred, down-sampled, with noise, rounded, and through JPEG.

    In chunks, so that only a part is held as float32 at a time; the noise does not depend on the chunks.

    Args:
        images: uint8 (N, C, H, W); may be memory-mapped and read-only.
        camera: how they come about.
        random: draws the noise, in the order of the images.

    Returns:
        uint8 (N, C, r, r), r being the camera's resolution.
    """
    count, channels, height, width = images.shape
    pictures = np.empty((count, channels, camera.resolution, camera.resolution), dtype=np.uint8)
    step = max(1, VALUES_PER_CHUNK // (channels * height * width))
    for start in range(0, count, step):
        seen = torch.tensor(images[start : start + step]).contiguous().to(torch.float32)
        if camera.blur > 0:
            seen = _blurred(seen, camera.blur)
        seen = _resampler(camera.downsample)(seen, camera.resolution, True)
        if camera.noise > 0:
            seen = seen + camera.noise * torch.tensor(random.standard_normal(tuple(seen.shape), dtype=np.float32))
        pictures[start : start + step] = _as_bytes(seen).numpy()
    return pictures if camera.jpeg_quality is None else _through_jpeg(pictures, camera.jpeg_quality)


def enlarge_array(pictures: np.ndarray, size: int, method: str, restore: Restore | None = None) -> Tensor:
    """`enlarge` for a whole dataset, in chunks, perhaps through a front end.

    Args:
        pictures: uint8 (N, C, r, r); may be memory-mapped and read-only.
        size: the network's input size in pixels.
        method: a name in `RESAMPLERS`.
        restore: a front end that the pictures go through first.

    Returns:
        uint8 (N, C, size, size), on the CPU.
    """
    count, channels = pictures.shape[:2]
    result = torch.empty((count, channels, size, size), dtype=torch.uint8)
    step = max(1, VALUES_PER_CHUNK // (channels * size * size))
    for start in range(0, count, step):
        chunk = torch.tensor(pictures[start : start + step])
        result[start : start + step] = enlarge(chunk if restore is None else restore(chunk), size, method)
    return result


def _resampler(method: str) -> Resampler:
    if method not in RESAMPLERS:
        raise UserError(unknown_name("resampling method", method, RESAMPLERS))
    return RESAMPLERS[method]


def _as_bytes(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)


def _blurred(images: Tensor, deviation: float) -> Tensor:
    """Gaussian blur over three standard deviations to each side, or as far as the image reaches; edges reflect."""
    from torchvision.transforms.v2.functional import gaussian_blur

    reach = min(math.ceil(3 * deviation), min(images.shape[-2:]) - 1)
    blurred: Tensor = gaussian_blur(images, [2 * reach + 1] * 2, [deviation] * 2)
    return blurred


def _through_jpeg(pictures: np.ndarray, quality: int) -> np.ndarray:
    """Every picture written as JPEG (libjpeg through Pillow, colours at half the resolution) and read again."""
    import io

    from PIL import Image

    result = np.empty_like(pictures)
    for number, picture in enumerate(pictures):
        file = io.BytesIO()
        Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)).save(
            file, "JPEG", quality=quality
        )
        pixels = np.asarray(Image.open(file))
        result[number] = pixels[None] if len(picture) == 1 else pixels.transpose(2, 0, 1)
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
