"""What a launch asks for: a space on a dataset with every setting resolved, and where each came from.

Precedence, lowest first: the project's defaults, the dataset's recipe, the space's `settings`, `--set`. An axis
of the space stands above the recipe and below `--set`, which fixes the axis to one value or, with a list, gives
it other values. Not for: a request as JSON (frozen_request.py), or what it costs (plan.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from dfd_tune import criteria
from dfd_tune.axes import Axis, Choice, Condition, meets, parse_axis, point_at
from dfd_tune.config import FOLLOWED_BY_TEACHER, DatasetConfig, TrialConfig, teacher_defaults
from dfd_tune.confirm import NOTHING_ANEW, Confirm, parse_controls
from dfd_tune.data.sources import SOURCES
from dfd_tune.errors import UserError, raise_all, unknown_name
from dfd_tune.objectives import ACCURACY, MOST_ACCURATE, Choose, parse_choose
from dfd_tune.own_backbones import read_backbone
from dfd_tune.rules import OWN, coerce, settings_of, share_of_side
from dfd_tune.schedulers import NEVER, EarlyStop
from dfd_tune.space import (
    Protocol,
    SearchSpace,
    choice_problem,
    scheduler_problem,
    setting_class,
    setting_problems,
    trials_problem,
)

CONFIRM_OPTIONS = {
    "seeds": "--confirm-seeds",
    "cells": "--confirm-cells",
    "replicate": "--replicate",
    "controls": "--controls",
}
"""Setting of `Confirm` -> the option that overrides a space's."""
SEEDS = ("seed", "teacher_seed", "augment_seed", "frontend_seed")


@dataclass(frozen=True)
class Request:
    """A search as asked for. Nothing of it has been looked up or run."""

    space: SearchSpace
    dataset: DatasetConfig
    explore: Mapping[str, Axis]
    settings: Mapping[str, Any]
    """Every setting of TrialConfig that is not explored, or not everywhere."""
    origins: Mapping[str, str]
    """Where the value of each setting and axis comes from."""
    trials: int | None
    """How many trials to sample; None for a grid."""
    seed: int
    protocol: Protocol = "validation"
    """By which images λ is chosen."""
    only: tuple[Condition, ...] = ()
    """Of a grid, the points that meet one of these; empty for all points."""
    confirm: Confirm = NOTHING_ANEW
    """What is trained anew once the search has chosen."""
    scheduler: EarlyStop = NEVER
    """Which trials are stopped early."""
    choose_by: str = criteria.DEFAULT
    """By which metric of the validation images all is chosen: one of `criteria.CRITERIA`."""
    choose: Choose = MOST_ACCURATE
    """Which students may be chosen."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """What is searched for."""
        return self.space.objectives

    def allows(self, point: Mapping[str, Any]) -> bool:
        """Whether a point of the grid is among those asked for."""
        return meets({**self.settings, **point}, self.only)

    def possible(self, name: str) -> list[Any]:
        """The values that trials have of a setting; of a range its ends."""
        axis = self.explore.get(name)
        if axis is None:
            return [self.settings[name]]
        values = list(axis.values) if isinstance(axis, Choice) else [axis.low, axis.high]
        return [*values, self.settings[name]] if axis.when else values

    def backbones(self) -> list[str]:
        """Those of students and of teachers that are named, each once."""
        return list(dict.fromkeys([*self.possible("backbone"), *self.named_teachers()]))

    def named_teachers(self) -> list[str]:
        """The backbones of teachers, where these are not the student's own."""
        return [name for named in self.possible("teachers") if named != OWN for name in named.split("+")]

    def trial(self, point: Mapping[str, Any]) -> TrialConfig:
        """The trial at a point of the space."""
        return TrialConfig(**{**self.settings, **point_at(point, self.explore)})


