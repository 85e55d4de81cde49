"""Axes of a search space: lists and ranges of a setting's values, some of them only under a condition.

    explore:
      method: [dfd, kd]                                                    # a list: each of these values
      lambda_: {low: 0.05, high: 20, log: true}                            # a range; `step` for steps
      temperature: {low: 1, high: 10, when: {method: kd}}                  # only where the method is kd
      hint_layer: {values: [early, middle], when: {method: [fitnets]}}     # a list under a condition

Where its condition is not met, a setting has the value that it would have, were it not explored. Not for: the other
keys of a space's file (space.py), or which point comes next (search/points.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.errors import unknown_name
from dfd_tune.rules import broken_rule, coerce, settings_of, share_of_side
from dfd_tune.samplers import drawing

Condition = Mapping[str, tuple[Any, ...]]
"""Explored setting -> the values that a point may have there."""
When = tuple[tuple[str, tuple[Any, ...]], ...]
"""A condition that can be hashed."""
ROUNDING = 1e-8
"""By so much of a step a value may miss it, as the sampler adds the steps up in floating point."""
SEARCH_WIDE = ("augment_seed", "workers", "precision", "evaluate_every")
"""Settings of a trial that are the same for all trials of a search, so that they stay comparable."""
ALWAYS = ("lambda_", "seed")
"""Axes that have no condition, as points are compared along them."""


@dataclass(frozen=True)
class Choice:
    """Each of these values.

    Raises:
        ValueError: there is none, or one is there twice.
    """

    values: tuple[Any, ...]
    when: When = ()
    """The setting is explored only where others have one of these values."""

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) < len(self.values):
            raise ValueError(f"a choice needs one or several values, all different, not {self.values!r}")

    def as_json(self) -> Any:
        """As it stands in a YAML file."""
        return {"values": list(self.values), "when": _when_as_json(self.when)} if self.when else list(self.values)

    def contains(self, value: Any) -> bool:
        """Whether `value` is one of the axis's."""
        return value in self.values

    def covers(self, other: Axis) -> bool:
        """Whether every point of another axis of the setting lies on this one."""
        return isinstance(other, Choice) and self.when == other.when and set(other.values) <= set(self.values)


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
    when: When = ()
    """The setting is explored only where others have one of these values."""

    def __post_init__(self) -> None:
        finite = math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high
        log_fits = not self.log or (self.low > 0 and self.step is None)
        if not finite or not log_fits or (self.step is not None and not 0 < self.step <= self.high - self.low):
            raise ValueError(f"no such range: {self!r}")

    def as_json(self) -> Any:
        """As it stands in a YAML file."""
        range_ = {"low": self.low, "high": self.high, "log": self.log, "step": self.step}
        return range_ | ({"when": _when_as_json(self.when)} if self.when else {})

    def contains(self, value: Any) -> bool:
        """Whether `value`, a number, is one of the axis's; on a step but for rounding."""
        if not self.low <= value <= self.high or (isinstance(self.low, int) and value != int(value)):
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isinf(steps) or abs(steps - round(steps)) < ROUNDING

    def covers(self, other: Axis) -> bool:
        """Whether every point of another axis of the setting lies on this one."""
        if self.when != other.when:
            return False
        if isinstance(other, Choice):
            return all(self.contains(value) for value in other.values)
        if not self.low <= other.low < other.high <= self.high:
            return False
        return self.step is None or (other.step == self.step and self.contains(other.low))


Axis = Choice | Range


def axis_from_json(value: Any) -> Axis:
    """The axis that `as_json` gave `value` for."""
    if isinstance(value, list):
        return Choice(tuple(value))
    parts = {**value}
    when = tuple((name, tuple(values)) for name, values in parts.pop("when", {}).items())
    return Choice(tuple(parts["values"]), when) if "values" in parts else Range(**parts, when=when)


def axes_from_json(explored: Mapping[str, Any]) -> dict[str, Axis]:
    """All axes of a search's record."""
    return {name: axis_from_json(value) for name, value in explored.items()}


def point_at(config: Mapping[str, Any], explore: Mapping[str, Axis]) -> dict[str, Any]:
    """Of a trial's settings those that are explored there: all axes but those whose condition is not met."""
    point: dict[str, Any] = {}
    for name, axis in explore.items():
        if name in config and is_explored(axis, point):
            point[name] = config[name]
    return point


def explored_at(config: Mapping[str, Any], explored: Mapping[str, Any]) -> list[str]:
    """The settings that a trial's search explored at its point, of the axes as they stand in the record."""
    return list(point_at(config, axes_from_json(explored)))


def is_explored(axis: Axis, point: Mapping[str, Any]) -> bool:
    """Whether an axis is explored at a point, of which the axes that stand before it are known."""
    return all(name in point and point[name] in values for name, values in axis.when)


def grid_points(explore: Mapping[str, Axis]) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' values, the last axis running fastest. All axes must be choices."""
    yield from _grid_from({}, list(explore.items()))


def standing_points(explore: Mapping[str, Axis]) -> Iterator[dict[str, Any]]:
    """A point for each combination of the listed values; a range is stood for by its upper end."""
    ends = {name: axis.high for name, axis in explore.items() if isinstance(axis, Range)}
    for point in grid_points({name: axis for name, axis in explore.items() if isinstance(axis, Choice)}):
        yield point | ends


