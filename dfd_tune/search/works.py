"""What a plan's jobs are as far as their cost goes, and which of them the store has done already.

Not for: how fast each is (estimate.py), or carrying them out (jobs.py, tasks.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import torch

from dfd_tune.axes import Range
from dfd_tune.config import TrialConfig
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill.features import bank_identity
from dfd_tune.distill.probe import Kind, kind_of_frontend, kind_of_network, kind_of_trial
from dfd_tune.distill.student import find_result
from dfd_tune.distill.workbench import Workbench
from dfd_tune.forecast import Stage, Work
from dfd_tune.models import build_network
from dfd_tune.models.super_resolution import build_frontend
from dfd_tune.parts import NetworkConfig, PretrainedConfig
from dfd_tune.plan import Plan, PlannedFrontend, PlannedNetwork, representatives
from dfd_tune.record import TrialRecord, TrialStatus
from dfd_tune.search.capacity import Resources
from dfd_tune.store import Store

FLOAT32_BYTES = 4


def works_of(
    plan: Plan,
    store: Store,
    trials: Mapping[str, TrialRecord],
    resources: Resources,
    again: Iterable[TrialConfig] = (),
) -> list[Work]:
    """What there is to be done, and what of it the store has already; networks first, as the agenda has them.

    Args:
        plan: of the search.
        store: of it.
        trials: the search's own, by key, as far as it was carried out before.
        resources: of the search.
        again: trials that have results, and are trained again as their students are needed and gone.
    """
    works = list(_works_of_networks(plan, store, plan.networks, "search", resources))
    works += [_work_of_frontend(plan, store, front, "search", resources) for front in plan.frontends]
    known = set(_known(plan, store, trials))
    left = [(config, 1.0, key in known) for key, config in plan.trials.items()]
    if not plan.trials:
        configs = list(_typical(plan))
        own = (trial for trial in trials.values() if trial.stage == "search")
        done = min(plan.num_trials, sum(trial.status in _over(plan) for trial in own))
        left = [(config, (plan.num_trials - done) / len(configs), False) for config in configs]
    works += _works_of_trials(plan, left, "search", resources) + _works_anew(plan, store, trials, resources)
    once_more = _works_of_trials(plan, [(config, 1.0, False) for config in again], "confirm", resources)
    return works + [dataclasses.replace(work, what=_once_more(work.what)) for work in once_more]


def _once_more(what: str) -> str:
    """What a trial is called that is trained again, from what it would be called as one of the confirmation."""
    return f"trained again, as its result alone was kept: {what.partition(': ')[2]}"


def _works_anew(plan: Plan, store: Store, trials: Mapping[str, TrialRecord], resources: Resources) -> list[Work]:
    """Likewise of what confirms: the plan's stand-ins, as what will be chosen is not known."""
    ended = Counter(
        _costs_like(TrialConfig(**trial.config))
        for trial in trials.values()
        if trial.stage != "search" and trial.status in ("FINISHED", "FAILED")
    )
    configs, done = list(plan.confirming.trials()), set[int]()
    for place, config in enumerate(configs):
        if ended[_costs_like(config)] > 0:
            ended[_costs_like(config)] -= 1
            done.add(place)
    # Others were chosen than the plan's stand-ins: these have no more to come than is left of all.
    others = [place for place in range(len(configs)) if place not in done]
    done |= set(others[: ended.total()])
    digest = plan.dataset.digest  # another search may have trained what is known of before, as plain training is
    done |= {place for place in others if find_result(store, configs[place].key(digest)) is not None}
    anew = [(config, 1.0, place in done) for place, config in enumerate(configs)]
    left = [config for config, _, known in anew if not known]
    needed = {network.key(plan.dataset.digest) for config in left for network in config.pretrained()}
    fronts = {config.low_res.frontend for config in left}
    networks = (network for network in plan.later_networks if network.key in needed)
    works = list(_works_of_networks(plan, store, networks, "confirm", resources))
    works += [
        _work_of_frontend(plan, store, front, "confirm", resources)
        for front in plan.later_frontends
        if front.config in fronts
    ]
    return works + _works_of_trials(plan, anew, "confirm", resources)


def _costs_like(config: TrialConfig) -> tuple[Any, ...]:
    return (config.backbone, config.width, config.batch_size, config.epochs, config.distills, config.teacher_sees)


