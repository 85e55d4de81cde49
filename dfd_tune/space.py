"""Search spaces: a YAML file's content, read and checked, and the grid that it spans.

    description: one line
    sampler: grid | random | quasi_random | tpe | gp    # samplers.py
    trials: 30                                          # of all but grid
    explore:
      backbone: [resnet18, vgg16]                       # a list: each of these values
      lambda_: {low: 0.05, high: 20, log: true}         # a range, for all but grid; `step` for steps
    only: [{backbone: vgg16}, {lambda_: 0.5}]           # of a grid, the points that agree with one of these
    protocol: validation | paper                        # by which images λ is chosen
    choose_by: accuracy | balanced_accuracy | macro_f1 | loss   # and by which metric of them: criteria.py
    confirm: {seeds: 5, cells: best, replicate: student}   # what is trained anew once all is chosen: confirm.py
    controls: [half_longer]                             # and what it is held against beside plain training
    scheduler: none | asha | median                     # which trials are stopped early: schedulers.py
    settings: {epochs: 30}                              # what all trials share, over the dataset's recipe

Not for: what a space means on a dataset (plan.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from dfd_tune import criteria
from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.confirm import DEFAULT, NOTHING_ANEW, Confirm, parse_confirm
from dfd_tune.errors import UserError, raise_all, unknown_name
from dfd_tune.rules import broken_rule, coerce, settings_of, share_of_side
from dfd_tune.samplers import SAMPLERS, drawing
from dfd_tune.schedulers import NEVER, EarlyStop, parse_early_stop
from dfd_tune.yaml_file import YamlFile, read_yaml

Protocol = Literal["validation", "paper"]
Condition = Mapping[str, tuple[Any, ...]]
"""Explored setting -> the values that a point may have there."""
ROUNDING = 1e-8
"""By so much of a step a value may miss it, as the sampler adds the steps up in floating point."""
KEYS = (
    *("description", "sampler", "trials", "explore", "only", "protocol"),
    *("choose_by", "confirm", "controls", "scheduler", "settings"),
)
"""Of a space's file."""
SEARCH_WIDE = ("augment_seed", "workers", "precision", "evaluate_every")
"""Settings of a trial that are the same for all trials of a search, so that they stay comparable."""


@dataclass(frozen=True)
class Choice:
    """Each of these values.

    Raises:
        ValueError: there is none, or one is there twice.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) < len(self.values):
            raise ValueError(f"a choice needs one or several values, all different, not {self.values!r}")

    def as_json(self) -> Any:
        """As it stands in a YAML file."""
        return list(self.values)

    def contains(self, value: Any) -> bool:
        """Whether `value` is one of the axis's."""
        return value in self.values


@dataclass(frozen=True)
class Range:
    """Any value from low to high, both included; of two whole numbers, any whole one.

    Raises:
        ValueError: it is empty or not finite, begins at or below 0 though `log`, or its step does not fit into it.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    """Only low, low + step, and so on."""

    def __post_init__(self) -> None:
        finite = math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high
        log_fits = not self.log or (self.low > 0 and self.step is None)
        if not finite or not log_fits or (self.step is not None and not 0 < self.step <= self.high - self.low):
            raise ValueError(f"no such range: {self!r}")

    def as_json(self) -> Any:
        """As it stands in a YAML file."""
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}

    def contains(self, value: Any) -> bool:
        """Whether `value`, a number, is one of the axis's; on a step but for rounding."""
        if not self.low <= value <= self.high or (isinstance(self.low, int) and value != int(value)):
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isinf(steps) or abs(steps - round(steps)) < ROUNDING


Axis = Choice | Range


def axis_from_json(value: Any) -> Axis:
    """The axis that `as_json` gave `value` for."""
    return Choice(tuple(value)) if isinstance(value, list) else Range(**value)


