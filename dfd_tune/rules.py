"""How a setting is declared, and how a value is held against its declaration: kind, range, allowed words.

A setting is a dataclass field made with `setting`; checks, `--set`, `--show-config` and the documentation are all
read off such fields. Not for: which settings there are (config.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from dfd_tune.errors import nearest, unknown_name

Config = type[Any]
"""A dataclass whose fields are settings."""

OWN = "own"
"""Of a setting that joins names: the one that goes without saying."""


def setting(
    help_: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    share: bool = False,
    joined: Collection[str] = (),
    words: Mapping[str, Any] | None = None,
    others: tuple[str, Callable[[str], bool]] | None = None,
    **default: Any,
) -> Any:
    """A dataclass field with its allowed values.

    Args:
        help_: what the setting means, for people.
        low: the least value; likewise `high`, and `above`, which is itself not allowed.
        share: whether text such as "1/4", a share of the image's side, stands for a whole number.
        joined: names of which one or several, joined with "+", or "own" are allowed.
        words: a table whose keys are the words of which one is allowed, as they are when a value is checked.
        others: of `joined` and `words`, which names are allowed beside these: their form in words, and whether a name
            has it.
        default: `default=`, if it has one.
    """
    limits = {"help": help_, "low": low, "high": high, "above": above, "share": share, "joined": joined}
    return field(metadata=limits | {"words": words, "others": others}, **default)


def like(other: Any, help_: str, **default: Any) -> Any:
    """A dataclass field with the allowed values of another one.

    Args:
        other: a field made with `setting`.
        help_: what the setting means, for people.
        default: `default=`, if it has one.
    """
    return field(metadata=other.metadata | {"help": help_}, **default)


def settings_of(config: Config) -> dict[str, dataclasses.Field[Any]]:
    """The settings that a configuration class declares, by name."""
    return {declared.name: declared for declared in dataclasses.fields(config)}


def kinds_of(config: Config) -> dict[str, Any]:
    """The settings' types by name."""
    known: Any = _type_hints  # mypy takes a class for unhashable
    return dict(known(config))


@lru_cache
def _declared(config: Any) -> dict[str, tuple[Mapping[str, Any], Any, tuple[str, ...], bool]]:
    """By setting: its limits, its type but for None, the words it is one of, and whether it may be None.

    Kept, as every trial has all of its settings checked.
    """
    found: dict[str, tuple[Mapping[str, Any], Any, tuple[str, ...], bool]] = {}
    for name, declared in settings_of(config).items():
        kind = kinds_of(config)[name]
        options = get_args(kind)
        may_be_none = type(None) in options
        if may_be_none:
            kind, options = next(option for option in options if option is not type(None)), ()
        found[name] = (declared.metadata, kind, options, may_be_none)
    return found


@lru_cache
def _type_hints(config: Any) -> dict[str, Any]:
    # Kept: working them out takes a millisecond, and a grid asks often.
    return get_type_hints(config)


def problems_in(config: Config, values: Mapping[str, Any], where: str = "") -> list[str]:
    """Every problem in `values`, one sentence each: unknown names, wrong types, values out of range.

    Args:
        config: the class whose settings are meant.
        values: some or all of its settings by name.
        where: where the values come from ("--set", a file's name), put before each sentence.
    """
    declared: Any = _declared
    known = declared(config)
    prefix = f"{where}: " if where else ""
    problems = []
    for name, value in values.items():
        if name not in known:
            problems.append(prefix + unknown_name("setting", name, known))
        elif (rule := broken_rule(config, name, value)) is not None:
            problems.append(f"{prefix}{name} is {value!r}, but must be {rule}.")
    return problems


def coerce(config: Config, name: str, value: Any) -> Any:
    """`value` as the setting `name` means it: YAML reads 1e-3 as text, 2 as an integer and `none` as a word.

    What can't be meant is returned as it is, for `broken_rule` to refuse.
    """
    if name not in settings_of(config):
        return value
    kind = kinds_of(config)[name]
    if value == "none" and type(None) in get_args(kind):
        return None
    if isinstance(value, list) and takes_names(config, name) and all(isinstance(item, str) for item in value):
        return "+".join(value)
    if kind is not float:
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    try:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    except OverflowError:
        return value


def takes_names(config: Config, name: str) -> bool:
    """Whether a value of the setting may be written as a list of names."""
    return name in settings_of(config) and bool(settings_of(config)[name].metadata["joined"])


def share_of_side(value: Any) -> int | None:
    """N for the text "1/N", N from 2 to 64: that share of the image's side. None for anything else."""
    if not isinstance(value, str):
        return None
    one, _, parts = value.replace(" ", "").partition("/")
    return int(parts) if one == "1" and parts.isdecimal() and len(parts) <= 2 and 2 <= int(parts) <= 64 else None


def broken_rule(config: Config, name: str, value: Any) -> str | None:
    """The rule that `value` breaks for the setting `name`, in words; None if it is allowed."""
    known: Any = _declared
    limits, kind, options, may_be_none = known(config)[name]
    if may_be_none and value is None:
        return None
    options = options if limits["words"] is None else tuple(limits["words"])
    form, has_form = limits["others"] or ("", lambda name: False)
    if options:
        if isinstance(value, str) and (value in options or has_form(value)):
            return None
        close = nearest(value, options)
        return f"one of {', '.join(options)}{form and f', or {form}'}" + (f" (did you mean {close}?)" if close else "")
    if limits["joined"]:
        return _broken_by_names(value, [*limits["joined"]], form, has_form)
    if limits["share"] and share_of_side(value) is not None:
        return None
    if _is_kind(kind, value) and _in_range(value, limits):
        return None
    return _rule_in_words(kind, limits)


def _broken_by_names(value: Any, known: Sequence[str], form: str, has_form: Callable[[str], bool]) -> str | None:
    names = value.split("+") if isinstance(value, str) else []
    fit = all(name in known or has_form(name) for name in names)
    if value == OWN or (names and fit and len(set(names)) == len(names)):
        return None
    return f"own, or one or several of {', '.join([*known, *([form] if form else [])])}, as a list or joined with +"


def _is_kind(kind: type, value: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, kind)


def _in_range(value: Any, limits: Mapping[str, Any]) -> bool:
    low, high, above = limits["low"], limits["high"], limits["above"]
    return (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)


def _rule_in_words(kind: type, limits: Mapping[str, Any]) -> str:
    noun = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    bounds: Iterable[str] = (
        f"{word} {limits[name]:.10g}"
        for name, word in (("above", "above"), ("low", "at least"), ("high", "at most"))
        if limits[name] is not None
    )
    text = " ".join([noun, " and ".join(bounds)]).strip()
    return f"{text}, or a share of the image's side, as 1/4" if limits["share"] else text
