"""Whether a launch goes on with the search of its name: as it was, or in a space that holds all of its own.

Not for: what is taken over of it (launch.py, points.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from dfd_tune.axes import Choice, axes_from_json
from dfd_tune.errors import UserError
from dfd_tune.record import SearchRecord


def refuse_changes(known: SearchRecord, asked: SearchRecord, *, extend: bool = False) -> None:
    """A search is what its name says: a changed space, setting or dataset needs a name of its own.

    Only the number of sampled trials may change, and which students may be chosen; where it is to be extended, its
    axes too, so long as all points of before lie on them.

    Raises:
        UserError: it is another search; everything that differs is named.
    """
    differs = dict(_changes(known, asked))
    unheld = set(_unheld(known, asked))
    axes = {"space", *known.explored, *asked.explored} - unheld
    extends = not unheld and differs.keys() & (known.explored.keys() | asked.explored.keys())
    if extend:
        differs = {name: change for name, change in differs.items() if name not in axes}
    if not differs:
        return
    changes = "; ".join(f"{name} was {was}, now {now}" for name, (was, now) in differs.items())
    way = "give this one another --name, or launch that one as it was"
    if extends and not extend and differs.keys() <= axes:
        way += ", or add these points to it with --extend"
    elif extend and unheld & differs.keys():
        way = f"--extend keeps all points of before, but {', '.join(sorted(unheld & differs.keys()))} would lose some"
    raise UserError(f"The search '{known.search}' exists and is another one ({changes}); {way}.")


def _changes(known: SearchRecord, asked: SearchRecord) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """What differs, each with its value before and now."""
    before, after = _said(known), _said(asked)
    for name in dict.fromkeys([*known.explored, *asked.explored]):
        before[name], after[name] = (record.explored.get(name, record.settings.get(name)) for record in (known, asked))
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield name, (before.get(name), after.get(name))


def _said(record: SearchRecord) -> dict[str, Any]:
    """All that makes a search the one it is, but for its axes."""
    return (
        {"space": record.space, "sampler": record.sampler, "--seed": record.seed, **record.settings}
        | {"dataset": record.dataset["dataset"], "protocol": record.protocol, "objectives": record.objectives}
        | {"choose_by": record.choose_by}
        | {f"confirm: {name}": value for name, value in asdict(record.confirm).items()}
        | {"images": record.dataset["digest"]}
    )


def _unheld(known: SearchRecord, asked: SearchRecord) -> Iterator[str]:
    """The settings by which points of before would not lie in the space that is asked for."""
    before, after = axes_from_json(known.explored), axes_from_json(asked.explored)
    for name, axis in after.items():
        was = before.get(name) or Choice((known.settings[name],), axis.when)
        if not axis.covers(was):
            yield name
    yield from before.keys() - after.keys()
