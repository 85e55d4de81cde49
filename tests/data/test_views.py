"""Views: a pure function of seed, epoch and index, spread evenly, and cut as a plain loop cuts them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from dfd_tune.data.views import ViewSpace

SPACE = ViewSpace(crop_padding=4, flip=True)
SPACES = [ViewSpace(padding, flip) for padding in (0, 1, 4) for flip in (False, True)]
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (3, 2, 5, 5), dtype=np.uint8))
MASK = 2**64 - 1


def splitmix(value: int) -> int:
    """SplitMix64's output for the state `value`, in whole numbers of Python."""
    z = (value + 0x9E3779B97F4A7C15) & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def cut_plainly(image: np.ndarray, padding: int, flips: int, view: int) -> np.ndarray:
    """View `view` of one image (C, S, S), pixel by pixel, by the definition of its id."""
    offsets = 2 * padding + 1
    top, left, flipped = view // flips // offsets, view // flips % offsets, view % flips
    size = image.shape[-1]
    crop = np.zeros_like(image)
    for row in range(size):
        for column in range(size):
            from_row, from_column = row + top - padding, column + left - padding
            if 0 <= from_row < size and 0 <= from_column < size:
                crop[:, row, size - 1 - column if flipped else column] = image[:, from_row, from_column]
    return crop


def chi_square(ids: np.ndarray, count: int) -> float:
    expected = len(ids) / count
    return float(((np.bincount(ids, minlength=count) - expected) ** 2 / expected).sum())


def test_there_are_as_many_views_as_offsets_squared_times_flips():
    assert [space.count for space in SPACES] == [1, 2, 9, 18, 81, 162]


def test_draws_are_those_of_chained_splitmix64():
    # The first output of SplitMix64 seeded with 0, as published with the generator, checks the reference itself.
    assert splitmix(0) == 0xE220A8397B1DCDAF
    for seed, epoch in ((0, 0), (1, 7), (2**63 + 5, 9_999)):
        expected = [splitmix(splitmix(splitmix(seed) ^ epoch) ^ index) % 162 for index in range(50)]
        assert SPACE.draw(seed, epoch, np.arange(50)).tolist() == expected


def test_a_view_does_not_depend_on_the_batch_it_is_drawn_in():
    indices = np.arange(1000)
    whole = SPACE.draw(3, 5, indices)
    assert whole.dtype == np.int64
    order = np.random.default_rng(0).permutation(indices)
    assert np.array_equal(SPACE.draw(3, 5, order), whole[order])
    for parts in (1, 2, 7, 1000):
        drawn = [SPACE.draw(3, 5, part) for part in np.array_split(order, parts)]
        assert np.array_equal(np.concatenate(drawn), whole[order])
    # Nor on what was drawn before, nor on the global random state.
    np.random.seed(1)
    assert np.array_equal(SPACE.draw(3, 5, indices), whole)


def test_no_images_have_no_views():
    assert SPACE.draw(0, 0, np.array([], dtype=np.int64)).shape == (0,)


@pytest.mark.parametrize(("seed", "epoch"), [(3, 6), (4, 5), (5, 3), (0, 0)])
def test_another_seed_or_epoch_gives_other_views(seed, epoch):
    # Independent draws agree in 1 of 162 views; swapped seed and epoch must be no exception.
    same = SPACE.draw(3, 5, np.arange(16_200)) == SPACE.draw(seed, epoch, np.arange(16_200))
    assert 0 < same.sum() < 200  # 100 expected, 10 standard deviation


def test_consecutive_epochs_of_an_image_are_not_related():
    views = np.stack([SPACE.draw(0, epoch, np.arange(100)) for epoch in range(162)])
    steps = (np.diff(views, axis=0) % SPACE.count).ravel()
    assert chi_square(steps, SPACE.count) < 260  # as below


# 161 degrees of freedom: mean 161, standard deviation √(2·161) = 18. Below 260 is 5.5 of them; a pure function
# cannot fail by chance.
def test_every_view_is_about_as_frequent_among_the_images_of_an_epoch():
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (12345, 99)):
        ids = SPACE.draw(seed, epoch, np.arange(16_200))
        assert (ids.min(), ids.max()) == (0, 161)
        assert chi_square(ids, SPACE.count) < 260


@pytest.mark.parametrize("index", [0, 1, 49_999])
def test_every_view_is_about_as_frequent_among_the_epochs_of_an_image(index):
    ids = np.concatenate([SPACE.draw(0, epoch, np.array([index])) for epoch in range(8100)])
    assert chi_square(ids, SPACE.count) < 260


def test_large_seeds_epochs_and_indices_are_as_good_as_small_ones():
    indices = 2**62 + np.arange(16_200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = SPACE.draw(2**64 - 1, 10_000, indices)
    assert chi_square(ids, SPACE.count) < 260
    assert not np.array_equal(ids, SPACE.draw(2**64 - 2, 10_000, indices))


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_every_view_is_cut_as_a_plain_loop_cuts_it(space):
    ids = np.tile(np.arange(space.count), len(IMAGES))
    indices = np.repeat(np.arange(len(IMAGES)), space.count)
    crops = space.cut(IMAGES, torch.from_numpy(indices), torch.from_numpy(ids))
    assert crops.dtype == torch.uint8
    expected = [
        cut_plainly(IMAGES[index].numpy(), space.crop_padding, 2 if space.flip else 1, view)
        for index, view in zip(indices, ids, strict=True)
    ]
    assert np.array_equal(crops.numpy(), np.stack(expected))


def test_different_ids_are_different_views():
    crops = SPACE.cut(IMAGES, torch.zeros(162, dtype=torch.int64), torch.arange(162))
    assert len({crop.numpy().tobytes() for crop in crops}) == 162


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_identity_view_is_the_image(space):
    ids = torch.full((len(IMAGES),), space.identity)
    assert torch.equal(space.cut(IMAGES, torch.arange(len(IMAGES)), ids), IMAGES)
