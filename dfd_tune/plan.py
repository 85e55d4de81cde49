"""Plans: what a request means on a dataset: which trials, which networks come before them, which banks pay.

All of it is arithmetic on a prepared dataset; nothing is trained. Not for: carrying the plan out (search/).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from dfd_tune.config import FRONTEND_FACTOR, FrontendConfig, PretrainedConfig, TrialConfig
from dfd_tune.confirm import arms_of, fresh_seeds, tuning_of, twin_of, with_seed
from dfd_tune.data.prepared import Dataset
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill.features import BankLayout
from dfd_tune.distill.networks import network_for
from dfd_tune.distill.workbench import BankPlan
from dfd_tune.errors import raise_all
from dfd_tune.models import layer_problem
from dfd_tune.rules import OWN
from dfd_tune.settings import Request, settle
from dfd_tune.space import Choice, Range, grid_points

FLOAT16_BYTES = 2
BEFORE_THE_SEARCH = ("width", "crop_padding", "resolution", "blur", "noise", "jpeg_quality")
"""Settings that decide networks or images which are made before the search; `teacher_*` and `frontend_*` do too."""
LOW_RES_TEACHER = "low-resolution teacher"
ROUNDING = 1e-9
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
    confirming: tuple[tuple[TrialConfig, int], ...] = ()
    """What will be trained anew once all is chosen, as far as that is known before: what stands for it, and how often.
    Of a search that confirms its best cell alone, its first cell."""
    later_networks: tuple[PlannedNetwork, ...] = ()
    """Those that nothing but a confirmation needs, of all cells that may be confirmed."""
    later_frontends: tuple[PlannedFrontend, ...] = ()

    @property
    def num_anew(self) -> int:
        """How many trials are to come after the search's own."""
        return sum(count for _, count in self.confirming)

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
    raise_all([*_misfits(request, dataset), *_missing_weights(request, vgg19_at_hand)])
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
    cells = _cells_anew(request, users, num_trials)
    counted = cells[:1] if request.confirm.cells == "best" else cells
    own = _needed(users, dataset).keys()
    own_frontends = {frontend.key for frontend in _frontends([(config, share) for config in users], dataset)}
    chance = len(counted) / max(1, len(cells))
    weighted = [(config, share) for config in users]
    weighted += [(config, chance) for cell in cells for config in _trials_anew(request, cell)]
    networks, frontends = _networks(weighted, dataset, bank_budget), _frontends(weighted, dataset)
    return Plan(
        request,
        dataset,
        trials,
        num_trials,
        networks=tuple(network for network in networks if network.key in own),
        frontends=tuple(frontend for frontend in frontends if frontend.key in own_frontends),
        cameras=len({config.camera for config in users}),
        confirming=_counted_anew(counted, request.confirm.seeds),
        later_networks=tuple(network for network in networks if network.key not in own),
        later_frontends=tuple(frontend for frontend in frontends if frontend.key not in own_frontends),
    )


@dataclass(frozen=True)
class _CellAnew:
    """What is trained anew of a cell: what stands for each arm, and for the search of plain training's settings."""

    arms: tuple[TrialConfig, ...]
    tuning: tuple[TrialConfig, ...]


def _cells_anew(request: Request, trials: Sequence[TrialConfig], num_trials: int) -> list[_CellAnew]:
    """What may be trained anew, for each cell of the space, those that distil first; of others plain training."""
    confirm = request.confirm
    if not confirm.seeds:
        return []
    groups: dict[frozenset[tuple[str, Any]], list[TrialConfig]] = {}
    for config in trials:
        rest = {name: value for name, value in vars(config).items() if name not in ("lambda_", "seed")}
        groups.setdefault(frozenset(rest.items()), []).append(config)
    cells, plain = [], []
    for group in groups.values():
        student = next((config for config in group if config.distills), None)
        if student is None:
            plain.append(_CellAnew((group[0],), ()))
            continue
        points = len({config.lambda_ for config in group}) if request.space.sampler == "grid" else num_trials
        tuning = tuning_of(twin_of(student), points) if "tuned_base" in confirm.controls else []
        tuned = tuning[-1] if tuning else None  # which one will be best is not known
        cells.append(_CellAnew(tuple(arms_of(student, confirm.controls, tuned).values()), tuple(tuning[1:])))
    return [*cells, *plain]


def _trials_anew(request: Request, cell: _CellAnew) -> Iterator[TrialConfig]:
    """Every trial that a cell's confirmation would train, but for the search of plain training's settings."""
    explored = request.explore.get("seed")
    seen = explored.values if isinstance(explored, Choice) else (request.settings.get("seed", request.seed),)
    seeds = fresh_seeds(request.confirm.seeds, request.seed, seen)
    for config in cell.arms:
        yield from (with_seed(config, seed, request.confirm.replicate) for seed in seeds)


def trials_anew(plan: Plan) -> Iterator[TrialConfig]:
    """What stands for each trial that confirms, as `Plan.confirming` counts them, with its seed."""
    request = plan.request
    for config, count in plan.confirming:
        if count == request.confirm.seeds:
            yield from _trials_anew(request, _CellAnew((config,), ()))
        else:
            yield config


