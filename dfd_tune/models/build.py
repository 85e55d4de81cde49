"""The backbones by name, and the one way to build one with initial weights.

Not for: loading trained weights (models/deployed.py), nor for settings: what comes in are plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from dfd_tune.errors import UserError, raise_all, unknown_name
from dfd_tune.models.alexnet import LAYERS as ALEXNET_LAYERS
from dfd_tune.models.alexnet import alexnet
from dfd_tune.models.network import Network, initialise
from dfd_tune.models.resnet18 import LAYERS as RESNET18_LAYERS
from dfd_tune.models.resnet18 import resnet18
from dfd_tune.models.vgg16 import LAYERS as VGG16_LAYERS
from dfd_tune.models.vgg16 import vgg16

SMALLEST_IMAGE, LARGEST_IMAGE = 8, 64

BACKBONES: Mapping[str, Callable[..., Network]] = {"alexnet": alexnet, "vgg16": vgg16, "resnet18": resnet18}
"""Each lays out the layers from the arguments of `build_network` but for the seed; weights are set after."""


HINT_LAYERS: Mapping[str, tuple[str, ...]] = {
    "alexnet": ALEXNET_LAYERS,
    "vgg16": VGG16_LAYERS,
    "resnet18": tuple(RESNET18_LAYERS),
}
"""By backbone, the layers whose maps can be looked at; "middle" names one of them for each."""


def layer_problem(backbone: str, layer: str) -> str | None:
    """What is wrong with looking at `layer` of `backbone`, as a sentence; None if there is such a layer."""
    if layer == "middle" or layer in HINT_LAYERS[backbone]:
        return None
    return unknown_name(f"hint_layer of {backbone}", layer, ["middle", *HINT_LAYERS[backbone]])


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
        backbone: a name in `BACKBONES`.
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
    if backbone not in BACKBONES:
        raise UserError(unknown_name("backbone", backbone, BACKBONES))
    raise_all(_problems_with_input(channels, image_size))
    # Constructors draw weights too, which `initialise` then replaces; the fork keeps that from the caller.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        network = BACKBONES[backbone](
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