def resolve(
    space: SearchSpace,
    *,
    dataset: str,
    data: str | None,
    recipe: Mapping[str, Any],
    assignments: Sequence[str] = (),
    seed: int = 0,
    workers: int = 1,
    trials: int | None = None,
    protocol: Protocol | None = None,
    confirm: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
    choose: str | None = None,
    choose_by: str | None = None,
    teacher: str | None = None,
) -> Request:
    """Put a space, a dataset's recipe and `--set key=value` assignments together.

    Args:
        space: as read.
        dataset: name of the source.
        data: where its files are.
        recipe: the source's.
        assignments: those of `--set`.
        seed: that of `--seed`.
        workers: processes of a trial.
        trials: in the place of the space's number; likewise `protocol`.
        protocol: None for the space's own.
        confirm: by name, settings of `Confirm` in the place of the space's; those that are None are the space's.
        scheduler: the kind, in the place of the space's.
        choose: which students may be chosen (`objectives.parse_choose`); None for all.
        choose_by: the metric to choose by, in the place of the space's.
        teacher: path of a teacher file, in the place of the space's.

    Raises:
        UserError: an assignment is malformed, unknown or out of range; all are named.
    """
    problems: list[str] = []
    explore, given = _with_assignments(space, assignments, problems)
    if teacher is not None and ("teacher_file" in given or explore.pop("teacher_file", None) is not None):
        problems.append("teacher_file is given twice, by --teacher and otherwise; leave one of them out.")
    if trials is not None and (problem := trials_problem(trials, space.sampler)):
        problems.append(f"--{problem}")
    aims = _aims(
        space,
        explore,
        problems,
        protocol=protocol,
        confirm=confirm,
        scheduler=scheduler,
        choose=choose,
        choose_by=choose_by,
    )
    raise_all(problems)
    layers = {
        "default": _defaults(),
        "--seed": dict.fromkeys(SEEDS, seed),
        "--workers-per-trial": {"workers": workers},
        f"dataset {dataset}": dict(recipe),
        f"space {space.name}": dict(space.settings),
        "--teacher": {} if teacher is None else {"teacher_file": teacher},
        "--set": given,
    }
    settings = {name: value for values in layers.values() for name, value in values.items()}
    followers = teacher_defaults(settings)
    layers["as the student's"] = followers
    origins = {name: origin for origin, values in layers.items() for name in values}
    for name, axis in explore.items():
        origins[name] = f"explored by space {space.name}" if axis is space.explore.get(name) else "--set"
    settings |= followers
    return Request(
        space=space,
        dataset=DatasetConfig(
            dataset=dataset, data=data, **{name: settings[name] for name in dataset_settings() if name in settings}
        ),
        explore=explore,
        settings={
            name: settings[name] for name in settings_of(TrialConfig) if name not in explore or explore[name].when
        },
        origins=origins,
        trials=trials if trials is not None else space.trials,
        seed=seed,
        only=space.only,
        **aims,
    )


def _aims(
    space: SearchSpace,
    explore: Mapping[str, Axis],
    problems: list[str],
    *,
    protocol: Protocol | None,
    confirm: Mapping[str, Any] | None,
    scheduler: str | None,
    choose: str | None,
    choose_by: str | None,
) -> dict[str, Any]:
    """How the search goes about it: the space's word with a launch's in its place, by the fields of `Request`; what is
    wrong goes into `problems`."""
    chosen_by = protocol if protocol is not None else space.protocol
    criterion = space.choose_by if choose_by is None else choose_by
    stopping = space.scheduler if scheduler in (None, space.scheduler.kind) else EarlyStop(kind=str(scheduler))
    chosen, wrong = parse_choose(ACCURACY if choose is None else choose)
    confirming = _confirm(space, confirm or {}, chosen_by, problems)
    if criterion not in criteria.CRITERIA:
        problems.append(unknown_name("metric of `choose_by`", criterion, criteria.CRITERIA))
    elif (problem := choice_problem(criterion, chosen_by)) is not None:
        problems.append(problem)
    unfit = scheduler_problem(stopping, explore, space.objectives)
    problems += [problem for problem in (unfit, wrong) if problem is not None]
    return {
        "protocol": chosen_by,
        "confirm": confirming,
        "scheduler": stopping,
        "choose": chosen,
        "choose_by": criterion,
    }


