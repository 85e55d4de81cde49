"""The distillation methods, a row each: which outputs of student and teacher are compared, and by which loss.

A method is its row here and its loss in distill/losses.py; nothing else names it. Not for: formulas (losses.py), or how
a row is put to work (distill/distillation.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Output = Literal["features", "logits", "maps"]
"""Of a network: of its last layer, after its classifier, or of the middle layer that `hint_layer` names."""
Adapter = Literal["none", "linear", "convolution"]
"""What the student's output goes through first: nothing; a linear map, always or where its dimension is not the
teacher's, as `projector` says; a 1×1 convolution, always. Trained with the student, and thrown away after."""

HINT_LAYER, PROJECTOR = "hint_layer", "projector"


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is distilled."""

    compares: Output
    loss: str
    """Name of a function in distill/losses.py: (student's output, teacher's output, **settings) -> a scalar."""
    settings: tuple[str, ...] = ()
    """The settings of a trial that the loss takes, which are all that it is given."""
    adapter: Adapter = "none"

    @property
    def reads(self) -> tuple[str, ...]:
        """The settings of a trial that matter to this method, of those that do not matter to all."""
        of_output = (HINT_LAYER,) if self.compares == "maps" else ()
        of_adapter = (PROJECTOR,) if self.adapter == "linear" else ()
        return (*self.settings, *of_output, *of_adapter)

    @property
    def has_bank(self) -> bool:
        """Whether a bank of last-layer features is enough of a teacher."""
        return self.compares != "maps"


DEFAULT = "dfd"
"""Goes without saying in a trial's key."""

METHODS: dict[str, Method] = {
    DEFAULT: Method(compares="features", loss="distillation_loss", settings=("reduction",), adapter="linear"),
    "kd": Method(compares="logits", loss="soft_target_loss", settings=("temperature",)),
    "fitnets": Method(compares="maps", loss="hint_loss", settings=("reduction",), adapter="convolution"),
    "rdl": Method(compares="features", loss="pairwise_distance_loss", settings=("reduction",)),
    "logits": Method(compares="logits", loss="distillation_loss", settings=("reduction",)),
    "attention": Method(compares="maps", loss="attention_loss"),
}
"""By the value of the setting `method`."""


def read_by_methods() -> set[str]:
    """The settings that some methods read and others don't."""
    return {name for method in METHODS.values() for name in method.reads}
