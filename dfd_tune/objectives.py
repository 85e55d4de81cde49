"""What a search is after: what it chooses by, alone or against what a student costs; and how large a student may be.

    objectives: [accuracy, parameters]          # in a space; or multiply_adds, latency
    --choose front:parameters<=200000           # the most accurate one of those that cost no more

Not for: how a cost is measured (search/costs.py), or which points lie on the front (analysis/front.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dfd_tune.criteria import Criterion
from dfd_tune.errors import unknown_name

ACCURACY = "accuracy"


@dataclass(frozen=True)
class Cost:
    """Something of which a student should have little."""

    metric: str
    """Its name among a trial's metrics."""
    noun: str
    unit: str = ""


COSTS = {
    "parameters": Cost("parameters", "parameters"),
    "multiply_adds": Cost("multiply_adds", "multiply-adds an image"),
    "latency": Cost("image_seconds", "seconds an image", "s"),
}
"""By the name that a space and `--choose` give."""
ALONE: tuple[str, ...] = (ACCURACY,)
_LIMIT = re.compile(r"front:\s*([a-z_]+)\s*<=\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(ms|s)?")


@dataclass(frozen=True)
class Choose:
    """Which students may be chosen: all, or those that cost no more than a limit."""

    cost: str | None = None
    """One of `COSTS`; None for no limit."""
    at_most: float = math.inf

    def as_text(self) -> str:
        """As `parse_choose` takes it."""
        return ACCURACY if self.cost is None else f"front:{self.cost}<={self.at_most:.17g}"

    def allows(self, metrics: Mapping[str, float]) -> bool:
        """Whether a trial with these metrics may be chosen."""
        return self.cost is None or metrics.get(COSTS[self.cost].metric, math.inf) <= self.at_most

    def in_words(self) -> str:
        """The limit, to go on with a sentence."""
        assert self.cost is not None
        return f"at most {amount(self.cost, self.at_most)}"


MOST_ACCURATE = Choose()


def parse_objectives(value: Any) -> tuple[tuple[str, ...], list[str]]:
    """The objectives of a space, and what is wrong with them, one sentence a problem."""
    if value is None:
        return ALONE, []
    rule = f"as in [accuracy, parameters]; the second is one of {', '.join(COSTS)}"
    if not isinstance(value, list) or not value or value[0] != ACCURACY or len(value) > 2:
        return ALONE, [f"objectives is {value!r}, but must be a list that begins with accuracy, {rule}."]
    if len(value) == 2 and (not isinstance(value[1], str) or value[1] not in COSTS):
        return ALONE, ["objectives: " + unknown_name("cost", value[1], COSTS)]
    return tuple(value), []


def parse_choose(text: str) -> tuple[Choose, str | None]:
    """What `--choose` asks for, and what is wrong with it, as a sentence."""
    if text.strip().lower() == ACCURACY:
        return MOST_ACCURATE, None
    found = _LIMIT.fullmatch(text.strip().lower())
    if found is None or found[1] not in COSTS:
        names = ", ".join(COSTS)
        return MOST_ACCURATE, (
            f"--choose is '{text}', but must be accuracy, or front:NAME<=NUMBER with one of {names}, as in "
            "front:parameters<=200000 or front:latency<=2ms."
        )
    name, unit = found[1], found[3]
    try:
        limit = float(found[2]) * (1e-3 if unit == "ms" else 1.0)
    except ValueError:
        return MOST_ACCURATE, f"--choose is '{text}', but '{found[2]}' is no number."
    if unit is not None and not COSTS[name].unit:
        return MOST_ACCURATE, f"--choose is '{text}', but {name} has no unit; give the number alone."
    return Choose(name, limit), None


def choose_from(text: str) -> Choose:
    """What a record says of it."""
    return parse_choose(text)[0]


def values_of(metrics: Mapping[str, float], objectives: Sequence[str], criterion: Criterion) -> tuple[float, ...]:
    """What a trial reached: its value of what the search chooses by and, where that is an objective too, its cost."""
    return tuple(
        criterion.of(metrics) if name == ACCURACY else float(metrics[COSTS[name].metric]) for name in objectives
    )


def directions(objectives: Sequence[str], criterion: Criterion) -> list[str]:
    """Which way each is better, as Optuna says it."""
    return ["maximize" if name == ACCURACY and criterion.larger_is_better else "minimize" for name in objectives]


def amount(cost: str, value: float) -> str:
    """So much of a cost, for a person: "44,234 parameters", "1.2 ms an image"."""
    if COSTS[cost].unit:
        return f"{1e3 * value:.3g} ms an image"
    return f"{value:,.0f} {COSTS[cost].noun}"
