"""Which of the explored settings mattered, by Optuna's importance evaluator, where a sampler chose the points.

Not for: grids, whose tables say it better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dfd_tune.axes import Axis, Choice, axes_from_json, in_space, point_at
from dfd_tune.record import SearchRecord, TrialRecord

FEWEST_TRIALS = 20
"""With fewer, the best tenth is a single pair of trials or less, which says nothing."""


def importances(search: SearchRecord, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """How much each explored setting tells the best tenth of the trials from all, most important first; 1 in all.

    PED-ANOVA: Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces", https://doi.org/10.24963/ijcai.2023/488, as Optuna has it. Empty for a grid, for fewer than
    `FEWEST_TRIALS` finished trials, and where all trials came out equal. Settings that are explored under a condition
    are left out.
    """
    explore = axes_from_json(search.explored)
    finished = [trial for trial in trials if (trial.stage, trial.status) == ("search", "FINISHED")]
    sampled = [trial for trial in finished if in_space(trial.config, explore)]
    if search.sampler == "grid" or len(sampled) < FEWEST_TRIALS:
        return {}
    by = search.criterion
    if len({by.of(trial.metrics) for trial in sampled}) == 1:
        return {}
    import optuna

    space = distributions(explore)
    study = optuna.create_study(direction="maximize" if by.larger_is_better else "minimize")
    for trial in sampled:
        point = point_at(trial.config, explore)
        there = {name: space[name] for name in point}
        value = by.of(trial.metrics)
        study.add_trial(optuna.trial.create_trial(params=point, distributions=there, value=value))
    found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    return {name: float(share) for name, share in found.items()}


def distributions(explore: Mapping[str, Axis]) -> dict[str, Any]:
    """Optuna's distributions of the axes."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, axis in explore.items():
        if isinstance(axis, Choice):
            found[name] = CategoricalDistribution(list(axis.values))
        elif isinstance(axis.low, int):
            found[name] = IntDistribution(axis.low, int(axis.high), log=axis.log, step=int(axis.step or 1))
        else:
            found[name] = FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)
    return found
