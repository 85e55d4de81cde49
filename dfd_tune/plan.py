"""Plans: what a request means on a dataset: which trials, which networks come before them, which banks pay.

All of it is arithmetic on a prepared dataset; nothing is trained. Not for: carrying the plan out (search/).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from dfd_tune import criteria
from dfd_tune.anew import NOTHING, Anew, cells_anew, together
from dfd_tune.axes import grid_points, standing_points
from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import Dataset
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill.features import BankLayout
from dfd_tune.distill.networks import feature_dim_of
from dfd_tune.distill.workbench import BankPlan
from dfd_tune.errors import raise_all
from dfd_tune.fit import misfits, missing_weights
from dfd_tune.parts import FrontendConfig, Guide, ImportedConfig, PretrainedConfig
from dfd_tune.schedulers import SCHEDULERS
from dfd_tune.settings import Request, settle

FLOAT16_BYTES = 2
LOW_RES_TEACHER = "low-resolution teacher"
ROUNDING = 1e-9


@dataclass(frozen=True)
class PlannedNetwork:
    """A teacher or base network that trials need."""

    key: str
    config: Guide
    trials: int
    """How many trials of the plan distil from it; 0 if they only start from its weights."""
    bank: BankPlan | None
    """Its feature bank; None if the teacher runs live, or is not looked at."""
    bank_bytes: int


@dataclass(frozen=True)
class PlannedFrontend:
    """A super-resolution front end that trials need."""

    key: str
    config: FrontendConfig
    trials: int
    """How many trials of the plan see its output."""


@dataclass(frozen=True)
class Plan:
    """A search, ready to be carried out."""

    request: Request
    dataset: Dataset
    trials: Mapping[str, TrialConfig]
    """By trial key, in order; of a sampled space, empty."""
    num_trials: int
    networks: tuple[PlannedNetwork, ...]
    """Those that its trials need."""
    frontends: tuple[PlannedFrontend, ...]
    cameras: int
    """How many sets of low-resolution images the trials see."""
    confirming: Anew = NOTHING
    """What will be trained anew once all is chosen. Of a search that confirms its best cell alone, its first cell's."""
    later_networks: tuple[PlannedNetwork, ...] = ()
    """Those that nothing but a confirmation needs, of all cells that may be confirmed."""
    later_frontends: tuple[PlannedFrontend, ...] = ()

    @property
    def num_anew(self) -> int:
        """How many trials are to come after the search's own."""
        return len(self.confirming)

    @property
    def banks(self) -> dict[str, BankPlan]:
        """By teacher key, the banks to be filled."""
        networks = (*self.networks, *self.later_networks)
        return {network.key: network.bank for network in networks if network.bank is not None}

    def dataset_facts(self) -> dict[str, Any]:
        """What a search's record says of its dataset (SearchRecord.dataset)."""
        dataset = self.dataset
        return asdict(self.request.dataset) | {
            "digest": dataset.digest,
            "classes": list(dataset.classes),
            "channels": dataset.channels,
            "image_size": dataset.image_size,
            "train_images": len(dataset.train.labels),
            "validation_images": len(dataset.validation.labels),
            "test_images": len(dataset.test.labels),
            "prepared": dataset.folder.name,
        }