@dataclass(frozen=True)
class SearchSpace:
    """What a search explores. Make one with `read_space`."""

    name: str
    description: str
    sampler: str
    """One of `SAMPLERS`."""
    explore: Mapping[str, Axis]
    settings: Mapping[str, Any]
    trials: int | None
    """How many trials to sample; None for a grid, which knows its size."""
    only: tuple[Condition, ...] = ()
    """Of a grid, the points that meet one of these; empty for all points."""
    protocol: Protocol = "validation"
    """By which images λ is chosen: validation or, as the paper appears to, test."""
    confirm: Confirm = DEFAULT
    """What is trained anew once the search has chosen; nothing under the protocol `paper`."""
    scheduler: EarlyStop = NEVER
    """Which trials are stopped early."""
    choose_by: str = criteria.DEFAULT
    """By which metric of the validation images all is chosen: one of `criteria.CRITERIA`."""


def shipped_spaces() -> dict[str, Path]:
    """The spaces that come with the package, by name."""
    package = Path(__file__).parent
    # In a wheel the folder lies inside the package, in a checkout beside it.
    folder = next(place for place in (package / "search_spaces", package.parent / "search_spaces") if place.is_dir())
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def read_space(name: str) -> SearchSpace:
    """Read a shipped space by name, or a YAML file by its path.

    Raises:
        UserError: there is no such space or file, it is no YAML, or its content is not a space; all problems of
            the content are named, with their lines.
    """
    shipped = shipped_spaces()
    if name in shipped:
        return _space_from(read_yaml(shipped[name], "space"))
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return _space_from(read_yaml(path, "space"))
    raise UserError(unknown_name("space", name, shipped) + " Or give the path of a .yaml file.")


def grid_points(explore: Mapping[str, Axis]) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' values, the last axis running fastest. All axes must be choices."""
    values = []
    for axis in explore.values():
        assert isinstance(axis, Choice), "a grid has no ranges"
        values.append(axis.values)
    for combination in itertools.product(*values):
        yield dict(zip(explore, combination, strict=True))


def parse_axis(name: str, value: Any, sampler: str | None) -> tuple[Axis | None, list[str]]:
    """The axis that a YAML value describes, or None and what is wrong with it, one sentence a problem."""
    if name in settings_of(DatasetConfig) or name in SEARCH_WIDE:
        return None, [f"{name} can't be explored: all trials of a search share it; put it under `settings`."]
    if name not in settings_of(TrialConfig):
        return None, [unknown_name("setting", name, settings_of(TrialConfig))]
    if name == "seed" and sampler in drawing():
        return None, [f"seed can't be explored with sampler {sampler}: a lucky seed is no setting; use a grid."]
    if isinstance(value, dict):
        return _parse_range(name, value, sampler)
    if not isinstance(value, list):
        return None, [f"{name} is {value!r}, but must be a list of values or a range {{low: …, high: …}}."]
    return _parse_choice(name, value, sampler)


def in_space(point: Mapping[str, Any], explore: Mapping[str, Axis]) -> bool:
    """Whether a point, given with all its settings, lies on the axes, as all do but the λ = 0 twins of sampled ones."""
    return all(axis.contains(point[name]) for name, axis in explore.items())


def meets(point: Mapping[str, Any], only: Sequence[Condition]) -> bool:
    """Whether a point, given with all its settings, meets one of the conditions; without any, every point does."""
    return not only or any(all(point[name] in values for name, values in wanted.items()) for wanted in only)


def _parse_choice(name: str, value: list[Any], sampler: str | None) -> tuple[Axis | None, list[str]]:
    if not value:
        return None, [f"{name} has an empty list; give it at least one value, or leave it out."]
    values = tuple(coerce(TrialConfig, name, item) for item in value)
    problems = [
        f"{name} has the value {item!r}, but each must be {rule}."
        for item in values
        if (rule := broken_rule(TrialConfig, name, item)) is not None
    ]
    if not problems and len(set(values)) < len(values):
        problems.append(f"{name} names a value twice in {value}; leave one out.")
    return (None if problems else Choice(values)), problems


