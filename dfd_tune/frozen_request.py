"""A request as JSON, from which it comes back as it was: of equal values, of the same kinds, in the same order.

Not for: making one from what a person gives (settings.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dfd_tune.axes import Condition, axes_from_json
from dfd_tune.config import DatasetConfig
from dfd_tune.confirm import confirm_as_json, confirm_from_json
from dfd_tune.errors import UserError
from dfd_tune.objectives import choose_from
from dfd_tune.schedulers import EarlyStop
from dfd_tune.settings import Request
from dfd_tune.space import SearchSpace


def request_as_json(request: Request) -> dict[str, Any]:
    """The request as a JSON object, from which `request_from_json` makes an equal one."""
    return {
        "space": _space_as_json(request.space),
        "dataset": dataclasses.asdict(request.dataset),
        "explore": {name: axis.as_json() for name, axis in request.explore.items()},
        "settings": dict(request.settings),
        "origins": dict(request.origins),
        "trials": request.trials,
        "seed": request.seed,
        "protocol": request.protocol,
        "only": [{name: list(values) for name, values in wanted.items()} for wanted in request.only],
        "confirm": confirm_as_json(request.confirm),
        "scheduler": request.scheduler.as_json(),
        "choose": request.choose.as_text(),
        "choose_by": request.choose_by,
    }


def request_from_json(value: Mapping[str, Any], *, search: str) -> Request:
    """The request that `request_as_json` gave `value` for: of equal values, of the same kinds, in the same order.

    Args:
        value: the JSON object.
        search: whose request it is, for the message.

    Raises:
        UserError: it is none of this version's.
    """
    try:
        parts = {
            "space": _space_from_json(value["space"]),
            "dataset": DatasetConfig(**value["dataset"]),
            "explore": axes_from_json(value["explore"]),
            "only": tuple(_condition_from_json(wanted) for wanted in value["only"]),
            "confirm": confirm_from_json(value["confirm"]),
            "scheduler": EarlyStop(**value["scheduler"]),
            "choose": choose_from(value["choose"]),
        }
        return Request(**{**value, **parts})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"The record of the search '{search}' holds no request that this version of dfd-tune can read; go on with "
            "the `dfd-tune launch` that began it."
        ) from None


def _space_as_json(space: SearchSpace) -> dict[str, Any]:
    """The space as a JSON object, from which `_space_from_json` makes an equal one."""
    return {
        "name": space.name,
        "description": space.description,
        "sampler": space.sampler,
        "explore": {name: axis.as_json() for name, axis in space.explore.items()},
        "settings": dict(space.settings),
        "trials": space.trials,
        "only": [{name: list(values) for name, values in wanted.items()} for wanted in space.only],
        "protocol": space.protocol,
        "confirm": confirm_as_json(space.confirm),
        "scheduler": space.scheduler.as_json(),
        "objectives": list(space.objectives),
        "datasets": list(space.datasets),
        "choose_by": space.choose_by,
    }


def _space_from_json(value: Mapping[str, Any]) -> SearchSpace:
    """The space that `_space_as_json` gave `value` for."""
    parts = {
        "explore": axes_from_json(value["explore"]),
        "only": tuple(_condition_from_json(wanted) for wanted in value["only"]),
        "confirm": confirm_from_json(value["confirm"]),
        "scheduler": EarlyStop(**value["scheduler"]),
        "objectives": tuple(value["objectives"]),
        "datasets": tuple(value["datasets"]),
    }
    return SearchSpace(**{**value, **parts})


def _condition_from_json(value: Mapping[str, Any]) -> Condition:
    """A condition of `only` whose values stand in lists, as JSON has no tuples."""
    return {name: tuple(values) for name, values in value.items()}
