"""Super-resolution front ends, each doubling the side of its images: VDSR, ESPCN, and SRGAN's two networks.

Widths and depths are the published ones times one setting. Not for: their losses and training (distill/frontends.py).
docs/models.md lists the layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dfd_tune.errors import UserError, unknown_name
from dfd_tune.models.network import GlobalAveragePool, scaled

FACTOR = 2


class FrontEnd(nn.Module):
    """A network that doubles the side of images.

    Attributes:
        body: float (N, C, r, r) in 0..1 -> float (N, C, 2r, 2r), about 0..1.
    """

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, r, r) in 0..1 -> float (N, C, 2r, 2r), not cut to 0..1."""
        restored: Tensor = self.body(images)
        return restored

    def restore(self, images: Tensor) -> Tensor:
        """uint8 (N, C, r, r) -> uint8 (N, C, 2r, 2r), rounded and cut, as `degradation.degrade` wants it."""
        return (255 * self(images.to(torch.float32) / 255)).round().clamp(0, 255).to(torch.uint8)


class _Vdsr(nn.Module):
    def __init__(self, channels: int, size: float):
        super().__init__()
        width, depth = scaled(64, size), layers_of(20, size, least=3)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(last.weight)  # starts as plain bicubic enlargement, which it only has to improve on
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.residual = nn.Sequential(*layers, last)

    def forward(self, images: Tensor) -> Tensor:
        enlarged = F.interpolate(images, scale_factor=float(FACTOR), mode="bicubic", align_corners=False)
        restored: Tensor = enlarged + self.residual(enlarged)
        return restored


def vdsr(*, channels: int, size: float) -> FrontEnd:
    """Twenty 3×3 convolutions of 64 channels that learn what is missing from the bicubic enlargement.

    Kim, Lee and Lee 2016, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", section 3,
    https://arxiv.org/abs/1511.04587.
    """
    return FrontEnd(_Vdsr(channels, size))


def espcn(*, channels: int, size: float) -> FrontEnd:
    """Three convolutions at low resolution (5×5 of 64, 3×3 of 32, 3×3) and a sub-pixel shuffle.

    Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
    Neural Network", sections 2 and 3.2, https://arxiv.org/abs/1609.05158. `size` changes its widths alone.
    """
    first, second = scaled(64, size), scaled(32, size)
    return FrontEnd(
        nn.Sequential(
            nn.Conv2d(channels, first, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(first, second, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(second, channels * FACTOR**2, 3, padding=1),
            nn.PixelShuffle(FACTOR),
        )
    )


class _Residual(nn.Module):
    """A block of SRResNet: two 3×3 convolutions with batch norm, added to their input."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, maps: Tensor) -> Tensor:
        added: Tensor = maps + self.inner(maps)
        return added


class _Generator(nn.Module):
    def __init__(self, channels: int, size: float):
        super().__init__()
        width, blocks = scaled(64, size), layers_of(16, size, least=1)
        self.first = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        self.trunk = nn.Sequential(
            *(_Residual(width) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.last = nn.Sequential(
            nn.Conv2d(width, width * FACTOR**2, 3, padding=1),
            nn.PixelShuffle(FACTOR),
            nn.PReLU(),
            nn.Conv2d(width, channels, 9, padding=4),
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        restored: Tensor = self.last(maps + self.trunk(maps))
        return restored


def srgan(*, channels: int, size: float) -> FrontEnd:
    """SRGAN's generator, SRResNet: sixteen residual blocks of 64 channels, then one sub-pixel convolution.

    Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", figure 4,
    https://arxiv.org/abs/1609.04802, which has two sub-pixel convolutions, for a factor of 4.
    """
    return FrontEnd(_Generator(channels, size))


def discriminator(*, channels: int, size: float) -> nn.Module:
    """SRGAN's discriminator: float (N, C, S, S) in 0..1 -> (N, 1), the logit of "this is a true image".

    Ledig et al. 2017, figure 4: eight 3×3 convolutions of 64 to 512 channels, every second of stride 2, and two fully
    connected layers; the maps are averaged before those, so that it takes images of any side.
    """
    layers: list[nn.Module] = []
    inputs = channels
    for number, (count, stride) in enumerate(zip((64, 64, 128, 128, 256, 256, 512, 512), (1, 2) * 4, strict=True)):
        outputs = scaled(count, size)
        layers.append(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=number == 0))
        if number:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.LeakyReLU(0.2))
        inputs = outputs
    hidden = scaled(1024, size)
    head = [GlobalAveragePool(), nn.Linear(inputs, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)]
    return nn.Sequential(*layers, *head)


FRONT_ENDS: Mapping[str, Callable[..., FrontEnd]] = {"vdsr": vdsr, "espcn": espcn, "srgan": srgan}
"""Each lays out the layers from the arguments of `build_frontend` but for the seed."""


def layers_of(published: int, size: float, *, least: int) -> int:
    """A published number of layers or blocks times `size`, rounded to a whole number of at least `least`."""
    return max(least, round(published * size))


def build_frontend(kind: str, *, channels: int, size: float, seed: int) -> FrontEnd:
    """A front end on the CPU, in training mode, with random float32 weights that the arguments alone decide.

    Args:
        kind: a name in `FRONT_ENDS`.
        channels: of the images, 1 or 3.
        size: multiplier on the published numbers of channels (at least 8) and layers.
        seed: seed of the weights, which torch's defaults draw. The global random state is neither read nor changed.

    Raises:
        UserError: there is no such front end.
    """
    if kind not in FRONT_ENDS:
        raise UserError(unknown_name("front end", kind, FRONT_ENDS))
    with seeded(seed):
        return FRONT_ENDS[kind](channels=channels, size=size)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block on the CPU whose random numbers begin with `seed`, and which leaves the caller's as they were."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: torch.manual_seed would seed the caller's GPU
        yield
