"""The distillation methods, a row each: which outputs of student and teacher are compared, and by which losses.

A method is its row here and its loss in distill/losses.py; nothing else names it. Not for: formulas (losses.py), or how
a row is put to work (distill/distillation.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Output = Literal["features", "logits", "maps"]
"""Of a network: of its last layer, after its classifier, or of the middle layer that `hint_layer` names."""
Beside = Literal["class_means"]
"""What a loss may be given of a teacher beside its output: for each image, the mean of its features over the training
images of that class, as they are."""
Adapter = Literal["none", "linear", "convolution"]
"""What the student's output goes through first: nothing; a linear map, always or where its dimension is not the
teacher's, as `projector` says; a 1×1 convolution, always. Trained with the student, and thrown away after."""

HINT_LAYER, PROJECTOR = "hint_layer", "projector"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One of student's and teacher's outputs, and the loss between them."""

    output: Output
    loss: str
    """Name of a function in distill/losses.py: (student's output, teacher's, *beside, **settings) -> a scalar."""
    beside: tuple[Beside, ...] = ()
    settings: tuple[str, ...] = ()
    """The settings of a trial that the loss takes, which are all that it is given."""
    adapter: Adapter = "none"

    @property
    def reads(self) -> tuple[str, ...]:
        """The settings of a trial that matter to it, of those that do not matter to all."""
        of_output = (HINT_LAYER,) if self.output == "maps" else ()
        of_adapter = (PROJECTOR,) if self.adapter == "linear" else ()
        return (*self.settings, *of_output, *of_adapter)


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is distilled: the sum of the losses of all that is compared."""

    compares: tuple[Comparison, ...]
    reuses_classifier: bool = False
    """Whether the student has the classifier of its teacher, which stays as it is: one teacher, of as many features."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The settings of a trial that matter to this method, of those that do not matter to all."""
        return tuple(dict.fromkeys(name for one in self.compares for name in one.reads))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What is compared of a network."""
        return tuple(one.output for one in self.compares)

    @property
    def beside(self) -> tuple[Beside, ...]:
        """What else a teacher must give."""
        return tuple(name for one in self.compares for name in one.beside)

    def takes(self, output: str) -> bool:
        """Whether a teacher that gives this output alone is enough."""
        return set(self.outputs) == {output} and not self.reuses_classifier

    @property
    def has_bank(self) -> bool:
        """Whether a bank of last-layer features is enough of a teacher."""
        return "maps" not in self.outputs


FEATURES = Comparison(output="features", loss="distillation_loss", settings=("reduction",), adapter="linear")
FEATURES_AS_THEY_ARE = Comparison(output="features", loss="distillation_loss", settings=("reduction",))
SOFT_TARGETS = Comparison(output="logits", loss="soft_target_loss", settings=("temperature",))
HINTS = Comparison(output="maps", loss="hint_loss", settings=("reduction",), adapter="convolution")
DISTANCES = Comparison(output="features", loss="pairwise_distance_loss", settings=("reduction",))
LOGITS = Comparison(output="logits", loss="distillation_loss", settings=("reduction",))
ATTENTION = Comparison(output="maps", loss="attention_loss")
DIRECTIONS = Comparison(output="features", loss="norm_direction_loss", beside=("class_means",), adapter="linear")


DEFAULT = "dfd"
"""Goes without saying in a trial's key."""

METHODS: dict[str, Method] = {
    DEFAULT: Method(compares=(FEATURES,)),
    "kd": Method(compares=(SOFT_TARGETS,)),
    "fitnets": Method(compares=(HINTS,)),
    "rdl": Method(compares=(DISTANCES,)),
    "logits": Method(compares=(LOGITS,)),
    "attention": Method(compares=(ATTENTION,)),
    "cqd": Method(compares=(FEATURES, SOFT_TARGETS)),
    "simkd": Method(compares=(FEATURES_AS_THEY_ARE,), reuses_classifier=True),
    "norm_direction": Method(compares=(DIRECTIONS,)),
}
"""By the value of the setting `method`."""


def read_by_methods() -> set[str]:
    """The settings that some methods read and others don't."""
    return {name for method in METHODS.values() for name in method.reads}
