"""AlexNet for small images: five convolutions and two hidden fully connected layers.

The layers of Krizhevsky, Sutskever and Hinton 2012 (section 3.5,
https://proceedings.neurips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html) with kernels
and strides for images of 8 to 64 pixels in place of 224. Not for: the original's response normalisation,
its split over two devices, or weights trained on ImageNet. docs/models.md says why it is pinned as it is.
"""

from __future__ import annotations

from torch import nn

from dfd_tune.models.network import Network, scaled

LAYERS = {"conv1": 2, "conv2": 5, "conv3": 8, "conv4": 10, "conv5": 12}
"""After its ReLU, each."""
MIDDLE = "conv3"


def alexnet(*, width: float, dropout: float, channels: int, image_size: int, num_classes: int) -> Network:
    """AlexNet whose features are the output of fc7 after its ReLU: (N, 1024 x width).

    The first convolution has stride 2 for images of 32 pixels and more, and stride 1 below. No batch norm,
    as in 2012. The last pooling takes the maxima of an adaptive max-pool to 2 x 2. Dropout stands before
    fc6 and fc7, so in training it also acts on the features.
    """
    stem, middle, wide, deep = (scaled(count, width) for count in (64, 192, 384, 256))
    hidden = scaled(1024, width)
    stride = 2 if image_size >= 32 else 1
    features = nn.Sequential(
        *_convolution(channels, stem, stride),
        nn.MaxPool2d(2),
        *_convolution(stem, middle),
        nn.MaxPool2d(2),
        *_convolution(middle, wide),
        *_convolution(wide, deep),
        *_convolution(deep, deep),
        _pool_to_2x2(_map_side(image_size, stride)),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * deep, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
    )
    return Network(features, nn.Linear(hidden, num_classes), hidden, layers=LAYERS, middle=MIDDLE)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.ReLU()


def _map_side(image_size: int, stride: int) -> int:
    """Side of the maps that reach the last pooling."""
    after_stem = (image_size - 1) // stride + 1
    return after_stem // 2 // 2


def _pool_to_2x2(side: int) -> nn.MaxPool2d:
    """The windows of `nn.AdaptiveMaxPool2d(2)` on maps of a known side, which overlap by one where it is odd.

    Not the adaptive layer itself, as its backward pass is refused under torch's deterministic algorithms on
    CUDA.
    """
    return nn.MaxPool2d(kernel_size=(side + 1) // 2, stride=side // 2)
