import numpy as np
import pytest

from dfd_tune.data.splits import stratified_split, stratified_subset

UNEVEN = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [500, 300, 190, 10]))


@pytest.mark.parametrize("count", [0, 3, 4, 7, 100, 333, 999, 1000])
def test_a_subset_has_exactly_the_count_and_sorted_distinct_indices(count):
    chosen = stratified_subset(UNEVEN, count, seed=1)
    assert len(chosen) == count
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize("count", [4, 7, 20, 100, 333, 999])
def test_a_subset_keeps_the_shares_of_the_classes(count):
    counts = np.bincount(UNEVEN[stratified_subset(UNEVEN, count, seed=1)], minlength=4)
    exact = count * np.bincount(UNEVEN) / len(UNEVEN)
    # Largest remainder is within one; one more may have gone to a class that would have had none.
    assert (abs(counts - exact) < 2).all()
    assert (counts >= 1).all()
    if (np.floor(exact) >= 1).all():
        assert (abs(counts - exact) < 1).all()


def test_the_largest_remainders_get_what_is_left():
    labels = np.repeat([0, 1, 2], [50, 31, 19])  # of 10: 5.0, 3.1, 1.9
    assert np.bincount(labels[stratified_subset(labels, 10, seed=0)]).tolist() == [5, 3, 2]


def test_small_classes_keep_the_least_that_is_asked_for():
    labels = np.repeat([0, 1, 2], [990, 8, 2])
    counts = np.bincount(labels[stratified_subset(labels, 12, seed=0, at_least=3)])
    assert counts.tolist() == [7, 3, 2]  # class 2 has no more than two


@pytest.mark.parametrize(("offset", "count"), [(0, 100), (3, 4), (100, 300), (333, 667), (1000, 0)])
def test_a_subset_after_an_offset_has_none_of_the_first_and_is_stratified_too(offset, count):
    passed = stratified_subset(UNEVEN, offset, seed=1)
    chosen = stratified_subset(UNEVEN, count, seed=1, offset=offset)
    assert len(np.union1d(passed, chosen)) == offset + count
    exact = count * np.bincount(UNEVEN) / len(UNEVEN)
    assert (abs(np.bincount(UNEVEN[chosen], minlength=4) - exact) < 2).all()


def test_a_subset_is_a_function_of_its_arguments():
    labels = UNEVEN.copy()
    np.random.seed(1)
    first = stratified_subset(labels, 100, seed=5)
    np.random.seed(2)
    assert np.array_equal(first, stratified_subset(labels, 100, seed=5))
    assert np.array_equal(labels, UNEVEN)
    assert not np.array_equal(first, stratified_subset(labels, 100, seed=6))


def test_names_of_the_classes_do_not_matter_but_their_order():
    assert np.array_equal(stratified_subset(UNEVEN, 100, seed=0), stratified_subset(UNEVEN * 7 + 3, 100, seed=0))


def test_every_image_is_chosen_about_as_often():
    times = sum(np.bincount(stratified_subset(np.zeros(20, int), 10, seed), minlength=20) for seed in range(400))
    assert 140 < times.min() <= times.max() < 260  # 200 expected, 10 standard deviation


def test_the_choice_does_not_change_between_versions():
    # The choice is part of every dataset's digest: if this fails, digests of old results would no longer fit.
    assert stratified_subset(np.arange(20) % 2, 6, seed=123).tolist() == [1, 2, 3, 4, 10, 13]


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("sizes", [[2, 2], [2, 3, 50], [500, 300, 190, 10], [7]])
def test_a_split_parts_the_images_and_every_class_is_in_both(fraction, sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    kept, held_out = stratified_split(labels, fraction, seed=3)
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert set(labels[kept]) == set(labels[held_out]) == set(labels)
    assert abs(len(held_out) - fraction * len(labels)) <= max(1, len(sizes))


def test_a_split_of_a_large_set_has_the_fraction_exactly():
    kept, held_out = stratified_split(np.arange(5000) % 10, 0.1, seed=0)
    assert len(held_out) == 500
    assert np.bincount(np.arange(5000)[held_out] % 10).tolist() == [50] * 10
    assert kept.dtype == held_out.dtype == np.int64


def test_a_class_of_one_image_is_refused():
    with pytest.raises(AssertionError, match="one image"):
        stratified_split(np.array([0, 0, 1]), 0.3, seed=0)
