"""A network made of any torch module that classifies: cut before its last linear layer into features and classifier.

What the module is like is found out by one look at images that have a shape and no values. Not for: where such modules
come from (from_torchvision.py), nor for networks that are layers in a row (network.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfd_tune.models.network import Network

IN_A_ROW = ("features", "layers", "trunk_output")
"""Children that are themselves layers in a row, as torchvision calls them: their children are the layers."""


@dataclass(frozen=True)
class Anatomy:
    """What a look at images shows of a module."""

    classifier: str
    """Name of its last linear layer."""
    feature_dim: int
    """How many numbers that reads of each image."""
    channels: Mapping[str, int]
    """By name, how many maps each layer gives that can be looked at; in order."""
    batch_norm: bool
    """Whether there is batch norm in it."""

    @property
    def middle(self) -> str:
        """The layer that "middle" stands for."""
        return [*self.channels][len(self.channels) // 2]


class CutNetwork(Network):
    """A `Network` whose features are a whole module, so that layers in between are looked at as it runs.

    Args:
        module: float (N, C, S, S) -> (N, K). It becomes part of the network and loses its classifier.
        anatomy: the module's.
        dropout: probability of dropping a feature before the classifier.
    """

    def __init__(self, module: nn.Module, anatomy: Anatomy, dropout: float):
        linear = module.get_submodule(anatomy.classifier)
        module.set_submodule(anatomy.classifier, nn.Identity())
        super().__init__(
            nn.Sequential(module),
            nn.Sequential(nn.Dropout(dropout), linear),
            anatomy.feature_dim,
            layers=dict.fromkeys(anatomy.channels, 1),
            middle=anatomy.middle,
        )
        self.channels = dict(anatomy.channels)

    def features_and_maps(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """As of `Network`."""
        seen: list[Tensor] = []
        looked_at = self.features[0].get_submodule(self._name_of(layer))
        hook = looked_at.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            features: Tensor = self.features(images)
        finally:
            hook.remove()
        return features, seen[-1]

    def maps(self, images: Tensor, layer: str) -> Tensor:
        """As of `Network`; all of the module is run."""
        return self.features_and_maps(images, layer)[1]

    def channels_of(self, layer: str) -> int:
        """As of `Network`."""
        return self.channels[self._name_of(layer)]

    def depth_of(self, layer: str) -> int:
        """Not to be asked: the features are one module.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"the layer {layer} is inside a module")

    def _name_of(self, layer: str) -> str:
        return self.middle if layer == "middle" else layer


def examine(module: nn.Module, *, channels: int, image_size: int, num_classes: int) -> Anatomy:
    """A module's anatomy, by a look at two images without values. The module's weights are lost by that.

    Args:
        module: float (N, channels, image_size, image_size) -> (N, num_classes).
        channels: 1 or 3.
        image_size: side of the images in pixels.
        num_classes: number of logits.

    Raises:
        ValueError: it can't look at such images, or can't be cut; the message is a phrase that says why.
    """
    linears = {name: part for name, part in module.named_modules() if name and isinstance(part, nn.Linear)}
    if not linears:
        raise ValueError("it has no linear layer to classify with")
    looks = _look(module.to("meta").eval(), torch.zeros(2, channels, image_size, image_size, device="meta"))
    name, linear = list(linears.items())[-1]
    read = [given for part, given, output in looks.inner if part == name and output is looks.output]
    if not read or linear.out_features != num_classes:
        raise ValueError(f"what it returns is not what its last linear layer, {name}, gives of {num_classes} classes")
    if read[0].ndim != 2:
        raise ValueError(f"its last linear layer, {name}, does not read one row of features for each image")
    shown = {part: output for part, _, output in looks.inner if part in set(_layers(module)) and _are_maps(output)}
    if not shown:
        raise ValueError("none of its layers gives maps")
    return Anatomy(
        classifier=name,
        feature_dim=linear.in_features,
        channels={part: output.shape[1] for part, output in shown.items()},
        batch_norm=any(isinstance(part, nn.BatchNorm2d) for part in module.modules()),
    )


@dataclass(frozen=True)
class _Looks:
    """What came of a look: by part, what it was given and what it gave, in order; and the module's output."""

    inner: list[tuple[str, Tensor, Tensor]]
    output: object


def _look(module: nn.Module, images: Tensor) -> _Looks:
    inner: list[tuple[str, Tensor, Tensor]] = []

    def remember(name: str) -> object:
        def hook(part: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                inner.append((name, inputs[0], output))

        return part_of[name].register_forward_hook(hook)

    part_of = dict(module.named_modules())
    for name in part_of:
        if name:
            remember(name)
    try:
        with torch.no_grad():
            output = module(images)
    except Exception as error:
        # Whatever it is, it comes of the module and the images that it was given.
        raise ValueError(_first_line(error)) from error
    return _Looks(inner, output)


def _layers(module: nn.Module) -> Iterator[str]:
    """Names of the parts that may be looked at: the children that hold convolutions, in order."""
    for name, child in module.named_children():
        if name in IN_A_ROW:
            yield from (f"{name}.{inner}" for inner, part in child.named_children() if _convolves(part))
        elif _convolves(child):
            yield name


def _convolves(part: nn.Module) -> bool:
    return any(isinstance(inner, nn.Conv2d) for inner in part.modules())


def _are_maps(output: Tensor) -> bool:
    """Whether it is (N, C, S, S), rather than (N, S, S, C) as of Swin's."""
    return output.ndim == 4 and output.shape[2] == output.shape[3]


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__).rstrip(".")
