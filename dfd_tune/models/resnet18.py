"""ResNet-18 for small images: a 3 x 3 stem and four stages of two basic blocks.

He et al. 2015 (table 1, https://arxiv.org/abs/1512.03385), with the stem that the same paper takes for
CIFAR (section 4.2: 3 x 3, stride 1, no pooling) and projection shortcuts (option B). Not for: dropout,
which residual networks of this form go without, nor for weights trained on ImageNet.

Without batch norm each block's sum is scaled by the root of ½, or the signal would double its power in each of them.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from dfd_tune.models.network import GlobalAveragePool, Network, convolution, scaled

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and stride of each stage."""


LAYERS = {"stem": 3, "stage1": 5, "stage2": 7, "stage3": 9, "stage4": 11}
MIDDLE = "stage2"


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, each with batch norm unless it is left out, and a shortcut past them.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride), rounded up.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, batch_norm: bool):
        super().__init__()
        self.conv1, self.norm1 = convolution(inputs, outputs, 3, stride=stride, batch_norm=batch_norm)
        self.conv2, self.norm2 = convolution(outputs, outputs, 3, batch_norm=batch_norm)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*convolution(inputs, outputs, 1, stride=stride, batch_norm=batch_norm))
        self.scale = 1.0 if batch_norm else math.sqrt(0.5)

    def forward(self, maps: Tensor) -> Tensor:
        """The block's output maps, after their ReLU."""
        inner = F.relu(self.norm1(self.conv1(maps)))
        total = self.norm2(self.conv2(inner)) + self.shortcut(maps)
        return F.relu(total if self.scale == 1.0 else self.scale * total)


def resnet18(
    *, width: float, dropout: float, batch_norm: bool, channels: int, image_size: int, num_classes: int
) -> Network:
    """ResNet-18 whose features are the averaged last maps: (N, 512 x width).

    `dropout` and `image_size` change nothing: the layers are the same for all values. They are arguments so
    that all backbones are built alike.
    """
    del dropout, image_size
    inputs = scaled(STAGES[0][0], width)
    layers: list[nn.Module] = [*convolution(channels, inputs, 3, batch_norm=batch_norm), nn.ReLU()]
    for count, stride in STAGES:
        outputs = scaled(count, width)
        layers += [
            BasicBlock(inputs, outputs, stride, batch_norm=batch_norm),
            BasicBlock(outputs, outputs, 1, batch_norm=batch_norm),
        ]
        inputs = outputs
    features = nn.Sequential(*layers, GlobalAveragePool())
    return Network(features, nn.Linear(inputs, num_classes), inputs, layers=LAYERS, middle=MIDDLE)
