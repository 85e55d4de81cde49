"""A search removed from its store: records, logs, report and best student; its trials stay, as they serve others.

Not for: what nobody refers to by then (useless.py), nor for its pages in MLflow.
"""

from __future__ import annotations

from dfd_tune.errors import UserError, unknown_name
from dfd_tune.liveness import at_rest, state_of
from dfd_tune.store import Store, listing


def size_of(store: Store, name: str) -> int:
    """Bytes that go with a search.

    Raises:
        UserError: there is none of that name, or it runs.
        OSError: the store can't be read just now.
    """
    if name not in (names := store.names("searches")):
        raise UserError(f"In the store '{store.location}': " + unknown_name("search", name, names))
    state = state_of(store, name)
    if state.kind == "running":
        who = "" if state.process is None else f", by {state.process}"
        raise UserError(f"The search '{name}' is being run{who}; end it with `dfd-tune stop {name}` first.")
    return sum(known.bytes for known in listing(store, "searches", name).values())


def remove_search(store: Store, name: str) -> None:
    """Remove it.

    Raises:
        UserError: it runs.
        OSError: the store can't be written.
    """
    with at_rest(store, name):
        store.discard("searches", name)
