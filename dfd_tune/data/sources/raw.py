"""What a source hands over: all images and labels, decoded, in memory; and what sources need to get there.

Not for: decoding (decode.py), nor for subsets and the validation split (prepared.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfd_tune.data.splits import stratified_split
from dfd_tune.errors import UserError, raise_all

LEAST_PER_CLASS = 3
"""Training images that a class needs: fewer can't be split into training and validation images with sense."""

TEST_SHARE = 0.2
"""Share of the images held out as the test set where a source comes without one."""

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class RawDataset:
    """A source's images as they are, before subsets and the validation split.

    Attributes:
        train_images: uint8, (N, C, S, S), C-contiguous; C is 1 (gray) or 3 (RGB).
        train_labels: int64, (N,), indices into `classes`.
        test_images: as `train_images`, with the same C and S.
        test_labels: as `train_labels`.
        classes: names by label.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]


def with_test_split(
    images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], where: str, say: Callable[[str], None]
) -> RawDataset:
    """Hold out a fixed fifth of every class as the test set of a source that has none, and say so.

    Args:
        images: uint8, (N, C, S, S).
        labels: int64, (N,).
        classes: names by label.
        where: the source, as a phrase for messages.
        say: takes the line that says so.

    Raises:
        UserError: a class has too few images.
    """
    # One more than training needs: one is held out of every class.
    check_classes(labels, classes, where, LEAST_PER_CLASS + 1, "images (there is no test set, so some are held out)")
    kept, held_out = stratified_split(labels, TEST_SHARE, seed=0)
    say(
        f"There is no test set in {where}: {len(held_out):,} of its {len(labels):,} images, the same share "
        "of every class, are held out as one."
    )
    return RawDataset(images[kept], labels[kept], images[held_out], labels[held_out], classes)


def check_classes(
    labels: np.ndarray,
    classes: Sequence[str],
    where: str,
    least: int = LEAST_PER_CLASS,
    what: str = "training images",
) -> None:
    """Check that there are two classes or more and that each has `least` images or more.

    Raises:
        UserError: otherwise; names the classes that have too few.
    """
    problems = []
    if len(classes) < 2:
        names = f" ('{classes[0]}')" if classes else ""
        problems.append(f"There must be at least 2 classes, but {where} has {len(classes)}{names}.")
    counts = np.bincount(labels, minlength=len(classes))
    few = [f"'{name}' ({count})" for name, count in zip(classes, counts, strict=True) if count < least]
    if few:
        problems.append(
            f"Every class needs at least {least} {what}, but in {where} there are classes with fewer: "
            f"{first_few(few)}; add images or leave these classes out."
        )
    raise_all(problems)


def fingerprint_files(root: Path, files: Iterable[Path]) -> dict[str, Any]:
    """Names relative to `root`, sizes in bytes and modification times in ns, JSON-able; opens no file.

    Raises:
        UserError: a file is there but can't be looked at, such as a broken link.
    """
    rows = []
    for file in files:
        try:
            state = file.stat()
        except OSError as error:
            raise UserError(f"'{file}' can't be read ({error.strerror}); mend or remove it.") from None
        rows.append([file.relative_to(root).as_posix(), state.st_size, state.st_mtime_ns])
    return {"files": rows}


def is_hidden(path: Path, root: Path) -> bool:
    """Whether the path, or a folder between it and `root`, has a name that starts with a dot."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def first_few(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
