"""The backbones: shapes, hand-counted parameters, seeds, gradients; and that docs/models.md is true."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dfd_tune.errors import UserError
from dfd_tune.models import BACKBONES, HINT_LAYERS, Network, build_network, layer_problem

NAMES = tuple(BACKBONES)
SIZES = (8, 9, 16, 28, 32, 33, 64)
DOCS = Path(__file__).parents[2] / "docs" / "models.md"


def network(
    backbone: str,
    *,
    width: float = 0.125,
    dropout: float = 0.0,
    batch_norm: bool = True,
    channels: int = 3,
    **other: int,
) -> Network:
    settings = {"image_size": 8, "num_classes": 10, "seed": 0} | other
    return build_network(backbone, width=width, dropout=dropout, batch_norm=batch_norm, channels=channels, **settings)


def size_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def conv(inputs: int, outputs: int, side: int = 3) -> int:
    """Weights of a convolution without a bias."""
    return inputs * outputs * side * side


def dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def alexnet_size(channels: int, stem: int, second: int, wide: int, deep: int) -> int:
    pairs = [(channels, stem, 11), (stem, second, 5), (second, wide, 3), (wide, deep, 3), (deep, deep, 3)]
    return sum(conv(a, b, side) + 2 * b for a, b, side in pairs) + dense(deep, 10)


def vgg16_size(channels: int, counts: list[int]) -> int:
    pairs = itertools.pairwise([channels, *counts])
    return sum(conv(a, b) + 2 * b for a, b in pairs) + dense(counts[-1], 10)


def resnet18_size(channels: int, a: int, b: int, c: int, d: int) -> int:
    # Every convolution is followed by batch norm: 2 parameters a channel.
    stem = conv(channels, a) + 2 * a
    first = 4 * (conv(a, a) + 2 * a)
    others = sum(
        conv(i, o) + 3 * conv(o, o) + 4 * 2 * o + conv(i, o, side=1) + 2 * o for i, o in [(a, b), (b, c), (c, d)]
    )
    return stem + first + others + dense(d, 10)


VGG_FULL = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
VGG_QUARTER = [16] * 2 + [32] * 2 + [64] * 3 + [128] * 6
COUNTED = {
    ("alexnet", 1.0, 3): (alexnet_size(3, 64, 192, 384, 256), 256),
    ("alexnet", 0.25, 3): (alexnet_size(3, 16, 48, 96, 64), 64),
    ("alexnet", 1.0, 1): (alexnet_size(1, 64, 192, 384, 256), 256),
    ("alexnet", 0.25, 1): (alexnet_size(1, 16, 48, 96, 64), 64),
    ("vgg16", 1.0, 3): (vgg16_size(3, VGG_FULL), 512),
    ("vgg16", 0.25, 3): (vgg16_size(3, VGG_QUARTER), 128),
    ("vgg16", 1.0, 1): (vgg16_size(1, VGG_FULL), 512),
    ("vgg16", 0.25, 1): (vgg16_size(1, VGG_QUARTER), 128),
    ("resnet18", 1.0, 3): (resnet18_size(3, 64, 128, 256, 512), 512),
    ("resnet18", 0.25, 3): (resnet18_size(3, 16, 32, 64, 128), 128),
    ("resnet18", 1.0, 1): (resnet18_size(1, 64, 128, 256, 512), 512),
    ("resnet18", 0.25, 1): (resnet18_size(1, 16, 32, 64, 128), 128),
}


@pytest.mark.parametrize(("backbone", "width", "channels"), COUNTED)
def test_parameters_are_as_counted_by_hand(backbone: str, width: float, channels: int) -> None:
    parameters, feature_dim = COUNTED[backbone, width, channels]
    model = network(backbone, width=width, channels=channels, image_size=32)
    assert size_of(model) == parameters
    assert model.feature_dim == feature_dim


def test_full_width_networks_have_the_published_sizes() -> None:
    # The ResNet-18 for CIFAR that many codebases share has 11,173,962 parameters; the VGG-16 14,723,136 +
    # 5,130, among them 4,224 biases of convolutions, which batch norm makes useless: left out.
    assert size_of(network("resnet18", width=1, image_size=32)) == 11_173_962
    assert size_of(network("vgg16", width=1, image_size=32)) == 14_723_136 + 5_130 - 4_224
    # The AlexNet for CIFAR that many codebases share has 2,472,266, without batch norm, which adds two for a channel
    # and takes a bias.
    assert size_of(network("alexnet", width=1, image_size=32, batch_norm=False)) == 2_472_266
    assert size_of(network("alexnet", width=1, image_size=32)) == 2_472_266 + 64 + 192 + 384 + 256 + 256


@pytest.mark.parametrize("backbone", NAMES)
def test_without_batch_norm_every_convolution_has_a_bias_in_its_place(backbone: str) -> None:
    normed, plain = (network(backbone, batch_norm=batch_norm) for batch_norm in (True, False))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    norms = [module for module in normed.modules() if isinstance(module, nn.BatchNorm2d)]
    convolutions = [module for module in normed.modules() if isinstance(module, nn.Conv2d)]
    assert [norm.num_features for norm in norms] == [module.out_channels for module in convolutions]
    assert all(module.bias is None for module in convolutions)
    biases = [module.bias for module in plain.modules() if isinstance(module, nn.Conv2d)]
    assert all(bias is not None and not bias.any() for bias in biases)
    assert size_of(normed) - size_of(plain) == sum(norm.num_features for norm in norms)


@pytest.mark.parametrize("backbone", NAMES)
def test_without_batch_norm_an_image_is_seen_alike_whoever_is_in_its_batch(backbone: str) -> None:
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for batch_norm in (True, False):
        model = network(backbone, batch_norm=batch_norm)  # in training mode
        with torch.no_grad():
            whole, part = model(images)[:3], model(images[:3])
        assert torch.allclose(whole, part, atol=1e-5) is not batch_norm


def test_documented_numbers_are_true() -> None:
    row = re.compile(r"\| (\w+) \| ([\d.]+) \| (\d+)×\d+×(\d) \| ([\d,]+) \| ([\d,]+) \|")
    documented = set()
    for backbone, width, size, channels, *numbers in row.findall(DOCS.read_text(encoding="utf-8")):
        model = network(backbone, width=float(width), image_size=int(size), channels=int(channels))
        assert [int(number.replace(",", "")) for number in numbers] == [size_of(model), model.feature_dim]
        documented.add((backbone, float(width), int(size), int(channels)))
    assert documented == {(n, w, *shape) for n in NAMES for w in (1.0, 0.25) for shape in ((32, 3), (8, 1))}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backbone", NAMES)
def test_forward_is_the_classifier_of_the_features(backbone: str, size: int, channels: int) -> None:
    model = network(backbone, channels=channels, image_size=size, num_classes=7).eval()
    images = torch.randn(2, channels, size, size)
    with torch.no_grad():
        features = model.features(images)
        logits = model(images)
        assert torch.equal(logits, model.classifier(features))
    assert features.shape == (2, model.feature_dim)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("backbone", NAMES)
def test_width_scales_channels_but_never_below_eight(backbone: str) -> None:
    full = network(backbone, width=1.0).feature_dim
    assert network(backbone, width=0.5).feature_dim == full // 2
    tiny = network(backbone, width=0.001)
    assert tiny.feature_dim == 8
    assert tiny(torch.randn(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("backbone", NAMES)
def test_weights_come_from_the_seed_alone(backbone: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = network(backbone, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = network(backbone, seed=3).state_dict()
    other = network(backbone, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if name.endswith("weight") and first[name].ndim > 1]
    assert len(drawn) >= 6
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("size", [8, 33])
@pytest.mark.parametrize("backbone", NAMES)
def test_gradients_reach_every_parameter(backbone: str, size: int, batch_norm: bool) -> None:
    model = network(backbone, image_size=size, batch_norm=batch_norm)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, size, size, generator=generator)
    F.cross_entropy(model(images), torch.arange(16) % 10).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("backbone", NAMES)
def test_signals_keep_their_size_through_the_layers(backbone: str, batch_norm: bool) -> None:
    # Initial weights that shrink or blow up signals make deep networks without batch norm fail to train.
    model = network(backbone, width=0.5, batch_norm=batch_norm)
    images = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert 0.1 < model(images).std() < 5


@pytest.mark.parametrize("backbone", NAMES)
def test_biases_start_at_zero_and_batch_norm_as_the_identity(backbone: str) -> None:
    for name, parameter in network(backbone).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.ndim == 1:
            assert (parameter == 1).all()


@pytest.mark.parametrize("backbone", NAMES)
def test_dropout_is_where_it_is_documented(backbone: str) -> None:
    model = network(backbone, dropout=0.3)
    places = [name.split(".")[0] for name, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p == 0.3]
    assert places == {"alexnet": ["classifier"], "vgg16": ["classifier"], "resnet18": []}[backbone]


def test_alexnet_of_32_pixels_is_the_widespread_one() -> None:
    layers = [layer for layer in network("alexnet", width=1, image_size=32).features if not list(layer.children())]
    convolutions = [
        (layer.out_channels, layer.kernel_size[0], layer.stride[0], layer.padding[0])
        for layer in layers
        if isinstance(layer, nn.Conv2d)
    ]
    assert convolutions == [(64, 11, 4, 5), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)]
    kinds = "".join(
        {"Conv2d": "c", "BatchNorm2d": "n", "ReLU": "r", "MaxPool2d": "p"}.get(type(x).__name__, "") for x in layers
    )
    assert kinds == "cnrp" + "cnrp" + "cnr" * 2 + "cnrp"


@pytest.mark.parametrize("size", range(8, 65))
def test_alexnets_stem_leaves_its_pools_as_much_of_images_of_any_side(size: int) -> None:
    model = network("alexnet", width=0.01, image_size=size).eval()
    with torch.no_grad():
        first = model.maps(torch.randn(1, 3, size, size), "conv1")
        last = model.features[:-1](torch.randn(1, 3, size, size))
    assert 8 <= first.shape[-1] <= 16
    assert first.shape[-1] == 8 or size not in (8, 16, 24, 32)
    assert last.shape[-1] == (1 if size <= 60 else 2)
    stem = model.features[0]
    assert isinstance(stem, nn.Conv2d)
    assert stem.kernel_size[0] == 3 + 2 * stem.stride[0]  # so that windows overlap alike


@pytest.mark.parametrize(("size", "pools"), [(8, 3), (15, 3), (16, 4), (31, 4), (32, 5), (64, 5)])
def test_vgg16_leaves_out_the_first_pools_of_small_images(size: int, pools: int) -> None:
    layers = list(network("vgg16", image_size=size).features.children())
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in layers) == pools
    assert isinstance(layers[-2], nn.MaxPool2d)


def test_unknown_backbones_and_impossible_inputs_are_refused_together() -> None:
    with pytest.raises(UserError, match=r"Unknown backbone 'resnet19'\. Did you mean 'resnet18'\?"):
        network("resnet19")
    with pytest.raises(UserError) as caught:
        network("resnet18", channels=4, image_size=65)
    assert len(caught.value.problems) == 2


# Channels at width 1/8, and sides for images of 8 pixels: AlexNet's stem has stride 1, and it halves after conv1 and
# conv2; VGG-16 pools after its third block and those behind it; ResNet-18 halves at the entrance of stages 2 to 4.
MAPS = {
    ("alexnet", "conv1"): (8, 8),
    ("alexnet", "conv2"): (24, 4),
    ("alexnet", "conv3"): (48, 2),
    ("alexnet", "conv4"): (32, 2),
    ("alexnet", "conv5"): (32, 2),
    ("vgg16", "block1"): (8, 8),
    ("vgg16", "block2"): (16, 8),
    ("vgg16", "block3"): (32, 8),
    ("vgg16", "block4"): (64, 4),
    ("vgg16", "block5"): (64, 2),
    ("resnet18", "stem"): (8, 8),
    ("resnet18", "stage1"): (8, 8),
    ("resnet18", "stage2"): (16, 4),
    ("resnet18", "stage3"): (32, 2),
    ("resnet18", "stage4"): (64, 1),
}
MIDDLES = {"alexnet": "conv3", "vgg16": "block3", "resnet18": "stage2"}


def test_every_layer_is_counted_above() -> None:
    assert set(MAPS) == {(backbone, layer) for backbone in NAMES for layer in HINT_LAYERS[backbone]}


@pytest.mark.parametrize(("backbone", "layer"), MAPS)
def test_maps_of_a_layer_are_seen_on_the_way_to_the_features(backbone: str, layer: str) -> None:
    channels, side = MAPS[backbone, layer]
    model = network(backbone).eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model.maps(images, layer)
        features, same = model.features_and_maps(images, layer)
        assert torch.equal(features, model.features(images))
    assert maps.shape == (2, channels, side, side)
    assert model.channels_of(layer) == channels
    assert torch.equal(same, maps)
    assert (maps >= 0).all()  # after the layer's ReLU
    assert (maps == 0).any()


@pytest.mark.parametrize("backbone", NAMES)
def test_middle_is_a_name_of_one_layer(backbone: str) -> None:
    model = network(backbone).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.maps(images, "middle"), model.maps(images, MIDDLES[backbone]))
    assert model.channels_of("middle") == MAPS[backbone, MIDDLES[backbone]][0]


@pytest.mark.parametrize("backbone", NAMES)
def test_layers_of_other_backbones_are_no_layers_and_the_own_ones_are_named(backbone: str) -> None:
    assert layer_problem(backbone, "middle") is None
    others = [layer for other in NAMES if other != backbone for layer in HINT_LAYERS[other]]
    for layer in HINT_LAYERS[backbone]:
        assert layer_problem(backbone, layer) is None
    for layer in (*others, "features", ""):
        problem = layer_problem(backbone, layer)
        assert problem is not None
        assert problem.startswith(f"Unknown hint_layer of {backbone} '{layer}'.")
        assert all(name in problem for name in ("middle", *HINT_LAYERS[backbone]))
