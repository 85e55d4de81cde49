"""A tiny dataset, trials and networks, for the tests of this folder. Not tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfd_tune.config import TrialConfig
from dfd_tune.data.arrow import write_split
from dfd_tune.digest import digest_arrays
from dfd_tune.distill.features import BankIdentity, LiveFeatures, fill_bank
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import TrialResult, train_student
from dfd_tune.distill.workbench import BankPlan, Workbench
from dfd_tune.models import Network, build_network
from dfd_tune.store import Store, open_store, write_json, write_manifest

SIDE, CLASSES = 8, ("high", "middle", "low")
COUNTS = {"train": 40, "validation": 9, "test": 30}
DEVICE = torch.device(os.environ.get("DFD_TUNE_TEST_DEVICE", "cpu"))
"""On which the tests of this folder train."""
if DEVICE.type != "cpu":
    # A process that is told nothing else is there as well.
    SingleProcess.__init__.__defaults__ = (DEVICE, *SingleProcess.__init__.__defaults__[1:])


def banded_images(count: int, seed: int, noise: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Grey noise with a bright band across: its height is the class, which flips and small crops leave alone."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    images = random.integers(0, noise, (count, 1, SIDE, SIDE), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        # Of a slope and strength of its own, so that no two images, nor an image and its mirror, are alike.
        image[0, 1 + 2 * label : 3 + 2 * label] += random.integers(100, 200, SIDE, dtype=np.uint8)
    return images, labels


def write_dataset(store: Store, key: str = "tiny", first_seed: int = 0) -> str:
    """A prepared dataset in the store, as data/prepared.py lays one out; returns its key."""
    folder = store.path("datasets", key)
    folder.mkdir(parents=True)
    arrays = {}
    for seed, (name, count) in enumerate(COUNTS.items(), first_seed):
        images, labels = banded_images(count, seed)
        write_split(folder / f"{name}.arrow", images, labels)
        arrays |= {f"{name}_images": images, f"{name}_labels": labels}
    pixels = arrays["train_images"] / 255
    card = {
        "name": key,
        "digest": digest_arrays(arrays),
        "classes": list(CLASSES),
        "channels": 1,
        "image_size": SIDE,
        "mean": [float(pixels.mean())],
        "std": [float(pixels.std())],
        "images": COUNTS,
    }
    write_json(folder / "dataset.json", card)
    write_manifest(folder)
    return key


def filled_bank(store: Store, identity: BankIdentity, live: LiveFeatures) -> Path:
    """Compute a bank and publish it, whatever lies there; returns its folder."""
    with store.publish("banks", identity.key) as folder:
        fill_bank(folder, identity, live)
    return store.path("banks", identity.key)


def fresh_store(folder: Path) -> Store:
    """A store that holds the tiny dataset and nothing else."""
    store = open_store(folder)
    write_dataset(store)
    return store


def trial(**settings: Any) -> TrialConfig:
    """A trial that distils into a tiny AlexNet; its teacher is trained for an epoch.

    AlexNet is without batch norm here, so that it says the same in training as in evaluation, and of halves of a batch
    as of the whole.
    """
    defaults: dict[str, Any] = {
        "resolution": 4,
        "crop_padding": 1,
        "flip": True,
        "backbone": "alexnet",
        "width": 0.125,
        "dropout": 0.0,
        "batch_norm": settings.get("backbone", "alexnet") != "alexnet",
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.02,
        "schedule": "constant",
        "lambda_": 1.0,
        "precision": "float32",
        "reduction": "mean",
        "student_start": "scratch",
        "teacher_epochs": 1,
        "teacher_batch_size": 16,
        "teacher_learning_rate": 0.02,
        "teacher_schedule": "constant",
        "teacher_momentum": 0.9,
        "teacher_weight_decay": 5e-4,
        "teacher_dropout": 0.0,
    }
    return TrialConfig(**defaults | settings)


def workbench(store: Store, banks: dict[str, BankPlan] | None = None) -> Workbench:
    return Workbench(store, "tiny", banks or {}, DEVICE)


def prepared(store: Store, *configs: TrialConfig, banks: dict[str, BankPlan] | None = None) -> Workbench:
    """A workbench whose store holds every network that the trials need."""
    bench = workbench(store, banks)
    for config in configs:
        for needed in config.pretrained():
            bench.prepare(needed, SingleProcess())
    return bench


def network(seed: int = 0, backbone: str = "alexnet", dropout: float = 0.0) -> Network:
    """An untrained network for the tiny dataset, with batch norm as `trial` has it."""
    return build_network(
        backbone,
        width=0.125,
        dropout=dropout,
        batch_norm=backbone != "alexnet",
        channels=1,
        image_size=SIDE,
        num_classes=len(CLASSES),
        seed=seed,
    )


def run(config: TrialConfig, bench: Workbench) -> tuple[Network, TrialResult]:
    return train_student(config, bench, SingleProcess())


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The metrics that must come out equal in equal runs: all but the speed."""
    return [{name: value for name, value in metrics.items() if name != "images_per_second"} for metrics in history]


def bits(model: torch.nn.Module) -> dict[str, bytes]:
    """Every weight and buffer, to be compared bit by bit."""
    return {name: tensor.detach().cpu().contiguous().numpy().tobytes() for name, tensor in model.state_dict().items()}
