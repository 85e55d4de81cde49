"""ResNet-18 for small images: a 3 x 3 stem and four stages of two basic blocks.

He et al. 2015 (table 1, https://arxiv.org/abs/1512.03385), with the stem that the same paper takes for
CIFAR (section 4.2: 3 x 3, stride 1, no pooling) and projection shortcuts (option B). Not for: dropout,
which residual networks of this form go without, nor for weights trained on ImageNet.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dfd_tune.models.network import GlobalAveragePool, Network, scaled

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and stride of each stage."""


LAYERS = {"stem": 3, "stage1": 5, "stage2": 7, "stage3": 9, "stage4": 11}
MIDDLE = "stage2"


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and a shortcut past them.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride), rounded up.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """The block's output maps, after their ReLU."""
        inner = F.relu(self.norm1(self.conv1(maps)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(maps))


def resnet18(*, width: float, dropout: float, channels: int, image_size: int, num_classes: int) -> Network:
    """ResNet-18 whose features are the averaged last maps: (N, 512 x width).

    `dropout` and `image_size` change nothing: the layers are the same for all values. They are arguments so
    that all backbones are built alike.
    """
    del dropout, image_size
    inputs = scaled(STAGES[0][0], width)
    layers: list[nn.Module] = [
        nn.Conv2d(channels, inputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
    ]
    for count, stride in STAGES:
        outputs = scaled(count, width)
        layers += [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
        inputs = outputs
    features = nn.Sequential(*layers, GlobalAveragePool())
    return Network(features, nn.Linear(inputs, num_classes), inputs, layers=LAYERS, middle=MIDDLE)
