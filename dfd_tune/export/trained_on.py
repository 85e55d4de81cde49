"""The images that a stored student was trained on and chosen by, found in the store again.

A student's file names its trial, not its dataset; but the dataset is the one of whose content, with the student's
settings, the trial key is made. Nothing is written, and test images are left alone. Not for: training
(distill/workbench.py), nor for preparing datasets (data/prepared.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dfd_tune.config import TrialConfig
from dfd_tune.data.cameras import pictures_of
from dfd_tune.data.degradation import take_pictures
from dfd_tune.data.prepared import DamagedFileError, Dataset, digest_of, open_dataset
from dfd_tune.data.splits import stratified_subset
from dfd_tune.errors import UserError, cause_of
from dfd_tune.models.card import ModelCard
from dfd_tune.parts import Camera
from dfd_tune.store import Store


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """A student's images as its camera sees them."""

    dataset: Dataset
    camera: Camera

    def training(self, count: int) -> np.ndarray:
        """Training images, uint8 (n, r, r, C), n being `count`, or all if there are fewer: of every class its share."""
        split = self.dataset.train
        chosen = stratified_subset(split.labels, min(count, len(split)), seed=0)
        return _raw(take_pictures(split.images[chosen], self.camera, np.random.default_rng(0)))

    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """All validation images, uint8 (N, r, r, C), and their labels, int64 (N,)."""
        return _raw(pictures_of(self.dataset, self.camera, "validation")), self.dataset.validation.labels


def find_images(store: Store, card: ModelCard) -> TrainedOn | None:
    """The images of the student that `card` describes; None if the store does not hold them, or not whole.

    Raises:
        UserError: the store's disk can't be read just now.
    """
    key, settings = card.extras.get("trial_key"), card.extras.get("config")
    if key is None or settings is None:
        return None
    try:
        config = TrialConfig(**settings)
    except (TypeError, UserError):  # of a version that had other settings
        return None
    for entry in store.entries("datasets"):
        dataset = _dataset(store, entry, lambda digest: config.key(digest) == key)
        if dataset is not None:
            return TrainedOn(dataset, config.camera)
    return None


def _dataset(store: Store, entry: str, meant: Callable[[str], bool]) -> Dataset | None:
    """The dataset of an entry if it is whole, and meant by its digest; others are not brought here."""
    try:
        digest = digest_of(store, entry)
        return open_dataset(store.here("datasets", entry)) if digest is not None and meant(digest) else None
    except DamagedFileError:
        return None
    except OSError as error:
        raise UserError(
            f"The dataset '{entry}' in the store '{store.location}' can't be read ({cause_of(error)}); see to it."
        ) from None


def _raw(pictures: np.ndarray) -> np.ndarray:
    """From (N, C, r, r) to (N, r, r, C)."""
    return np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))
