"""What must be known of a teacher file beside its weights: the images that it takes, its classes, its architecture.

Read off the file where it says so, as the card of a student does and the facts beside a network of a store; else
declared in a YAML file beside it, `cat.yaml` of `cat.pt2`, which wins. Not for: the weights (imported.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dfd_tune.backbones import BACKBONES
from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import Dataset
from dfd_tune.errors import UserError, raise_all, unknown_name
from dfd_tune.rules import broken_rule
from dfd_tune.store import is_passing
from dfd_tune.teacher_file import Gives
from dfd_tune.yaml_file import read_yaml

DATASET = "dataset"
"""The word for what the dataset itself has: its classes in their order, the mean and deviation of its images."""
LARGEST_SIDE = 1024
OF_IMAGES = ("image_size", "mean", "std")
OF_BACKBONE = ("backbone", "width", "batch_norm")
KEYS = ("gives", *OF_IMAGES, "classes", *OF_BACKBONE)

Facts = dict[str, Any]
"""Values by the names in `KEYS`, as far as they are known."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """All that must be known of a teacher file, complete."""

    gives: Gives
    image_size: int
    """Side of its input in pixels; images of another side are resized to it."""
    mean: tuple[float, ...]
    """Per channel, of values scaled to 0..1; likewise `std`."""
    std: tuple[float, ...]
    classes: tuple[str, ...] | None
    """In the order of its logits; None of a program that gives features."""
    backbone: str | None = None
    """Of a network; None of a program, likewise `width` and `batch_norm`."""
    width: float | None = None
    batch_norm: bool | None = None

    def to_json(self) -> Facts:
        """As it lies in the store."""
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Declared:
        """What `to_json` made into `value`."""
        classes = value["classes"]
        return cls(
            **{
                **value,
                "mean": tuple(value["mean"]),
                "std": tuple(value["std"]),
                "classes": None if classes is None else tuple(classes),
            }
        )


def declaration_of(file: Path) -> Path:
    """Where a person declares what a file does not say."""
    return file.with_suffix(".yaml")


def declared_by_hand(file: Path, dataset: Dataset) -> Facts:
    """What the YAML file beside a teacher file says; nothing, if there is none.

    Raises:
        UserError: it says what can't be meant; all problems are named, with their lines.
    """
    place = declaration_of(file)
    if not place.is_file():
        return {}
    read = read_yaml(place, "declaration of a teacher")
    if not isinstance(read.content, dict):
        raise UserError(f"{place}: a declaration is a mapping of some of {', '.join(KEYS)}; this file holds none.")
    problems: list[str] = []
    found: Facts = {}
    for key, value in read.content.items():
        if key not in KEYS:
            problems.append(read.say(unknown_name("key", key, KEYS), key))
        elif (problem := _problem_with(key, value, dataset)) is not None:
            problems.append(read.say(f"{key} is {value!r}, but must be {problem}.", key))
        else:
            found[key] = _meant(key, value, dataset)
    raise_all(problems)
    return found


def declared_by_card(text: str) -> Facts:
    """What the card in a weights' file says (models/card.py).

    Raises:
        ValueError: it is no card.
    """
    from dfd_tune.models.card import card_from_json

    card = card_from_json(text)
    if card.frontend is not None:
        raise ValueError("it is a student that looks through a front end, which no teacher does")
    return {name: getattr(card, name) for name in (*OF_IMAGES, "classes", *OF_BACKBONE)}


def declared_by_store(file: Path, dataset: Dataset) -> Facts:
    """What the facts beside a network of a store say (kept.py); nothing, where there are none or of other images."""
    try:
        facts = json.loads((file.parent / "network.json").read_text(encoding="utf-8"))
        network = facts["config"]["network"]
        found = {name: network[name] for name in OF_BACKBONE}
        if facts["dataset"] == dataset.digest:
            found |= {"image_size": dataset.image_size, "mean": dataset.mean, "std": dataset.std}
            found["classes"] = dataset.classes
        return found
    except OSError as error:
        if is_passing(error):
            raise
        return {}
    except (ValueError, KeyError, TypeError):
        return {}


def completed(file: Path, gives: Gives | None, facts: Facts) -> Declared:
    """The declaration that these facts make.

    Args:
        file: for the message.
        gives: None where it has to be declared.
        facts: what is known.

    Raises:
        UserError: some are lacking; all are named. Or its backbone is none of the package's own.
    """
    gives = facts.get("gives") if gives is None else gives
    needed = [*OF_IMAGES]
    if gives == "network":
        needed += [*OF_BACKBONE, "classes"]
    elif gives is None:
        needed += ["gives"]
    if gives != "features":
        needed += ["classes"]
    lacking = [name for name in KEYS if name in needed and name not in facts]
    if lacking:
        raise UserError(
            f"The teacher '{file}' does not say everything; declare {', '.join(lacking)} in '{declaration_of(file)}' "
            "(docs/teacher.md has an example)."
        )
    if gives == "network" and facts["backbone"] not in BACKBONES:
        raise UserError(
            f"The teacher '{file}' is a {facts['backbone']}, but weights must be of one of {', '.join(BACKBONES)}; "
            "write any other network as a program, with torch.export.save."
        )
    assert gives is not None
    return Declared(
        gives=gives,
        image_size=facts["image_size"],
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        classes=None if gives == "features" else tuple(facts["classes"]),
        **({name: facts[name] for name in OF_BACKBONE} if gives == "network" else {}),
    )


def order_of(classes: Sequence[str], dataset: Dataset) -> list[int]:
    """For each class of the dataset, in its order, the place of its logit.

    Raises:
        ValueError: they are not the dataset's classes; the message is a phrase that goes on with "it".
    """
    if len(set(classes)) == len(classes) and set(classes) == set(dataset.classes):
        return [list(classes).index(name) for name in dataset.classes]
    foreign = sorted(set(classes) - set(dataset.classes)) or sorted(set(dataset.classes) - set(classes))
    raise ValueError(
        f"has {len(classes)} classes, but they must be the {len(dataset.classes)} of dataset '{dataset.name}', in any "
        f"order (one that differs: {foreign[0] if foreign else 'named twice'}); mend `classes` of its declaration"
    )


def _meant(key: str, value: Any, dataset: Dataset) -> Any:
    """A declared value as it is used."""
    if value == DATASET and key in ("mean", "std", "classes"):
        return getattr(dataset, key)
    if key in ("mean", "std"):
        return tuple(float(part) for part in (value if isinstance(value, list) else [value] * dataset.channels))
    if key == "classes":
        return tuple(str(name) for name in value)
    return float(value) if key == "width" else value


def _problem_with(key: str, value: Any, dataset: Dataset) -> str | None:
    """The rule that a declared value breaks, in words; None if it is allowed."""
    if key == "gives":
        return None if value in ("logits", "features") else "logits or features"
    if key == "image_size":
        good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_SIDE
        return None if good else f"a whole number of pixels from 1 to {LARGEST_SIDE}"
    if key == "classes":
        good = value == DATASET or (isinstance(value, list) and len(value) > 0)
        return None if good else f"the list of its classes in the order of its logits, or the word {DATASET}"
    if key in ("mean", "std"):
        parts = value if isinstance(value, list) else [value]
        numbers = all(isinstance(part, int | float) and not isinstance(part, bool) for part in parts)
        good = value == DATASET or (numbers and all(math.isfinite(part) for part in parts))
        if good and key == "std" and value != DATASET:
            good = all(part > 0 for part in parts)
        if good and (not isinstance(value, list) or len(value) == dataset.channels):
            return None
        above = " above 0" if key == "std" else ""
        return (
            f"a number{above} or a list of {dataset.channels}, for each channel, on the scale of 0 to 1, or the word "
            f"{DATASET}"
        )
    return broken_rule(TrialConfig, key, value)
