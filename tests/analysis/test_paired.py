"""Intervals of paired differences over seeds and images: by hand, by what must not matter, and by repetition."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from dfd_tune.analysis.paired import (
    as_differences,
    crossed,
    difference_of,
    gap_recovered,
    mean_squares,
    paired_difference,
)

SHAPES = st.tuples(st.integers(2, 6), st.integers(2, 12))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def made_up(seeds, images, *, gain=0.1, spread=0.05, seed=0):
    """Right or wrong of both students, bool (S, I): images differ in difficulty, pairs in their gain."""
    draw = np.random.default_rng(seed)
    hard = draw.uniform(0.3, 0.9, images)
    gains = gain + spread * draw.standard_normal((seeds, 1))
    return draw.random((seeds, images)) < hard + gains, draw.random((seeds, images)) < hard


def test_a_small_example_by_hand():
    # Pairs by images: [1 0 1 0], [0 0 1 0]. Mean 3/8; by seed 1/2, 1/4; by image 1/2, 0, 1, 0.
    # Seeds: 4 · (1/8² + 1/8²) = 1/8, one degree of freedom: MS_S = 1/8.
    # Images: 2 · ((1/8)² + (3/8)² + (5/8)² + (3/8)²) = 2 · 44/64 = 11/8, three: MS_I = 11/24.
    # All: 3 - 8 · (3/8)² = 15/8; left: 15/8 - 1/8 - 11/8 = 3/8, three: MS_SI = 1/8.
    # Variance of the mean: (1/8 + 11/24 - 1/8) / 8 = 11/192. Degrees of freedom: 1 · (11/24) / (1/8) = 11/3, but no
    # more than 3, those of the images.
    student = np.array([[1, 1, 1, 0], [0, 1, 1, 0]], dtype=bool)
    plain = np.array([[0, 1, 0, 0], [0, 1, 0, 0]], dtype=bool)
    assert [float(value) for value in mean_squares(student * 1.0 - plain)] == pytest.approx(
        [3 / 8, 1 / 8, 11 / 24, 1 / 8]
    )
    found = paired_difference(student, plain)
    assert found.difference == 3 / 8
    assert found.standard_error == pytest.approx((11 / 192) ** 0.5)
    assert found.degrees_of_freedom == 3
    assert found.half == pytest.approx(3.18245 * (11 / 192) ** 0.5, rel=1e-5)  # t(0.975, 3)
    assert found.p_value == pytest.approx(2 * stats.t.sf(0.375 / (11 / 192) ** 0.5, 3))
    assert found.smallest_seen == pytest.approx((3.18245 + 0.97847) * (11 / 192) ** 0.5, rel=1e-5)
    assert (found.seeds, found.images) == (2, 4)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_swapping_the_students_turns_the_sign_alone(pair):
    there, back = paired_difference(*pair), paired_difference(*pair[::-1])
    assert back == dataclasses.replace(there, difference=-there.difference)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_images_does_not_matter(pair, random):
    seeds, images = pair[0].shape
    rows, columns = random.sample(range(seeds), seeds), random.sample(range(images), images)
    one = dataclasses.astuple(paired_difference(*pair))
    other = dataclasses.astuple(paired_difference(*(half[rows][:, columns] for half in pair)))
    assert one == pytest.approx(other)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_what_is_told_is_of_one_piece(pair):
    found = paired_difference(*pair)
    assert found.difference == pytest.approx(pair[0].mean() - pair[1].mean())
    assert found.standard_error >= 0
    assert min(found.seeds, found.images) - 1 <= found.degrees_of_freedom <= max(found.seeds, found.images) - 1
    if found.standard_error > 0:
        assert (found.p_value < 0.05) == (abs(found.difference) > found.half)
        assert found.smallest_seen > found.half


def test_images_that_both_get_right_dilute_a_difference_and_its_error_alike():
    student, plain = made_up(5, 400)
    more = [np.hstack([half, np.ones((5, 1600), dtype=bool)]) for half in (student, plain)]
    few, many = paired_difference(student, plain), paired_difference(*more)
    assert many.difference == pytest.approx(few.difference / 5)
    # Were images no sample, the error would fall to a fifth, exactly.
    assert few.standard_error / 5 < many.standard_error < few.standard_error / 4


def test_with_very_many_images_it_is_students_t_over_seeds():
    # Each pair's difference is nearly known, so images add nothing.
    student, plain = made_up(6, 300_000)
    found = paired_difference(student, plain)
    by_seed = student.mean(1) - plain.mean(1)
    assert found.standard_error == pytest.approx(by_seed.std(ddof=1) / 6**0.5, rel=0.02)
    assert found.degrees_of_freedom == pytest.approx(5, rel=0.02)
    assert found.p_value == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue, rel=0.1)


def test_seeds_that_are_copies_of_each_other_leave_the_images_alone():
    # One pair, counted five times, knows no more than one: a t-test over its images.
    student, plain = (np.repeat(half, 5, axis=0) for half in made_up(1, 500))
    found = paired_difference(student, plain)
    one = student[0].astype(float) - plain[0]
    assert found.standard_error == pytest.approx(one.std(ddof=1) / 500**0.5)
    assert found.degrees_of_freedom == 499
    assert found.p_value == pytest.approx(stats.ttest_1samp(one, 0).pvalue)


@pytest.mark.parametrize("same", [True, False])
def test_seeds_that_are_equal_by_chance_prove_nothing(same):
    # Three pairs, each better by one image of 359: 0.28 points, with an error that is not 0.
    student = np.zeros((3, 359), dtype=bool)
    student[range(3), [0, 0, 0] if same else [0, 1, 2]] = True
    found = paired_difference(student, np.zeros((3, 359), dtype=bool))
    assert found.difference == pytest.approx(1 / 359)
    assert found.half > 1 / 359
    assert found.p_value > 0.05


def test_one_seed_or_one_image_has_no_interval():
    for shape in ((1, 40), (3, 1)):
        found = difference_of(np.ones(shape))
        assert (found.difference, found.seeds, found.images) == (1.0, *shape)
        assert {found.standard_error, found.degrees_of_freedom, found.half, found.p_value, found.smallest_seen} == {
            None
        }


def test_students_that_no_image_tells_apart():
    right = made_up(4, 30)[0]
    found = paired_difference(right, right)
    assert (found.difference, found.half, found.p_value, found.smallest_seen) == (0.0, 0.0, 1.0, None)


def test_a_difference_without_any_spread_is_as_sure_as_can_be():
    found = paired_difference(np.ones((3, 50), dtype=bool), np.zeros((3, 50), dtype=bool))
    assert (found.difference, found.standard_error) == (1.0, 0.0)
    assert found.p_value == 0.0


def test_many_comparisons_at_once_are_what_each_is_alone():
    pairs = [made_up(3, 20, seed=seed) for seed in range(4)]
    together = crossed(np.stack([student * 1.0 - plain for student, plain in pairs]))
    for number, pair in enumerate(pairs):
        found = paired_difference(*pair)
        assert [found.difference, found.standard_error, found.degrees_of_freedom] == pytest.approx(
            [float(value[number]) for value in together]
        )


# The gap recovered.


def recovered(student, plain, teacher):
    return gap_recovered(as_differences(student, plain), as_differences(teacher, plain))


def test_a_student_as_good_as_the_teacher_recovers_the_whole_gap():
    _, plain = made_up(5, 400)
    teacher = np.random.default_rng(1).random(400) < 0.9
    found = recovered(np.tile(teacher, (5, 1)), plain, teacher)
    assert (found.share, found.half) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    assert found.gap == paired_difference(np.tile(teacher, (5, 1)), plain)
    none = recovered(plain, plain, teacher)
    assert (none.share, none.half) == (0, 0)


def test_the_share_is_a_quotient_and_its_error_that_of_a_difference():
    student, plain = made_up(5, 400)
    teacher = np.ones(400, dtype=bool)
    found = recovered(student, plain, teacher)
    gain, gap = student.mean() - plain.mean(), 1 - plain.mean()
    assert found.share == pytest.approx(gain / gap)
    # (A - B) - g (1 - B), by hand: its error over the gap.
    rest = difference_of(student - plain * 1.0 - found.share * (1.0 - plain))
    assert rest.difference == pytest.approx(0, abs=1e-12)
    assert found.half == pytest.approx(rest.half / gap)


def test_a_gap_within_its_own_interval_has_no_share():
    student, plain = made_up(5, 400)
    assert recovered(student, plain, plain[0]) is None
    assert recovered(student, plain, np.zeros(400, dtype=bool)) is None
    assert recovered(student[:1], plain[:1], np.ones(400, dtype=bool)) is None
