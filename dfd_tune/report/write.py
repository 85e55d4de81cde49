"""A report as files: the page, its figures as PNG and SVG, its tables as Markdown, CSV and LaTeX.

What can't be shown (the images are gone, nothing is chosen yet) is left out, and the page says why. Not for: what
stands in tables (layouts.py) or figures (figures/), or for how the page looks (page.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.analysis.points import lambda_of
from dfd_tune.analysis.verdicts import headline, judge_cells
from dfd_tune.criteria import DEFAULT
from dfd_tune.forecast import against_outcome
from dfd_tune.liveness import as_they_are, state_of
from dfd_tune.record import SearchRecord, load_trials
from dfd_tune.report.captions import (
    best_of,
    caption_of,
    chosen_by,
    cost_in_words,
    facts_of,
    imported_teachers,
    missing_of,
)
from dfd_tune.report.conclusion import verdict_of
from dfd_tune.report.figures import confusion, front, importances, lambda_curve, learning_curves, pictures
from dfd_tune.report.formats import as_csv, as_latex, as_markdown
from dfd_tune.report.found import Found
from dfd_tune.report.fronts import front_line
from dfd_tune.report.images import (
    CannotBeShownError,
    best_students_confusion,
    best_students_mistakes,
    best_students_notes,
    examples_of,
    which_examples,
)
from dfd_tune.report.layouts import tables_of
from dfd_tune.report.numbers import share, signed, text_of
from dfd_tune.report.page import Figure, Section, page
from dfd_tune.store import Store, write_text

PAGE_FILE = "report.html"


def write_report(store: Store, searches: Sequence[SearchRecord], folder: Path) -> list[Path]:
    """Write the report of one or several searches into `folder`; returns its files, the page first."""
    found = [
        Found(search, as_they_are(load_trials(store, search), state_of(store, search.search))) for search in searches
    ]
    tables = tables_of(found)
    files = []
    for table in tables:
        for kind, text in (("md", as_markdown(table)), ("csv", as_csv(table)), ("tex", as_latex(table))):
            file = folder / f"{table.name}.{kind}"
            write_text(file, text)
            files.append(file)
    sections = []
    for one in found:
        place = folder if len(found) == 1 else folder / one.search.search
        section = _section(store, one, place)
        sections.append(section)
        files += [file for figure in section.figures for file in figure.files]
    title = " and ".join(search.search for search in searches)
    write_text(folder / PAGE_FILE, page(title, tables, sections))
    return [folder / PAGE_FILE, *files]


def summary(found: Found) -> list[str]:
    """What came out, in sentences: one a cell, then the best student, and what all of this is of."""
    search = found.search
    lines = [missing] if (missing := missing_of(search, found.trials)) else []
    first = headline(search, found.trials)
    lines += [] if first is None else [verdict_of(search, first)]
    by = " (chosen on TEST images)" if search.protocol == "paper" else ""
    for cell, judgement in zip(found.cells, judge_cells(search, found.cells), strict=True):
        result = judgement.comparison
        if result.difference is None or cell.chosen is None:
            continue
        gap = "" if result.gap_recovered is None else f", {share(result.gap_recovered)} of the gap to the HR baseline"
        lines.append(
            f"{cell.name}: {judgement.verdict}. At λ = {lambda_of(cell.chosen):.4g}{by} the distilled student has "
            f"{text_of(result.distilled)} % of the test images right, plain training {text_of(result.base)} %: "
            f"{signed(result.difference)} points{gap}."
        )
    lines += imported_teachers(search)
    if search.best is not None:
        lines.append(f"The best student: {best_of(search, search.best)}.")
        lines += [line for line in (cost_in_words(search.best), front_line(search, found.trials)) if line is not None]
    cost = against_outcome(search.forecast)
    return [*lines, chosen_by(search), f"{facts_of(search, found.trials)}.", *([] if cost is None else [f"{cost}."])]


@dataclass(frozen=True)
class _Drawing:
    """A figure to be drawn, and what the page says of it."""

    title: str
    caption: str
    make: Callable[[], list[Path]]
    without: str = ""
    """Why there is none where `make` gives no files; empty if nobody would look for it."""


def _section(store: Store, found: Found, folder: Path) -> Section:
    figures, left_out = [], []
    for drawing in _drawings(store, found, folder):
        reason = drawing.without
        files: list[Path] = []
        try:
            files = drawing.make()
        except CannotBeShownError as error:
            reason = str(error)
        if files:
            figures.append(Figure(drawing.title, drawing.caption, tuple(files)))
        elif reason:
            left_out.append(f"{drawing.title}: {reason}")
    return Section(found.search.search, tuple(summary(found)), tuple(figures), tuple(left_out))


def _drawings(store: Store, found: Found, folder: Path) -> list[_Drawing]:
    """Every figure of a search, in the order of the page."""
    curve, costs, learning, mattered = _of_trials(found, folder)
    seen, confused, mistakes = _of_images(store, found, folder)
    return [curve, costs, seen, learning, mattered, confused, mistakes]


def _of_trials(found: Found, folder: Path) -> tuple[_Drawing, _Drawing, _Drawing, _Drawing]:
    """λ curve, accuracy against cost, learning curves and importances."""
    search, trials = found.search, found.trials
    caption = caption_of(search, trials)
    images = "TEST" if lambda_curve.is_on_test(search) else "Validation"
    teachers = ", dotted lines the teacher on high-resolution images" if search.choose_by == DEFAULT else ""
    curve = _Drawing(
        lambda_curve.title_of(search),
        f"{images} {search.criterion.words}; hollow markers and dashed lines are plain training (λ = 0){teachers}. "
        f"{caption}",
        lambda: lambda_curve.lambda_curve(search, trials, folder),
        "fewer than two points have finished." if "lambda_" in search.explored else "",
    )
    learning = _Drawing(
        learning_curves.TITLE,
        "Those trained anew, where there are any. Of several seeds the mean, shaded from the worst to the best; solid: "
        "distilled, dashed: plain training. " + caption,
        lambda: learning_curves.learning_curves(search, trials, folder),
        "no point to compare has finished.",
    )
    mattered = _Drawing(
        importances.TITLE,
        f"How much each explored setting sets the best tenth of the trials apart from all (PED-ANOVA). "
        f"{facts_of(search, trials)}.",
        lambda: importances.importances(search, trials, folder),
        "the search is not concluded, or too few of its trials have finished." if search.sampler != "grid" else "",
    )
    costs = _Drawing(
        front.TITLE,
        f"Every point of the search, and the front of accuracy and {' and '.join(search.objectives[1:])}. {caption}",
        lambda: front.front(search, trials, folder),
        "no point has all of its planned trials finished." if len(search.objectives) > 1 else "",
    )
    return curve, costs, learning, mattered


def _of_images(store: Store, found: Found, folder: Path) -> tuple[_Drawing, _Drawing, _Drawing]:
    """What networks see, the best student's confusion matrix and its worst mistakes."""
    search, trials = found.search, found.trials
    best = " ".join(f"{note}." for note in best_students_notes(search, trials))
    seen = _Drawing(
        pictures.EXAMPLES_TITLE,
        f"{which_examples(search)} Every pixel is shown as a square. {facts_of(search, trials)}.",
        lambda: examples_of(store, search, trials, folder),
    )
    confused = _Drawing(
        confusion.TITLE,
        f"Per cent of each true class's test images. {best}",
        lambda: best_students_confusion(store, search, trials, folder),
    )
    mistakes = _Drawing(
        pictures.MISTAKES_TITLE,
        f"Test images whose true class it held least probable: as they are, and as it sees them. {best}",
        lambda: best_students_mistakes(store, search, trials, folder),
    )
    return seen, confused, mistakes
