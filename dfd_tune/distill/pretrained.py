"""Networks trained by cross entropy alone before the search: teachers (high resolution) and base networks (low).

Each is trained once per (dataset, backbone, recipe), published under its key, frozen, and shared by every trial.
Not for: their features (features.py) or the students (student.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from dfd_tune.data.pairs import EvaluationImages, TrainingImages
from dfd_tune.data.prepared import Dataset
from dfd_tune.distill import kept
from dfd_tune.distill.checkpoints import Checkpoints
from dfd_tune.distill.networks import load_weights, network_for
from dfd_tune.distill.process import Process
from dfd_tune.distill.training import train_network
from dfd_tune.models import Network
from dfd_tune.parts import Guide, PretrainedConfig
from dfd_tune.store import Store

FIRST_WEIGHT_SEED = 1_000_000
"""Added to a teacher's seed, so that it does not begin with the very weights of a student with an equal seed."""


@dataclass(frozen=True)
class Pretrained:
    """A frozen network in evaluation mode, and what is known of it."""

    key: str
    config: Guide
    network: Network
    weights: dict[str, np.ndarray]
    """The state dict's arrays by name; none of a teacher file that no student can start from."""
    weights_digest: str
    val_accuracy: float
    """On validation images of the side it was trained on."""
    history: list[dict[str, float]]
    file: str | None = None
    """Name of the file that it came in; None of one that was trained here."""


def find_pretrained(store: Store, config: PretrainedConfig, dataset: Dataset) -> Pretrained | None:
    """The network from the store; None if it is not there, another one, or damaged."""
    return kept.find(store, _place(config, dataset), partial(_frozen, config, dataset))


def ensure_pretrained(
    store: Store,
    config: PretrainedConfig,
    dataset: Dataset,
    images: TrainingImages,
    validation: EvaluationImages,
    process: Process,
    checkpoints: Checkpoints | None = None,
) -> tuple[Pretrained, bool]:
    """The network from the store or, where it is not there, trained now and kept; and whether it was trained now.

    Args:
        store: where networks are kept.
        config: which network.
        dataset: whose images they are.
        images: the training images of the side that `config` asks for.
        validation: validation images of that side.
        process: a single process.
        checkpoints: of this training; None keeps none.
    """

    def train() -> tuple[Network, kept.Facts]:
        network = fresh_network(config, dataset)
        history = train_network(
            network, images, validation, recipe=config.recipe, process=process, checkpoints=checkpoints
        )
        return network, {"role": config.role, "val_accuracy": history[-1]["val_accuracy"], "history": history}

    return kept.ensure(store, _place(config, dataset), partial(_frozen, config, dataset), train, checkpoints)


def fresh_network(config: PretrainedConfig, dataset: Dataset) -> Network:
    """The untrained network of `config` for the images of `dataset`."""
    return network_for(dataset, config.network, FIRST_WEIGHT_SEED + config.recipe.seed)


def _place(config: PretrainedConfig, dataset: Dataset) -> kept.Place:
    return kept.Place("pretrained", config.key(dataset.digest), config.identity(), dataset.digest)


def _frozen(config: PretrainedConfig, dataset: Dataset, weights: kept.Weights, facts: kept.Facts) -> Pretrained:
    network = fresh_network(config, dataset)
    load_weights(network, weights)
    network.eval().requires_grad_(False)
    return Pretrained(
        key=config.key(dataset.digest),
        config=config,
        network=network,
        weights=weights,
        weights_digest=facts["weights_digest"],
        val_accuracy=facts["val_accuracy"],
        history=facts["history"],
    )
