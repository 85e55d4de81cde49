"""Trained networks as they lie in the store: weights and facts under a key, found only if whole and the right ones.

    <kind>/<key>/  network.safetensors  network.json

Not for: training them (pretrained.py, frontends.py), or students, whose file stands alone (student.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file
from torch import nn

from dfd_tune.digest import digest_arrays
from dfd_tune.distill.checkpoints import Checkpoints, full_disks_told
from dfd_tune.distill.networks import arrays_of
from dfd_tune.store import Store, read_whole, read_whole_json, whole, write_json

WEIGHTS_FILE, FACTS_FILE = "network.safetensors", "network.json"

Weights = dict[str, np.ndarray]
"""A state dict's arrays by name."""
Facts = dict[str, Any]
"""What is known of a network; JSON-able."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Place:
    """Where a network is kept, and what must stand there."""

    kind: str
    """Folder of the store."""
    key: str
    config: Mapping[str, Any]
    """What tells it from other networks; JSON-able."""
    dataset: str
    """The dataset's digest."""


def find(store: Store, place: Place, thaw: Callable[[Weights, Facts], Found]) -> Found | None:
    """What `thaw` makes of the weights and facts at `place`; None if they are not there, others, or damaged.

    Raises:
        OSError: the disk can't be read just now, or the node has no room for its copy.
    """
    return store.opened(place.kind, place.key, lambda folder: _read(folder, place, thaw))


def _read(folder: Path, place: Place, thaw: Callable[[Weights, Facts], Found]) -> Found | None:
    if not whole(folder):
        return None
    facts = read_whole_json(folder, FACTS_FILE)
    try:
        if facts is None or (facts["config"], facts["dataset"]) != (place.config, place.dataset):
            return None
        content = read_whole(folder, WEIGHTS_FILE)  # read in one piece anyway, so the digest is as good as free
        if content is None:
            return None
        weights = load(content)
        if digest_arrays(weights) != facts["weights_digest"]:
            return None
        return thaw(weights, facts)
    except (ValueError, SafetensorError, KeyError):
        return None


def ensure(
    store: Store,
    place: Place,
    thaw: Callable[[Weights, Facts], Found],
    train: Callable[[], tuple[nn.Module, Facts]],
    checkpoints: Checkpoints | None = None,
) -> tuple[Found, bool]:
    """The network at `place` or, where it is not there, one that `train` gives now; and whether it was trained now.

    Two callers at once train it once: the second waits for the first. A damaged entry is trained anew.

    Args:
        store: where networks are kept.
        place: where in it.
        thaw: makes weights and facts into what is returned.
        train: gives the trained network and what is known of it.
        checkpoints: of its training, if it keeps any; removed once the network is there.
    """

    def make(folder: Path) -> None:
        network, told = train()
        weights = arrays_of(network)
        facts = {
            "config": dict(place.config),
            "dataset": place.dataset,
            "weights_digest": digest_arrays(weights),
            **told,
        }
        with full_disks_told(folder / WEIGHTS_FILE):
            save_file(weights, folder / WEIGHTS_FILE)
        write_json(folder / FACTS_FILE, facts)

    found, trained = store.ensure(place.kind, place.key, lambda folder: _read(folder, place, thaw), make)
    if checkpoints is not None:  # also those of someone who was killed after publishing
        checkpoints.clear()
    return found, trained