def read_backbones(request: Request) -> Request:
    """The request with the backbones from files named by what these say now, so that a later change is another one.

    Raises:
        UserError: files can't be read; all are named. Or two values of an axis are one.
    """
    problems: list[str] = []

    def read(name: str, value: Any) -> Any:
        if name not in ("backbone", "teachers") or not isinstance(value, str):
            return value
        try:
            return "+".join(read_backbone(part) for part in value.split("+"))
        except UserError as error:
            problems.extend(error.problems)
            return value

    try:
        changed = with_values(request, read)
    except ValueError:
        raise UserError("Two of the backbones that are explored have files that say the same; leave one out.") from None
    raise_all(list(dict.fromkeys(problems)))
    return changed


def with_values(request: Request, change: Callable[[str, Any], Any]) -> Request:
    """The request with each value of each setting as `change`, asked for name and value, gives it.

    Raises:
        ValueError: two values of a list have become one.
    """
    explore: dict[str, Axis] = {}
    for name, axis in request.explore.items():
        when = tuple((other, tuple(change(other, value) for value in values)) for other, values in axis.when)
        explore[name] = dataclasses.replace(axis, when=when)
        if isinstance(axis, Choice):
            explore[name] = Choice(tuple(change(name, value) for value in axis.values), when)
    only = tuple(
        {name: tuple(change(name, value) for value in values) for name, values in wanted.items()}
        for wanted in request.only
    )
    settings = {name: change(name, value) for name, value in request.settings.items()}
    return dataclasses.replace(request, explore=explore, settings=settings, only=only)


def choosing(request: Request, choose: str | None) -> Request:
    """The request with another word on which students may be chosen; None leaves it as it is.

    Raises:
        UserError: the word can't be meant.
    """
    if choose is None:
        return request
    chosen, problem = parse_choose(choose)
    raise_all([] if problem is None else [problem])
    return dataclasses.replace(request, choose=chosen)


def settle(request: Request, *, image_size: int, vgg19_at_hand: bool, device: Literal["cpu", "cuda"]) -> Request:
    """The request with what only the images and the machine decide: shares of the side in pixels, and, where they are
    `auto`, whose features SRGAN compares and in which precision networks are trained.

    Args:
        request: as resolved.
        image_size: side of the dataset's images in pixels.
        vgg19_at_hand: whether the weights of VGG-19 are.
        device: the kind that trials will run on.

    Raises:
        UserError: a share is no whole number of pixels, or two values of an axis are one.
    """
    problems: list[str] = []
    auto = {
        "frontend_content": "vgg19" if vgg19_at_hand else "teacher",
        "precision": "bf16" if device == "cuda" else "float32",
    }

    def settled(name: str, value: Any) -> Any:
        if value == "auto" and name in auto:
            return auto[name]
        parts = share_of_side(value) if name == "resolution" else None
        if parts is None:
            return value
        if image_size % parts or image_size // parts < 2:
            problems.append(
                f"resolution is {value} of the image's side, but of {image_size} pixels that is no whole number of at "
                "least 2; give another share, or a number of pixels."
            )
        return image_size // parts

    explore: dict[str, Axis] = {}
    for name, given in request.explore.items():
        when = tuple((other, tuple(settled(other, value) for value in values)) for other, values in given.when)
        axis = explore[name] = dataclasses.replace(given, when=when)
        if isinstance(axis, Choice):
            values = tuple(settled(name, value) for value in axis.values)
            if len(set(values)) == len(values):
                explore[name] = dataclasses.replace(axis, values=values)
            elif not problems:
                problems.append(f"{name} names a value twice: {', '.join(map(str, values))}; leave one out.")
    settings = {name: settled(name, value) for name, value in request.settings.items()}
    only = tuple(
        {name: tuple(settled(name, value) for value in values) for name, values in wanted.items()}
        for wanted in request.only
    )
    raise_all(list(dict.fromkeys(problems)))
    return dataclasses.replace(request, explore=explore, settings=settings, only=only)


