"""Plans: what a request means on a dataset: which trials, which networks come before them, which banks pay.

All of it is arithmetic on a prepared dataset; nothing is trained. Not for: carrying the plan out (search/).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dfd_tune.config import PretrainedConfig, TrialConfig
from dfd_tune.data.prepared import Dataset
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill.features import BankLayout
from dfd_tune.distill.networks import network_for
from dfd_tune.distill.workbench import BankPlan
from dfd_tune.errors import raise_all
from dfd_tune.settings import Request
from dfd_tune.space import Choice, Range, grid_points

FLOAT16_BYTES = 2
SMALL_GRID = 100_000
"""A grid of more points than this is a slip of the pen."""


@dataclass(frozen=True)
class PlannedNetwork:
    """A teacher or base network that trials need."""

    key: str
    config: PretrainedConfig
    trials: int
    """How many trials of the plan distil from it; 0 if they only start from its weights."""
    bank: BankPlan | None
    """Its feature bank; None if the teacher runs live, or is not looked at."""
    bank_bytes: int


@dataclass(frozen=True)
class Plan:
    """A search, ready to be carried out."""

    request: Request
    dataset: Dataset
    trials: Mapping[str, TrialConfig]
    """By trial key, in order; of a sampled space, empty."""
    num_trials: int
    networks: tuple[PlannedNetwork, ...]

    @property
    def banks(self) -> dict[str, BankPlan]:
        """By teacher key, the banks to be filled."""
        return {network.key: network.bank for network in self.networks if network.bank is not None}


def make_plan(request: Request, dataset: Dataset, *, bank_budget: int) -> Plan:
    """Work out what `request` means on `dataset`.

    Args:
        request: what is asked for.
        dataset: prepared.
        bank_budget: bytes that all banks together may take; a teacher that would go over it runs live.

    Raises:
        UserError: the request does not fit the dataset; all problems are named.
    """
    raise_all(_misfits(request, dataset))
    trials: dict[str, TrialConfig] = {}
    if request.space.sampler == "grid":
        configs = [request.trial(point) for point in grid_points(request.explore)]
        for config in configs:  # points that differ in what cannot matter, as reduction where λ = 0, are one trial
            trials.setdefault(config.key(dataset.digest), config)
        num_trials = len(trials)
        share = 1.0
    else:
        configs = list(_representatives(request))
        assert request.trials is not None
        num_trials = request.trials
        share = num_trials / len(configs)
    distilling: dict[str, list[TrialConfig]] = {}
    networks: dict[str, PretrainedConfig] = {}
    for config in trials.values() if trials else configs:
        for needed in _networks_of(config):
            networks[needed.key(dataset.digest)] = needed
        if config.distills:
            distilling.setdefault(config.teacher().key(dataset.digest), []).append(config)
    planned = []
    for key, network in networks.items():
        users = distilling.get(key, [])
        bank, size = _bank_for(network, users, share, dataset, bank_budget)
        bank_budget -= size
        planned.append(PlannedNetwork(key, network, round(len(users) * share), bank, size))
    return Plan(request, dataset, trials, num_trials, tuple(planned))


def _networks_of(config: TrialConfig) -> Iterator[PretrainedConfig]:
    if config.needs_teacher:
        yield config.teacher()
    if config.student_start == "base":
        yield config.base()


def _representatives(request: Request) -> Iterator[TrialConfig]:
    """One trial for each combination of the listed values; a range is stood for by its upper end.

    No network before the search depends on a range (see `_misfits`), so these need all the networks there are.
    """
    choices = {name: axis for name, axis in request.explore.items() if isinstance(axis, Choice)}
    ends = {name: axis.high for name, axis in request.explore.items() if isinstance(axis, Range)}
    for point in grid_points(choices):
        yield request.trial(point | ends)


def _misfits(request: Request, dataset: Dataset) -> list[str]:
    problems = []
    workers = request.settings["workers"]
    size = 1
    for axis in request.explore.values():
        size *= len(axis.values) if isinstance(axis, Choice) else 1
    if size > SMALL_GRID:
        problems.append(f"The space spans {size} combinations, but {SMALL_GRID} is the most; shorten its lists.")
    for name, axis in request.explore.items():
        decides_network = name in ("width", "crop_padding", "resolution") or name.startswith("teacher_")
        if decides_network and isinstance(axis, Range):
            problems.append(f"{name} has a range, but each value needs a teacher or images of its own; give a list.")
    for resolution in _values(request, "resolution"):
        if resolution >= dataset.image_size:
            problems.append(
                f"resolution is {resolution}, but must be below the image size of the dataset, "
                f"{dataset.image_size} pixels."
            )
    for padding in _values(request, "crop_padding"):
        if padding >= dataset.image_size:
            problems.append(
                f"crop_padding is {padding}, but must be below the image size, {dataset.image_size} pixels."
            )
    for name, sharing in (("batch_size", workers), ("teacher_batch_size", 1)):
        for batch_size in _values(request, name):
            smallest = _smallest_share(len(dataset.train.labels), batch_size, sharing)
            if smallest < 2:
                problems.append(
                    f"{name} is {batch_size}, which leaves one of {sharing} workers with {smallest} of "
                    f"{len(dataset.train.labels)} images in some step, but batch norm needs 2; give a larger one."
                )
    return problems


def _smallest_share(images: int, batch_size: int, workers: int) -> int:
    """The fewest images that a worker gets in a step, as batches differ in size by at most one."""
    return images // math.ceil(images / batch_size) // workers


def _values(request: Request, name: str) -> list[int]:
    axis = request.explore.get(name)
    if isinstance(axis, Choice):
        return list(axis.values)
    return [int(axis.low), int(axis.high)] if isinstance(axis, Range) else [request.settings[name]]


def _bank_for(
    network: PretrainedConfig, users: list[TrialConfig], share: float, dataset: Dataset, budget: int
) -> tuple[BankPlan | None, int]:
    """The bank that saves most of the teacher's forward passes within the budget, and its size in bytes.

    Counted in passes over the training images: live, each trial makes one an epoch; a bank makes one for each of
    its slots, ahead of the trials.
    """
    live = share * sum(user.epochs for user in users)
    longest = max((user.epochs for user in users), default=0)
    slots: dict[BankLayout, int] = {
        "views": ViewSpace(network.crop_padding, network.flip).count,
        "epochs": longest,
    }
    layout = min(slots, key=lambda name: slots[name])
    size = (
        slots[layout]
        * len(dataset.train.labels)
        * network_for(dataset, network.network, seed=0).feature_dim
        * FLOAT16_BYTES
    )
    if slots[layout] >= live or size > budget:
        return None, 0
    return BankPlan(layout, longest), size


def describe(plan: Plan) -> list[str]:
    """The plan in a few lines for a person."""
    dataset = plan.dataset
    counts = [len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)]
    lines = [
        f"{dataset.name}: {counts[0]:,} training, {counts[1]:,} validation, {counts[2]:,} test images, "
        f"{dataset.image_size}×{dataset.image_size}×{dataset.channels}, {len(dataset.classes)} classes",
        f"{plan.num_trials} trials ({plan.request.space.sampler}) over {', '.join(plan.request.explore)}",
    ]
    for network in plan.networks:
        teacher = f"{network.config.role} {network.config.network.backbone} {network.key}"
        if network.bank is not None:
            use = f"features of {network.trials} trials from a bank of {network.bank_bytes / 1e6:.1f} MB"
        elif network.trials:
            use = f"looked at live by {network.trials} trials"
        else:
            use = "gives initial weights"
        lines.append(f"{teacher}: {use}")
    return lines