def _grid_from(point: dict[str, Any], axes: Sequence[tuple[str, Axis]]) -> Iterator[dict[str, Any]]:
    if not axes:
        yield point
        return
    (name, axis), *rest = axes
    assert isinstance(axis, Choice), "a grid has no ranges"
    if not is_explored(axis, point):
        yield from _grid_from(point, rest)
        return
    for value in axis.values:
        yield from _grid_from(point | {name: value}, rest)


def in_space(config: Mapping[str, Any], explore: Mapping[str, Axis]) -> bool:
    """Whether a trial, given with all its settings, lies on the axes, as all do but the λ = 0 twins of sampled ones."""
    return all(explore[name].contains(value) for name, value in point_at(config, explore).items())


def meets(point: Mapping[str, Any], only: Sequence[Condition]) -> bool:
    """Whether a point, given with all its settings, meets one of the conditions; without any, every point does."""
    return not only or any(all(point[name] in values for name, values in wanted.items()) for wanted in only)


def parse_axis(
    name: str, value: Any, sampler: str | None, before: Mapping[str, Axis] | None = None
) -> tuple[Axis | None, list[str]]:
    """The axis that a YAML value describes, or None and what is wrong with it, one sentence a problem.

    Args:
        name: the setting.
        value: a list, or a mapping: of a range, or of a list with a condition.
        sampler: the space's; None where it is not known.
        before: the axes that stand before it, which its condition may name.
    """
    if name == "dataset":
        return None, ["dataset is no axis: beside `explore`, `dataset: [cifar10, svhn]` makes a search of each."]
    if name in settings_of(DatasetConfig) or name in SEARCH_WIDE:
        return None, [f"{name} can't be explored: all trials of a search share it; put it under `settings`."]
    if name not in settings_of(TrialConfig):
        return None, [unknown_name("setting", name, settings_of(TrialConfig))]
    if name == "seed" and sampler in drawing():
        return None, [f"seed can't be explored with sampler {sampler}: a lucky seed is no setting; use a grid."]
    if not isinstance(value, dict):
        if not isinstance(value, list):
            return None, [f"{name} is {value!r}, but must be a list of values or a range {{low: …, high: …}}."]
        return _parse_choice(name, value)
    when, problems = _parse_when(name, value["when"], before or {}) if "when" in value else ((), [])
    rest = {key: item for key, item in value.items() if key != "when"}
    if "values" in rest:
        axis, found = _parse_listed(name, rest)
    else:
        axis, found = _parse_range(name, rest, sampler)
    if axis is None or problems:
        return None, [*problems, *found]
    return (Choice(axis.values, when) if isinstance(axis, Choice) else _under(axis, when)), []


def _under(axis: Range, when: When) -> Range:
    return Range(axis.low, axis.high, axis.log, axis.step, when)


def _parse_when(name: str, value: Any, before: Mapping[str, Axis]) -> tuple[When, list[str]]:
    """An axis's condition, and what is wrong with it."""
    if name in ALWAYS:
        return (), [f"{name} has a condition, but points are compared along it; leave `when` out."]
    if not isinstance(value, dict) or not value:
        return (), [f"{name}: when is {value!r}, but must be a mapping, as in {{method: kd}}."]
    problems: list[str] = []
    conditions: list[tuple[str, tuple[Any, ...]]] = []
    for other, given in value.items():
        axis = before.get(other)
        if not isinstance(axis, Choice):
            problems.append(f"{name}: when names {other}, but must name a list that is explored and stands before it.")
            continue
        values = tuple(coerce(TrialConfig, other, item) for item in (given if isinstance(given, list) else [given]))
        foreign = [item for item in values if item not in axis.values]
        if foreign or not values:
            problems.append(f"{name}: when gives {other} the value {given!r}, which is not on its list.")
        conditions.append((other, values))
    return tuple(conditions), problems


def _when_as_json(when: When) -> dict[str, Any]:
    return {name: list(values) for name, values in when}


def _parse_listed(name: str, value: Mapping[str, Any]) -> tuple[Axis | None, list[str]]:
    """A list that stands in a mapping, as beside a condition."""
    problems = [f"{name}: " + unknown_name("key", key, ("values", "when")) for key in value if key != "values"]
    if not isinstance(value["values"], list):
        problems.append(f"{name}: values is {value['values']!r}, but must be a list.")
    if problems:
        return None, problems
    return _parse_choice(name, value["values"])


def _parse_choice(name: str, value: list[Any]) -> tuple[Axis | None, list[str]]:
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


def _parse_range(name: str, value: dict[str, Any], sampler: str | None) -> tuple[Range | None, list[str]]:
    kind = get_type_hints(TrialConfig)[name]
    if kind not in (int, float):
        return None, [f"{name} has a range, but takes no numbers; give a list of its values."]
    if sampler == "grid":
        return None, [f"{name} has a range, but sampler grid takes lists; give a list, or another sampler."]
    keys = ("low", "high", "log", "step", "values", "when")
    problems = [f"{name}: " + unknown_name("key", key, keys) for key in value if key not in keys]
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
