"""Which of the explored settings mattered, by Optuna's importance evaluator, where a sampler chose the points.

Not for: grids, whose tables say it better.
"""

from __future__ import annotations

from collections.abc import Sequence

from dfd_tune.record import TrialRecord
from dfd_tune.search.points import METRIC, distributions
from dfd_tune.settings import Request
from dfd_tune.space import in_space

FEWEST_TRIALS = 8
"""With fewer, a forest of trees finds importance in noise."""


def importances(request: Request, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Each explored setting's share of the variance of validation accuracy, most important first.

    fANOVA: Hutter, Hoos and Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter Importance",
    https://proceedings.mlr.press/v32/hutter14.html, as Optuna has it. Empty for a grid, for fewer than
    `FEWEST_TRIALS` finished trials, and where all trials came out equal.
    """
    sampled = [trial for trial in trials if trial.status == "FINISHED" and in_space(trial.config, request.explore)]
    if request.space.sampler == "grid" or len(sampled) < FEWEST_TRIALS:
        return {}
    if len({trial.metrics[METRIC] for trial in sampled}) == 1:
        return {}
    import optuna

    space = distributions(request.explore)
    study = optuna.create_study(direction="maximize")
    for trial in sampled:
        point = {name: trial.config[name] for name in request.explore}
        study.add_trial(optuna.trial.create_trial(params=point, distributions=space, value=trial.metrics[METRIC]))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=request.seed)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}
