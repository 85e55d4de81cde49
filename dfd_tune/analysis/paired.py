"""The difference of two students over seeds *and* test images, with an interval: both are samples.

Students are trained in pairs of the same seed, and all meet the same test images: the design of a multi-reader
multi-case study, with seeds for readers and images for cases. The analysis is that of crossed random effects (Dorfman,
Berbaum and Metz 1992, Investigative Radiology 27:723-731; Obuchowski and Rockette 1995, Communications in Statistics -
Simulation and Computation 24:285-308; Hillis 2007, Statistics in Medicine 26:596-619), here for two treatments. Why
seeds and data both count where learners are compared: Bouthillier et al. 2021, https://arxiv.org/abs/2103.03098.

With D[s, i] the difference on image i of the pair of seed s, S seeds and I images, the two-way analysis of variance of
D has the mean squares MS_S, MS_I and MS_SI, whose expectations are σ² + I σ_S², σ² + S σ_I² and σ². So the variance of
the mean, σ_S²/S + σ_I²/I + σ²/(S I), is estimated by (MS_S + max(MS_I - MS_SI, 0)) / (S I), the guard being Hillis's.

Degrees of freedom: Hillis has (S - 1) / w² with w = MS_S / (MS_S + max(MS_I - MS_SI, 0)). With three seeds, w² makes
intervals that cover 91 to 94 % in the place of 95 (`benchmarks/coverage.py --hillis`): where the seeds happen to agree,
both the variance and w come out too small. So w stands here in the place of w². That is close to Howe 1974 (Journal of
the American Statistical Association 69:789-794), whose squared half width is the sum of the parts', each with the t of
its own, and covers 94 to 97 %. Many images and seeds that differ make w = 1, and the interval Student's t over seeds.

Not for: which students are compared (comparisons.py), or corrections for many comparisons (verdicts.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8
CHANCE = 0.01
"""Seeds that agree better than chance would let them so rarely are taken to agree by chance."""


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """A mean difference of two students' accuracies, a fraction, over pairs of seeds and test images.

    What needs at least two seeds and two images is None where there are fewer.
    """

    difference: float
    seeds: int
    images: int
    standard_error: float | None
    degrees_of_freedom: float | None
    half: float | None
    """Half of the 95 % interval."""
    p_value: float | None
    """Two-sided, of no difference."""
    smallest_seen: float | None
    """The true difference that a comparison as noisy as this one would have found, two-sided at 5 %, in 80 of 100
    repetitions: (t(0.975) + t(0.8)) · standard error. None as well where that error is 0, as where no image tells the
    students apart: nothing is known of the noise then."""


@dataclass(frozen=True, kw_only=True)
class GapRecovered:
    """Which share of the gap between a teacher and plain training a student makes up."""

    share: float
    half: float
    """Half of the 95 % interval."""
    gap: PairedDifference
    """Teacher - plain training, over the same pairs and images."""


def paired_difference(student: np.ndarray, plain: np.ndarray) -> PairedDifference:
    """The difference of two students' accuracies.

    Args:
        student: bool (S, I), whether the student of each seed is right on each test image.
        plain: bool (S, I), likewise for what it is held against, in the same order of seeds and images.
    """
    return difference_of(as_differences(student, plain))


def as_differences(student: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Right minus right, float64 (S, I), of bool arrays that are, or can be spread to, (S, I)."""
    return np.asarray(student, dtype=np.float64) - np.asarray(plain, dtype=np.float64)


def difference_of(differences: np.ndarray) -> PairedDifference:
    """The mean of paired differences, float (S, I), with its interval."""
    from scipy.special import stdtr, stdtrit  # scipy.stats, which has these too, takes a second to import

    seeds, images = differences.shape
    if seeds < 2 or images < 2:
        return PairedDifference(
            difference=float(differences.mean()),
            seeds=seeds,
            images=images,
            standard_error=None,
            degrees_of_freedom=None,
            half=None,
            p_value=None,
            smallest_seen=None,
        )
    mean, error, freedom = (float(value) for value in crossed(differences))
    quantile = float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return PairedDifference(
        difference=mean,
        seeds=seeds,
        images=images,
        standard_error=error,
        degrees_of_freedom=freedom,
        half=quantile * error,
        p_value=float(2 * stdtr(freedom, -abs(mean) / error)) if error > 0 else float(mean == 0),
        smallest_seen=(quantile + float(stdtrit(freedom, POWER))) * error if error > 0 else None,
    )


def crossed(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of differences, its standard error and degrees of freedom, with seeds and images as crossed random effects.

    Seeds that agree better than MS_SI allows, once in a hundred times, are not believed: three seeds that are each one
    image better are no proof. The images' own variance, MS_I / (S I), to which seeds can only add, is the least then.

    Args:
        differences: float (..., S, I), at least two seeds and two images.

    Returns:
        Arrays of the leading shape.
    """
    from scipy.special import fdtri

    seeds, images = differences.shape[-2:]
    mean, by_seed, by_image, rest = mean_squares(differences)
    added = np.maximum(by_image - rest, 0.0)
    believed = by_seed > rest * fdtri(seeds - 1, (seeds - 1) * (images - 1), CHANCE)
    variance = np.where(believed, by_seed + added, np.maximum(by_seed + added, by_image))
    share = np.divide(by_seed, variance, out=np.zeros_like(variance), where=variance > 0)
    freedom = np.minimum((seeds - 1) / np.maximum(share, 1e-12), images - 1.0)
    return mean, np.sqrt(variance / (seeds * images)), freedom


def mean_squares(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The mean, and the mean squares of seeds, of images, and of what is left, of differences (..., S, I)."""
    seeds, images = differences.shape[-2:]
    mean = differences.mean((-2, -1))
    seed_means, image_means = differences.mean(-1), differences.mean(-2)
    of_seeds = images * np.square(seed_means - mean[..., None]).sum(-1)
    of_images = seeds * np.square(image_means - mean[..., None]).sum(-1)
    total = np.einsum("...si,...si->...", differences, differences) - seeds * images * np.square(mean)
    rest = np.maximum(total - of_seeds - of_images, 0.0)
    return mean, of_seeds / (seeds - 1), of_images / (images - 1), rest / ((seeds - 1) * (images - 1))


def gap_recovered(gains: np.ndarray, gaps: np.ndarray) -> GapRecovered | None:
    """The share (student - plain) / (teacher - plain) of the gap, with an interval by the delta method.

    The share's error is that of the differences gain - share · gap, analysed as any other, over the gap. It holds for
    this teacher: one network, the same in all pairs.

    Args:
        gains: student - plain, float (S, I), as `as_differences` makes them.
        gaps: teacher - plain, float (S, I), over the same pairs and images.

    Returns:
        None where the gap itself is not above zero by its own 95 % interval, and of a single seed.
    """
    from scipy.special import stdtrit

    gap = difference_of(gaps)
    if gap.half is None or gap.difference - gap.half <= 0:
        return None
    share = float(gains.mean()) / gap.difference
    _, error, freedom = crossed(gains - share * gaps)
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2) * error) / gap.difference
    return GapRecovered(share=share, half=half, gap=gap)
