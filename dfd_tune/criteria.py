"""What a search chooses by, a row each: a metric of validation images, and which way it is better.

A criterion is its row here; nothing else names it. Not for: working a metric out (distill/scores.py), or choosing
(analysis/choice.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A metric by which points are ranked, and which samplers and schedulers are told."""

    column: str
    """Its name in a trial's metrics and history."""
    larger_is_better: bool
    words: str
    """Its name for a person."""
    is_share: bool = True
    """Whether it is a fraction in 0..1, shown in per cent."""

    def of(self, metrics: Mapping[str, float]) -> float:
        """Its value among a trial's metrics."""
        return metrics[self.column]

    def by_epoch(self, history: Iterable[Mapping[str, float]]) -> dict[int, float]:
        """Its values by epoch, of the epochs of a trial that have one."""
        return {int(entry["epoch"]): self.of(entry) for entry in history if self.column in entry}

    def cost(self, value: float) -> float:
        """The value such that less is better: what to sort by, best first."""
        return -value if self.larger_is_better else value

    def text(self, value: float, digits: int = 1) -> str:
        """A value for a person: a share in per cent with so many digits, anything else with four."""
        return f"{value:.{digits}%}" if self.is_share else f"{value:.4g}"


DEFAULT = "accuracy"
"""Goes without saying."""

CRITERIA: dict[str, Criterion] = {
    DEFAULT: Criterion(column="val_accuracy", larger_is_better=True, words="accuracy"),
    "balanced_accuracy": Criterion(
        column="val_balanced_accuracy",
        larger_is_better=True,
        words="balanced accuracy",
    ),
    "macro_f1": Criterion(column="val_macro_f1", larger_is_better=True, words="macro F1"),
    "loss": Criterion(column="val_loss", larger_is_better=False, words="loss", is_share=False),
}
"""By the value of `choose_by`."""
