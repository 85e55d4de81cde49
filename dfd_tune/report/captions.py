"""What the numbers of a search are of, in words: for captions of tables and headings of figures.

Dataset, sides, images, epochs, seeds, by which images λ was chosen, and what is missing. Not for: the numbers
themselves (analysis/).
"""

from __future__ import annotations

from collections.abc import Sequence

from dfd_tune.analysis.comparisons import Comparison
from dfd_tune.analysis.points import points_of
from dfd_tune.analysis.verdicts import FEWEST_SEEDS
from dfd_tune.axes import explored_at
from dfd_tune.criteria import DEFAULT
from dfd_tune.objectives import choose_from
from dfd_tune.record import BestRecord, SearchRecord, TeacherRecord, TrialRecord, describe_point

INTERVALS = "the mean's 95 % interval"


def facts_of(search: SearchRecord, trials: Sequence[TrialRecord]) -> str:
    """Dataset, sides, images, epochs and seeds, without a full stop."""
    facts = search.dataset
    side = f"{facts['image_size']}×{facts['image_size']} pixels"
    low = sorted({trial.config["resolution"] for trial in trials})
    sides = f"at {_listing([f'{pixels}×{pixels}' for pixels in low])} instead of {side}" if low else f"of {side}"
    parts = [
        f"{facts['dataset']} {sides}: {facts['train_images']:,} training, {facts['validation_images']:,} validation "
        f"and {facts['test_images']:,} test images"
    ]
    # Controls may train for longer; a student that was trained anew, shown alone, for as long as what was chosen.
    own = [trial for trial in trials if trial.stage == "search"] or trials
    epochs = sorted({trial.config["epochs"] for trial in own})
    if epochs:
        parts.append(f"{_span(epochs)} epoch{'' if epochs == [1] else 's'}")
    counts = seeds_of(trials)
    if counts:
        parts.append("chosen with one seed a point" if counts == [1] else f"chosen with {_span(counts)} seeds a point")
    if search.confirm.seeds:
        anew = "teacher, start, views and student" if search.confirm.replicate == "pipeline" else "the student"
        seeds = "one fresh seed" if search.confirm.seeds == 1 else f"{search.confirm.seeds} fresh seeds, each"
        parts.append(f"confirmed with {seeds} making {anew} anew")
    return "; ".join(parts)


def seeds_of(trials: Sequence[TrialRecord]) -> list[int]:
    """How many seeds the points have, each number once; empty if nothing has finished."""
    return sorted({len(point.trials) for point in points_of(trials)})


def caption_of(search: SearchRecord, trials: Sequence[TrialRecord]) -> str:
    """What the numbers of a table are of, in sentences."""
    counts = seeds_of(trials)
    several = counts[-1:] > [1] or search.confirm.seeds > 1
    many = f"; ± is {INTERVALS}." if several else ", so no intervals." if counts else "."
    lines = [facts_of(search, trials) + many, chosen_by(search), missing_of(search, trials)]
    return " ".join(line for line in lines if line)


def chosen_by(search: SearchRecord) -> str:
    """By which images λ was chosen and, where it is not their accuracy, by what of them, as sentences."""
    if search.protocol == "paper":
        return "λ was chosen on TEST images, as the paper appears to do: no honest estimate, and no verdict."
    by, limit = by_what(search), choose_from(search.choose)
    if limit.cost is not None:
        by += f" among students with {limit.in_words()}"
    if search.confirm.seeds:
        of_accuracy = " Verdicts are on accuracy." if by_what(search) else ""
        return (
            f"λ was chosen{by} on validation images; test accuracies are of students trained anew with fresh seeds."
            f"{of_accuracy}"
        )
    return f"λ was chosen{by} on validation images, on the very students that were tested: no verdict."


def by_what(search: SearchRecord) -> str:
    """What it is chosen by, as in " by macro F1"; nothing where that is accuracy."""
    return "" if search.choose_by == DEFAULT else f" by {search.criterion.words}"


def marked(title: str, search: SearchRecord) -> str:
    """A title, which says so where λ was chosen on test images."""
    return f"{title}, λ chosen on TEST images" if search.protocol == "paper" else title


ENDED_OTHERWISE = ("RUNNING", "INTERRUPTED", "STOPPED", "FAILED", "KILLED")