def _known(plan: Plan, store: Store, trials: Mapping[str, TrialRecord]) -> Iterator[str]:
    ended = {key for key, record in trials.items() if record.status in _over(plan)}
    yield from (key for key in plan.trials if key in ended)
    left = [key for key in plan.trials if key not in ended]
    results = store.each(lambda key: find_result(store, key), left)
    yield from (key for key, result in zip(left, results, strict=True) if result is not None)


def _over(plan: Plan) -> tuple[TrialStatus, ...]:
    """What is said of a trial that will not go on; without a scheduler, one that was STOPPED does."""
    return ("FINISHED", "FAILED", "STOPPED") if plan.request.scheduler.stops else ("FINISHED", "FAILED")


def _typical(plan: Plan) -> Iterator[TrialConfig]:
    """What stands for the trials of a sampled space: of a range that decides how long they take, its mean."""
    means: dict[str, Any] = {
        name: round(_mean_of(axis))
        for name, axis in plan.request.explore.items()
        if isinstance(axis, Range) and name in ("epochs", "batch_size")
    }
    for config in representatives(plan.request):
        yield dataclasses.replace(config, **means)


def _mean_of(axis: Range) -> float:
    if not axis.log or axis.high == axis.low:
        return (axis.low + axis.high) / 2
    return (axis.high - axis.low) / math.log(axis.high / axis.low)


def _works_of_networks(
    plan: Plan, store: Store, networks: Iterable[PlannedNetwork], stage: Stage, resources: Resources
) -> Iterator[Work]:
    """Of those that are trained here: what a teacher file's looks cost is not known before."""
    for network in networks:
        if isinstance(network.config, PretrainedConfig):
            yield _work_of_network(plan, store, network, network.config, stage, resources)


def _work_of_network(
    plan: Plan, store: Store, network: PlannedNetwork, config: PretrainedConfig, stage: Stage, resources: Resources
) -> Work:
    dataset = plan.dataset
    there, filled = store.whole("pretrained", network.key), _bank_there(plan, store, network)
    slots = 0
    if network.bank is not None and not filled:
        by_views = network.bank.layout == "views"
        slots = ViewSpace(config.crop_padding, config.flip).count if by_views else network.bank.epochs
    needs = () if config.low_res is None or config.low_res.frontend is None else (config.low_res.frontend,)
    images = len(dataset.train.labels)
    return Work(
        what=f"{config.role} {config.network.backbone}" + (", its feature bank alone" if there and slots else ""),
        stage=stage,
        kind=kind_of_network(config, resources.threads("network")),
        count=int(not there or slots > 0),
        reused=int(there and not slots),
        epochs=0 if there else config.recipe.epochs,
        images=images,
        evaluated=_evaluated(plan, config.recipe.epochs, config.recipe.evaluate_every),
        looked_at=slots * images + len(dataset.test.labels),
        cpus=resources.network_cpus,
        gpus=resources.gpus,
        makes=network.key,
        needs=frozenset(front.key(dataset.digest) for front in needs),
        bytes_each=(0 if there else _bytes_of(plan, config.network)) + (network.bank_bytes if slots else 0),
    )


def _work_of_frontend(plan: Plan, store: Store, front: PlannedFrontend, stage: Stage, resources: Resources) -> Work:
    config, dataset = front.config, plan.dataset
    there = store.whole("frontends", front.key)
    network = build_frontend(config.kind, channels=dataset.channels, size=config.size, seed=0)
    content = config.content
    return Work(
        what=f"front end {config.kind}",
        stage=stage,
        kind=kind_of_frontend(config, resources.threads("frontend")),
        count=int(not there),
        reused=int(there),
        epochs=config.epochs,
        images=len(dataset.train.labels),
        evaluated=0,
        cpus=resources.network_cpus,
        gpus=resources.gpus,
        makes=front.key,
        needs=frozenset({content.key(dataset.digest)} if isinstance(content, PretrainedConfig) else ()),
        bytes_each=sum(tensor.numel() for tensor in network.state_dict().values()) * FLOAT32_BYTES,
    )


