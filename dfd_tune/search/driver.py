"""The search itself: Ray Tune runs trials at the points that we enumerate or Optuna samples.

Not for: what a trial does (worker.py), what is remembered of it (ledger.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dfd_tune.distill.student import find_result
from dfd_tune.plan import Plan
from dfd_tune.record import TrialRecord
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.worker import TUNE_DRIVER_CPUS, TrialContext, run_trial
from dfd_tune.space import Axis, Choice, in_space

METRIC = "val_accuracy"


def run_search(plan: Plan, context: TrialContext, ledger: Ledger) -> None:
    """Run every trial of the plan that has no result yet. Crashed trials are recorded as FAILED.

    A grid's points are enumerated by us and handed to Optuna as points to evaluate, in order; a sampled space
    continues from its finished trials, and begins with those that an earlier launch left unfinished.
    """
    if plan.request.space.sampler == "grid":
        points = _open_points(plan, ledger)
        if points:
            run_points(points, plan, context, ledger)
        return
    finished = [trial for trial in ledger.with_status("FINISHED") if in_space(trial.config, plan.request.explore)]
    missing = plan.num_trials - len(finished)
    if missing > 0:
        unfinished = [trial for trial in ledger.with_status("PENDING") if in_space(trial.config, plan.request.explore)]
        searcher = _sampler(plan, finished, unfinished)
        _fit(searcher, missing, plan, context, ledger)


def run_points(points: Sequence[Mapping[str, Any]], plan: Plan, context: TrialContext, ledger: Ledger) -> None:
    """Run trials at exactly these points of the space, in order."""
    from optuna.samplers import RandomSampler
    from ray.tune.search.optuna import OptunaSearch

    searcher = OptunaSearch(
        space=distributions(plan.request.explore, points),
        metric=METRIC,
        mode="max",
        sampler=RandomSampler(seed=plan.request.seed),
        points_to_evaluate=[dict(point) for point in points],
    )
    _fit(searcher, len(points), plan, context, ledger)


def _open_points(plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    """The grid's points without a result; those with one, be it of another search, are recorded."""
    points = []
    for key, config in plan.trials.items():
        known = ledger.trials.get(key)
        if known is not None and known.status == "FINISHED":
            continue
        result = find_result(ledger.store, key)
        if result is not None:
            ledger.finished(config, result)
        else:
            points.append({name: getattr(config, name) for name in plan.request.explore})
    return points


def _sampler(plan: Plan, finished: Sequence[TrialRecord], unfinished: Sequence[TrialRecord]) -> Any:
    """Optuna's sampler, told what is known already; it proposes the points of `unfinished` first."""
    from optuna.samplers import RandomSampler, TPESampler
    from ray.tune.search.optuna import OptunaSearch

    # A sampler that starts over with the same seed would suggest the finished points again.
    seed = plan.request.seed + len(finished)
    samplers = {"random": RandomSampler, "tpe": partial(TPESampler, multivariate=True, constant_liar=True)}
    searcher = OptunaSearch(
        space=distributions(plan.request.explore, []),
        metric=METRIC,
        mode="max",
        sampler=samplers[plan.request.space.sampler](seed=seed),
        points_to_evaluate=[_point(plan, trial) for trial in unfinished] or None,
    )
    for trial in finished:
        searcher.add_evaluated_point(_point(plan, trial), trial.metrics[METRIC])
    return searcher


def _point(plan: Plan, trial: TrialRecord) -> dict[str, Any]:
    return {name: trial.config[name] for name in plan.request.explore}


def distributions(explore: Mapping[str, Axis], points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Optuna's distributions of the axes; given points, just the values that these take."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    distributions: dict[str, Any] = {}
    for name, axis in explore.items():
        if points:
            distributions[name] = CategoricalDistribution(list(dict.fromkeys(point[name] for point in points)))
        elif isinstance(axis, Choice):
            distributions[name] = CategoricalDistribution(list(axis.values))
        elif isinstance(axis.low, int):
            distributions[name] = IntDistribution(axis.low, int(axis.high), log=axis.log, step=int(axis.step or 1))
        else:
            distributions[name] = FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)
    return distributions


def _fit(searcher: Any, samples: int, plan: Plan, context: TrialContext, ledger: Ledger) -> None:
    from ray import tune

    from dfd_tune.search.callback import LedgerCallback

    scratch = ledger.store.path("searches", ledger.search.search, ".tune")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, context=context), _tune_actor_resources(context)),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=samples,
                max_concurrent_trials=context.resources.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[LedgerCallback(context.request, ledger)],
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _tune_actor_resources(context: TrialContext) -> dict[str, float]:
    if context.request.settings["workers"] > 1:
        return {"CPU": TUNE_DRIVER_CPUS}
    resources = context.resources
    return {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
