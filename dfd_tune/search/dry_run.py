"""A launch that is only planned: what would be run, what of it the store has, and what it would cost.

Nothing is written but prepared images, and copies of teacher files and of the texts of backbones. Not for: launching
(launch.py), or the estimate itself (estimate.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from dfd_tune.bring import with_teachers_in_store
from dfd_tune.criteria import CRITERIA
from dfd_tune.distill.frontends import has_vgg19
from dfd_tune.distill.student import find_result
from dfd_tune.forecast import Forecast, in_words
from dfd_tune.machine import multiplies_bf16, usable_cores
from dfd_tune.own_backbones import run_those_of
from dfd_tune.plan import Plan, describe, make_plan
from dfd_tune.record import TrialRecord, known_search, load_trials
from dfd_tune.search.capacity import Node, ray_nodes, refuse_what_never_fits
from dfd_tune.search.estimate import Site, estimate, gain_of_bf16, site_of
from dfd_tune.search.launch import Say, continued, dataset_of, device_for, search_record
from dfd_tune.search.options import LaunchOptions
from dfd_tune.search.runtime import RayRuntime
from dfd_tune.search.same_search import refuse_changes
from dfd_tune.search.sizing import resources_for
from dfd_tune.search.students import trained_again
from dfd_tune.settings import Request
from dfd_tune.signals import Signals
from dfd_tune.store import Store

WORTH_SAYING = 1.15
"""So many times as fast bf16 must be to be offered."""


def dry_run(request: Request, store: Store, options: LaunchOptions, say: Say, signals: Signals) -> Forecast:
    """Say what a launch with these arguments would do and cost. A cluster that RAY_ADDRESS names is only looked at.

    Raises:
        UserError: the launch would be refused.
    """
    with tempfile.TemporaryDirectory() as folder, RayRuntime(Path(folder) / "ray.log", signals) as ray:
        known = known_search(store, options.name)
        run_those_of(store, request.backbones())
        dataset = dataset_of(request, options, known, store, say)
        request = with_teachers_in_store(request, store, dataset, say)
        frozen = {} if known is None else known.resources
        device = frozen["device"] if frozen else device_for(options.device, ray)
        weights = has_vgg19(store)
        plan = make_plan(request, dataset, bank_budget=options.bank_budget, vgg19_at_hand=weights, device=device)
        search = search_record(plan, options, None)
        if known is not None:
            refuse_changes(known, search, extend=options.extend)
            search = continued(known, search)
        if ray.on_cluster:
            ray.start()
        nodes = ray_nodes() if ray.on_cluster else [this_machine()]
        resources = resources_for(plan, device, frozen, options, nodes, store)
        refuse_what_never_fits(resources, request.settings["workers"], nodes, may_grow=ray.may_grow())
        trials = {} if known is None else {trial.key: trial for trial in load_trials(store, known)}
        for line in describe(plan):
            say(line)
        if ray.on_cluster:
            say("Trials run on a cluster, so that no step can be timed from here: earlier trials alone tell.")
        site = site_of(resources, nodes, on_cluster=ray.on_cluster)
        again = trained_again(store, search, [*trials.values()] or _known_results(plan, store))
        found = estimate(plan, store, trials, site, say, again.values())
        for line in (*_bf16_in_words(plan, store, site), *in_words(found)):
            say(line)
    return found


def _known_results(plan: Plan, store: Store) -> list[TrialRecord]:
    """What a new search will take of the results of others; nothing where it looks at costs, which these do not say."""
    if plan.request.choose.cost is not None:
        return []
    found = {key: find_result(store, key) for key in plan.trials}
    column = CRITERIA[plan.request.choose_by].column
    return [
        TrialRecord(key=key, status="FINISHED", config=dict(vars(plan.trials[key])), metrics=result.metrics)
        for key, result in found.items()
        if result is not None and column in result.metrics
    ]


def _bf16_in_words(plan: Plan, store: Store, site: Site) -> list[str]:
    """A line if trainings would be faster in bf16 here; it is never chosen unasked, as that would be other trials."""
    gain = gain_of_bf16(plan, store, site) if multiplies_bf16() else None
    if gain is None or gain < WORTH_SAYING:
        return []
    return [
        f"This CPU multiplies bf16: in a probe, trials trained {gain:.1f} times as fast as in float32. "
        "--set precision=bf16 has them do so; they are other trials, to be held against each other alone."
    ]


def this_machine() -> Node:
    """The node that Ray would make of this machine."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Node("", "", float(usable_cores()), float(gpus), float("inf"))
