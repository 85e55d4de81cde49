"""What a request resolves to, as rows for a person: each setting, its value, and where that comes from.

Not for: resolving it (settings.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dfd_tune import criteria
from dfd_tune.axes import Axis, Choice, Range
from dfd_tune.config import TrialConfig
from dfd_tune.confirm import DEFAULT
from dfd_tune.objectives import ALONE, MOST_ACCURATE
from dfd_tune.rules import settings_of
from dfd_tune.schedulers import NEVER
from dfd_tune.settings import Request, dataset_settings
from dfd_tune.space import SearchSpace


def describe(request: Request, *, dataset_named: bool = True) -> list[tuple[str, str, str]]:
    """Rows (setting, value, origin) of everything that a request resolves to, for `--show-config`.

    Args:
        request: as resolved.
        dataset_named: whether `--dataset` was given.
    """
    data = request.dataset.data
    rows = [
        ("dataset", request.dataset.dataset, "--dataset" if dataset_named else _origin_of_dataset(request.space)),
        ("data", data or "-", "--data" if data else "default"),
    ]
    chosen_by = "--protocol" if request.protocol != request.space.protocol else f"space {request.space.name}"
    rows.append(("protocol", request.protocol, "default" if request.protocol == "validation" else chosen_by))
    criterion, of_space = request.choose_by, request.space.choose_by
    chosen_by = "--choose-by" if criterion != of_space else f"space {request.space.name}"
    origin = "default" if criterion == of_space == criteria.DEFAULT else chosen_by
    rows.append(("choose_by", criterion, origin))
    stopping, theirs = request.scheduler, request.space.scheduler
    of_space = "default" if theirs == NEVER else f"space {request.space.name}"
    origin = of_space if stopping == theirs else "--scheduler"
    rows.append(("scheduler", stopping.kind, origin))
    of_space = "default" if request.objectives == ALONE else f"space {request.space.name}"
    rows.append(("objectives", ", ".join(request.objectives), of_space))
    chosen = request.choose.as_text()
    rows.append(("choose", chosen, "default" if request.choose == MOST_ACCURATE else "--choose"))
    for name, value in dataclasses.asdict(request.confirm).items():
        text = ", ".join(value) or "none" if isinstance(value, tuple) else _text(value)
        if value != getattr(request.space.confirm, name):
            origin = "command line"
        else:
            origin = "default" if value == getattr(DEFAULT, name) else f"space {request.space.name}"
        rows.append((f"confirm: {name}", text, origin))
    for name in dataset_settings():
        value = getattr(request.dataset, name)
        unset = "as they are" if name == "image_size" else "all"
        rows.append((name, unset if value is None else _text(value), request.origins.get(name, "default")))
    for name in settings_of(TrialConfig):
        axis = request.explore.get(name)
        value = _axis_text(axis) if axis is not None else _text(request.settings[name])
        rows.append((name, value, request.origins.get(name, "default")))
    return rows


def _origin_of_dataset(space: SearchSpace) -> str:
    return f"space {space.name}" if space.datasets else "default"


def _axis_text(axis: Axis) -> str:
    clauses = [f"{name} is {' or '.join(map(_text, values))}" for name, values in axis.when]
    when = f" where {' and '.join(clauses)}" if clauses else ""
    if isinstance(axis, Choice):
        return "{" + ", ".join(_text(value) for value in axis.values) + "}" + when
    assert isinstance(axis, Range)
    kind = " log" if axis.log else f" step {axis.step:g}" if axis.step else ""
    return f"[{axis.low:g} … {axis.high:g}]{kind}{when}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
