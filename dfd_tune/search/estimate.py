"""What a plan costs on the machines at hand: what the store has already, and how fast trainings like these ran.

Speeds come from the store's earlier trials or, on this machine, from a probe of seconds. Not for: the arithmetic
(forecast.py), nor for what a launch makes of it (measured.py).
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from dfd_tune.config import TrialConfig
from dfd_tune.distill.probe import FrontendKind, Kind, kind_of_trial, probe
from dfd_tune.errors import UserError, cause_of
from dfd_tune.forecast import Forecast, Pool, Speed, Work, forecast
from dfd_tune.frozen_request import request_from_json
from dfd_tune.plan import Plan, make_plan
from dfd_tune.record import SearchRecord, TrialRecord, find_search, load_trials, search_names
from dfd_tune.search.capacity import TRIAL_MEMORY_BYTES, Node, Resources
from dfd_tune.search.works import bytes_of_cameras, works_of
from dfd_tune.store import Store

PROBE_SECONDS = 6.0
"""For all kinds of training together, process starts apart."""
MOST_SECONDS_A_KIND, FEWEST_SECONDS_A_KIND = 2.0, 0.4
MOST_PROCESSES = 16
"""Of a probe; more beside them slow each other no further than memory's bandwidth, which these fill."""
MOST_EARLIER_SEARCHES = 30
"""The newest ones are looked through."""
EARLIER, PROBED = "earlier trials", "a probe"