def _parse_range(name: str, value: dict[str, Any], sampler: str | None) -> tuple[Axis | None, list[str]]:
    kind = get_type_hints(TrialConfig)[name]
    if kind not in (int, float):
        return None, [f"{name} has a range, but takes no numbers; give a list of its values."]
    if sampler == "grid":
        return None, [f"{name} has a range, but sampler grid takes lists; give a list, or another sampler."]
    problems = [
        f"{name}: " + unknown_name("key", key, ("low", "high", "log", "step"))
        for key in value
        if key not in ("low", "high", "log", "step")
    ]
    ends = {end: coerce(TrialConfig, name, value.get(end)) for end in ("low", "high")}
    problems += [
        f"{name}: {end} is {'missing' if end not in value else repr(ends[end])}, but must be {rule}."
        for end in ends
        if (rule := broken_rule(TrialConfig, name, ends[end])) is not None
    ]
    problems += [
        f"{name}: {end} is {value!r}, but a share of the image's side is no end of a range; give a list."
        for end, value in ends.items()
        if share_of_side(value) is not None
    ]
    log, step = value.get("log", False), coerce(TrialConfig, name, value.get("step"))
    if not isinstance(log, bool):
        problems.append(f"{name}: log is {log!r}, but must be true or false.")
    if problems:
        return None, problems
    low, high = ends["low"], ends["high"]
    if low >= high:
        return None, [f"{name} has an empty range: low {low:g} must be below high {high:g}."]
    if log and low <= 0:
        problems.append(f"{name}: a log range must start above 0, but low is {low:g}.")
    if step is not None and log:
        problems.append(f"{name}: step is {step!r}, but a log range has no steps; leave out one of the two.")
    elif step is not None and (isinstance(step, bool) or not isinstance(step, kind) or not 0 < step <= high - low):
        noun = "a whole number" if kind is int else "a number"
        problems.append(f"{name}: step is {step!r}, but must be {noun} above 0 and at most {high - low:g}.")
    return (None if problems else Range(low, high, log, step)), problems


def _space_from(file: YamlFile) -> SearchSpace:
    content = file.content
    if not isinstance(content, dict):
        raise UserError(f"{file.path}: a space is a mapping with the key `explore`; this file holds none.")
    problems: list[str] = []

    def say(problem: str, *place: str) -> None:
        problems.append(file.say(problem, *place))

    for key in content:
        if key not in KEYS:
            say(unknown_name("key", key, KEYS), str(key))
    sampler = content.get("sampler", "grid")
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        say(unknown_name("sampler", sampler, SAMPLERS), "sampler")
        sampler = None  # which other keys fit can't be said
    explore = {}
    for name, value in _mapping(content, "explore", say).items():
        axis, found = parse_axis(name, value, sampler)
        for problem in found:
            say(problem, "explore", name)
        if axis is not None:
            explore[name] = axis
    settings = {}
    for name, value in _mapping(content, "settings", say).items():
        found_in = setting_class(name)
        settings[name] = value if found_in is None else coerce(found_in, name, value)
        for problem in setting_problems(name, settings[name]):
            say(problem, "settings", name)
        if name in explore:
            say(f"{name} is both explored and set; leave one out.", "settings", name)
    if not explore and not problems:
        say("`explore` names no setting; a space explores at least one.", "explore")
    trials = content.get("trials")
    wrong_trials = None if sampler is None else trials_problem(trials, sampler)
    if wrong_trials is not None:
        say(wrong_trials, "trials")
    only, found = _parse_only(content.get("only"), explore, sampler)
    for problem in found:
        say(problem, "only")
    protocol = content.get("protocol", "validation")
    if protocol not in get_args(Protocol):
        say(unknown_name("protocol", protocol, get_args(Protocol)), "protocol")
    confirm, wrong = parse_confirm(content.get("confirm"), content.get("controls"))
    for key, problem in wrong:
        say(problem, key)
    if protocol == "paper":
        if (content.get("confirm") is not None and confirm.seeds) or content.get("controls"):
            say("the protocol paper confirms nothing; leave `confirm` and `controls` out.", "protocol")
        confirm = NOTHING_ANEW
    choose_by = content.get("choose_by", criteria.DEFAULT)
    if not isinstance(choose_by, str) or choose_by not in criteria.CRITERIA:
        say(unknown_name("metric of `choose_by`", choose_by, criteria.CRITERIA), "choose_by")
    elif (wrong_choice := choice_problem(choose_by, protocol)) is not None:
        say(wrong_choice, "choose_by")
    scheduler, found = parse_early_stop(content.get("scheduler"))
    unfit = scheduler_problem(scheduler, explore)
    for problem in [*found, *([] if unfit is None else [unfit])]:
        say(problem, "scheduler")
    raise_all(problems)
    # Half a character, as YAML's "\\ud800" or a file's name may hold, goes into no file.
    name, description = (
        text.encode("utf-8", "replace").decode("utf-8")
        for text in (file.path.stem, str(content.get("description", "")))
    )
    return SearchSpace(
        name, description, sampler, explore, settings, trials, only, protocol, confirm, scheduler, choose_by
    )


