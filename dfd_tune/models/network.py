"""What every backbone is: a network in two parts, so that distillation can look between them.

Also the pieces that the backbones share: scaled channel counts, convolutions with batch norm, global average pooling,
initial weights. Not for: which backbones there are (models/build.py), nor for how they are trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A classifier as `features` followed by `classifier`.

    Attributes:
        features: float (N, C, S, S) -> (N, D), the last feature layer: what is distilled.
        classifier: (N, D) -> (N, K), the logits.
        feature_dim: D.
        layers: the layers whose maps can be looked at, by name; for each, how many of the modules of `features` lead up
            to its output.
        middle: the name of the one that "middle" stands for.
    """

    def __init__(
        self,
        features: nn.Sequential,
        classifier: nn.Module,
        feature_dim: int,
        *,
        layers: Mapping[str, int],
        middle: str,
    ):
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.feature_dim = feature_dim
        self.layers = dict(layers)
        self.middle = middle

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of float images (N, C, S, S), S being the size that the network was built for."""
        logits: Tensor = self.classifier(self.features(images))
        return logits

    def features_and_maps(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """Features (N, D), and the maps (N, C, H, W) that `layer` gives on the way there."""
        depth = self.depth_of(layer)
        maps: Tensor = self.features[:depth](images)
        features: Tensor = self.features[depth:](maps)
        return features, maps

    def maps(self, images: Tensor, layer: str) -> Tensor:
        """The maps (N, C, H, W) of `layer`, for images (N, C, S, S) of the size that the network was built for, or of
        another that its convolutions can take."""
        maps: Tensor = self.features[: self.depth_of(layer)](images)
        return maps

    def channels_of(self, layer: str) -> int:
        """How many maps `layer` gives."""
        before = self.features[: self.depth_of(layer)].modules()
        return [module.out_channels for module in before if isinstance(module, nn.Conv2d)][-1]

    def depth_of(self, layer: str) -> int:
        """How many of the modules of `features` lead up to the output of `layer`; "middle" is a name as well."""
        return self.layers[self.middle if layer == "middle" else layer]


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) -> (N, C), the mean over all places."""

    # A plain mean: the backward pass of adaptive pooling is not deterministic on CUDA.
    def forward(self, maps: Tensor) -> Tensor:
        """The mean over the last two dimensions."""
        return maps.mean(dim=(2, 3))


def scaled(channels: int, width: float) -> int:
    """A channel count times the width multiplier, rounded to a whole number of at least 8."""
    return max(8, round(channels * width))


def convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, batch_norm: bool
) -> tuple[nn.Conv2d, nn.Module]:
    """A convolution, padded so that stride 1 keeps the side, and what normalises its maps: batch norm, or nothing."""
    # No bias before batch norm, which has one.
    weights = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=not batch_norm)
    return weights, nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()


def initialise(network: Network, generator: torch.Generator) -> None:
    """Draw all weights anew, from `generator` alone, in the order of the modules.

    He initialisation (He et al. 2015, "Delving Deep into Rectifiers", section 2.2,
    https://arxiv.org/abs/1502.01852): normal with variance 2 / fan-in, or 1 / fan-in for the classifier,
    where no ReLU follows. Biases are zero; batch norm starts as the identity.
    """
    # By inputs, not outputs: without batch norm, growing channel counts would shrink the signal.
    for part, gain in ((network.features, 2.0), (network.classifier, 1.0)):
        for module in part.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=math.sqrt(gain / fan_in), generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
