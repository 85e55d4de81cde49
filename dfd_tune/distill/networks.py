"""Networks as a dataset and a configuration ask for them, and their weights as arrays.

Not for: architectures (models/), training (training.py), or where weights are kept (pretrained.py, student.py).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn

from dfd_tune.data.prepared import Dataset
from dfd_tune.models import Network, build_network
from dfd_tune.parts import NetworkConfig, Precision


def network_for(dataset: Dataset, config: NetworkConfig, seed: int) -> Network:
    """An untrained network for the images and classes of `dataset`; `seed` decides its weights."""
    return build_network(
        config.backbone,
        width=config.width,
        dropout=config.dropout,
        batch_norm=config.batch_norm,
        channels=dataset.channels,
        image_size=dataset.image_size,
        num_classes=len(dataset.classes),
        seed=seed,
    )


def feature_dim_of(dataset: Dataset, config: NetworkConfig) -> int:
    """D, how many features such a network has; built once a process for each architecture."""
    return _feature_dim(config, dataset.channels, dataset.image_size)


@lru_cache
def _feature_dim(config: NetworkConfig, channels: int, image_size: int) -> int:
    network = build_network(
        config.backbone,
        width=config.width,
        dropout=config.dropout,
        batch_norm=config.batch_norm,
        channels=channels,
        image_size=image_size,
        num_classes=2,
        seed=0,
    )
    return network.feature_dim


def computed_in(precision: Precision, device: torch.device) -> torch.autocast:
    """A block in which networks are run in that precision; weights, and gradients of weights, stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def arrays_of(network: nn.Module) -> dict[str, np.ndarray]:
    """A network's state dict as arrays that share nothing with it."""
    return {name: np.array(tensor.detach().cpu(), order="C") for name, tensor in network.state_dict().items()}


def load_weights(network: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Put a state dict's arrays into a network of the same architecture.

    Raises:
        ValueError: they are of another architecture: names or shapes differ.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if expected != {name: array.shape for name, array in weights.items()}:
        raise ValueError("weights of another architecture")
    network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
