"""What came out of a search, in the few lines that a launch ends with; the first one says it all.

Not for: the numbers of all cells (cell_tables.py), or of all trials (tables.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from dfd_tune.analysis.choice import edge_of
from dfd_tune.analysis.comparisons import compare_controls, high_resolution
from dfd_tune.analysis.points import Interval, lambda_of
from dfd_tune.analysis.verdicts import FEWEST_SEEDS, Headline, Verdict, headline
from dfd_tune.confirm import CONTROLS, Control
from dfd_tune.record import BestRecord, SearchRecord, TrialRecord
from dfd_tune.report.captions import (
    INTERVALS,
    by_what,
    cost_in_words,
    imported_teachers,
    on_validation_images,
    others_on_test,
)
from dfd_tune.report.fronts import front_line, limit_line
from dfd_tune.report.numbers import percent, share, signed, text_of

OPENINGS: dict[Verdict, str] = {
    "better": "Distillation is better than plain training",
    "worse": "Distillation is worse than plain training",
    "no significant difference": "No difference between distillation and plain training was found",
}


IN_THE_LINE: Control = "half_longer"
"""The control that stands beside the verdict, so that nobody takes faster convergence for a gain."""


def conclusion(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[str]:
    """The verdict, what it is of, and the best student."""
    front = front_line(search, trials)
    if search.best is None:
        return [limit_line(search, trials) or _nothing(search, trials), *([] if front is None else [front])]
    found = headline(search, trials)
    lines = []
    if found is not None:
        lines = [verdict_of(search, found), *_against_controls(search, found), _details(search, found)]
    lines += _warnings(search, trials, found)
    lines += imported_teachers(search)
    lines.append(_best(search, search.best))
    lines += [line for line in (cost_in_words(search.best), front) if line is not None]
    if found is None and search.best.base_test_accuracy is not None and search.best.config["lambda_"] > 0:
        gain = Interval(search.best.test_accuracy - search.best.base_test_accuracy, None, seeds=1)
        lines.append(
            f"The same student without distillation (λ = 0): {percent(search.best.base_test_accuracy)}, a difference "
            f"of {signed(gain)} points. No verdict: one seed, which the choice has seen."
        )
    if search.protocol == "paper":
        lines.append(
            "Protocol `paper`: the report's tables and figures choose λ on TEST images instead; their numbers are no "
            "honest estimate."
        )
    return lines


def verdict_of(search: SearchRecord, found: Headline) -> str:
    """The verdict in one line: what was compared, how large the difference is, and what could have been seen."""
    judgement, difference = found.judgement, found.difference
    comparison = judgement.comparison
    opening = OPENINGS.get(judgement.verdict) or _no_verdict(search, found)
    seeds = f"{difference.seeds} {'fresh ' if comparison.fresh else ''}seed{'' if difference.seeds == 1 else 's'}"
    line = (
        f"{opening}: {_mean(comparison.distilled)} against {_mean(comparison.base)} of "
        f"{search.dataset['test_images']:,} test images right, {signed(difference)} points over {seeds}"
    )
    seen = None if comparison.paired is None else comparison.paired.smallest_seen
    if seen is not None:
        line += f" (a true difference of {100 * seen:.1f} would have been found in 4 of 5 such searches)"
    longer = compare_controls(search, found.cell).get(IN_THE_LINE)
    if longer is not None and longer.difference is not None:
        line += f"; {signed(longer.difference)} against {CONTROLS[IN_THE_LINE]}"
    return f"{line}."


def _against_controls(search: SearchRecord, found: Headline) -> list[str]:
    """The other controls, one a line; their verdicts stand in the report's table."""
    return [
        f"Against {CONTROLS[name]}: {_mean(found.judgement.comparison.distilled)} against {_mean(control.base)}, "
        f"{signed(control.difference)} points."
        for name, control in compare_controls(search, found.cell).items()
        if control.difference is not None and name != IN_THE_LINE
    ]


def _mean(interval: Interval | None) -> str:
    return "–" if interval is None else f"{100 * interval.mean:.1f} %"


def _no_verdict(search: SearchRecord, found: Headline) -> str:
    if search.protocol == "paper":
        return "No verdict, as λ was chosen on TEST images"
    if not found.judgement.comparison.fresh:
        return "No verdict, as nothing was trained anew with seeds that the choice has not seen"
    if found.difference.seeds < FEWEST_SEEDS:
        return f"No verdict, as fewer than {FEWEST_SEEDS} seeds were trained anew"
    return f"No verdict ({found.judgement.verdict})"


def _details(search: SearchRecord, found: Headline) -> str:
    """What was compared, beside what could be reached."""
    config, comparison = found.student.config, found.judgement.comparison
    parts = [
        f"Compared: {found.cell.name}, λ = {lambda_of(found.student):g}, start {config['student_start']}, "
        f"{config['epochs']} epochs"
    ]
    high = high_resolution(search, found.cell)
    if high is not None:
        parts.append(f"the teacher has {text_of(high)} % of the high-resolution test images right")
    if comparison.gap_recovered is not None:
        parts.append(f"gap recovered {share(comparison.gap_recovered)}")
    over = "over seeds and test images" if comparison.paired is not None else "over seeds"
    if found.difference.half is not None:
        parts.append(f"± is {INTERVALS}, {over}")
    return f"{'; '.join(parts)}. One test image is {100 / search.dataset['test_images']:.2f} points."


def _warnings(search: SearchRecord, trials: Sequence[TrialRecord], found: Headline | None) -> list[str]:
    """What a reader must know before using the result."""
    lines = []
    if found is not None and (edge := edge_of(search, lambda_of(found.student))) is not None:
        lines.append(
            f"λ = {lambda_of(found.student):g} is the {edge} value above 0 that was tried; the best may lie beyond it: "
            "extend the list."
        )
    failed = sum(trial.stage == "confirm" and trial.status == "FAILED" for trial in trials)
    if failed:
        lines.append(f"{failed} of the trials that confirm FAILED, so their pairs are missing.")
    shares = [trial.gpus for trial in trials if trial.gpus is not None]
    if shares:
        lines.append(
            f"A GPU's memory did not suffice for {len(shares)} of {len(trials)} trials at the planned share of it; "
            f"they had up to {max(shares):g} of a GPU."
        )
    return lines


def _best(search: SearchRecord, best: BestRecord) -> str:
    among = " of those trained anew" if search.confirmation else ""
    by = by_what(search)
    validation = on_validation_images(search, best) if by else f"accuracy {percent(best.val_accuracy)}"
    return (
        f"Best student, chosen{by} on validation images{among}: {best.config['backbone']} with λ = "
        f"{best.config['lambda_']:g}, validation {validation}, test accuracy {percent(best.test_accuracy)}"
        f"{others_on_test(best)}"
    )


def _nothing(search: SearchRecord, trials: Sequence[TrialRecord]) -> str:
    ended = {trial.status for trial in trials}
    if "FINISHED" not in ended:
        return "No trial has finished, so there is no best student."
    if "FAILED" in ended:
        return (
            "Nothing is chosen yet: no point has all of its planned trials finished. `dfd-tune resume "
            f"{search.search} --retry-failed` runs those again that FAILED."
        )
    return "Nothing is chosen yet: that is done, and tested, when all trials of a point have finished."
