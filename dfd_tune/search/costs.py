"""What each student would cost where it is deployed, known before it is: worked out once an architecture.

Not for: the cost of the best student's file (conclude.py), or which costs a search is after (objectives.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import Dataset
from dfd_tune.distill.networks import network_for
from dfd_tune.models.cost import example_images, latency_of, multiply_adds, parameters_of
from dfd_tune.models.deployed import Deployed
from dfd_tune.models.super_resolution import build_frontend
from dfd_tune.objectives import COSTS, Choose
from dfd_tune.record import TrialRecord

LATENCY = COSTS["latency"].metric


def wanted_costs(objectives: Iterable[str], choose: Choose) -> list[str]:
    """Metrics that every trial has: what is counted, and latency where an objective or the choice is after it."""
    counted = [COSTS["parameters"].metric, COSTS["multiply_adds"].metric]
    return [*counted, LATENCY] if "latency" in (*objectives, choose.cost) else counted


class StudentCosts:
    """Costs by architecture, as metrics of a trial: parameters, multiply_adds and, where that is wanted, image_seconds.

    Args:
        dataset: decides input size and classes.
        objectives: of the search; likewise `choose`. Latency is measured where one of them is after it.
        choose: which students may be chosen.
        known: trials whose latency was measured by an earlier launch, which holds for equal architectures.
    """

    def __init__(self, dataset: Dataset, objectives: Iterable[str], choose: Choose, known: Iterable[TrialRecord] = ()):
        self._dataset = dataset
        self._with_latency = LATENCY in wanted_costs(objectives, choose)
        self._found: dict[tuple[Any, ...], dict[str, float]] = {}
        self._seconds = {
            _architecture(TrialConfig(**trial.config)): trial.metrics[LATENCY]
            for trial in known
            if LATENCY in trial.metrics
        }

    def of(self, config: TrialConfig) -> dict[str, float]:
        """What a student of `config` costs, as `Deployed`: parameters, multiply-adds of one image, and the seconds that
        one takes on one thread of this machine's CPU."""
        architecture = _architecture(config)
        if architecture not in self._found:
            self._found[architecture] = self._worked_out(config, architecture)
        return dict(self._found[architecture])

    def _worked_out(self, config: TrialConfig, architecture: tuple[Any, ...]) -> dict[str, float]:
        deployed = _untrained(config, self._dataset)
        image = example_images(1, self._dataset.image_size, self._dataset.channels)
        found = {
            COSTS["parameters"].metric: float(parameters_of(deployed)),
            COSTS["multiply_adds"].metric: float(multiply_adds(deployed, image)),
        }
        if self._with_latency:
            seconds = self._seconds.get(architecture)
            found[LATENCY] = latency_of(deployed, image) if seconds is None else seconds
        return found


def _architecture(config: TrialConfig) -> tuple[Any, ...]:
    """All that a deployed student's cost depends on, its weights aside."""
    sides = (config.resolution, config.downsample, config.upsample)
    return (config.backbone, config.width, config.batch_norm, config.frontend, config.frontend_size, *sides)


def _untrained(config: TrialConfig, dataset: Dataset) -> Deployed:
    frontend = None
    if config.frontend != "none":
        frontend = build_frontend(config.frontend, channels=dataset.channels, size=config.frontend_size, seed=0)
    return Deployed(
        network_for(dataset, config.network, seed=0),
        mean=dataset.mean,
        std=dataset.std,
        resolution=config.resolution,
        image_size=dataset.image_size,
        downsample=config.downsample,
        upsample=config.upsample,
        frontend=frontend,
    )
