"""How often the 95 % intervals of analysis/paired.py hold the true difference, by simulation.

    uv run python benchmarks/coverage.py [--repetitions 2000] [--hillis]

Both students of a pair meet the same images. The logit of an image being classified rightly is the sum of a level, the
image's difficulty, what the image adds for one of the two students, the seed's luck, and the luck of one of the two
with that seed; all but the level are normal and drawn anew in each repetition, and right or wrong is drawn with that
probability.
So seeds, images and their interaction are random, and the true difference, over all seeds and images, is known.

Not for: intervals over seeds alone (Student's t needs no simulation).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from dfd_tune.analysis.paired import CONFIDENCE, as_differences, crossed, gap_recovered

LEVEL = 1.2
"""Logit of plain training on an average image."""
DIFFICULTY = 1.8
"""Standard deviation of images' difficulty; some 70 % are right then."""
TASTE = 0.6
"""Standard deviation of what an image adds for one of the two students."""
TEACHER = 1.5
"""What high resolution adds to the teacher's logit."""
ELEMENTS = 2_000_000
"""Of the arrays that are drawn at once."""


@dataclass(frozen=True)
class Design:
    """One cell of the table."""

    seeds: int
    images: int
    luck: float
    """Standard deviation of a seed's logit, shared by the pair, and of each student's own."""
    effect: float
    """What distillation adds to the logit."""

    @property
    def true_difference(self) -> float:
        """Of two students' accuracies, over all seeds and images."""
        return _mean_chance(LEVEL + self.effect, 2 * self.luck**2) - _mean_chance(LEVEL, 2 * self.luck**2)

    @property
    def true_gap(self) -> float:
        """Of the teacher's accuracy and plain training's; the teacher is one network, whose seed is no sample."""
        return _mean_chance(LEVEL + TEACHER, 0.0) - _mean_chance(LEVEL, 2 * self.luck**2)


def _mean_chance(level: float, variance: float) -> float:
    """Mean chance of being right over images and, by their logits' variance, seeds: Gauss-Hermite quadrature."""
    places, weights = np.polynomial.hermite_e.hermegauss(151)
    spread = (variance + DIFFICULTY**2 + TASTE**2) ** 0.5
    return float((weights / (1 + np.exp(-(level + spread * places)))).sum() / weights.sum())


def differences(design: Design, repetitions: int, draw: np.random.Generator) -> Iterator[np.ndarray]:
    """Right minus right, float32 (n, S, I), in pieces of n repetitions."""
    size = max(1, ELEMENTS // (design.seeds * design.images))
    for start in range(0, repetitions, size):
        count = min(size, repetitions - start)
        by_seed, by_image = (count, design.seeds, 1), (count, 1, design.images)
        luck, difficulty = _normal(draw, by_seed, design.luck), _normal(draw, by_image, DIFFICULTY)
        chances = []
        for effect in (design.effect, 0.0):
            of_seed = np.exp(LEVEL + effect + luck + _normal(draw, by_seed, design.luck))
            odds = of_seed * np.exp(difficulty + _normal(draw, by_image, TASTE))
            chances.append(odds / (1 + odds))
        one = draw.random((count, design.seeds, design.images), dtype=np.float32)
        better, worse = chances[0] * (1 - chances[1]), chances[1] * (1 - chances[0])
        yield (one < better).astype(np.float32) - (one > 1 - worse)


def _normal(draw: np.random.Generator, shape: tuple[int, ...], spread: float) -> np.ndarray:
    return spread * draw.standard_normal(shape, dtype=np.float32)


def coverage(
    design: Design, repetitions: int, draw: np.random.Generator, *, hillis: bool = False
) -> tuple[float, float]:
    """The share of intervals that hold the true difference, and their mean half width.

    With `hillis`, by the degrees of freedom of Hillis 2007: (S - 1) / w² in the place of (S - 1) / w.
    """
    truth, held, halves = design.true_difference, 0, 0.0
    for piece in differences(design, repetitions, draw):
        mean, error, freedom = crossed(piece)
        if hillis:
            freedom = freedom**2 / (design.seeds - 1)
        half = t.ppf((1 + CONFIDENCE) / 2, freedom) * error
        held += int((np.abs(mean - truth) <= half).sum())
        halves += float(half.sum())
    return held / repetitions, halves / repetitions


def gap_coverage(design: Design, repetitions: int, draw: np.random.Generator) -> tuple[float, float]:
    """Of a gap recovered: how often it is shown at all, and the share of intervals among these that hold the truth."""
    truth, shown, held = design.true_difference / design.true_gap, 0, 0
    for _ in range(repetitions):
        luck, difficulty = _normal(draw, (design.seeds, 1), design.luck), _normal(draw, (design.images,), DIFFICULTY)
        logits = [
            LEVEL + more + seeds + difficulty + _normal(draw, (design.images,), TASTE)
            for more, seeds in (
                (design.effect, luck + _normal(draw, (design.seeds, 1), design.luck)),
                (0.0, luck + _normal(draw, (design.seeds, 1), design.luck)),
                (TEACHER, 0.0),
            )
        ]
        student, plain, teacher = (draw.random(logit.shape) < 1 / (1 + np.exp(-logit)) for logit in logits)
        found = gap_recovered(as_differences(student, plain), as_differences(teacher, plain))
        if found is not None:
            shown += 1
            held += abs(found.share - truth) <= found.half
    return shown / repetitions, held / max(shown, 1)


def main() -> None:
    """Print both tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--hillis", action="store_true", help="Hillis's own degrees of freedom")
    given = parser.parse_args()
    repetitions = given.repetitions
    draw = np.random.default_rng(0)
    columns = list(itertools.product((0.0, 0.05, 0.2), (0.0, 0.2)))
    truths = {effect: 100 * Design(3, 300, 0.05, effect).true_difference for _, effect in columns}
    print(f"{repetitions} repetitions a cell; coverage in per cent (mean half width in points)\n")
    print(
        "| seeds | images | " + " | ".join(f"luck {luck}, true {truths[effect]:.1f}" for luck, effect in columns) + " |"
    )
    print("|" + "---|" * (2 + len(columns)))
    for seeds, images in itertools.product((3, 5, 10, 20), (300, 2000, 10_000)):
        cells = [coverage(Design(seeds, images, *one), repetitions, draw, hillis=given.hillis) for one in columns]
        text = " | ".join(f"{100 * held:.1f} ({100 * half:.2f})" for held, half in cells)
        print(f"| {seeds} | {images:,} | {text} |", flush=True)
    print("\n| seeds | images | gap shown, % | interval of its recovered share holds the truth, % |\n|---|---|---|---|")
    for seeds, images in itertools.product((3, 5, 10), (300, 2000)):
        shown, held = gap_coverage(Design(seeds, images, 0.2, 0.2), repetitions, draw)
        print(f"| {seeds} | {images:,} | {100 * shown:.0f} | {100 * held:.1f} |", flush=True)


if __name__ == "__main__":
    main()
