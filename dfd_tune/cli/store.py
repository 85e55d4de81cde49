"""The commands about a store as such: what lies in it, whether it is sound, and what may go.

Not for: what searches found (searches.py), nor for what is done to a store (upkeep/).
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from dfd_tune.cli.group import STORE_OPTION, in_store
from dfd_tune.errors import UserError, cause_of

if TYPE_CHECKING:
    from dfd_tune.liveness import State
    from dfd_tune.store import Store
    from dfd_tune.upkeep.inventory import Inventory
    from dfd_tune.upkeep.useless import Useless

SHOWN = 20
"""So many of a kind are listed one by one."""
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

YES_OPTION = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.group()
def store() -> None:
    """Look after a store: what lies in it, whether it is sound, and what nobody needs."""


@store.command("ls")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@STORE_OPTION
def ls_command(form: str, store_path: str) -> None:
    """Show the searches of the store, and what else lies there, with sizes."""
    from dfd_tune.report.formats import plain
    from dfd_tune.upkeep.inventory import inventory

    with _opened(store_path) as opened:
        found = inventory(opened)
    if form == "json":
        click.echo(json.dumps(_as_json(opened.location, found), indent=2, ensure_ascii=False))
        return
    if found.searches:
        rows = [[line.name, _in_a_word(line.state), str(line.trials), size(line.bytes)] for line in found.searches]
        click.echo(plain(["search", "state", "trials", "size"], rows))
    rows = [[line.kind, str(line.entries), size(line.bytes)] for line in found.kinds]
    click.echo(plain(["kind", "entries", "size"], rows) if rows else "No entries.\n", nl=False)
    click.echo(f"In all {size(found.bytes)} in {opened.location}")


@store.command("verify")
@click.option(
    "--set-aside", is_flag=True, help="Move what is damaged away, so that it is made anew where it is needed."
)
@STORE_OPTION
def verify_command(set_aside: bool, store_path: str) -> None:
    """Read everything in the store, and hold it against the digests that it was written with.

    What is damaged is named, one line each, and so are records that can't be read; the exit code is then 1. Drafts that
    killed writers left are named too. Nothing is changed without --set-aside.
    """
    from dfd_tune.store import litter_of
    from dfd_tune.upkeep.soundness import check, put_aside

    with _opened(store_path) as opened:
        faults = []
        for checked in check(opened):
            for fault in checked.faults:
                click.echo(f"{'UNREAD ' if fault.passing else 'DAMAGED'}  {fault}")
            faults += checked.faults
            if checked.entries:
                click.echo(f"{checked.kind}: {checked.entries} read, {len(checked.faults)} with faults")
        for litter in litter_of(opened):
            click.echo(f"LEFT     {'/'.join(litter.parts)}: {litter.what}, {size(litter.bytes)}")
        if not faults:
            return
        if set_aside:
            moved = sum(put_aside(opened, fault) for fault in faults)
            click.echo(f"{moved} of {len(faults)} set aside; searches that need them make them anew.")
        else:
            again = in_store("dfd-tune store verify --set-aside", store_path)
            click.echo(f"{len(faults)} with faults; to have what is damaged made anew: {again}", err=True)
    sys.exit(1)


@store.command("gc")
@YES_OPTION
@STORE_OPTION
def gc_command(yes: bool, store_path: str) -> None:
    """Remove what nobody needs, once it was shown.

    These are entries that no search refers to, students that no search needs, checkpoints of trainings that are over,
    and what killed writers left more than a day ago. What a running search may use stays.
    """
    from dfd_tune.upkeep.useless import remove, useless_in

    with _opened(store_path) as opened:
        found = useless_in(opened)
        if not found:
            click.echo(f"There is nothing in {opened.location} that nobody needs.")
            return
        _show(found)
        if not yes and not click.confirm(f"Remove all of it, {size(sum(item.bytes for item in found))}?"):
            raise UserError("Nothing was removed.")
        removed = remove(opened, found, click.echo)
        click.echo(f"Removed {len(removed)} of {len(found)}, {size(sum(item.bytes for item in removed))}.")


@store.command("rm")
@click.argument("name")
@YES_OPTION
@STORE_OPTION
def rm_command(name: str, yes: bool, store_path: str) -> None:
    """Remove the search NAME: its records, logs, report and best student.

    Its trials and networks stay, as they may serve other searches; `store gc` removes what serves none. Its pages in
    MLflow stay.
    """
    from dfd_tune.upkeep.removal import remove_search, size_of

    with _opened(store_path) as opened:
        bytes = size_of(opened, name)
        if not yes and not click.confirm(
            f"Remove the search '{name}', {size(bytes)}, its report and best student too?"
        ):
            raise UserError("Nothing was removed.")
        remove_search(opened, name)
    again = in_store("dfd-tune store gc", store_path)
    click.echo(f"Removed the search '{name}', {size(bytes)}. Its trials stay until: {again}")


@contextlib.contextmanager
def _opened(store_path: str) -> Iterator[Store]:
    """The store; one that can't be read or changed in the block is told of in a sentence."""
    from dfd_tune.store import existing_store

    opened = existing_store(store_path)
    try:
        yield opened
    except BrokenPipeError:
        raise
    except OSError as error:
        place = f" ('{error.filename}')" if error.filename else ""
        raise UserError(
            f"The store '{opened.location}' can't be read or changed: {cause_of(error)}{place}; see to that, and try "
            "again."
        ) from None


def size(bytes: float) -> str:
    """Bytes for a person, to three digits."""
    unit = 0
    while bytes >= 999.5 and unit < len(UNITS) - 1:
        bytes, unit = bytes / 1000, unit + 1
    return f"{bytes:.3g} {UNITS[unit]}"


def _in_a_word(state: State) -> str:
    if state.kind == "ended":
        return {"finished": "finished", "stopped": "stopped", "failed": "ended by an error", None: "ended"}[state.how]
    words = {"running": "RUNNING", "interrupted": "INTERRUPTED", "elsewhere": "RUNNING elsewhere", "never": "unknown"}
    return words[state.kind]


def _as_json(location: str, found: Inventory) -> dict[str, Any]:
    searches = [
        {"name": line.name, "state": line.state.as_json(), "trials": line.trials, "bytes": line.bytes}
        for line in found.searches
    ]
    kinds = [{"kind": line.kind, "entries": line.entries, "bytes": line.bytes} for line in found.kinds]
    return {"store": location, "searches": searches, "kinds": kinds, "bytes": found.bytes}


def _show(found: Iterable[Useless]) -> None:
    """List what may go, by folder and reason; of many alike the first ones."""
    from dfd_tune.report.formats import plain

    rows = []
    for (kind, why), group in groupby(sorted(found, key=_like), key=_like):
        items = list(group)
        rows += [[item.name, why, size(item.bytes)] for item in items[:SHOWN]]
        if len(items) > SHOWN:
            rest = items[SHOWN:]
            rows.append([f"{kind}: {len(rest)} more", why, size(sum(item.bytes for item in rest))])
    click.echo(plain(["what", "why", "size"], rows), nl=False)


def _like(item: Useless) -> tuple[str, str]:
    return item.parts[0], item.why


COMMANDS = (store,)
