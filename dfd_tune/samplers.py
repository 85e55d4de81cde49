"""The samplers, a row each: how a search's points come about, and how many trials can be asked for.

A sampler is its row here; nothing else names it. Optuna is imported once one is made. Not for: when a sampler is asked,
or what it is told (search/points.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

GRID = "grid"
MOST_TRIALS = 100_000
NUMBER = "number"
"""Attribute of a study's trials: which draw each was."""
POPULATION = 20
"""Points of a generation."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One draw of a point. What comes of it depends on this, and on what was told before, alone."""

    search_seed: int
    number: int
    """Of the draw in its search, from 0."""
    repeated: int
    """So often it has given a point that is known."""
    seed: int
    """Of this draw and repetition alone."""
    space: Mapping[str, Any]
    """Explored setting -> Optuna's distribution, of the axes without a condition."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How points are drawn."""

    make: Callable[[Draw], Any] | None = None
    """An `optuna.samplers.BaseSampler` for one draw. None where points are enumerated."""
    drawn: str = ""
    """How they are, in words that follow "30 trials"."""
    most_trials: int = MOST_TRIALS
    """More may not be asked for, as a draw would take too long."""
    attempts: int = 200
    """So often it is asked for a point that is not known yet; then points are drawn at random."""

    @property
    def draws(self) -> bool:
        """Whether points are drawn, as many as are asked for."""
        return self.make is not None


def _random(draw: Draw) -> Any:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=draw.seed)


def _quasi_random(draw: Draw) -> Any:
    """The scrambled Sobol' sequence of the search's seed, at the draw's number."""
    from optuna.samplers import QMCSampler, RandomSampler

    class Sobol(QMCSampler):
        # Optuna's own goes by what its study remembers, and draws the first point independently.
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return dict(draw.space)

        def _find_sample_id(self, study: Any, search_space: Any) -> int:
            return draw.number + draw.repeated

    # Axes under a condition are no dimensions of the sequence.
    beside = RandomSampler(seed=draw.seed)
    return Sobol(qmc_type="sobol", scramble=True, seed=draw.search_seed, independent_sampler=beside)


def _tpe(draw: Draw) -> Any:
    from optuna.samplers import TPESampler

    return TPESampler(seed=draw.seed, multivariate=True, constant_liar=True)


def _gp(draw: Draw) -> Any:
    from optuna.samplers import GPSampler

    return GPSampler(seed=draw.seed)


def _nsga2(draw: Draw) -> Any:
    """Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II",
    https://doi.org/10.1109/4235.996017, by Optuna; a draw's generation is its number, divided by `POPULATION`."""
    from optuna.samplers import NSGAIISampler
    from optuna.trial import TrialState

    class Generations(NSGAIISampler):
        # Optuna's own goes by what has ended, and remembers generations and parents in attributes of its study.
        def get_trial_generation(self, study: Any, trial: Any) -> int:
            return draw.number // POPULATION

        def get_population(self, study: Any, generation: int) -> list[Any]:
            ended = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
            return [trial for trial in ended if trial.user_attrs[NUMBER] // POPULATION == generation]

        def get_parent_population(self, study: Any, generation: int) -> list[Any]:
            return [] if generation == 0 else self.select_parent(study, generation)

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {name: values for name, values in draw.space.items() if not values.single()}

    return Generations(population_size=POPULATION, seed=draw.seed)


SAMPLERS: dict[str, Sampler] = {
    GRID: Sampler(),
    "random": Sampler(make=_random, drawn="drawn at random"),
    "quasi_random": Sampler(make=_quasi_random, drawn="of a Sobol' sequence"),
    "tpe": Sampler(make=_tpe, drawn="chosen by TPE"),
    "nsga2": Sampler(make=_nsga2, drawn="bred by NSGA-II"),
    "gp": Sampler(make=_gp, drawn="chosen by a Gaussian process", most_trials=200, attempts=5),
}
"""By the name that a space gives."""
AT_RANDOM = SAMPLERS["random"]


def drawing() -> list[str]:
    """The names of the samplers that draw points."""
    return [name for name, sampler in SAMPLERS.items() if sampler.draws]


def made(sampler: Sampler, draw: Draw) -> Any:
    """Optuna's sampler for one draw."""
    assert sampler.make is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its own options experimental
        return sampler.make(draw)
