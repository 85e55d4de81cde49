"""A report as files: the page, its figures as PNG and SVG, its tables as Markdown, CSV and LaTeX.

What can't be shown (the images are gone, nothing is chosen yet) is left out, and the page says why. Not for: what
stands in tables (layouts.py) or figures (figures/), or for how the page looks (page.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dfd_tune.config import LowRes, TrialConfig
from dfd_tune.data.prepared import DamagedFileError
from dfd_tune.distill.workbench import Workbench
from dfd_tune.record import BEST_FOLDER, PREDICTIONS_FILE, BestRecord, SearchRecord, load_trials
from dfd_tune.report.cells import compare, lambda_of
from dfd_tune.report.figures.confusion import confusion_matrix
from dfd_tune.report.figures.importances import importances
from dfd_tune.report.figures.lambda_curve import lambda_curve
from dfd_tune.report.figures.learning_curves import learning_curves
from dfd_tune.report.figures.pictures import examples, worst_mistakes
from dfd_tune.report.formats import as_csv, as_latex, as_markdown
from dfd_tune.report.layouts import Found, caption_of, chosen_by, missing_of, signed, tables_of, text_of
from dfd_tune.report.page import Figure, Section, page
from dfd_tune.report.tables import percent
from dfd_tune.store import Store, write_text

PAGE_FILE = "report.html"
SIDE_SETTINGS = ("resolution", "downsample", "blur", "noise", "jpeg_quality", "frontend")
"""What tells one kind of low-resolution image from another."""
MOST_EXAMPLES = 8
MOST_MISTAKES = 12


class CannotBeShownError(Exception):
    """Why a figure is left out, as a sentence."""


def write_report(store: Store, searches: Sequence[SearchRecord], folder: Path) -> list[Path]:
    """Write the report of one or several searches into `folder`; returns its files, the page first."""
    found = [Found(search, load_trials(store, search)) for search in searches]
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
    """What came out, in sentences: one a cell, then what they mean."""
    search = found.search
    lines = [missing_of(found)] if missing_of(found) else []
    for cell in found.cells:
        result = compare(search, cell)
        if result.difference is None or cell.chosen is None:
            continue
        gap = "" if result.gap_recovered is None else f", {result.gap_recovered:.0%} of the gap to the HR baseline"
        lines.append(
            f"{cell.name}: {result.verdict}. At λ = {lambda_of(cell.chosen):.4g} the distilled student has "
            f"{text_of(result.distilled)} % of the test images right, plain training {text_of(result.base)} %: "
            f"{signed(result.difference)} points{gap}."
        )
    if search.best is not None:
        best = search.best
        lines.append(
            f"The best student on validation images is {best.config['backbone']} with λ = {best.config['lambda_']:.4g} "
            f"(validation accuracy {percent(best.val_accuracy)}, test accuracy {percent(best.test_accuracy)})."
        )
    return [*lines, chosen_by(search)]


def _section(store: Store, found: Found, folder: Path) -> Section:
    search, trials = found.search, found.trials
    caption = caption_of(found)
    figures, left_out = [], []

    def draw(title: str, text: str, make: Callable[[], list[Path]]) -> None:
        try:
            files = make()
        except CannotBeShownError as reason:
            left_out.append(f"{title}: {reason}")
            return
        if files:
            figures.append(Figure(title, f"{text} {caption}", tuple(files)))

    on_test = search.protocol == "paper" and bool(search.tested)
    draw(
        "Accuracy against λ",
        f"{'TEST' if on_test else 'Validation'} accuracy; hollow markers and dashed lines are plain training (λ = 0), "
        "dotted lines the teacher on high-resolution images.",
        lambda: lambda_curve(search, trials, folder),
    )
    draw(
        "What each network sees",
        "One test image a class; every pixel is shown as a square.",
        lambda: _examples(store, found, folder),
    )
    draw(
        "Learning curves",
        "Mean over seeds, shaded from the worst seed to the best; solid: distilled, dashed: plain training.",
        lambda: learning_curves(search, trials, folder),
    )
    draw("What mattered", "fANOVA importances of the explored settings.", lambda: importances(search, folder))
    draw(
        "Confusion matrix of the best student",
        "Per cent of each true class's test images.",
        lambda: _confusion(store, search, folder),
    )
    draw(
        "The best student's worst mistakes",
        "Test images whose true class it held least probable: as they are, and as it sees them.",
        lambda: _mistakes(store, search, folder),
    )
    return Section(search.search, tuple(summary(found)), tuple(figures), tuple(left_out))


@dataclass(frozen=True)
class _Predictions:
    """Of the best student, on the test images."""

    best: BestRecord
    labels: np.ndarray
    """int64 (N,)."""
    probabilities: np.ndarray
    """float32 (N, K)."""


def _predictions(store: Store, search: SearchRecord) -> _Predictions:
    if search.best is None:
        raise CannotBeShownError("the search has no best student yet; it is chosen when the search is concluded.")
    file = store.path("searches", search.search, BEST_FOLDER, PREDICTIONS_FILE)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return _Predictions(search.best, arrays["labels"], arrays["probabilities"])
    except (OSError, ValueError, KeyError):
        raise CannotBeShownError(
            f"what the best student said of the test images is not in '{file}'; launch the search again."
        ) from None


def _confusion(store: Store, search: SearchRecord, folder: Path) -> list[Path]:
    found = _predictions(store, search)
    return confusion_matrix(
        found.labels, found.probabilities.argmax(1), search.dataset["classes"], folder, search.search
    )


def _mistakes(store: Store, search: SearchRecord, folder: Path) -> list[Path]:
    found = _predictions(store, search)
    predicted = found.probabilities.argmax(1)
    rows = np.arange(len(predicted))
    wrong = rows[predicted != found.labels]
    worst = wrong[np.argsort(found.probabilities[wrong, found.labels[wrong]], kind="stable")][:MOST_MISTAKES]
    if not len(worst):
        raise CannotBeShownError("it made none.")
    bench = _bench(store, search)
    seen = _seen(bench, TrialConfig(**found.best.config).low_res)[worst]
    classes = search.dataset["classes"]
    texts = [
        f"{classes[found.labels[row]]} taken for {classes[predicted[row]]}\n({found.probabilities[row].max():.0%} sure)"
        for row in worst
    ]
    return worst_mistakes(np.asarray(bench.dataset.test.images[worst]), seen, texts, folder, search.search)


def _examples(store: Store, found: Found, folder: Path) -> list[Path]:
    """High resolution, then each way of seeing it that the search explored."""
    search, sides = found.search, _sides(found)
    if not sides:
        raise CannotBeShownError("no trial has begun yet.")
    bench = _bench(store, search)
    test = bench.dataset.test
    firsts = [int(np.flatnonzero(test.labels == label)[0]) for label in np.unique(test.labels)][:MOST_EXAMPLES]
    size = bench.dataset.image_size
    rows = [(f"high resolution\n{size}×{size}", np.asarray(test.images[firsts]))]
    rows += [(label, _small(bench, side)[firsts]) for label, side in sides.items()]
    classes = [bench.dataset.classes[test.labels[row]] for row in firsts]
    return examples(rows, classes, folder, search.search)


def _word(name: str, value: object) -> str:
    return str(value) if name in ("downsample", "frontend") else f"{name.replace('_', ' ')} {value}"


def _sides(found: Found) -> dict[str, LowRes]:
    """By label, every kind of low-resolution image that the trials see, plain ones first."""
    sides: dict[str, LowRes] = {}
    explored = [name for name in SIDE_SETTINGS if name in found.search.explored]
    for trial in found.trials:
        values = trial.config
        side = TrialConfig(**values).low_res
        pixels = side.camera.resolution if side.frontend is None else side.frontend.resolution
        told = [name for name in explored if name != "resolution" and values[name] not in (0, None, "none")]
        words = [_word(name, values[name]) for name in told] or ["low resolution"]
        sides.setdefault("\n".join([*words, f"{pixels}×{pixels}"]), side)
    return dict(sorted(sides.items(), key=lambda item: item[1].frontend is not None))


def _bench(store: Store, search: SearchRecord) -> Workbench:
    try:
        return Workbench(store, str(search.dataset["prepared"]), {}, torch.device("cpu"))
    except (KeyError, DamagedFileError):
        raise CannotBeShownError(
            "the images are no longer in the store; launch the search again to have them prepared."
        ) from None


def _seen(bench: Workbench, side: LowRes) -> np.ndarray:
    """The test images as a student sees them, uint8 (N, C, S, S)."""
    try:
        return bench.test_images(side).images.numpy()
    except FileNotFoundError as error:
        raise CannotBeShownError(f"{error}.") from None


def _small(bench: Workbench, side: LowRes) -> np.ndarray:
    """The test images as camera or front end give them, before they are enlarged, uint8 (N, C, r, r)."""
    try:
        return bench.pictures("test", side)
    except FileNotFoundError as error:
        raise CannotBeShownError(f"{error}.") from None