def on_verdicts(comparisons: Sequence[Comparison]) -> str:
    """What the differences of a table are samples of, and how its verdicts come about; empty without comparisons."""
    compared = [one for one in comparisons if one.difference is not None and one.difference.half is not None]
    recorded = [one for one in compared if one.paired is not None]
    tested = sum(one.fresh and one.paired.seeds >= FEWEST_SEEDS for one in recorded if one.paired is not None)
    lines = []
    if recorded:
        lines.append("± of a difference is over seeds and test images, both as samples.")
    if len(recorded) < len(compared):
        lines.append("Where single test images are not recorded, ± of a difference is over seeds alone: no verdict.")
    if tested > 1:
        lines.append(f"Verdicts are at 5 %, p values adjusted by Holm's method for {tested} comparisons.")
    elif tested == 1:
        lines.append("The verdict is at 5 %.")
    return " ".join(lines)


def missing_of(search: SearchRecord, trials: Sequence[TrialRecord]) -> str:
    """What an unfinished search lacks, in sentences; empty if nothing."""
    lines = [_missing([trial for trial in trials if trial.stage == "search"], search.num_trials, "trials")]
    planned = {key for cell in search.confirmation for keys in (*cell.arms.values(), cell.tuning) for key in keys}
    later = [trial for trial in trials if trial.stage != "search" and trial.key in planned]
    known = {trial.key for trial in trials if trial.stage == "search"}
    lines.append(_missing(later, len(planned - known), "confirming trials"))
    if not search.tested:
        lines.append("Test images are looked at when the search is concluded, so there are no test accuracies yet.")
    return " ".join(line for line in lines if line)


def _missing(trials: Sequence[TrialRecord], planned: int, what: str) -> str:
    statuses = [trial.status for trial in trials]
    finished, stopped = statuses.count("FINISHED"), statuses.count("STOPPED")
    if finished >= planned:
        return ""
    if finished + stopped >= planned:
        return f"{stopped} of {planned} {what} were stopped early and have no result."
    others = {status: statuses.count(status) for status in ENDED_OTHERWISE if status in statuses}
    more = "".join(f", {count} {status}" for status, count in others.items())
    return f"Unfinished: {finished} of {planned} {what} have a result{more}."


def best_of(search: SearchRecord, best: BestRecord) -> str:
    """Which student is the best one, and how good it is: a sentence without its full stop."""
    explored = explored_at(best.config, search.explored)
    words = describe_point(best.config, dict.fromkeys(["backbone", *explored, "lambda_", "seed"]))
    return (
        f"{words} is best on validation images ({on_validation_images(search, best)}) and has "
        f"{100 * best.test_accuracy:.2f} % of the test images right{others_on_test(best)}"
    )


def on_validation_images(search: SearchRecord, best: BestRecord) -> str:
    """The best student's validation accuracy and, where it was chosen by something else, that before it."""
    accuracy, by = f"{100 * best.val_accuracy:.2f} %", search.criterion
    value = getattr(best, by.column)
    if search.choose_by == DEFAULT or value is None:
        return accuracy
    return f"{by.words} {f'{100 * value:.2f} %' if by.is_share else by.text(value)}, accuracy {accuracy}"


def others_on_test(best: BestRecord) -> str:
    """Its balanced accuracy and macro F1 on test images, in parentheses; nothing where they are not known."""
    if best.test_balanced_accuracy is None or best.test_macro_f1 is None:
        return ""
    return f" (balanced {100 * best.test_balanced_accuracy:.2f} %, macro F1 {100 * best.test_macro_f1:.2f} %)"


def cost_in_words(best: BestRecord) -> str | None:
    """What the best student costs where it runs: a sentence; None if that was not measured."""
    cost = best.cost
    if cost is None:
        return None
    return (
        f"It has {cost.parameters:,} parameters ({cost.file_bytes / 2**20:.2f} MiB) and needs "
        f"{cost.multiply_adds / 1e6:,.2f} million multiply-adds an image; on one thread of {cost.host}, raw images "
        f"took {milliseconds(cost.image_seconds)} one by one and {milliseconds(cost.batch_seconds)} for 64 at once."
    )


def imported_teachers(search: SearchRecord) -> list[str]:
    """The teachers that came in files, one a line."""
    return [
        f"Teacher: '{teacher.file}', {_file_in_words(teacher)}, digest {teacher.digest}: "
        f"{100 * teacher.val_accuracy:.2f} % of the high-resolution validation images right{_by_what(teacher)}."
        for teacher in search.teachers
        if teacher.file is not None
    ]


def _file_in_words(teacher: TeacherRecord) -> str:
    if teacher.gives == "network":
        return f"weights of {teacher.backbone} of width {teacher.width:g}"
    return f"a program that gives {teacher.gives}"


def _by_what(teacher: TeacherRecord) -> str:
    return ", by the nearest class mean of its features" if teacher.gives == "features" else ""


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three digits."""
    value = 1000 * seconds
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _listing(words: Sequence[str]) -> str:
    if len(words) > 3:
        return f"{words[0]} to {words[-1]}"
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
