"""Networks of torchvision's list as backbones: cut where it is said, with the stem that small images need."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dfd_tune.errors import UserError
from dfd_tune.models import Network, build_network, layer_problem, network_problem
from dfd_tune.models.card import ModelCard
from dfd_tune.models.cost import multiply_adds
from dfd_tune.models.cut import examine
from dfd_tune.models.deployed import load_deployed, network_of, save_student

SMALL = ("mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5")


def network(name: str, **changes: Any) -> Network:
    settings: dict[str, Any] = {
        "width": 1.0,
        "dropout": 0.0,
        "channels": 3,
        "image_size": 8,
        "num_classes": 10,
        "seed": 0,
    }
    return build_network(f"torchvision/{name}", **settings | changes)


def noise(channels: int = 3, size: int = 8, count: int = 2) -> torch.Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def first_convolution(model: Network) -> nn.Conv2d:
    return next(part for part in model.modules() if isinstance(part, nn.Conv2d))


@pytest.mark.parametrize("name", SMALL)
def test_the_last_linear_layer_reads_the_features_of_images_of_either_kind(name):
    for channels in (1, 3):
        model = network(name, channels=channels).eval()
        images = noise(channels)
        with torch.no_grad():
            features = model.features(images)
            assert torch.equal(model(images), model.classifier(features))
        assert features.shape == (2, model.feature_dim)
        assert model(images).shape == (2, 10)
        assert [type(part) for part in model.classifier] == [nn.Dropout, nn.Linear]
        stem = first_convolution(model)
        assert (stem.in_channels, stem.stride) == (channels, (1, 1))


def test_a_networks_weights_are_as_many_as_are_published():
    # torchvision tells 11,689,512 and 21,797,672 for 1000 classes, and 2,542,856 for MobileNetV3, whose last layer
    # reads 1024.
    published = {"resnet18": (11_689_512, 512), "resnet34": (21_797_672, 512), "mobilenet_v3_small": (2_542_856, 1024)}
    for name, (parameters, features) in published.items():
        model = network(name)
        assert sum(part.numel() for part in model.parameters()) == parameters - 990 * (features + 1)
        assert model.feature_dim == features


def test_the_stem_keeps_the_side_and_no_pool_follows_it():
    model = network("resnet34", image_size=16).eval()
    sides = {layer: model.maps(noise(size=16), layer).shape[-1] for layer in model.layers}
    assert sides == {"conv1": 16, "layer1": 16, "layer2": 8, "layer3": 4, "layer4": 2}
    assert not any(isinstance(part, nn.MaxPool2d) for part in model.modules())
    # One that stands after other convolutions stays.
    (inner,) = network("googlenet").features
    assert isinstance(inner.maxpool1, nn.Identity)
    assert isinstance(inner.maxpool2, nn.MaxPool2d)


def test_multiply_adds_are_those_of_the_layers():
    # ResNet-18 at 8 x 8: the stem; the first stage; the others, whose first convolution has half of the input channels,
    # as has the shortcut; the classifier.
    stem = 8 * 8 * 64 * 3 * 49
    stages = 8 * 8 * 64 * (4 * 64 * 9)
    for side, channels in ((4, 128), (2, 256), (1, 512)):
        stages += side * side * channels * (channels // 2 * 9 + 3 * channels * 9 + channels // 2)
    assert multiply_adds(network("resnet18").eval(), noise(count=1)) == stem + stages + 512 * 10


def test_a_grey_image_is_seen_as_one_of_three_equal_channels():
    grey, coloured = network("resnet18", channels=1).eval(), network("resnet18").eval()
    with torch.no_grad():
        assert torch.allclose(grey(noise(1)), coloured(noise(1).expand(-1, 3, -1, -1)), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_weights_come_from_the_seed_alone(name):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = network(name, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (network(name, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if key.endswith("weight") and first[key].ndim > 1]
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


def test_nothing_but_the_classifier_drops_units():
    for name in ("mobilenet_v3_small", "efficientnet_b0", "googlenet"):
        model = network(name, dropout=0.5, image_size=16).train()
        images = noise(size=16, count=8)
        with torch.no_grad():
            assert torch.equal(model.features(images), model.features(images))
            assert not torch.equal(model(images), model(images))


def test_running_statistics_are_those_of_a_short_training():
    for name in ("mobilenet_v3_small", "mnasnet0_5"):
        norms = [part for part in network(name).modules() if isinstance(part, nn.BatchNorm2d)]
        assert {part.momentum for part in norms} == {0.1}


def test_width_is_the_architectures_own_multiplier():
    half = network("mobilenet_v3_small", width=0.5)
    assert half.feature_dim == 512
    # Inside: 16 channels of the stem times a half.
    assert first_convolution(half).out_channels == 8
    assert first_convolution(network("mobilenet_v2", width=2.0)).out_channels == 64


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("mobilnet_v3_small", {}, "Did you mean 'mobilenet_v3_small'?"),
        ("resnet34", {"width": 0.5}, "width is 0.5, but torchvision/resnet34 has no multiplier"),
        ("resnet34", {"batch_norm": False}, "batch_norm is false, but torchvision/resnet34 is made with it"),
        ("vit_b_16", {}, "torchvision/vit_b_16 can't be a backbone for images of 8×8 pixels"),
        ("squeezenet1_0", {}, "it has no linear layer"),
        ("swin_t", {}, "none of its layers gives maps"),
        ("alexnet", {}, "torchvision/alexnet can't be a backbone for images of 8×8 pixels"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(name, changes, said):
    asked = {"width": 1.0, "batch_norm": True, "channels": 3, "image_size": 8} | changes
    problem = network_problem(f"torchvision/{name}", **asked)
    assert said in problem
    assert problem.isprintable()
    assert problem.endswith((".", "?"))
    with pytest.raises(UserError) as caught:
        network(name, **changes)
    assert caught.value.problems == (problem,)


def test_batch_norm_may_be_left_out_where_there_is_none():
    asked = {"width": 1.0, "batch_norm": False, "channels": 3, "image_size": 16}
    assert network_problem("torchvision/alexnet", **asked) is None


@pytest.mark.parametrize(("name", "middle"), [("resnet18", "layer2"), ("mobilenet_v3_small", "features.6")])
def test_maps_of_a_layer_are_seen_on_the_way_to_the_features(name, middle):
    model = network(name).eval()
    images = noise()
    with torch.no_grad():
        for layer in model.layers:
            features, maps = model.features_and_maps(images, layer)
            assert torch.equal(features, model.features(images))
            assert maps.shape[:2] == (2, model.channels_of(layer))
            assert torch.equal(maps, model.maps(images, layer))
        assert torch.equal(model.maps(images, "middle"), model.maps(images, middle))
        assert torch.equal(
            model.maps(images, "middle"),
            model.features[0].get_submodule(middle)(
                model.maps(images, list(model.layers)[list(model.layers).index(middle) - 1])
            ),
        )
    assert not any(part._forward_hooks for part in model.modules())
    assert layer_problem(f"torchvision/{name}", middle) is None
    assert layer_problem(f"torchvision/{name}", "stage2").startswith(f"Unknown hint_layer of torchvision/{name}")


@pytest.mark.parametrize("name", ["mnasnet0_5", "mobilenet_v3_small"])
def test_a_stored_student_comes_back(name, tmp_path: Path):
    card = ModelCard(
        backbone=f"torchvision/{name}",
        width=1.0,
        dropout=0.2,
        batch_norm=True,
        channels=1,
        image_size=8,
        classes=("a", "b"),
        mean=(0.5,),
        std=(0.2,),
        resolution=4,
        downsample="bicubic",
        upsample="bicubic",
    )
    model = network_of(card, seed=5).eval()
    save_student(tmp_path / "student.safetensors", model, card)
    deployed, read = load_deployed(tmp_path / "student.safetensors")
    assert read == card
    assert torch.equal(deployed.network(noise(1)), model(noise(1)))
    save_student(tmp_path / "other.safetensors", model, dataclasses.replace(card, backbone="torchvision/resnet18"))
    with pytest.raises(UserError, match="don't fit the torchvision/resnet18"):
        load_deployed(tmp_path / "other.safetensors")


def test_a_module_that_does_not_end_in_its_linear_layer_is_none_to_cut():
    class Squashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
            self.head = nn.LazyLinear(2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.head(self.body(images)))

    module = Squashed()
    module(noise())
    with pytest.raises(ValueError, match="what it returns is not what its last linear layer, head, gives"):
        examine(module, channels=3, image_size=8, num_classes=2)
