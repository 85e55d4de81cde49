"""Stratified subsets and splits of labelled images.

Pure functions of labels, size and seed, in own code down to the shuffling: they name the images that a digest
covers, so that they must not change with a library's version. Not for: copying images.
"""

from __future__ import annotations

import numpy as np


def stratified_subset(labels: np.ndarray, count: int, seed: int, at_least: int = 1, *, offset: int = 0) -> np.ndarray:
    """Choose `count` images so that every class keeps its share, by largest remainder.

    Every class has its images in an order that depends on the seed alone, and the first of them are chosen. With an
    offset, those after the ones that a subset of that size, of equal `seed` and `at_least`, would have.

    Args:
        labels: integers, (N,).
        count: size of the subset, 0 to N - offset.
        seed: non-negative, up to 64 bits.
        at_least: number of images that every class keeps (or all, if it has fewer), as far as `count` allows.
        offset: how many images are passed over, 0 to N.

    Returns:
        Sorted indices into `labels`, int64, (count,).
    """
    assert 0 <= offset <= offset + count <= len(labels), f"{count} after {offset} of {len(labels)} images"
    _, members, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    passed = _shares(sizes, offset, at_least)
    shares = _shares(sizes - passed, count, at_least)
    # Images in random order, then by class: an image is chosen if it is among the first of its class, or the next.
    shuffled = random_order(len(labels), seed)
    by_class = shuffled[np.argsort(members[shuffled], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    position = np.arange(len(labels)) - np.repeat(starts, sizes)
    first, last = (np.repeat(bound, sizes) for bound in (passed, passed + shares))
    return np.sort(by_class[(first <= position) & (position < last)]).astype(np.int64)


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a share of the images, the same share of every class, and at least one image of each.

    Args:
        labels: integers, (N,), each class at least twice.
        fraction: share to hold out, above 0 and at most 0.5.
        seed: non-negative, up to 64 bits.

    Returns:
        Sorted indices of the kept and of the held-out images, int64; every class is in both.
    """
    _, sizes = np.unique(labels, return_counts=True)
    assert 0 < fraction <= 0.5, fraction
    assert sizes.min(initial=2) >= 2, "a class with one image can't be split"
    # Not above half, so that no class, the smallest has two images, is held out as a whole.
    count = min(max(round(fraction * len(labels)), len(sizes)), len(labels) // 2)
    held_out = stratified_subset(labels, count, seed)
    kept = np.setdiff1d(np.arange(len(labels), dtype=np.int64), held_out, assume_unique=True)
    return kept, held_out


def _shares(sizes: np.ndarray, count: int, at_least: int) -> np.ndarray:
    """How many of each class: whole numbers that add up to `count`, none above the class's size."""
    total = int(sizes.sum())
    exact = [count * int(size) for size in sizes]  # in units of 1/total, so that there is no rounding
    shares = np.array([share // max(total, 1) for share in exact], dtype=np.int64)
    remainders = np.array([share % max(total, 1) for share in exact], dtype=np.int64)
    shares[np.argsort(-remainders, kind="stable")[: count - int(shares.sum())]] += 1
    least = np.minimum(sizes, at_least)
    # What the small classes lack is taken from the largest, as long as that has some to give.
    while (lacking := np.flatnonzero(shares < least)).size:
        largest = int(np.argmax(shares - least))
        if shares[largest] <= least[largest]:
            break
        shares[largest] -= 1
        shares[lacking[0]] += 1
    return shares


def random_order(length: int, seed: int) -> np.ndarray:
    """The numbers 0 to length - 1 in random order, int64 (length,); the same for good for a seed of up to 64 bits."""
    # The raw stream of a bit generator is fixed for good; that of `Generator.permutation` is not.
    return np.argsort(np.random.PCG64(seed).random_raw(length), kind="stable")
