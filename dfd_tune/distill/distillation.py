"""A method put to work in a training: its losses, what they compare, teachers' outputs, and adapters.

Adapters are trained with the student and thrown away after. With several teachers (You et al. 2017, "Learning from
Multiple Teacher Networks", https://doi.org/10.1145/3097983.3098135) the loss is the mean of the losses to each. Where
nothing is adapted, its gradient is that of the loss to the mean of the teachers' features, logits, distances or
softened outputs, which these losses are linear or quadratic in. Not for: which methods there are (dfd_tune/methods.py),
or the losses' formulas (losses.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from dfd_tune.config import TrialConfig
from dfd_tune.data.pairs import Draw
from dfd_tune.distill import losses
from dfd_tune.distill.features import LiveFeatures, LiveMaps
from dfd_tune.methods import METHODS, Adapter, Beside, Comparison, Output
from dfd_tune.models import Network

FIRST_ADAPTER_SEED = 2_000_000
"""Added to a student's seed, so that its adapters draw from a stream of their own."""


class TargetSource(Protocol):
    """Where an output of a teacher comes from: computed live, or read from a bank."""

    def __call__(self, draw: Draw) -> Tensor:
        """Outputs, float32 (B, …), for what a draw sees."""


class OutputSource(Protocol):
    """Where all that is compared of a teacher comes from."""

    def __call__(self, draw: Draw) -> Mapping[str, Tensor]:
        """By name, the outputs, float32 (B, …), for what a draw sees."""


@dataclass(frozen=True)
class Term:
    """One of the losses that are summed."""

    output: Output
    compare: Callable[..., Tensor]
    """(student's output, teacher's output, what else of the teacher) -> loss, a scalar."""
    beside: tuple[Beside, ...] = ()
    """What else of the teacher it takes, in order."""


@dataclass(frozen=True)
class Distillation:
    """What makes a training run distil: what of the student is compared with what of its teachers, and its weight."""

    lambda_: float
    terms: tuple[Term, ...]
    targets: tuple[OutputSource, ...]
    """One for each teacher."""
    layer: str = ""
    """Of `maps`: the student's layer."""
    adapters: tuple[tuple[nn.Module, ...], ...] = ()
    """Of each teacher one for each term, applied to the student's output; none where nothing is adapted."""

    def loss(self, adapted: Sequence[Sequence[Tensor]], draw: Draw) -> Tensor:
        """The mean over teachers of the sum of the losses, a scalar.

        Args:
            adapted: for each teacher, the student's output of each term through its adapter.
            draw: the images of the batch, in their views.
        """
        found = [self._to_one(ours, target(draw)) for ours, target in zip(adapted, self.targets, strict=True)]
        return found[0] if len(found) == 1 else torch.stack(found).mean()

    def _to_one(self, ours: Sequence[Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
        found = [
            term.compare(output, *(theirs[name] for name in (term.output, *term.beside)))
            for term, output in zip(self.terms, ours, strict=True)
        ]
        return found[0] if len(found) == 1 else torch.stack(found).sum()


@dataclass(frozen=True)
class TeacherOutputs:
    """All that a method compares of a teacher, from one look at a batch; maps need another."""

    outputs: tuple[Output, ...]
    teacher: Network
    features: TargetSource | None = None
    """Wherever they come from; None where maps alone are compared."""
    maps: TargetSource | None = None
    """None where none are compared."""
    class_means: TargetSource | None = None
    """None where no loss takes them."""

    @torch.no_grad()
    def __call__(self, draw: Draw) -> dict[str, Tensor]:
        """By name, the outputs, float32: features (B, D), logits (B, K), maps (B, C, H, W), class_means (B, D)."""
        found: dict[str, Tensor] = {}
        if self.features is not None:
            found["features"] = self.features(draw)
        if "logits" in self.outputs:
            assert not self.teacher.training, "a teacher in training mode drops units"
            found["logits"] = self.teacher.classifier(found["features"])
        if self.maps is not None:
            found["maps"] = self.maps(draw)
        if self.class_means is not None:
            found["class_means"] = self.class_means(draw)
        return found


def outputs_of(
    config: TrialConfig,
    live: LiveFeatures,
    *,
    features: Callable[[], TargetSource],
    class_means: Callable[[], TargetSource],
) -> TeacherOutputs:
    """What the trial's method compares of one teacher.

    Args:
        config: of the trial.
        live: the teacher.
        features: gives its features, live or of a bank; asked only if these are needed.
        class_means: likewise the means of its features over classes.
    """
    method = METHODS[config.method]
    outputs = method.outputs
    return TeacherOutputs(
        outputs,
        live.teacher,
        features=None if set(outputs) == {"maps"} else features(),
        maps=LiveMaps(live, config.hint_layer) if "maps" in outputs else None,
        class_means=class_means() if "class_means" in method.beside else None,
    )


@torch.no_grad()
def reuse_classifier(student: Network, teacher: Network) -> None:
    """Give a student the weights of its teacher's classifier, which no training changes from then on.

    Raises:
        ValueError: the classifiers are of other shapes.
    """
    ours, theirs = ([*network.classifier.parameters()] for network in (student, teacher))
    if [weight.shape for weight in ours] != [weight.shape for weight in theirs]:
        raise ValueError("the teacher's classifier does not fit the student's features")
    for mine, other in zip(ours, theirs, strict=True):
        mine.copy_(other)
        mine.requires_grad_(False)


def terms_of(config: TrialConfig) -> tuple[Term, ...]:
    """What the trial's method compares, each with its loss as a function of the student's and a teacher's output."""
    return tuple(Term(one.output, _loss_of(config, one), one.beside) for one in METHODS[config.method].compares)


def _loss_of(config: TrialConfig, one: Comparison) -> Callable[..., Tensor]:
    # It is given what its row says that it reads and nothing else, so that the trial's key can't miss a setting.
    return partial(getattr(losses, one.loss), **{name: getattr(config, name) for name in one.settings})


def adapters_for(
    config: TrialConfig, student: Network, teachers: Sequence[Network]
) -> tuple[tuple[nn.Module, ...], ...]:
    """What the student's outputs go through before they are compared with each teacher's, on the CPU; for each teacher
    one for each output.

    Their weights depend on the trial's seed and the teacher's place alone; the global random state is left as it is.
    """
    adapters: list[tuple[nn.Module, ...]] = []
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        for place, teacher in enumerate(teachers):
            # The CPU's generator alone: torch.manual_seed would seed the caller's GPU as well.
            torch.default_generator.manual_seed(FIRST_ADAPTER_SEED + 100 * config.seed + place)
            compared = METHODS[config.method].compares
            adapters.append(tuple(_adapter(one.adapter, config, student, teacher) for one in compared))
    return tuple(adapters)


def _adapter(adapter: Adapter, config: TrialConfig, student: Network, teacher: Network) -> nn.Module:
    if adapter == "convolution":
        layer = config.hint_layer
        return nn.Conv2d(student.channels_of(layer), teacher.channels_of(layer), kernel_size=1)
    if adapter == "linear" and (config.projector == "always" or student.feature_dim != teacher.feature_dim):
        return nn.Linear(student.feature_dim, teacher.feature_dim)
    return nn.Identity()