def _parse_only(
    value: Any, explore: Mapping[str, Axis], sampler: str | None
) -> tuple[tuple[Condition, ...], list[str]]:
    """The conditions of `only`, and what is wrong with them, one sentence a problem."""
    if value is None:
        return (), []
    if sampler is not None and sampler != "grid":
        return (), [f"only picks points of a grid, but the sampler is {sampler}; leave it out."]
    if not isinstance(value, list) or not value or not all(isinstance(wanted, dict) and wanted for wanted in value):
        return (), ["only must be a list of mappings, as in [{backbone: vgg16}, {lambda_: 0}]."]
    problems: list[str] = []
    conditions = []
    for wanted in value:
        condition = {}
        for name, given in wanted.items():
            axis = explore.get(name)
            values = tuple(coerce(TrialConfig, name, item) for item in (given if isinstance(given, list) else [given]))
            if axis is None:
                problems.append(f"only names {name}, which is not explored; name one of {', '.join(explore)}.")
            elif isinstance(axis, Choice) and (foreign := [item for item in values if item not in axis.values]):
                problems.append(f"only gives {name} the value {foreign[0]!r}, which is not on its list.")
            condition[name] = values
        conditions.append(condition)
    return tuple(conditions), problems


def scheduler_problem(scheduler: EarlyStop, explore: Mapping[str, Axis]) -> str | None:
    """Why trials of a space can't be stopped early so, as a sentence; None if they can."""
    if scheduler.stops and "seed" in explore:
        return (
            f"scheduler {scheduler.kind} can't go with seed as an axis: of a point's seeds it would leave the lucky "
            "ones; take the axis out, as what is chosen is trained anew with fresh seeds."
        )
    return None


def choice_problem(choose_by: str, protocol: str) -> str | None:
    """Why nothing can be chosen so, as a sentence; None if it can."""
    if protocol == "paper" and choose_by != criteria.DEFAULT:
        return (
            f"choose_by is {choose_by}, but the protocol paper chooses by accuracy on test images; choose by accuracy, "
            "or under the protocol validation."
        )
    return None


def trials_problem(trials: Any, sampler: str) -> str | None:
    """What is wrong with a number of trials for a sampler, as a sentence; None if nothing is."""
    if not SAMPLERS[sampler].draws:
        others = f"{', '.join(drawing()[:-1])} and {drawing()[-1]}"
        return None if trials is None else f"trials is for the samplers {others}; a grid runs each point."
    most = SAMPLERS[sampler].most_trials
    if isinstance(trials, int) and not isinstance(trials, bool) and 1 <= trials <= most:
        return None
    found = "missing" if trials is None else repr(trials)
    return f"trials is {found}, but sampler {sampler} needs a whole number from 1 to {most}."


def setting_class(name: str) -> type[DatasetConfig] | type[TrialConfig] | None:
    """Which of the two descriptions a setting belongs to; None if there is no such setting."""
    if name in settings_of(TrialConfig):
        return TrialConfig
    return DatasetConfig if name in settings_of(DatasetConfig) and name not in ("dataset", "data") else None


def setting_problems(name: str, value: Any) -> list[str]:
    """What is wrong with giving `name` the value `value`, one sentence each."""
    config = setting_class(name)
    if config is None:
        known = [*settings_of(TrialConfig), *settings_of(DatasetConfig)]
        return [unknown_name("setting", name, [other for other in known if other not in ("dataset", "data")])]
    rule = broken_rule(config, name, value)
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return [] if rule is None else [f"{name} is {text}, but must be {rule}."]


def _mapping(content: Mapping[str, Any], key: str, say: Any) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        say(f"`{key}` must be a mapping of settings.", key)
        return {}
    return value
