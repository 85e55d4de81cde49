"""What came out of a search, in the few lines that a launch ends with.

Not for: the numbers of all cells (layouts.py), or of all trials (tables.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from dfd_tune.analysis.points import Interval, lambda_of
from dfd_tune.analysis.verdicts import SeedsOfBest, seeds_of_best
from dfd_tune.record import BestRecord, SearchRecord, TrialRecord
from dfd_tune.report.captions import INTERVALS
from dfd_tune.report.layouts import share, signed, text_of
from dfd_tune.report.tables import percent


def conclusion(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[str]:
    """The best student against plain training and the teacher: over its seeds, or by itself where there is one seed."""
    best = search.best
    if best is None:
        if any(trial.status == "FINISHED" for trial in trials):
            return ["The best student is chosen, and tested, when the search is concluded."]
        return ["No trial has finished, so there is no best student."]
    found = seeds_of_best(search, trials)
    among = "" if found is None else f", the best of {found.difference.seeds} seeds"
    lines = [
        f"Best student, chosen on validation images: {best.config['backbone']} with λ = {best.config['lambda_']:g}"
        f"{among}, validation accuracy {percent(best.val_accuracy)}, test accuracy {percent(best.test_accuracy)}"
    ]
    if found is not None:
        lines += _over_seeds(search, found)
    elif best.base_test_accuracy is not None and best.config["lambda_"] > 0:
        lines += _by_itself(search, best, best.base_test_accuracy)
    if search.protocol == "paper":
        lines.append(
            "Protocol `paper`: the report's tables and figures choose λ on TEST images instead; their numbers are no "
            "honest estimate."
        )
    return lines


def _over_seeds(search: SearchRecord, found: SeedsOfBest) -> tuple[str, str]:
    comparison, teacher = found.judgement.comparison, found.cell.teacher
    line = (
        f"Over {found.difference.seeds} seeds, on test images: {text_of(comparison.distilled)} % with "
        f"λ = {lambda_of(found.chosen):g}, {text_of(comparison.base)} % without distillation (λ = 0); distillation "
        f"gives {signed(found.difference)} points: {found.judgement.verdict}"
    )
    if teacher is not None and teacher.test_accuracy is not None:
        line += f"; the teacher on high-resolution images: {percent(teacher.test_accuracy)}"
    if comparison.gap_recovered is not None:
        line += f", so the gap recovered is {share(comparison.gap_recovered)}"
    image = 100 / search.dataset["test_images"]
    more = f"± is {INTERVALS}"
    if comparison.paired is not None:
        more += ", of the difference over seeds and test images"
        if (seen := comparison.paired.smallest_seen) is not None:
            more += f"; a true difference of {100 * seen:.2f} points would have been found in 4 of 5 such searches"
    return line, f"{more}. One test image is {image:.2f} points."


def _by_itself(search: SearchRecord, best: BestRecord, plain: float) -> tuple[str, str]:
    high_res = next(
        (found.test_accuracy for found in search.teachers if (found.role, found.key) == ("teacher", best.teacher)), None
    )
    gain = best.test_accuracy - plain
    line = (
        f"The same student without distillation (λ = 0): test accuracy {percent(plain)}; "
        f"distillation gives {signed(Interval(gain, None, seeds=1))} points"
    )
    if high_res is not None:
        line += f"; the teacher on high-resolution images: {percent(high_res)}"
        if high_res > plain:
            line += f", so the gap recovered is {share(Interval(gain / (high_res - plain), None, seeds=1))}"
    advice = "" if "seed" in search.explored else " Explore `seed` to have intervals."
    image = 100 / search.dataset["test_images"]
    return (
        line,
        f"One test image is {image:.2f} points; gains of a few images are within the noise of one seed.{advice}",
    )
