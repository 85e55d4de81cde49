"""Medians, ratios, intervals and agreement, by hand."""

import pytest

from benchmarks.baselines.ratios import apart, ratio_of


def test_one_ratio_of_medians_whatever_the_outliers():
    found = ratio_of([1.0, 2.0, 30.0], [10.0, 4.0, 5.0])
    assert (found.ours_s, found.theirs_s, found.ratio, found.repeats) == (2.0, 5.0, 2.5, 3)


def test_repeats_are_drawn_in_pairs():
    """A slow repeat slows both sides: drawn together, the ratio is 3 in every resample."""
    found = ratio_of([1.0, 2.0, 4.0, 8.0, 16.0], [3.0, 6.0, 12.0, 24.0, 48.0])
    assert (found.ratio, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))


def test_of_two_repeats_the_interval_spans_both():
    """Resamples are the first twice (ratio 2) and the second twice (ratio 4), a quarter each, or both (ratio 3)."""
    found = ratio_of([1.0, 1.0], [2.0, 4.0])
    assert (found.ratio, found.low, found.high) == pytest.approx((3.0, 2.0, 4.0))


def test_of_one_repeat_the_interval_is_a_point():
    found = ratio_of([2.0], [3.0])
    assert (found.ratio, found.low, found.high) == (1.5, 1.5, 1.5)


def test_the_interval_is_the_same_again():
    sides = [1.0, 1.2, 0.9, 1.1, 1.3], [2.0, 2.4, 2.1, 1.9, 2.2]
    assert ratio_of(*sides) == ratio_of(*sides)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_sides_need_equal_repeats(ours, theirs):
    with pytest.raises(ValueError, match="repeats"):
        ratio_of(ours, theirs)


def test_losses_are_held_against_ours():
    assert apart([2.0, 4.0], [3.0, 3.3]) == pytest.approx(0.05)
    assert apart([2.0], [1.0]) == apart([2.0], [3.0]) == 0.5
