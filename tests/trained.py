"""A store with a tiny dataset, and a student whose images these are, for the tests of exports. Not tests.

Nothing is trained: labels are what the student says, so that it is right of every image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dfd_tune.config import TrialConfig
from dfd_tune.data.arrow import write_split
from dfd_tune.data.degradation import take_pictures
from dfd_tune.digest import digest_arrays
from dfd_tune.models.card import ModelCard
from dfd_tune.models.deployed import Deployed, network_of, save_student
from dfd_tune.store import Store, open_store, write_json, write_manifest
from tests.samples import digits_trial

SIDE, CLASSES = 16, ("one", "two", "three")
COUNTS = {"train": 60, "validation": 50, "test": 10}
CONFIG = digits_trial(resolution=8, backbone="alexnet", width=0.125, precision="float32")
MEAN, STD = (0.5,), (0.25,)


def write_trained(folder: Path, *, fragile: bool = False, seeds: Mapping[str, int] | None = None) -> tuple[Store, Path]:
    """A store with the dataset, and the student's file beside it.

    Args:
        folder: to be made.
        fragile: one channel of the first map, which nothing looks at, dwarfs all others, so that in bytes these are 0.
        seeds: of a split's images, if not the usual one.
    """
    network = network_of(_card(CONFIG, {}), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(generator=generator).mul_(0.1)
    if fragile:
        _make_fragile(network)
    usual = {name: number for number, name in enumerate(COUNTS)}
    images = {name: _images(COUNTS[name], seed) for name, seed in (usual | dict(seeds or {})).items()}
    deployed = Deployed(
        network,
        mean=MEAN,
        std=STD,
        resolution=CONFIG.resolution,
        image_size=SIDE,
        downsample=CONFIG.downsample,
        upsample=CONFIG.upsample,
    )
    _spread_classes(network, deployed, _images(60, 9))
    store = open_store(folder / "store")
    digest = _write_dataset(store, images, {name: _classes(deployed, found) for name, found in images.items()})
    extras = {"trial_key": CONFIG.key(digest), "config": dataclasses.asdict(CONFIG)}
    file = folder / "student.safetensors"
    save_student(file, network, _card(CONFIG, extras))
    return store, file


def _card(config: TrialConfig, extras: dict[str, Any]) -> ModelCard:
    names = ("backbone", "width", "dropout", "batch_norm", "resolution", "downsample", "upsample")
    settings = {name: getattr(config, name) for name in names}
    return ModelCard(channels=1, image_size=SIDE, classes=CLASSES, mean=MEAN, std=STD, extras=extras, **settings)


def _images(count: int, seed: int) -> np.ndarray:
    """Smooth grey images, uint8 (N, 1, SIDE, SIDE)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 1, 4, 4), generator=generator).to(torch.float32)
    return nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear").to(torch.uint8).numpy()


@torch.no_grad()
def _probabilities(deployed: Deployed, images: np.ndarray) -> torch.Tensor:
    pictures = take_pictures(images, CONFIG.camera, np.random.default_rng(0))
    return deployed(torch.tensor(pictures.transpose(0, 2, 3, 1)))


def _classes(deployed: Deployed, images: np.ndarray) -> np.ndarray:
    return _probabilities(deployed, images).argmax(1).numpy()


@torch.no_grad()
def _spread_classes(network: nn.Module, deployed: Deployed, images: np.ndarray) -> None:
    """Every class about as probable as another one, as of an untrained network one usually is of all images."""
    bias = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1].bias
    bias -= _probabilities(deployed, images).log().mean(0)


@torch.no_grad()
def _make_fragile(network: nn.Module) -> None:
    layers = list(network.modules())
    norm = next(layer for layer in layers if isinstance(layer, nn.BatchNorm2d))
    after = [layer for layer in layers if isinstance(layer, nn.Conv2d)][1]
    norm.weight[0], norm.bias[0] = 0.0, 1e5
    after.weight[:, 0] = 0.0


def _write_dataset(store: Store, images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> str:
    """As data/prepared.py lays one out; returns its digest."""
    folder = store.path("datasets", "tiny")
    folder.mkdir(parents=True)
    for name, of_split in images.items():
        write_split(folder / f"{name}.arrow", of_split, labels[name])
    digest = digest_arrays({f"{name}_images": of_split for name, of_split in images.items()})
    card = {
        "name": "tiny",
        "digest": digest,
        "classes": list(CLASSES),
        "channels": 1,
        "image_size": SIDE,
        "mean": list(MEAN),
        "std": list(STD),
        "images": COUNTS,
    }
    write_json(folder / "dataset.json", card)
    write_manifest(folder)
    return digest
