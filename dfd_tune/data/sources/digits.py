"""scikit-learn's handwritten digits: 1,797 images of 8×8 pixels, part of an installed package, no download.

Not for: MNIST, which is another dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dfd_tune.data.sources.decode import resize_images
from dfd_tune.data.sources.raw import RawDataset, with_test_split


def fingerprint(data: Path | None) -> dict[str, Any]:
    """The version of scikit-learn."""
    from importlib.metadata import version

    return {"scikit-learn": version("scikit-learn")}


def load(data: Path | None, image_size: int | None, cache: Path, say: Callable[[str], None]) -> RawDataset:
    """The digits as uint8 (N, 1, S, S); the dataset has no test set, so a fixed fifth is held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 17 levels, 0 to 16, spread over 0 to 255.
    levels = digits.images.astype(np.int64)[:, None]
    images = ((levels * 255 + 8) // 16).astype(np.uint8)
    classes = tuple(str(name) for name in digits.target_names)
    labels = digits.target.astype(np.int64)
    return with_test_split(resize_images(images, image_size), labels, classes, "scikit-learn's digits", say)
