"""VGG-16 with batch norm for small images: thirteen 3 x 3 convolutions in five blocks.

Configuration D of Simonyan and Zisserman 2014 (table 1, https://arxiv.org/abs/1409.1556), with batch norm
(Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167) and with global average pooling in place of the
two hidden fully connected layers. Not for: weights trained on ImageNet.
"""

from __future__ import annotations

from torch import nn

from dfd_tune.models.network import GlobalAveragePool, Network, convolution, scaled

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


LAYERS = tuple(f"block{number}" for number in range(1, len(BLOCKS) + 1))
"""After the last ReLU of the block, before its max-pool."""
MIDDLE = "block3"


def vgg16(
    *, width: float, dropout: float, batch_norm: bool, channels: int, image_size: int, num_classes: int
) -> Network:
    """VGG-16 whose features are the averaged last maps: (N, 512 x width).

    A max-pool ends each of the five blocks for images of 32 pixels and more. For smaller ones the maps
    would vanish, so the first blocks end without: four pools from 16 pixels, three from 8. Dropout stands
    before the classifier alone, so the features are free of it.
    """
    pools = 5 if image_size >= 32 else 4 if image_size >= 16 else 3
    layers: list[nn.Module] = []
    depths = {}
    inputs = channels
    for index, block in enumerate(BLOCKS):
        for count in block:
            layers += [*convolution(inputs, scaled(count, width), 3, batch_norm=batch_norm), nn.ReLU()]
            inputs = scaled(count, width)
        depths[LAYERS[index]] = len(layers)
        if index >= len(BLOCKS) - pools:
            layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers, GlobalAveragePool())
    classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, num_classes))
    return Network(features, classifier, inputs, layers=depths, middle=MIDDLE)
