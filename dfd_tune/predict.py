"""Classifying image files with a stored student. Needs torch alone.

Not for: evaluating on a dataset (distill/student.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dfd_tune.data.sources.decode import read_image
from dfd_tune.distill.student import STUDENT_FILE
from dfd_tune.errors import UserError, raise_all
from dfd_tune.models.deployed import load_deployed
from dfd_tune.record import best_file, load_search
from dfd_tune.store import Store


@dataclass(frozen=True)
class Prediction:
    """What a student makes of one image."""

    file: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    """By class; they add up to 1."""

    def top(self, count: int) -> list[tuple[str, float]]:
        """The `count` most probable classes and their probabilities, best first."""
        pairs = zip(self.classes, self.probabilities, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])[:count]

    def as_json(self) -> dict[str, Any]:
        """File, predicted class, and every class's probability."""
        return {
            "file": str(self.file),
            "class": self.top(1)[0][0],
            "probabilities": dict(zip(self.classes, self.probabilities, strict=True)),
        }


def find_model(name_or_path: str, store: Callable[[], Store]) -> Path:
    """The student's file: a path to one or to a folder that holds one, or the name of a search in the store.

    Raises:
        UserError: there is neither, or the search has no best student yet.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix == ".safetensors":
        return path
    if (path / STUDENT_FILE).is_file():
        return path / STUDENT_FILE
    opened = store()
    search = load_search(opened, name_or_path)
    if search.best is None:
        raise UserError(f"The search '{search.search}' has no best student yet; finish it with `dfd-tune launch`.")
    return best_student(opened, search.search)


def best_student(store: Store, search: str) -> Path:
    """The file of a search's best student.

    Raises:
        UserError: it is not there, or damaged.
    """
    file = best_file(store, search, STUDENT_FILE)
    if file is None:
        raise UserError(
            f"The best student of '{search}' is not in the store '{store.location}', or damaged there; "
            f"`dfd-tune resume {search}` puts it back."
        )
    return file


def predict_files(model_file: Path, images: Sequence[Path], *, run_code: bool = False) -> list[Prediction]:
    """Classify images of any size; `run_code` as of `load_deployed`.

    Raises:
        UserError: the model can't be loaded, or images can't be read; all of those are named.
    """
    model, card = load_deployed(model_file, run_code=run_code)
    problems: list[str] = []
    predictions = []
    for file in images:
        try:
            pixels = read_image(file, card.channels)
        except UserError as error:
            problems += error.problems
            continue
        with torch.no_grad():
            probabilities = model(torch.tensor(pixels)[None])[0]
        predictions.append(Prediction(file, tuple(card.classes), tuple(probabilities.tolist())))
    raise_all(problems)
    return predictions
