"""The tables of a claim, from what its trainings left and nothing else, in Markdown.

A planned comparison gets a verdict once all of its pairs are there; Holm's method counts the comparisons of the plan,
those to come as well. Not for: the intervals (dfd_tune/analysis/paired.py), or training (claim_queue.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.claim_plan import Contrast, Plan, Results
from dfd_tune.analysis.paired import GapRecovered, PairedDifference, as_differences, difference_of, gap_recovered
from dfd_tune.analysis.points import half_width
from dfd_tune.analysis.verdicts import FEWEST_SEEDS, LEVEL, holm
from dfd_tune.record import TestRecord


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What is known of a planned comparison."""

    contrast: Contrast
    planned: int
    """Pairs."""
    paired: PairedDifference | None = None
    """None where no pair is finished."""
    recovered: GapRecovered | None = None
    """Of the gap between the teacher on high resolution and what the row is held against."""
    p_value: float | None = None
    """Adjusted by Holm's method; None where it has no p value of its own yet."""

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.paired is None or self.paired.seeds < self.planned:
            return "unfinished"
        if self.p_value is None or self.planned < FEWEST_SEEDS:
            return "too few seeds for a verdict"
        if self.p_value >= LEVEL:
            return "no significant difference"
        return "better" if self.paired.difference > 0 else "worse"


def compare(plan: Plan, results: Results) -> list[Compared]:
    """The planned comparisons, in their order."""
    found = [_compared(plan, contrast, results) for contrast in plan.contrasts]
    known = [None if one.paired is None else one.paired.p_value for one in found]
    adjusted = holm([1.0 if p_value is None else p_value for p_value in known])
    return [
        Compared(**(vars(one) | {"p_value": None if raw is None else p_value}))
        for one, raw, p_value in zip(found, known, adjusted, strict=True)
    ]


def report(plan: Plan, results: Results) -> str:
    """All tables."""
    done = sum(training.name in results for training in plan.trainings())
    parts = [
        [f"{done} of {len(plan.trainings())} trainings are finished."],
        *([*_choices(plan, results)], [*_teachers(plan, results)], [*_rows(plan, results)]),
        [*_contrasts(compare(plan, results))],
        [*_notes(plan, results)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _compared(plan: Plan, contrast: Contrast, results: Results) -> Compared:
    names = [plan.confirming(contrast.backbone, row) for row in (contrast.row, contrast.than)]
    pairs = [(names[0][seed], names[1][seed]) for seed in names[0] if seed in names[1]]
    both = [[_right(results, name) for name in pair] for pair in pairs if all(_tested(results, name) for name in pair)]
    if not both:
        return Compared(contrast=contrast, planned=len(pairs))
    rights = np.array(both)
    gains = as_differences(rights[:, 0], rights[:, 1])
    teacher, recovered = f"{contrast.backbone}-teacher", None
    if _tested(results, teacher):
        recovered = gap_recovered(gains, as_differences(_right(results, teacher), rights[:, 1]))
    return Compared(contrast=contrast, planned=len(pairs), paired=difference_of(gains), recovered=recovered)


def _tested(results: Results, name: str) -> bool:
    return "test" in results.get(name, {})


def _right(results: Results, name: str) -> np.ndarray:
    return TestRecord(**results[name]["test"]).right()


def _choices(plan: Plan, results: Results) -> Iterator[str]:
    yield from _head("choice, on validation images", "value: accuracy, %", "chosen")
    for choice in plan.choices:
        trained = {value: results[name] for value, name in plan.selecting(choice).items() if name in results}
        accuracies = (
            f"{value:g}: {100 * record['val_accuracy']:.1f}" if "val_accuracy" in record else f"{value:g}: diverged"
            for value, record in trained.items()
        )
        chosen = plan.chosen(choice.name, results)
        edge = ", the list's edge" if chosen in (min(choice.values), max(choice.values)) else ""
        yield _line(choice.name, ", ".join(accuracies), "" if chosen is None else f"{chosen:g}{edge}")


def _teachers(plan: Plan, results: Results) -> Iterator[str]:
    yield from _head("network", "epochs", "validation, %", "test, %")
    for training in plan.trainings():
        if training.stage == "teacher" and training.name in results:
            record = results[training.name]
            yield _line(
                f"{training.backbone}, {training.row}",
                len(record["val_accuracies"]),
                f"{100 * record['val_accuracy']:.1f}",
                f"{100 * record['test']['accuracy']:.2f}",
            )


def _rows(plan: Plan, results: Results) -> Iterator[str]:
    yield from _head("backbone", "row", "start", "epochs", "λ", "networks", "validation, %", "test, %", "s a network")
    for row in plan.rows:
        names = plan.confirming(row.backbone, row.name).values()
        records = [results[name] for name in names if _tested(results, name)]
        if not records:
            continue
        config = records[0]["config"]
        yield _line(
            row.backbone,
            row.name,
            config["student_start"],
            config["epochs"],
            f"{config['lambda_']:g}",
            f"{len(records)} of {len(names)}",
            _spread([record["val_accuracy"] for record in records], 1),
            _spread([record["test"]["accuracy"] for record in records], 2),
            f"{statistics.fmean(record['seconds'] for record in records):.0f}",
        )


def _contrasts(compared: Sequence[Compared]) -> Iterator[str]:
    yield from _head(
        "backbone", "comparison", "pairs", "difference, points", "p", "p after Holm", "verdict",
        "smallest difference seen", "gap recovered, %",
    )  # fmt: skip
    for one in compared:
        pairs = f"{0 if one.paired is None else one.paired.seeds} of {one.planned}"
        yield _line(
            one.contrast.backbone,
            f"{one.contrast.row} − {one.contrast.than}",
            pairs,
            *(("", "", "") if one.paired is None else _numbers(one.paired, one.p_value)),
            one.verdict,
            "" if one.paired is None or one.paired.smallest_seen is None else f"{100 * one.paired.smallest_seen:.2f}",
            "" if one.recovered is None else f"{100 * one.recovered.share:.0f} ± {100 * one.recovered.half:.0f}",
        )


def _numbers(paired: PairedDifference, adjusted: float | None) -> tuple[str, ...]:
    half = "" if paired.half is None else f" ± {100 * paired.half:.2f}"
    p_values = ("" if value is None else f"{value:.2g}" for value in (paired.p_value, adjusted))
    return (f"{100 * paired.difference:+.2f}{half}", *p_values)


def _notes(plan: Plan, results: Results) -> Iterator[str]:
    """What a reader must know that no table says."""
    diverged = [name for name, record in results.items() if record["status"] != "FINISHED"]
    if diverged:
        yield f"Diverged: {', '.join(diverged)}."
    digests = {
        key: digest
        for training in plan.trainings()
        if training.stage == "teacher" and training.name in results
        for key, digest in results[training.name]["teachers"].items()
    }
    other = [
        name
        for name, record in results.items()
        if any(digests.get(key, digest) != digest for key, digest in record.get("teachers", {}).items())
    ]
    if other:
        yield (
            f"{len(other)} networks had a teacher that was trained anew, of the same recipe but other weights than the "
            f"one in the table: {', '.join(other)}."
        )


def _spread(values: Sequence[float], digits: int) -> str:
    half = half_width(values)
    return f"{100 * statistics.fmean(values):.{digits}f}" + ("" if half is None else f" ± {100 * half:.{digits}f}")


def _head(*names: str) -> Iterator[str]:
    yield _line(*names)
    yield "|" + "---|" * len(names)


def _line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
