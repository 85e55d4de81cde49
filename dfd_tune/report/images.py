"""The figures that need images or the best student's predictions, which are found in the store.

What is gone, damaged or not there yet is said by a `CannotBeShownError`. Not for: drawing (figures/).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import DamagedFileError
from dfd_tune.distill.workbench import Workbench
from dfd_tune.parts import LowRes
from dfd_tune.record import BEST_FOLDER, PREDICTIONS_FILE, BestRecord, SearchRecord, TrialRecord, best_file
from dfd_tune.report.captions import best_of, facts_of
from dfd_tune.report.figures.confusion import confusion_matrix
from dfd_tune.report.figures.pictures import Mistake, examples, worst_mistakes
from dfd_tune.store import Store, is_passing

SIDE_SETTINGS = ("resolution", "downsample", "blur", "noise", "jpeg_quality", "frontend")
"""What tells one kind of low-resolution image from another."""
MOST_EXAMPLES = 8
MOST_ROWS = 16
MOST_MISTAKES = 12


class CannotBeShownError(Exception):
    """Why a figure is left out, as a sentence."""


@dataclass(frozen=True)
class _Predictions:
    """Of the best student, on the test images."""

    best: BestRecord
    labels: np.ndarray
    """int64 (N,)."""
    probabilities: np.ndarray
    """float32 (N, K)."""

    @property
    def predicted(self) -> np.ndarray:
        """int64 (N,)."""
        return self.probabilities.argmax(1)


def best_students_confusion(
    store: Store, search: SearchRecord, trials: Sequence[TrialRecord], folder: Path
) -> list[Path]:
    """The confusion matrix of the best student on the test images; returns the files written.

    Raises:
        CannotBeShownError: there is no best student yet, or its predictions are gone.
    """
    found = _predictions(store, search)
    notes = best_students_notes(search, trials)
    return confusion_matrix(found.labels, found.predicted, search.dataset["classes"], notes, folder, search.search)


def best_students_mistakes(
    store: Store, search: SearchRecord, trials: Sequence[TrialRecord], folder: Path
) -> list[Path]:
    """The test images whose true class the best student held least probable; returns the files written.

    Raises:
        CannotBeShownError: there is no best student yet, it made no mistake, or predictions or images are gone.
    """
    found = _predictions(store, search)
    predicted, classes = found.predicted, search.dataset["classes"]
    wrong = np.flatnonzero(predicted != found.labels)
    worst = wrong[np.argsort(found.probabilities[wrong, found.labels[wrong]], kind="stable")][:MOST_MISTAKES]
    if not len(worst):
        raise CannotBeShownError("it made none.")
    bench = _bench(store, search)
    seen = _seen(bench, TrialConfig(**found.best.config).low_res)[worst]
    mistakes = [
        Mistake(classes[found.labels[row]], classes[predicted[row]], float(found.probabilities[row].max()))
        for row in worst
    ]
    images = np.asarray(bench.dataset.test.images[worst])
    notes = [*best_students_notes(search, trials), f"The worst {len(worst)} of {len(wrong)}."]
    return worst_mistakes(images, seen, mistakes, notes, folder, search.search)


def best_students_notes(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[str]:
    """What a figure of the best student is of; nothing if there is none."""
    best = search.best
    if best is None:
        return []
    return [facts_of(search, [trial for trial in trials if trial.key == best.key]), best_of(search, best)]


def which_examples(search: SearchRecord) -> str:
    """Which test images the examples are, as a sentence."""
    count = len(search.dataset["classes"])
    classes = "each class" if count <= MOST_EXAMPLES else f"each of the first {MOST_EXAMPLES} of {count} classes"
    return f"The first test image of {classes}."


def examples_of(store: Store, search: SearchRecord, trials: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """A test image a class at high resolution, then in each way of seeing it that the search explored.

    Returns:
        The files written.

    Raises:
        CannotBeShownError: no trial has begun, or images or a front end are gone.
    """
    sides = _sides(search, trials)
    if not sides:
        raise CannotBeShownError("no trial has begun yet.")
    bench = _bench(store, search)
    test = bench.dataset.test
    firsts = [int(np.flatnonzero(test.labels == label)[0]) for label in np.unique(test.labels)][:MOST_EXAMPLES]
    size = bench.dataset.image_size
    rows = [(f"high resolution\n{size}×{size}", np.asarray(test.images[firsts]))]
    rows += [(label, _small(bench, side)[firsts]) for label, side in list(sides.items())[: MOST_ROWS - 1]]
    classes = [bench.dataset.classes[test.labels[row]] for row in firsts]
    notes = [facts_of(search, trials), which_examples(search)]
    if len(sides) >= MOST_ROWS:
        notes.append(f"The first {MOST_ROWS - 1} of {len(sides)} kinds of low-resolution images.")
    return examples(rows, classes, notes, folder, search.search)


def _predictions(store: Store, search: SearchRecord) -> _Predictions:
    if search.best is None:
        raise CannotBeShownError("the search has no best student yet; it is chosen when the search is concluded.")
    place = store.path("searches", search.search, BEST_FOLDER, PREDICTIONS_FILE)
    file = best_file(store, search.search, PREDICTIONS_FILE)
    found = None if file is None else _predictions_in(file, search.best)
    shapes = (search.dataset["test_images"],), (search.dataset["test_images"], len(search.dataset["classes"]))
    if found is not None and (found.labels.shape, found.probabilities.shape) == shapes:
        return found
    raise CannotBeShownError(
        f"what the best student said of the test images is not in '{place}'; launch the search again."
    )


def _predictions_in(file: Path, best: BestRecord) -> _Predictions | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return _Predictions(best, arrays["labels"], arrays["probabilities"])
    except OSError as error:
        if is_passing(error):
            raise
        return None
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def _word(name: str, value: object) -> str:
    if name in ("downsample", "frontend"):
        return str(value)
    return f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"


def _sides(search: SearchRecord, trials: Sequence[TrialRecord]) -> dict[str, LowRes]:
    """By label, every kind of low-resolution image that the trials see, plain ones first."""
    sides: dict[str, LowRes] = {}
    explored = [name for name in SIDE_SETTINGS if name in search.explored]
    for trial in trials:
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
