"""The intervals hold what they promise: a small form of benchmarks/coverage.py, with seeds of its own."""

import numpy as np
import pytest

from benchmarks.coverage import Design, coverage, differences
from dfd_tune.analysis import paired

LUCKY = Design(seeds=5, images=2000, luck=0.2, effect=0.2)
"""Seeds differ, images are many: the seeds make the error."""
STEADY = Design(seeds=20, images=300, luck=0.05, effect=0.0)
"""Many seeds that hardly differ, few images: the images make it."""


def covered(design, repetitions=1000):
    return coverage(design, repetitions, np.random.default_rng(7))[0]


@pytest.mark.parametrize("design", [LUCKY, STEADY, Design(seeds=3, images=300, luck=0.2, effect=0.2)])
def test_intervals_hold_the_truth_as_often_as_they_say(design):
    # Of 1,000 repetitions: a standard error of 0.7 points.
    assert 0.93 < covered(design) < 0.975


@pytest.mark.parametrize(("design", "forgotten"), [(LUCKY, 1), (STEADY, 2)])
def test_an_interval_that_forgets_seeds_or_images_would_be_found_out(design, forgotten, monkeypatch):
    def forgetful(values, made=paired.mean_squares):
        squares = list(made(values))
        squares[forgotten] = squares[3]
        return tuple(squares)

    monkeypatch.setattr(paired, "mean_squares", forgetful)
    assert covered(design) < 0.9


def test_the_true_difference_is_what_differences_come_to():
    pieces = differences(Design(20, 2000, 0.2, 0.5), 100, np.random.default_rng(3))
    drawn = np.concatenate([piece.mean((1, 2)) for piece in pieces])
    error = drawn.std(ddof=1) / len(drawn) ** 0.5
    assert abs(drawn.mean() - Design(20, 2000, 0.2, 0.5).true_difference) < 4 * error < 0.02
