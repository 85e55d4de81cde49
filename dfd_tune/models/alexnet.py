"""AlexNet for small images: five convolutions, batch norm, and one linear layer.

The layers of Krizhevsky, Sutskever and Hinton 2012 (section 3.5,
https://proceedings.neurips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html) in the form that most
code for CIFAR shares, with batch norm (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167). Not for: the
original's hidden fully connected layers, its response normalisation, or weights trained on ImageNet. docs/models.md
says why it is pinned as it is.
"""

from __future__ import annotations

from torch import nn

from dfd_tune.models.network import GlobalAveragePool, Network, convolution, scaled

SIDE_AFTER_STEM = 8
"""Side in pixels of the stem's maps, or a little more: what three pools bring to 1."""
LARGEST_STRIDE = 4

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
"""After its ReLU, each, before its max-pool."""
MIDDLE = "conv3"


def alexnet(
    *, width: float, dropout: float, batch_norm: bool, channels: int, image_size: int, num_classes: int
) -> Network:
    """AlexNet whose features are the last maps, pooled to one place: (N, 256 x width).

    For images of 32 pixels it is the widespread one to the letter: a stem of 11 x 11 with stride 4, and max-pools after
    the first, second and fifth convolution, which leave 1 x 1. Stride and kernel of the stem follow the side, so that
    of smaller images as many places remain. Dropout stands before the classifier alone, so the features are free of it.
    """
    stem, second, wide, deep = (scaled(count, width) for count in (64, 192, 384, 256))
    stride = min(LARGEST_STRIDE, max(1, image_size // SIDE_AFTER_STEM))
    plan = [
        (channels, stem, 2 * stride + 3, stride, True),
        (stem, second, 5, 1, True),
        (second, wide, 3, 1, False),
        (wide, deep, 3, 1, False),
        (deep, deep, 3, 1, True),
    ]
    layers: list[nn.Module] = []
    depths = {}
    for name, (inputs, outputs, kernel, step, pooled) in zip(LAYERS, plan, strict=True):
        layers += [*convolution(inputs, outputs, kernel, stride=step, batch_norm=batch_norm), nn.ReLU()]
        depths[name] = len(layers)
        if pooled:
            layers.append(nn.MaxPool2d(2))
    # Of 32 pixels 1 x 1 is left, which the mean leaves as it is; of more than 60, 2 x 2.
    features = nn.Sequential(*layers, GlobalAveragePool())
    classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(deep, num_classes))
    return Network(features, classifier, deep, layers=depths, middle=MIDDLE)
