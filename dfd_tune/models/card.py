"""The card of a model: all that must be known of a student, beside its weights, to run it.

It travels as JSON in the header of the weights' file. Not for: the weights (models/deployed.py).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dfd_tune.backbones import is_pinned
from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.rules import Config, broken_rule

_RULES: Mapping[str, Config] = {
    "backbone": TrialConfig,
    "width": TrialConfig,
    "dropout": TrialConfig,
    "batch_norm": TrialConfig,
    "image_size": DatasetConfig,
    "resolution": TrialConfig,
    "downsample": TrialConfig,
    "upsample": TrialConfig,
}
"""The settings whose range the card shares, so that a file can't ask for a network of any size."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a student is and what it was made for.

    Raises:
        ValueError: a value is out of range; the message is a phrase that names it and the rule.
    """

    backbone: str
    width: float
    dropout: float
    batch_norm: bool
    channels: int
    """1 (grey) or 3 (RGB)."""
    image_size: int
    """Side of the network's input in pixels."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the probabilities."""
    mean: tuple[float, ...]
    """Per channel, of the training images scaled to 0..1; likewise `std`."""
    std: tuple[float, ...]
    resolution: int
    """Side in pixels of the low-resolution images that the student was trained for."""
    downsample: str
    upsample: str
    frontend: Mapping[str, Any] | None = None
    """`kind` and `size` of the super-resolution front end that the student looks through; None for none."""
    source: str | None = None
    """The text of the file that the backbone is from, if it is from a user's own."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Anything else that JSON can hold: the trial's settings, accuracies."""

    def __post_init__(self) -> None:
        for name, config in _RULES.items():
            value = getattr(self, name)
            # The dataset's image_size may be none, a network's not.
            rule = "a whole number" if value is None else broken_rule(config, name, value)
            if rule is not None:
                raise ValueError(f"{name} is {value!r}, but must be {rule}")
        if isinstance(self.channels, bool) or self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels!r}, but must be 1 or 3")
        if len(self.classes) < 2 or not all(isinstance(name, str) for name in self.classes):
            raise ValueError("classes must be at least two names")
        for name in ("mean", "std"):
            if not _are_numbers(getattr(self, name), self.channels):
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be one number per channel")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std!r}, but must be above 0")
        if self.frontend is not None:
            _check_frontend(self.frontend)
        if (self.source is not None) != is_pinned(self.backbone) or not isinstance(self.source, str | None):
            raise ValueError("source must be there, as text, if the backbone is from a file, and only then")
        if not isinstance(self.extras, Mapping):
            raise ValueError("extras must be an object")

    def to_json(self) -> str:
        """The card as JSON text. Raises TypeError or ValueError if `extras` holds what JSON can't."""
        parts = dataclasses.asdict(self)
        if self.source is None:
            del parts["source"]
        return json.dumps(parts, allow_nan=False)


def card_from_json(text: str) -> ModelCard:
    """The card that `to_json` wrote.

    Raises:
        ValueError: the text is no such card; the message is a phrase that says why.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    fields = {item.name for item in dataclasses.fields(ModelCard)}
    if missing := sorted(fields - {"extras", "frontend", "source"} - values.keys()):
        raise ValueError(f"it lacks {', '.join(missing)}")
    if unknown := sorted(values.keys() - fields):
        raise ValueError(f"it has {', '.join(unknown)}, which this version does not know")
    for name in ("classes", "mean", "std"):
        if not isinstance(values[name], list):
            raise ValueError(f"{name} must be a list")
        values[name] = tuple(values[name])
    return ModelCard(**values)


def _check_frontend(frontend: Any) -> None:
    if not isinstance(frontend, Mapping) or set(frontend) != {"kind", "size"}:
        raise ValueError("frontend must be an object with kind and size")
    for name, value in (("frontend", frontend["kind"]), ("frontend_size", frontend["size"])):
        rule = broken_rule(TrialConfig, name, value)
        if rule is not None:
            raise ValueError(f"{name} is {value!r}, but must be {rule}")
    if frontend["kind"] == "none":
        raise ValueError("frontend is 'none', which has no size; a card without a front end leaves it out")


def _are_numbers(values: tuple[Any, ...], count: int) -> bool:
    return len(values) == count and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