def _works_of_trials(
    plan: Plan, trials: Iterable[tuple[TrialConfig, float, bool]], stage: Stage, resources: Resources
) -> list[Work]:
    """Trials that cost the same, taken together.

    Args:
        plan: the search.
        trials: configurations, how many trials each stands for, and whether the store has their results.
        stage: in which they run.
        resources: of the search.
    """
    dataset, counts = plan.dataset, dict[tuple[Kind, float, frozenset[str]], list[float]]()
    for config, number, known in trials:
        kind = kind_of_trial(config, plan.banks, dataset.digest, resources.threads("trial"))
        needs = {network.key(dataset.digest) for network in config.pretrained()}
        if config.low_res.frontend is not None:
            needs.add(config.low_res.frontend.key(dataset.digest))
        counted = counts.setdefault((kind, config.epochs, frozenset(needs)), [0.0, 0.0])
        counted[known] += number
    works, total, given = [], 0.0, 0
    for (kind, epochs, needs_of_kind), (left, reused) in counts.items():
        total += left
        count, given = round(total) - given, round(total)  # of a sampled space, parts of a trial add up to whole ones
        assert isinstance(kind.example, TrialConfig)
        works.append(
            Work(
                what=_name(plan, kind, kind.example, stage, epochs),
                stage=stage,
                kind=kind,
                count=count,
                reused=round(reused),
                epochs=epochs,
                images=len(dataset.train.labels),
                evaluated=_evaluated(plan, epochs, kind.example.evaluate_every),
                looked_at=len(dataset.test.labels) if stage == "confirm" else 0,
                workers=kind.workers,
                cpus=resources.cpus,
                gpus=resources.gpus,
                needs=needs_of_kind,
                bytes_each=_bytes_of(plan, kind.example.network),
            )
        )
    return works


def _evaluated(plan: Plan, epochs: float, every: int) -> float:
    """Validation images that a training looks at, per epoch."""
    return len(plan.dataset.validation.labels) * math.ceil(epochs / every) / epochs


def _name(plan: Plan, kind: Kind, config: TrialConfig, stage: Stage, epochs: float) -> str:
    words = [kind.backbone, "plain" if not kind.method else "distilled"]
    words += [f"{name} {getattr(config, name)}" for name in ("method", "width") if name in plan.request.explore]
    if kind.method and config.teacher_sees == "low_res":
        words.append("low-resolution teacher")
    head = "trials" if stage == "search" else "trained anew for the verdict:"
    return f"{head} {', '.join(words)}, {epochs:g} epochs"


def _bytes_of(plan: Plan, network: NetworkConfig) -> int:
    """What a network's file holds."""
    dataset = plan.dataset
    shape = (dataset.channels, dataset.image_size, len(dataset.classes))
    return _numbers_of(network.backbone, network.width, *shape) * FLOAT32_BYTES


@cache
def _numbers_of(backbone: str, width: float, channels: int, image_size: int, classes: int) -> int:
    network = build_network(
        backbone, width=width, dropout=0.0, channels=channels, image_size=image_size, num_classes=classes, seed=0
    )
    return sum(tensor.numel() for tensor in network.state_dict().values())


def _bank_there(plan: Plan, store: Store, network: PlannedNetwork) -> bool:
    """Whether the store holds a network's bank; never before the network itself, whose weights its key depends on."""
    if network.bank is None or not store.whole("pretrained", network.key):
        return False
    bench = Workbench(store, plan.dataset.folder.name, plan.banks, torch.device("cpu"))
    try:
        found, live = bench.pretrained(network.config), bench.live(network.config)
    except FileNotFoundError:  # what lies there is another network, or damaged
        return False
    identity = bank_identity(
        network.bank.layout,
        live,
        weights=found.weights_digest,
        dataset=plan.dataset.digest,
        low_res=network.config.low_res,
        epochs=network.bank.epochs,
    )
    return store.whole("banks", identity.key)


def bytes_of_cameras(plan: Plan, store: Store) -> int:
    """What low-resolution images take that are not in the store yet."""
    dataset = plan.dataset
    cameras = {config.camera for config in plan.trials.values() or representatives(plan.request)}
    images = sum(len(split.labels) for split in (dataset.train, dataset.validation, dataset.test))
    return sum(
        images * dataset.channels * camera.resolution**2
        for camera in cameras
        if not store.whole("low_res", camera.key(dataset.digest))
    )
