"""Networks trained by cross entropy alone before the search: teachers (high resolution) and base networks (low).

Each is trained once per (dataset, backbone, recipe), published under its key, frozen, and shared by every trial.
Not for: their features (features.py) or the students (student.py).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dfd_tune.config import PretrainedConfig
from dfd_tune.data.pairs import EvaluationImages, TrainingImages
from dfd_tune.data.prepared import Dataset
from dfd_tune.digest import digest_arrays
from dfd_tune.distill.networks import arrays_of, load_weights, network_for
from dfd_tune.distill.process import Process
from dfd_tune.distill.training import train_network
from dfd_tune.models import Network
from dfd_tune.store import Store, read_json, write_json

FIRST_WEIGHT_SEED = 1_000_000
"""Added to a teacher's seed, so that it does not begin with the very weights of a student with an equal seed."""
WEIGHTS_FILE, FACTS_FILE = "network.safetensors", "network.json"


@dataclass(frozen=True)
class Pretrained:
    """A frozen network in evaluation mode, and what is known of it."""

    key: str
    config: PretrainedConfig
    network: Network
    weights: dict[str, np.ndarray]
    """The state dict's arrays by name."""
    weights_digest: str
    val_accuracy: float
    """On validation images of the side it was trained on."""
    history: list[dict[str, float]]


def find_pretrained(store: Store, config: PretrainedConfig, dataset: Dataset) -> Pretrained | None:
    """The network from the store; None if it is not there, another one, or damaged."""
    key = config.key(dataset.digest)
    folder = store.path("pretrained", key)
    try:
        facts = read_json(folder / FACTS_FILE)
        if facts is None:
            return None
        if (facts["config"], facts["dataset"]) != (dataclasses.asdict(config), dataset.digest):
            return None
        weights = load_file(folder / WEIGHTS_FILE)
        if digest_arrays(weights) != facts["weights_digest"]:
            return None
        return _frozen(key, config, dataset, weights, facts)
    except (OSError, ValueError, SafetensorError, KeyError, AssertionError):
        return None


def ensure_pretrained(
    store: Store,
    config: PretrainedConfig,
    dataset: Dataset,
    images: TrainingImages,
    validation: EvaluationImages,
    process: Process,
) -> tuple[Pretrained, bool]:
    """The network from the store or, where it is not there, trained now; and whether it was trained now.

    Two callers at once train it once: the second waits for the first. A damaged entry is trained anew.

    Args:
        store: where networks are kept.
        config: which network.
        dataset: whose images they are.
        images: the training images of the side that `config` asks for.
        validation: validation images of that side.
        process: a single process.
    """
    key = config.key(dataset.digest)
    with store.lease(f"pretrained-{key}"):
        found = find_pretrained(store, config, dataset)
        if found is not None:
            return found, False
        store.discard("pretrained", key)
        store.clear_drafts("pretrained", key)
        network = fresh_network(config, dataset)
        history = train_network(network, images, validation, recipe=config.recipe, process=process)
        weights = arrays_of(network)
        facts: dict[str, Any] = {
            "role": config.role,
            "config": dataclasses.asdict(config),
            "dataset": dataset.digest,
            "weights_digest": digest_arrays(weights),
            "val_accuracy": history[-1]["val_accuracy"],
            "history": history,
        }
        with store.publish("pretrained", key) as folder:
            save_file(weights, folder / WEIGHTS_FILE)
            write_json(folder / FACTS_FILE, facts)
        return _frozen(key, config, dataset, weights, facts), True


def fresh_network(config: PretrainedConfig, dataset: Dataset) -> Network:
    """The untrained network of `config` for the images of `dataset`."""
    return network_for(dataset, config.network, FIRST_WEIGHT_SEED + config.recipe.seed)


def _frozen(
    key: str, config: PretrainedConfig, dataset: Dataset, weights: dict[str, np.ndarray], facts: dict[str, Any]
) -> Pretrained:
    network = fresh_network(config, dataset)
    load_weights(network, weights)
    network.eval().requires_grad_(False)
    return Pretrained(
        key=key,
        config=config,
        network=network,
        weights=weights,
        weights_digest=facts["weights_digest"],
        val_accuracy=facts["val_accuracy"],
        history=facts["history"],
    )
