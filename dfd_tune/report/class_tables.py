"""Tables of what test images say class by class: the best student's recall, and scores where each class counts once.

Not for: comparisons and verdicts, which are on accuracy (cell_tables.py), or which images are mistaken for which
(figures/confusion.py).
"""

from __future__ import annotations

from typing import Any

from dfd_tune.analysis.comparisons import pair_of
from dfd_tune.analysis.points import Point, tested_accuracy, tested_score
from dfd_tune.confirm import CONTROLS
from dfd_tune.record import SearchRecord
from dfd_tune.report.captions import best_of, marked
from dfd_tune.report.formats import Table
from dfd_tune.report.found import Found
from dfd_tune.report.numbers import NOTHING, text_of

MOST_CLASSES = 20
"""Of more, the worst are shown."""


def recalls_of(search: SearchRecord) -> list[dict[str, Any]]:
    """Of the best student, by class: its name, its test images, and the share of them told right, None without any.

    Empty where there is no best student, or where what was tested lacks the classes.
    """
    record = None if search.best is None else search.tests.get(search.best.key)
    if record is None or len(record.class_images) != len(search.dataset["classes"]):
        return []
    rows = zip(search.dataset["classes"], record.class_images, record.class_right, strict=True)
    return [
        {"class": str(name), "images": images, "recall": right / images if images else None}
        for name, images, right in rows
    ]


def recall_table(found: Found) -> Table | None:
    """A row a class of the best student's; of many classes, the worst ones. None where that is not known."""
    search = found.search
    classes = recalls_of(search)
    if search.best is None or not classes:
        return None
    shown, some = classes, ""
    if len(classes) > MOST_CLASSES:
        occurring = [one for one in classes if one["recall"] is not None]
        shown = sorted(occurring, key=lambda one: float(one["recall"]))[:MOST_CLASSES]
        some = f" The worst {len(shown)} of {len(classes)} classes."
    rows = tuple(
        (one["class"], str(one["images"]), NOTHING if one["recall"] is None else f"{100 * one['recall']:.2f}")
        for one in shown
    )
    caption = f"{best_of(search, search.best)}. Recall is the share of a class's test images that is told right.{some}"
    title = f"{search.search}: recall of the best student, class by class"
    return Table(f"recall-{search.search}", title, caption, ("class", "test images", "recall, %"), rows)


def scores_table(found: Found) -> Table | None:
    """A row for each student, plain or distilled, and control of each cell: accuracy, balanced accuracy, macro F1 on
    test images. None where none of them is known."""
    search, rows = found.search, []
    for cell in found.cells:
        student, plain = pair_of(search, cell)
        arms: dict[str, Point | None] = {"plain training (λ = 0)": plain, "distilled": student}
        if cell.confirmed is not None:
            arms |= {CONTROLS[control]: cell.confirmed.arms.get(control) for control in search.confirm.controls}
        for words, point in arms.items():
            balanced = None if point is None else tested_score(search, point, "balanced_accuracy")
            if point is not None and balanced is not None:
                accuracy, f1 = tested_accuracy(search, point), tested_score(search, point, "macro_f1")
                seeds = str(len(point.trials))
                rows.append((cell.name, words, seeds, text_of(accuracy), text_of(balanced), text_of(f1)))
    if not rows:
        return None
    what = "Balanced accuracy is the mean over classes of recall, macro F1 that of F1: each class counts once."
    header = ("cell", "student", "seeds", "accuracy, %", "balanced accuracy, %", "macro F1, %")
    title = marked(f"{search.search}: scores on test images", search)
    return Table(f"scores-{search.search}", title, f"{found.caption} {what}", header, tuple(rows))
