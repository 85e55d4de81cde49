"""The backbones by name, and the one way to build one with initial weights.

Not for: loading trained weights (models/deployed.py), nor for settings: what comes in are plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch

from dfd_tune.backbones import BACKBONES, OTHERS, TORCHVISION, is_pinned
from dfd_tune.errors import UserError, raise_all, unknown_name
from dfd_tune.models import from_file, from_torchvision
from dfd_tune.models.cut import Anatomy
from dfd_tune.models.network import Network, initialise

SMALLEST_IMAGE, LARGEST_IMAGE = 8, 64


def _file_of(backbone: str) -> Any:
    """The module that lays out one of the package's own."""
    return import_module(f"dfd_tune.models.{backbone}")


def layers_of(backbone: str) -> tuple[str, ...]:
    """The layers of a backbone whose maps can be looked at; "middle" names one of them as well. None of a network of
    torchvision's, or of a file's, that can't be a backbone."""
    if backbone in BACKBONES:
        return tuple(_file_of(backbone).LAYERS)
    # The layers are the same for images of all sides that it takes, of which this is one.
    found: Anatomy | str
    if is_pinned(backbone):
        found = from_file.anatomy_of(backbone, channels=3, image_size=LARGEST_IMAGE)
    else:
        name = backbone.removeprefix(TORCHVISION)
        found = from_torchvision.anatomy_of(name, width=1.0, channels=3, image_size=LARGEST_IMAGE)
    return tuple(found.channels) if isinstance(found, Anatomy) else ()


HINT_LAYERS: Mapping[str, tuple[str, ...]] = {name: layers_of(name) for name in BACKBONES}
"""Those of the package's own backbones."""


def layer_problem(backbone: str, layer: str) -> str | None:
    """What is wrong with looking at `layer` of `backbone`, as a sentence; None if there is such a layer."""
    if layer == "middle" or layer in layers_of(backbone):
        return None
    return unknown_name(f"hint_layer of {backbone}", layer, ["middle", *layers_of(backbone)])


def network_problem(backbone: str, *, width: float, batch_norm: bool, channels: int, image_size: int) -> str | None:
    """Why there can't be such a network for such images, as a sentence; None if there can. See `build_network`."""
    if backbone in BACKBONES:
        return None
    asked: dict[str, Any] = {
        "width": width,
        "batch_norm": batch_norm,
        "channels": channels,
        "image_size": image_size,
    }
    if is_pinned(backbone):
        return from_file.problem_with(backbone, **asked)
    if backbone.startswith(TORCHVISION):
        return from_torchvision.problem_with(backbone.removeprefix(TORCHVISION), **asked)
    return unknown_name("backbone", backbone, [*BACKBONES, OTHERS])


def build_network(
    backbone: str,
    *,
    width: float,
    dropout: float,
    batch_norm: bool = True,
    channels: int,
    image_size: int,
    num_classes: int,
    seed: int,
) -> Network:
    """A network on the CPU, in training mode, with random float32 weights that the arguments alone decide.

    Args:
        backbone: a name in `BACKBONES`, torchvision/NAME, or that of a file that was read (own_backbones.py).
        width: multiplier on the number of channels.
        dropout: probability of dropping a unit, in 0..1; ResNet-18 has no dropout and ignores it.
        batch_norm: whether batch norm follows each convolution; without it, convolutions have biases.
        channels: 1 or 3.
        image_size: side of the input in pixels, 8 to 64.
        num_classes: number of logits.
        seed: seed of the weights. The global random state is neither read nor changed.

    Raises:
        UserError: there is no such backbone, or it can't be built for such images.
    """
    raise_all(_problems_with_input(channels, image_size))
    problem = network_problem(backbone, width=width, batch_norm=batch_norm, channels=channels, image_size=image_size)
    if problem is not None:
        raise UserError(problem)
    # Constructors draw weights, all that a network of torchvision's has; the fork keeps that from the caller.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # The CPU's generator alone: torch.manual_seed would seed the caller's GPU as well.
        torch.default_generator.manual_seed(seed)
        if is_pinned(backbone):
            return from_file.lay_out(
                backbone, dropout=dropout, channels=channels, image_size=image_size, num_classes=num_classes
            )
        if backbone not in BACKBONES:
            return from_torchvision.lay_out(
                backbone.removeprefix(TORCHVISION),
                width=width,
                dropout=dropout,
                channels=channels,
                image_size=image_size,
                num_classes=num_classes,
            )
        network: Network = getattr(_file_of(backbone), backbone)(
            width=width,
            dropout=dropout,
            batch_norm=batch_norm,
            channels=channels,
            image_size=image_size,
            num_classes=num_classes,
        )
        initialise(network, torch.Generator().manual_seed(seed))
    return network


def _problems_with_input(channels: int, image_size: int) -> list[str]:
    problems = []
    if channels not in (1, 3):
        problems.append(f"The images have {channels} channels, but must have 1 (grey) or 3 (RGB).")
    if not SMALLEST_IMAGE <= image_size <= LARGEST_IMAGE:
        problems.append(
            f"image_size is {image_size}, but the networks take {SMALLEST_IMAGE} to {LARGEST_IMAGE} pixels; "
            "set image_size to resize the images."
        )
    return problems
