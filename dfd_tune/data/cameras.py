"""A dataset's images as a camera sees them: made once, kept as files, memory-mapped by every process of a node.

    low_res/<key>/  train.npy  validation.npy  test.npy  camera.json

All trials, base networks and front ends of that camera read the same files, so noise and JPEG happen once. Not for:
how a picture is taken (degradation.py), nor for enlarging it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dfd_tune.data.degradation import take_pictures
from dfd_tune.data.prepared import Dataset, Split
from dfd_tune.parts import Camera
from dfd_tune.store import Store, read_whole_json, whole, write_json
from dfd_tune.store.arrays import mapped_array, write_array

SPLITS = ("train", "validation", "test")


def camera_images(store: Store, dataset: Dataset, camera: Camera, split: str) -> np.ndarray:
    """The images of a split as `camera` sees them: from the store, or taken now; damaged files are made anew.

    Args:
        store: where the files are kept.
        dataset: whose images they are.
        camera: how they come about.
        split: train, validation or test.

    Returns:
        uint8 (N, C, r, r), memory-mapped, read-only.

    Raises:
        OSError: the disk can't be read just now, or not be written.
    """
    key = camera.key(dataset.digest)

    def make(folder: Path) -> None:
        for name in SPLITS:
            write_array(folder / f"{name}.npy", pictures_of(dataset, camera, name))
        write_json(folder / "camera.json", _identity(dataset, camera))

    pictures, _ = store.ensure("low_res", key, lambda folder: _read(folder, dataset, camera, split), make)
    return pictures


def pictures_of(dataset: Dataset, camera: Camera, split: str) -> np.ndarray:
    """The images of a split as `camera` sees them, taken now, and kept nowhere; equal to those of `camera_images`.

    Returns:
        uint8 (N, C, r, r).
    """
    # A generator of its own for each split: the noise of an image depends on its place there alone.
    random = np.random.default_rng(SPLITS.index(split))
    return take_pictures(_split(dataset, split).images, camera, random)


def _read(folder: Path, dataset: Dataset, camera: Camera, split: str) -> np.ndarray | None:
    if not whole(folder) or read_whole_json(folder, "camera.json") != _identity(dataset, camera):
        return None
    pictures = mapped_array(folder / f"{split}.npy")
    shape = (len(_split(dataset, split)), dataset.channels, camera.resolution, camera.resolution)
    return pictures if pictures is not None and (pictures.dtype, pictures.shape) == (np.uint8, shape) else None


def _identity(dataset: Dataset, camera: Camera) -> dict[str, object]:
    return {"camera": camera.identity(), "dataset": dataset.digest}


def _split(dataset: Dataset, name: str) -> Split:
    found: Split = getattr(dataset, name)
    return found
