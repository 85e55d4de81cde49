"""The deployed student in operations that every runtime has: resizing as two matrix products, made from the sizes.

Runtimes differ in what they take anti-aliased resizing to be, and most of them know no sizes but fixed ones. Here the
weights of torch's kernels are computed from height and width inside the model, in torch's order of operations, and
what a pixel becomes is one product a side. Not for: training or `predict`, which use torch's own kernels
(data/degradation.py), nor for writing files (export/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dfd_tune.data.degradation import RESAMPLERS, normalise
from dfd_tune.models.deployed import Deployed
from dfd_tune.models.super_resolution import FACTOR

Reduce = Callable[[Tensor, int], Tensor]
"""float32 (N, C, H, W), and a side s -> float32 (N, C, s, s), for any H and W."""


def _triangle(distance: Tensor) -> Tensor:
    return torch.clamp(1 - distance, min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -½, which anti-aliased resizing has; Horner's scheme as in torch's kernel."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))


def _places(size: int, like: Tensor) -> Tensor:
    """0, 1, ..., size - 1 as float32."""
    return torch.arange(size, device=like.device).to(torch.float32)


def _weights(before: int, after: int, kernel: Callable[[Tensor], Tensor], reach: float, like: Tensor) -> Tensor:
    """float32 (after, before): how much of each old pixel is in each new one, anti-aliased, each row adding up to 1."""
    old = _places(before, like)
    scale = (old[-1] + 1) / after
    widened = torch.clamp(scale, min=1)
    centre = (_places(after, like)[:, None] + 0.5) * scale
    first = torch.clamp(torch.floor(centre - reach * widened + 0.5), min=0)
    end = torch.floor(centre + reach * widened + 0.5)
    inside = (old >= first) & (old < end)
    values = kernel(torch.abs((old - centre + 0.5) * (1 / widened)))
    values = torch.where(inside, values, torch.zeros_like(values))
    return values / values.sum(dim=1, keepdim=True)


def _both_sides(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Width first, then height, as torch does."""
    return torch.matmul(rows, torch.matmul(images, columns.T))


def _bicubic(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[-2:]
    return _both_sides(images, _weights(height, size, _cubic, 2.0, images), _weights(width, size, _cubic, 2.0, images))


def _bilinear(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[-2:]
    rows, columns = (_weights(side, size, _triangle, 1.0, images) for side in (height, width))
    return _both_sides(images, rows, columns)


def _touched(before: int, after: int, like: Tensor) -> Tensor:
    """float32 (after, before) of 0 and 1: which old pixels a new one touches."""
    old = torch.arange(before, device=like.device)
    new = torch.arange(after, device=like.device)[:, None]
    count = old[-1] + 1
    first = torch.div(new * count, after, rounding_mode="floor")
    end = torch.div((new + 1) * count + (after - 1), after, rounding_mode="floor")
    return ((old >= first) & (old < end)).to(torch.float32)


def _area(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[-2:]
    rows, columns = _touched(height, size, images), _touched(width, size, images)
    # Sums of bytes are exact, so the two divisions alone round, as in torch's kernel.
    sums = _both_sides(images, rows, columns)
    return sums / rows.sum(dim=1)[:, None] / columns.sum(dim=1)


def _nearest(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[-2:]
    rows, columns = (_nearest_of(side, size, images) for side in (height, width))
    return images.index_select(2, rows).index_select(3, columns)


def _nearest_of(before: int, after: int, like: Tensor) -> Tensor:
    """int64 (after,): the old pixel in which each new pixel's centre lies."""
    last = _places(before, like)[-1]
    places = torch.floor((_places(after, like) + 0.5) * ((last + 1) / after))
    return torch.minimum(places, last).to(torch.int64)


REDUCERS: Mapping[str, Reduce] = {"bicubic": _bicubic, "bilinear": _bilinear, "area": _area, "nearest": _nearest}
"""What `degradation.RESAMPLERS` does when it widens its kernels."""


class Enlarge(nn.Module):
    """float32 (N, C, before, before) -> float32 (N, C, after, after) by one of `degradation.RESAMPLERS`.

    Both sides are fixed, so torch's own kernel is asked for its weights once: what it makes of single bright pixels.
    """

    weights: Tensor

    def __init__(self, before: int, after: int, method: str):
        super().__init__()
        self.size = after
        self.reduce = REDUCERS[method] if method in ("area", "nearest") else None
        # Several columns, as a single one may be taken for another memory layout.
        single = torch.eye(before).reshape(before, 1, before, 1).repeat(1, 1, 1, before)
        self.register_buffer("weights", RESAMPLERS[method](single, after, after < before)[:, 0, :, 0].T.contiguous())

    def forward(self, images: Tensor) -> Tensor:
        """The enlarged images, neither rounded nor cut."""
        if self.reduce is not None:
            return self.reduce(images, self.size)
        return _both_sides(images, self.weights, self.weights)


class Portable(nn.Module):
    """A `Deployed` whose every operation is one that a runtime has; it shares the network's weights.

    What comes out beside the probabilities are the images between two roundings to bytes, so that whoever compares two
    runtimes can tell a rounding from an error.
    """

    def __init__(self, deployed: Deployed):
        super().__init__()
        self.deployed = deployed
        between = deployed.resolution if deployed.frontend is None else FACTOR * deployed.resolution
        self.enlarge = Enlarge(between, deployed.image_size, deployed.upsample)
        self.eval()

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the outputs after the probabilities: what is rounded to bytes, in its order."""
        return ("low_res", "seen") if self.deployed.frontend is None else ("low_res", "restored", "seen")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Class probabilities, float32 (N, K), of images uint8 (N, H, W, C) of any height and width; then the images at
        each of `stages`: float32 (N, C, S, S), whole numbers in 0..255."""
        given = images.permute(0, 3, 1, 2).to(torch.float32)
        stages = [_as_bytes(REDUCERS[self.deployed.downsample](given, self.deployed.resolution))]
        if self.deployed.frontend is not None:
            stages.append(_as_bytes(255 * self.deployed.frontend(stages[-1] / 255)))
        stages.append(_as_bytes(self.enlarge(stages[-1])))
        logits = self.deployed.network(normalise(stages[-1], self.deployed.mean, self.deployed.std))
        return torch.softmax(logits.to(torch.float32), dim=1), *stages


def _as_bytes(images: Tensor) -> Tensor:
    """As `degradation` rounds and cuts, but float32 still."""
    return images.round().clamp(0, 255)