@dataclass(frozen=True)
class Site:
    """Where trials run."""

    resources: Resources
    nodes: tuple[Node, ...] | None
    """None where they are not known yet."""
    host: str | None
    """This machine's name, if that is where; None on a cluster, whose earlier trials may have run on other nodes."""

    @property
    def pool(self) -> Pool | None:
        """All nodes together, as far as memory lets their CPUs be used."""
        if self.nodes is None:
            return None
        cpus = self.resources.cpus
        usable = [min(node.cpus, cpus * (node.memory // TRIAL_MEMORY_BYTES)) for node in self.nodes]
        return Pool(sum(usable), sum(node.gpus for node in self.nodes))


def estimate(
    plan: Plan,
    store: Store,
    trials: Mapping[str, TrialRecord],
    site: Site,
    say: Callable[[str], None],
    again: Iterable[TrialConfig] = (),
) -> Forecast:
    """What is left of `plan` costs, by a probe where no earlier trial tells.

    Args:
        plan: the search.
        store: of the search; nothing is written into it.
        trials: the search's own, by key, as far as it was carried out before.
        site: where it runs.
        say: takes a line while a probe runs.
        again: trials that are trained again, as their students are gone.
    """
    works = works_of(plan, store, trials, site.resources, again)
    wanted = {work.kind: None for work in works if work.count}
    speeds = earlier_speeds(plan, store, site, wanted)
    missing = [kind for kind in wanted if kind not in speeds]
    if missing and site.host is not None:
        say("Timing a few steps of each kind of training.")
        try:
            speeds |= _probed(plan, store, site, works, missing)
        except (RuntimeError, OSError) as error:  # as where a process is killed, or a GPU's memory is taken
            say(f"That failed ({cause_of(error)}); earlier trials alone tell.")
    return forecast_on(site, works, speeds, plan, store)


def forecast_on(
    site: Site, works: Sequence[Work], speeds: Mapping[Hashable, Speed], plan: Plan, store: Store
) -> Forecast:
    """What `works` cost where these speeds are known, and what others have in common with them.

    Args:
        site: where they run.
        works: of the plan.
        speeds: by kind.
        plan: the search.
        store: of the search.
    """
    return forecast(
        works,
        with_those_alike(speeds, [work.kind for work in works if work.count]),
        device=site.resources.device,
        pool=site.pool,
        trial=(plan.request.settings["workers"], site.resources.cpus, site.resources.gpus),
        disk_bytes=bytes_of_cameras(plan, store),
    )


def site_of(resources: Resources, nodes: Sequence[Node], *, on_cluster: bool) -> Site:
    """The nodes of a Ray that this process is connected to, or is about to start."""
    return Site(resources, tuple(nodes), None if on_cluster else socket.gethostname())


def earlier_speeds(plan: Plan, store: Store, site: Site, kinds: Iterable[Hashable]) -> dict[Hashable, Speed]:
    """What earlier trials tell of `kinds`: those of as many images of that side, and on such a machine; the newest
    search that has any of a kind speaks for it."""
    found: dict[Hashable, Speed] = {}
    wanted = set(kinds)
    for name in reversed(search_names(store)[-MOST_EARLIER_SEARCHES:]):
        if wanted <= found.keys():
            break
        search = find_search(store, name)
        if search is None or not _is_alike(plan, search, site.resources):
            continue
        timed: dict[Kind, list[Speed]] = {}
        for kind, trial in _trials_by_kind(plan, store, search):
            if kind in wanted and kind not in found and site.host in (None, trial.host):
                timed.setdefault(kind, []).append(_speed_of(trial, search))
        for kind, speeds in timed.items():
            found[kind] = Speed(
                mean(speed.training for speed in speeds), mean(speed.evaluation for speed in speeds), EARLIER
            )
    return found


def _is_alike(plan: Plan, search: SearchRecord, resources: Resources) -> bool:
    ours, theirs = plan.dataset_facts(), search.dataset
    names = ("train_images", "validation_images", "image_size", "channels")
    return search.resources.get("device") == resources.device and all(ours[name] == theirs[name] for name in names)


def _trials_by_kind(plan: Plan, store: Store, search: SearchRecord) -> Iterator[tuple[Kind, TrialRecord]]:
    """The search's own trials that have finished. Which teachers had a bank follows from its plan, worked out anew."""
    try:
        planned = make_plan(
            request_from_json(search.request, search=search.search),
            plan.dataset,
            bank_budget=search.options["bank_budget"],
            vgg19_at_hand=True,
            device="cuda" if search.resources["device"] == "cuda" else "cpu",
        )
        threads = Resources(**search.resources).threads("trial")
        for trial in load_trials(store, search):
            if trial.status == "FINISHED" and trial.host is not None and trial.history:
                config = TrialConfig(**trial.config)
                yield kind_of_trial(config, planned.banks, plan.dataset.digest, threads), trial
    except (KeyError, TypeError, UserError):  # of another version of this package
        return


def _speed_of(trial: TrialRecord, search: SearchRecord) -> Speed:
    """What a trial's record tells: an epoch's training is timed by itself, and what is left is evaluation."""
    training = mean(1 / epoch["images_per_second"] for epoch in trial.history)
    rest = max(0.0, trial.metrics["seconds"] - training * search.dataset["train_images"] * len(trial.history))
    looks = sum("val_loss" in epoch for epoch in trial.history)
    return Speed(training, rest / (looks * search.dataset["validation_images"]), EARLIER)


def with_those_alike(speeds: Mapping[Hashable, Speed], kinds: Iterable[Hashable]) -> dict[Hashable, Speed]:
    """`speeds`, with those of other `kinds` as far as they follow from them.

    What is distilled costs the looks of teachers that run live, and no more; who has more threads takes no longer.
    """
    found = dict(speeds)
    for kind in kinds:
        if kind not in found and isinstance(kind, Kind) and (speed := _alike(kind, speeds)) is not None:
            found[kind] = speed
    return found


def _alike(kind: Kind, speeds: Mapping[Hashable, Speed]) -> Speed | None:
    looks = _seconds_of_looks(kind, speeds)
    known = [
        (other.threads, other.looks != kind.looks, speed, other_looks)
        for other, speed in speeds.items()
        if isinstance(other, Kind)
        and _undistilled(other, kind.threads) == _undistilled(kind, kind.threads)
        and other.threads <= kind.threads
        and (other_looks := _seconds_of_looks(other, speeds)) is not None
    ]
    if looks is None or not known:
        return None
    _, _, speed, other_looks = max(known, key=lambda one: (one[0], not one[1]))
    least = min(speed.training, speed.evaluation)
    return dataclasses.replace(speed, training=max(speed.training + looks - other_looks, least))


def _undistilled(kind: Kind, threads: int) -> Kind:
    return dataclasses.replace(kind, threads=threads, method="", looks=())


def _seconds_of_looks(kind: Kind, speeds: Mapping[Hashable, Speed]) -> float | None:
    """What live teachers add to a training image; None where nothing is known of such a network."""
    added = 0.0
    for backbone, look in kind.looks:
        if look != "bank":
            seen = [
                speed.evaluation
                for other, speed in speeds.items()
                if isinstance(other, Kind) and other.backbone == backbone
            ]
            if not seen:
                return None
            added += max(seen)
    return added


def _probed(
    plan: Plan, store: Store, site: Site, works: Sequence[Work], kinds: Sequence[Hashable]
) -> dict[Hashable, Speed]:
    resources, asked = site.resources, []
    for kind in kinds:
        alike = [work for work in works if work.kind == kind]
        beside = max(_beside_each_other(site, work.cpus, resources.gpus) for work in alike)
        jobs = sum(work.count * work.workers for work in works)
        assert isinstance(kind, Kind | FrontendKind)
        asked.append((kind, max(1, min(beside, jobs, MOST_PROCESSES))))
    seconds = min(MOST_SECONDS_A_KIND, max(FEWEST_SECONDS_A_KIND, PROBE_SECONDS / len(asked)))
    timings = probe(store, plan.dataset, asked, resources.device, seconds)
    return {
        kind: Speed(timing.training, timing.evaluation, PROBED)
        for (kind, _), timing in zip(asked, timings, strict=True)
    }


def gain_of_bf16(plan: Plan, store: Store, site: Site) -> float | None:
    """How many times as fast trainings are in bf16 on this machine's CPUs, by a probe of the costliest kind of trials.

    None where that can't be known here: no trial in float32, not on CPUs, or not on this machine.
    """
    if site.host is None or site.resources.device != "cpu" or plan.request.settings["precision"] != "float32":
        return None
    works = [work for work in works_of(plan, store, {}, site.resources) if isinstance(work.kind, Kind)]
    trials = [work for work in works if isinstance(work.kind.example, TrialConfig)]  # type: ignore[attr-defined]
    if not trials:
        return None
    kind = max(trials, key=lambda work: work.count * work.epochs * work.images).kind
    assert isinstance(kind, Kind)
    assert isinstance(kind.example, TrialConfig)
    other = dataclasses.replace(kind, precision="bf16", example=dataclasses.replace(kind.example, precision="bf16"))
    beside = max(1, min(_beside_each_other(site, site.resources.cpus, 0.0), MOST_PROCESSES))
    timings = probe(store, plan.dataset, [(kind, beside), (other, beside)], "cpu", MOST_SECONDS_A_KIND)
    return timings[0].training / timings[1].training


def _beside_each_other(site: Site, cpus: float, gpus: float) -> int:
    """How many workers slow each other: on CPUs all, on GPUs those that share one."""
    if gpus:
        return max(1, int(1 / gpus))
    assert site.pool is not None
    return site.pool.at_once(cpus, 0.0)