def make_plan(
    request: Request,
    dataset: Dataset,
    *,
    bank_budget: int,
    vgg19_at_hand: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Plan:
    """Work out what `request` means on `dataset`.

    Args:
        request: what is asked for.
        dataset: prepared.
        bank_budget: bytes that all banks together may take; a teacher that would go over it runs live.
        vgg19_at_hand: whether there are weights of VGG-19 for SRGAN's content loss.
        device: the kind that trials will run on.

    Raises:
        UserError: the request does not fit the dataset; all problems are named.
    """
    request = settle(request, image_size=dataset.image_size, vgg19_at_hand=vgg19_at_hand, device=device)
    raise_all([*misfits(request, dataset), *missing_weights(request, vgg19_at_hand)])
    trials: dict[str, TrialConfig] = {}
    if request.space.sampler == "grid":
        configs = [request.trial(point) for point in grid_points(request.explore) if request.allows(point)]
        if not configs:
            raise_all(["`only` of the space leaves no point of the grid; free an axis that --set has fixed."])
        for config in configs:  # points that differ in what cannot matter, as reduction where λ = 0, are one trial
            trials.setdefault(config.key(dataset.digest), config)
        num_trials = len(trials)
        share = 1.0
    else:
        configs = list(representatives(request))
        assert request.trials is not None
        num_trials = request.trials
        share = num_trials / len(configs)
    users = list(trials.values()) if trials else configs
    cells = cells_anew(request, users, num_trials)
    one = request.confirm.cells == "best" or request.space.sampler != "grid"  # a sampled search has a single cell
    counted = cells[:1] if one else cells
    own = _needed(users, dataset).keys()
    own_frontends = {frontend.key for frontend in _frontends([(config, share) for config in users], dataset)}
    chance = len(counted) / max(1, len(cells))
    weighted = [(config, share) for config in users]
    weighted += [(config, chance) for cell in cells for config in cell.with_fresh_seeds()]
    networks, frontends = _networks(weighted, dataset, bank_budget), _frontends(weighted, dataset)
    return Plan(
        request,
        dataset,
        trials,
        num_trials,
        networks=tuple(network for network in networks if network.key in own),
        frontends=tuple(frontend for frontend in frontends if frontend.key in own_frontends),
        cameras=len({config.camera for config in users}),
        confirming=together(counted),
        later_networks=tuple(network for network in networks if network.key not in own),
        later_frontends=tuple(frontend for frontend in frontends if frontend.key not in own_frontends),
    )


def _networks(
    trials: Sequence[tuple[TrialConfig, float]], dataset: Dataset, bank_budget: int
) -> tuple[PlannedNetwork, ...]:
    """The teachers and base networks that `trials` need, teachers first, with their banks.

    Args:
        trials: the trials, or what stands for them, each with the number of trials that it stands for.
        dataset: prepared.
        bank_budget: bytes for all banks together.
    """

    @cache
    def key_of(network: Guide) -> str:
        return network.key(dataset.digest)

    distilling: dict[str, list[tuple[TrialConfig, float]]] = {}
    needed = _needed([config for config, _ in trials], dataset)
    for config, share in trials:
        if config.distills and config.has_bank:
            for guide in config.guides():
                distilling.setdefault(key_of(guide), []).append((config, share))
    looked_at: dict[str, float] = {}
    for config, share in trials:
        for guide in config.guides():
            key = key_of(guide)
            looked_at[key] = looked_at.get(key, 0.0) + share
    planned = []
    for key, network in sorted(needed.items(), key=lambda item: item[1].role == "base"):
        bank, size = _bank_for(network, distilling.get(key, []), dataset, bank_budget)
        bank_budget -= size
        planned.append(PlannedNetwork(key, network, math.ceil(looked_at.get(key, 0.0) - ROUNDING), bank, size))
    return tuple(planned)


def _needed(trials: Sequence[TrialConfig], dataset: Dataset) -> dict[str, Guide]:
    """The networks that trials need, by key."""
    networks: dict[Guide, None] = {
        network: None for config in trials for network in (*_contents(config), *config.pretrained())
    }
    return {network.key(dataset.digest): network for network in networks}


def _contents(config: TrialConfig) -> Iterator[PretrainedConfig]:
    """The network whose features the front end of a trial is trained with, if there is one."""
    frontend = config.low_res.frontend
    if frontend is not None and isinstance(frontend.content, PretrainedConfig):
        yield frontend.content


def _frontends(trials: Sequence[tuple[TrialConfig, float]], dataset: Dataset) -> tuple[PlannedFrontend, ...]:
    users: dict[FrontendConfig, float] = {}
    for config, share in trials:
        if (frontend := config.low_res.frontend) is not None:
            users[frontend] = users.get(frontend, 0.0) + share
    return tuple(
        PlannedFrontend(frontend.key(dataset.digest), frontend, math.ceil(count - ROUNDING))
        for frontend, count in users.items()
    )


def representatives(request: Request) -> Iterator[TrialConfig]:
    """One trial for each combination of the listed values; a range is stood for by its upper end.

    No network before the search depends on a range (see `fit.misfits`), so these need all the networks there are.
    """
    yield from map(request.trial, standing_points(request.explore))


def _bank_for(
    network: Guide, users: list[tuple[TrialConfig, float]], dataset: Dataset, budget: int
) -> tuple[BankPlan | None, int]:
    """The bank that saves most of the teacher's forward passes within the budget, and its size in bytes.

    Counted in passes over the training images: live, each trial makes one an epoch; a bank makes one for each of
    its slots, ahead of the trials.
    """
    live = sum(share * user.epochs for user, share in users)
    longest = max((user.epochs for user, _ in users), default=0)
    slots: dict[BankLayout, int] = {
        "views": ViewSpace(network.crop_padding, network.flip).count,
        "epochs": longest,
    }
    layout = min(slots, key=lambda name: slots[name])
    if slots[layout] >= live:
        return None, 0
    dim = network.file.dim if isinstance(network, ImportedConfig) else feature_dim_of(dataset, network.network)
    size = slots[layout] * len(dataset.train.labels) * dim * FLOAT16_BYTES
    if size > budget:
        return None, 0
    return BankPlan(layout, longest), size


def describe(plan: Plan, finished: int = 0) -> list[str]:
    """The plan in a few lines for a person: what is run, and what is made once and shared.

    Args:
        plan: what is to be carried out.
        finished: how many of its trials have a result in the store already.
    """
    dataset = plan.dataset
    counts = [len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)]
    known = f"; {finished} of them are in the store already" if finished else ""
    lines = [
        f"{dataset.name}: {counts[0]:,} training, {counts[1]:,} validation, {counts[2]:,} test images, "
        f"{dataset.image_size}×{dataset.image_size}×{dataset.channels}, {len(dataset.classes)} classes",
        f"{plan.num_trials} trials ({plan.request.space.sampler}) over {', '.join(plan.request.explore)}{known}",
    ]
    if plan.request.protocol == "paper":
        lines.append("Protocol paper: every trial is tested, and λ is chosen on TEST images, as the paper seems to do.")
    if plan.request.choose_by != criteria.DEFAULT:
        criterion = criteria.CRITERIA[plan.request.choose_by]
        lines.append(f"Chosen by {criterion.words} on validation images.")
    if plan.request.scheduler.stops:
        lines.append(_early_in_words(plan))
    if plan.request.choose.cost is not None:
        lines.append(f"Chosen is among students with {plan.request.choose.in_words()}.")
    if plan.num_anew:
        lines.append(_anew_in_words(plan))
    lines.append(f"Made once and shared: {_shared(plan)}")
    for network in plan.networks:
        source = f", from the file {network.config.file}" if isinstance(network.config, ImportedConfig) else ""
        teacher = f"{_role(network)} {network.config.architecture} {network.key}{source}"
        if network.bank is not None:
            use = f"features of {network.trials} trials from a bank of {network.bank_bytes / 1e6:.1f} MB"
        elif network.trials:
            use = f"looked at live by {network.trials} trials"
        else:
            use = "gives initial weights" + ("" if network.config.role == "base" else " or a content loss")
        lines.append(f"{teacher}: {use}")
    for frontend in plan.frontends:
        config = frontend.config
        lines.append(
            f"front end {config.kind} {frontend.key}: {config.camera.resolution}×{config.camera.resolution} to "
            f"{config.resolution}×{config.resolution} pixels for {frontend.trials} trials"
        )
    return lines