def _confirm(space: SearchSpace, given: Mapping[str, Any], protocol: Protocol, problems: list[str]) -> Confirm:
    """The space's confirmation with what a launch says otherwise; nothing under the protocol `paper`."""
    asked = {name: value for name, value in given.items() if value is not None}
    if protocol == "paper":
        if asked and asked != {"seeds": 0}:
            problems.append(f"{CONFIRM_OPTIONS[next(iter(asked))]}: the protocol paper confirms nothing; leave it out.")
        return NOTHING_ANEW
    if isinstance(asked.get("controls"), str):
        names = [name.strip() for name in asked["controls"].split(",") if name.strip()]
        asked["controls"], wrong = parse_controls([] if names == ["none"] else names)
        problems += [f"--controls: {problem}" for problem in wrong]
    found = dataclasses.replace(space.confirm, **asked)
    if found.seeds:
        return found
    if asked.get("controls"):
        problems.append("--controls: controls need fresh seeds, but there are 0; give --confirm-seeds at least 1.")
    return dataclasses.replace(found, controls=())


def _with_assignments(
    space: SearchSpace, assignments: Sequence[str], problems: list[str]
) -> tuple[dict[str, Axis], dict[str, Any]]:
    """The axes that `--set` leaves or makes, and the values it fixes; what is wrong goes into `problems`."""
    explore = dict(space.explore)
    given: dict[str, Any] = {}
    for name, value in _assignments(assignments, problems):
        if isinstance(value, list):
            axis, found = parse_axis(name, value, space.sampler)
            if axis is not None:
                # In the place of the axis that it replaces, and under its condition.
                explore[name] = dataclasses.replace(axis, when=explore[name].when if name in explore else ())
        else:
            explore.pop(name, None)
            found = setting_problems(name, value)
            given[name] = value
        problems += [f"--set: {problem}" for problem in found]
    explore = _conditions_settled(explore, given)
    if not explore:
        problems.append("Every axis of the space is fixed with --set, so nothing is left to explore; leave one free.")
    return explore, given


def _conditions_settled(explore: Mapping[str, Axis], given: Mapping[str, Any]) -> dict[str, Axis]:
    """The axes that can be explored once some settings are given: a condition on one of these is met or not."""
    found: dict[str, Axis] = {}
    for name, axis in explore.items():
        unmet = (other for other, values in axis.when if other not in found and given.get(other) not in values)
        if next(unmet, None) is None:
            left = tuple(part for part in axis.when if part[0] in found)
            found[name] = axis if left == axis.when else dataclasses.replace(axis, when=left)
    return found


def resolve_dataset(name: str, data: str | None, assignments: Sequence[str]) -> DatasetConfig:
    """The images that a launch with this dataset and these `--set` assignments would see.

    Raises:
        UserError: there is no such dataset, or an assignment is not one of a dataset's settings.
    """
    if name not in SOURCES:
        raise UserError(unknown_name("dataset", name, SOURCES))
    problems: list[str] = []
    given = {}
    for key, value in _assignments(assignments, problems):
        if key in dataset_settings():
            problems += [f"--set: {problem}" for problem in setting_problems(key, value)]
        else:
            problems.append("--set: " + unknown_name("setting of a dataset", key, dataset_settings()))
        given[key] = value
    raise_all(problems)
    recipe = {key: value for key, value in SOURCES[name].recipe.items() if key in dataset_settings()}
    return DatasetConfig(dataset=name, data=data, **(recipe | given))


def _assignments(texts: Sequence[str], problems: list[str]) -> list[tuple[str, Any]]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name or not value.strip():
            problems.append(f"--set '{text}' must be key=value, as in --set epochs=5.")
            continue
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date as 2024-13-45
            problems.append(f"--set {name}: '{value}' is no YAML value; write a number, a word or [a, list].")
            continue
        config = setting_class(name)
        pairs.append((name, parsed if config is None else coerce(config, name, parsed)))
    return pairs


def _defaults() -> dict[str, Any]:
    """Those that are declared; what a teacher follows its student in is not given so."""
    followers = {f"teacher_{name}" for name in FOLLOWED_BY_TEACHER}
    return {
        setting.name: setting.default
        for config in (DatasetConfig, TrialConfig)
        for setting in dataclasses.fields(config)
        if setting.default is not dataclasses.MISSING and setting.name not in followers
    }


def dataset_settings() -> list[str]:
    """The names of the settings that say which of a source's images a search sees."""
    return [name for name in settings_of(DatasetConfig) if name not in ("dataset", "data")]