def _counted_anew(cells: Sequence[_CellAnew], seeds: int) -> tuple[tuple[TrialConfig, int], ...]:
    """What is trained anew and how often; what several cells share, as plain training of all methods, once."""
    arms = {config.key(""): config for cell in cells for config in cell.arms}
    tuning = {config.key(""): config for cell in cells for config in cell.tuning}
    return (*((config, seeds) for config in arms.values()), *((config, 1) for config in tuning.values()))


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
    def key_of(network: PretrainedConfig) -> str:
        return network.key(dataset.digest)

    distilling: dict[str, list[tuple[TrialConfig, float]]] = {}
    needed = _needed([config for config, _ in trials], dataset)
    for config, share in trials:
        if config.distills and config.method != "fitnets":  # a bank holds the last layer's features, no maps
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


def _needed(trials: Sequence[TrialConfig], dataset: Dataset) -> dict[str, PretrainedConfig]:
    """The networks that trials need, by key."""
    networks = {network: None for config in trials for network in (*_contents(config), *config.pretrained())}
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
        decides_network = name in BEFORE_THE_SEARCH or name.startswith(("teacher_", "frontend_"))
        if decides_network and isinstance(axis, Range):
            problems.append(f"{name} has a range, but each value needs a teacher or images of its own; give a list.")
    for resolution in _values(request, "resolution"):
        if resolution >= dataset.image_size:
            problems.append(
                f"resolution is {resolution}, but must be below the image size of the dataset, "
                f"{dataset.image_size} pixels."
            )
    problems += _misfits_of_front_ends(request, dataset)
    if "fitnets" in _values(request, "method"):
        for backbone in dict.fromkeys([*_values(request, "backbone"), *_named_teachers(request)]):
            for layer in _values(request, "hint_layer"):
                if (problem := layer_problem(backbone, layer)) is not None:
                    problems.append(problem)
    for padding in _values(request, "crop_padding"):
        if padding >= dataset.image_size:
            problems.append(
                f"crop_padding is {padding}, but must be below the image size, {dataset.image_size} pixels."
            )
    shares = [("batch_size", workers), ("teacher_batch_size", 1)]
    if "srgan" in _values(request, "frontend"):
        shares.append(("frontend_batch_size", 1))
    for name, sharing in shares:
        for batch_size in _values(request, name):
            smallest = _smallest_share(len(dataset.train.labels), batch_size, sharing)
            if smallest < 2:
                problems.append(
                    f"{name} is {batch_size}, which leaves one of {sharing} workers with {smallest} of "
                    f"{len(dataset.train.labels)} images in some step, but batch norm needs 2; give a larger one."
                )
    return problems


def _misfits_of_front_ends(request: Request, dataset: Dataset) -> list[str]:
    kinds = [kind for kind in _values(request, "frontend") if kind != "none"]
    return [
        f"frontend {', '.join(kinds)} at resolution {resolution} gives {FRONTEND_FACTOR * resolution} pixels, but the "
        f"images have {dataset.image_size}; take a resolution of at most {dataset.image_size // FRONTEND_FACTOR}, or "
        "frontend none."
        for resolution in _values(request, "resolution")
        if kinds and dataset.image_size > resolution > dataset.image_size // FRONTEND_FACTOR
    ]


def _missing_weights(request: Request, vgg19_at_hand: bool) -> list[str]:
    """A sentence if SRGAN is to be trained with the features of a network that is not there."""
    asked = "srgan" in _values(request, "frontend") and "vgg19" in _values(request, "frontend_content")
    if not asked or vgg19_at_hand:
        return []
    return [
        "frontend_content is vgg19, but its weights are not at hand: put torchvision's vgg19-dcbb9e9d.pth into the "
        "folder `downloads` of the store, or set frontend_content=teacher."
    ]


def _named_teachers(request: Request) -> list[str]:
    return [name for teachers in _values(request, "teachers") if teachers != OWN for name in teachers.split("+")]


def _smallest_share(images: int, batch_size: int, workers: int) -> int:
    """The fewest images that a worker gets in a step, as batches differ in size by at most one."""
    return images // math.ceil(images / batch_size) // workers


def _values(request: Request, name: str) -> list[Any]:
    axis = request.explore.get(name)
    if isinstance(axis, Choice):
        return list(axis.values)
    return [int(axis.low), int(axis.high)] if isinstance(axis, Range) else [request.settings[name]]


def _bank_for(
    network: PretrainedConfig, users: list[tuple[TrialConfig, float]], dataset: Dataset, budget: int
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
    size = (
        slots[layout]
        * len(dataset.train.labels)
        * network_for(dataset, network.network, seed=0).feature_dim
        * FLOAT16_BYTES
    )
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
    if plan.num_anew:
        lines.append(_anew_in_words(plan))
    lines.append(f"Made once and shared: {_shared(plan)}")
    for network in plan.networks:
        teacher = f"{_role(network)} {network.config.network.backbone} {network.key}"
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