def longest_of(request: Request) -> int:
    """Epochs of the longest trial of a request."""
    return int(max(request.possible("epochs")))


def _early_in_words(plan: Plan) -> str:
    kind = plan.request.scheduler.kind
    rule = SCHEDULERS[kind].rule(plan.request.scheduler.course(longest_of(plan.request)))
    return f"Stopped early, by {kind}: trials with λ above 0, {rule}."


def _anew_in_words(plan: Plan) -> str:
    confirm = plan.request.confirm
    cells = "the best cell" if confirm.cells == "best" else "each cell"
    beside = ", ".join(["plain training", *confirm.controls])
    anew = " Teachers, starts and views too." if confirm.replicate == "pipeline" else ""
    return (
        f"Then {plan.num_anew} trials to confirm: what {cells} chose and, beside it, {beside}, with {confirm.seeds} "
        f"fresh seeds each; only these are tested.{anew}"
    )


def _shared(plan: Plan) -> str:
    roles = [_role(network) for network in (*plan.networks, *plan.later_networks)]
    counts = {
        "teacher": roles.count("teacher"),
        LOW_RES_TEACHER: roles.count(LOW_RES_TEACHER),
        "feature bank": len(plan.banks),
        "base network": roles.count("base"),
        "front end": len(plan.frontends) + len(plan.later_frontends),
        "set of low-resolution images": plan.cameras,
    }
    parts = [_counted(count, noun) for noun, count in counts.items() if count]
    return ", ".join(parts)


def _role(network: PlannedNetwork) -> str:
    """What a network is called: one that is trained on low-resolution images may be there to be distilled from."""
    return LOW_RES_TEACHER if network.config.role == "base" and network.trials else network.config.role


def _counted(count: int, noun: str) -> str:
    first, _, rest = noun.partition(" of ")
    return f"{count} {first}{'' if count == 1 else 's'}{' of ' + rest if rest else ''}"
