"""Image files in a folder per class, with or without a test set.

    DATA/train/<class>/*  and  DATA/test/<class>/*      or without test/: a fixed fifth is held out
    DATA/<class>/*                                      a fixed fifth is held out

Hidden files, and files that are no images by their ending, are left alone; so are folders inside a class.
Not for: checking images (decode.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfd_tune.data.sources.decode import Encoded, decode_images
from dfd_tune.data.sources.raw import RawDataset, check_classes, fingerprint_files, first_few, with_test_split
from dfd_tune.errors import UserError

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


@dataclass(frozen=True)
class _Listing:
    """Image files with their labels: indices into `classes`, which are the training folders in order."""

    classes: tuple[str, ...]
    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]]


def fingerprint(data: Path | None) -> dict[str, Any]:
    """Names, sizes and times of the image files."""
    assert data is not None
    listing = _list(data)
    # The classes too: an empty folder is a class (and an error), yet shows in no file's name.
    files = fingerprint_files(data, (file for file, _ in listing.train + listing.test))
    return files | {"classes": list(listing.classes)}


def load(data: Path | None, image_size: int | None, cache: Path, say: Callable[[str], None]) -> RawDataset:
    """Read all image files, in the order of their names.

    Raises:
        UserError: the folder has another layout, or images are unsuitable.
    """
    assert data is not None
    listing = _list(data)
    where = f"'{data}'"
    labels = _labels(listing.train)
    check_classes(labels, listing.classes, where)
    files = [Encoded(file, file.relative_to(data).as_posix()) for file, _ in listing.train + listing.test]
    images = decode_images(files, image_size, where, say)
    if not listing.test:
        return with_test_split(images, labels, listing.classes, where, say)
    count = len(labels)
    return RawDataset(images[:count], labels, images[count:], _labels(listing.test), listing.classes)


def _labels(files: Sequence[tuple[Path, int]]) -> np.ndarray:
    return np.array([label for _, label in files], dtype=np.int64)


def _list(data: Path) -> _Listing:
    # A folder called "train" is the training set only if it holds folders: it may be a class of vehicles.
    split = any(_folders(data / "train"))
    train_root, test_root = (data / "train", data / "test") if split else (data, None)
    classes = tuple(folder.name for folder in _folders(train_root))
    train = _files(train_root, classes)
    if not train:
        raise UserError(
            f"--data '{data}' holds no images in class folders; expected are files such as "
            "train/<class>/1.png and test/<class>/1.png, or <class>/1.png."
        )
    if test_root is None or not test_root.exists():
        return _Listing(classes, train, [])
    unknown = [folder.name for folder in _folders(test_root) if folder.name not in classes]
    if unknown:
        raise UserError(
            f"'{test_root}' has classes that '{train_root}' lacks: {first_few(unknown)}; both must have the "
            "same class folders."
        )
    test = _files(test_root, classes)
    if not test:
        raise UserError(
            f"'{test_root}' holds no images in class folders; fill it, or remove it to have a fifth of the "
            "training images held out."
        )
    return _Listing(classes, train, test)


def _files(root: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    return [
        (file, label)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for file in sorted((root / name).iterdir())
        if file.suffix.lower() in ENDINGS and not file.name.startswith(".")
    ]


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
