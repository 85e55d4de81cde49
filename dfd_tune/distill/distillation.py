"""A method put to work in a training: its loss, what that compares, teachers' outputs, and adapters.

Adapters are trained with the student and thrown away after. With several teachers (You et al. 2017, "Learning from
Multiple Teacher Networks", https://doi.org/10.1145/3097983.3098135) the loss is the mean of the losses to each. Where
nothing is adapted, its gradient is that of the loss to the mean of the teachers' features, logits, distances or
softened outputs, which these losses are linear or quadratic in. Not for: which methods there are (dfd_tune/methods.py),
or the losses' formulas (losses.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from dfd_tune.config import TrialConfig
from dfd_tune.data.pairs import Draw
from dfd_tune.distill import losses
from dfd_tune.methods import METHODS, Output
from dfd_tune.models import Network

FIRST_ADAPTER_SEED = 2_000_000
"""Added to a student's seed, so that its adapters draw from a stream of their own."""


class TargetSource(Protocol):
    """Where a teacher's outputs come from: computed live, or read from a bank."""

    def __call__(self, draw: Draw) -> Tensor:
        """Outputs, float32 (B, …), for what a draw sees."""


@dataclass(frozen=True)
class Distillation:
    """What makes a training run distil: what of the student is compared with what of its teachers, and its weight."""

    lambda_: float
    compare: Callable[[Tensor, Tensor], Tensor]
    """(student's output, teacher's output) -> loss, a scalar."""
    targets: tuple[TargetSource, ...]
    """One for each teacher."""
    output: Output = "features"
    layer: str = ""
    """Of `maps`: the student's layer."""
    adapters: tuple[nn.Module, ...] = ()
    """One for each teacher, applied to the student's output; none where nothing is adapted."""

    def loss(self, adapted: Sequence[Tensor], draw: Draw) -> Tensor:
        """The mean over teachers of the loss, a scalar.

        Args:
            adapted: the student's output through the adapter of each teacher.
            draw: the images of the batch, in their views.
        """
        found = [self.compare(ours, target(draw)) for ours, target in zip(adapted, self.targets, strict=True)]
        return found[0] if len(found) == 1 else torch.stack(found).mean()


@dataclass(frozen=True)
class LogitTargets:
    """A teacher's logits: its classifier on its features, wherever these come from."""

    features: TargetSource
    teacher: Network

    @torch.no_grad()
    def __call__(self, draw: Draw) -> Tensor:
        """Logits, float32 (B, K)."""
        assert not self.teacher.training, "a teacher in training mode drops units"
        logits: Tensor = self.teacher.classifier(self.features(draw))
        return logits


def loss_of(config: TrialConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of the trial's method, as a function of the student's and a teacher's output."""
    method = METHODS[config.method]
    # It is given what its row says that it reads and nothing else, so that the trial's key can't miss a setting.
    return partial(getattr(losses, method.loss), **{name: getattr(config, name) for name in method.settings})


def adapters_for(config: TrialConfig, student: Network, teachers: Sequence[Network]) -> tuple[nn.Module, ...]:
    """What the student's output goes through before it is compared with each teacher's, on the CPU.

    Their weights depend on the trial's seed and the teacher's place alone; the global random state is left as it is.
    """
    adapters: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        for place, teacher in enumerate(teachers):
            # The CPU's generator alone: torch.manual_seed would seed the caller's GPU as well.
            torch.default_generator.manual_seed(FIRST_ADAPTER_SEED + 100 * config.seed + place)
            adapters.append(_adapter(config, student, teacher))
    return tuple(adapters)


def _adapter(config: TrialConfig, student: Network, teacher: Network) -> nn.Module:
    adapter = METHODS[config.method].adapter
    if adapter == "convolution":
        layer = config.hint_layer
        return nn.Conv2d(student.channels_of(layer), teacher.channels_of(layer), kernel_size=1)
    if adapter == "linear" and (config.projector == "always" or student.feature_dim != teacher.feature_dim):
        return nn.Linear(student.feature_dim, teacher.feature_dim)
    return nn.Identity()
