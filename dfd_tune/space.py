"""Search spaces: a YAML file's content, read and checked, and the grid that it spans.

    description: one line
    sampler: grid | random | quasi_random | tpe | gp    # samplers.py
    trials: 30                                          # of all but grid
    explore:
      backbone: [resnet18, vgg16]                       # axes.py
      lambda_: {low: 0.05, high: 20, log: true}
    only: [{backbone: vgg16}, {lambda_: 0.5}]           # of a grid, the points that agree with one of these
    dataset: [cifar10, svhn]                            # where the command names none: a search of each
    protocol: validation | paper                        # by which images λ is chosen
    choose_by: accuracy | balanced_accuracy | macro_f1 | loss   # and by which metric of them: criteria.py
    confirm: {seeds: 5, cells: best, replicate: student}   # what is trained anew once all is chosen: confirm.py
    objectives: [accuracy, parameters]                  # what is searched for: objectives.py
    controls: [half_longer]                             # and what it is held against beside plain training
    scheduler: none | asha | median                     # which trials are stopped early: schedulers.py
    settings: {epochs: 30}                              # what all trials share, over the dataset's recipe

Not for: what a space means on a dataset (plan.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dfd_tune import criteria
from dfd_tune.axes import Axis, Choice, Condition, parse_axis
from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.confirm import DEFAULT, NOTHING_ANEW, Confirm, parse_confirm
from dfd_tune.errors import UserError, raise_all, unknown_name
from dfd_tune.objectives import ALONE, parse_objectives
from dfd_tune.rules import broken_rule, coerce, settings_of
from dfd_tune.samplers import SAMPLERS, drawing
from dfd_tune.schedulers import NEVER, EarlyStop, parse_early_stop
from dfd_tune.yaml_file import YamlFile, read_yaml

Protocol = Literal["validation", "paper"]
Say = Callable[..., None]
"""Takes a problem, and the keys under which it stands."""
KEYS = (
    *("description", "sampler", "trials", "explore", "only", "protocol"),
    *("choose_by", "confirm", "controls", "dataset", "objectives", "scheduler", "settings"),
)
"""Of a space's file."""


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
    objectives: tuple[str, ...] = ALONE
    """What is searched for: accuracy, and perhaps a cost."""
    datasets: tuple[str, ...] = ()
    """What it is searched on where a launch names none."""
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
    explore = _explored(content, sampler, say)
    settings = _settings(content, explore, say)
    if not explore and not problems:
        say("`explore` names no setting; a space explores at least one.", "explore")
    trials = content.get("trials")
    wrong_trials = None if sampler is None else trials_problem(trials, sampler)
    if wrong_trials is not None:
        say(wrong_trials, "trials")
    only, found = _parse_only(content.get("only"), explore, sampler)
    for problem in found:
        say(problem, "only")
    datasets = _datasets(content, say)
    aims = _aims(content, explore, say)
    raise_all(problems)
    # Half a character, as YAML's "\\ud800" or a file's name may hold, goes into no file.
    name, description = (
        text.encode("utf-8", "replace").decode("utf-8")
        for text in (file.path.stem, str(content.get("description", "")))
    )
    return SearchSpace(name, description, str(sampler), explore, settings, trials, only=only, datasets=datasets, **aims)


def _explored(content: Mapping[str, Any], sampler: str | None, say: Say) -> dict[str, Axis]:
    """The axes of `explore`."""
    explore: dict[str, Axis] = {}
    for name, value in _mapping(content, "explore", say).items():
        axis, found = parse_axis(name, value, sampler, explore)
        for problem in found:
            say(problem, "explore", name)
        if axis is not None:
            explore[name] = axis
    return explore


def _settings(content: Mapping[str, Any], explore: Mapping[str, Axis], say: Say) -> dict[str, Any]:
    """What all trials share; where an axis has a condition, its value elsewhere."""
    settings = {}
    for name, value in _mapping(content, "settings", say).items():
        found_in = setting_class(name)
        settings[name] = value if found_in is None else coerce(found_in, name, value)
        for problem in setting_problems(name, settings[name]):
            say(problem, "settings", name)
        if name in explore and not explore[name].when:
            say(f"{name} is both explored and set; leave one out.", "settings", name)
    return settings


def _datasets(content: Mapping[str, Any], say: Say) -> tuple[str, ...]:
    """The names under `dataset`, one or a list; whether there are such datasets is found out at the launch."""
    given = content.get("dataset", [])
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        say(f"dataset is {given!r}, but must be a name or a list of names.", "dataset")
        return ()
    return tuple(names)


def _aims(content: Mapping[str, Any], explore: Mapping[str, Axis], say: Say) -> dict[str, Any]:
    """How the search goes about it, by the fields of `SearchSpace`: what it is after, what is chosen, confirmed and
    stopped, and by which images."""
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
    objectives, found = parse_objectives(content.get("objectives"))
    for problem in found:
        say(problem, "objectives")
    choose_by = content.get("choose_by", criteria.DEFAULT)
    if not isinstance(choose_by, str) or choose_by not in criteria.CRITERIA:
        say(unknown_name("metric of `choose_by`", choose_by, criteria.CRITERIA), "choose_by")
    elif (wrong_choice := choice_problem(choose_by, protocol)) is not None:
        say(wrong_choice, "choose_by")
    scheduler, found = parse_early_stop(content.get("scheduler"))
    unfit = scheduler_problem(scheduler, explore, objectives)
    for problem in [*found, *([] if unfit is None else [unfit])]:
        say(problem, "scheduler")
    return {
        "protocol": protocol,
        "confirm": confirm,
        "scheduler": scheduler,
        "objectives": objectives,
        "choose_by": choose_by,
    }


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


def scheduler_problem(
    scheduler: EarlyStop, explore: Mapping[str, Axis], objectives: Sequence[str] = ALONE
) -> str | None:
    """Why trials of a space can't be stopped early so, as a sentence; None if they can."""
    if scheduler.stops and len(objectives) > 1:
        return (
            f"scheduler {scheduler.kind} can't go with two objectives: by accuracy alone it would end the small "
            "students; leave one of the two out."
        )
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


def _mapping(content: Mapping[str, Any], key: str, say: Say) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        say(f"`{key}` must be a mapping of settings.", key)
        return {}
    return value
