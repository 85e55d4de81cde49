"""Whose experiment, and whose registered model, a name in MLflow is.

Several stores may hold searches of one name and share a server. What a store makes there carries its identity; where
a name is taken by another store, or by anybody else, it makes its own under a longer name, and finds it by the identity
ever after, also if somebody has renamed it. A search that was copied to another store keeps the identity of the one
that it was planned in. Not for: what is in an experiment (runs.py) or a model (models.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from dfd_tune.record import SearchRecord
from dfd_tune.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

STORE_TAG = "dfd.store"
SEARCH_TAG = "dfd.search"
NAME_TAG = "dfd.name"
"""The name that a registered model was to have."""


def home_of(search: SearchRecord, store: Store) -> str:
    """The identity by which a store's search is told from others of its name."""
    return search.home or store.identity()


def experiment_name(search: SearchRecord) -> str:
    """What a search's experiment is called: as the search, unless several of one launch share one."""
    return search.experiment or search.search


def find_experiment(client: MlflowClient, search: str, home: str) -> Experiment | None:
    """The experiment of a search; None if there is none. It may be a deleted one, if there is no other.

    Args:
        client: a connected client.
        search: the experiment's name (`experiment_name`).
        home: identity of the store that it was planned in.
    """
    from mlflow.entities import ViewType

    found = client.search_experiments(
        view_type=ViewType.ALL,
        filter_string=f"tags.`{STORE_TAG}` = '{home}' AND tags.`{SEARCH_TAG}` = '{search}'",
    )
    return min(found, key=lambda one: (one.lifecycle_stage != "active", int(one.experiment_id)), default=None)


def experiment_of(
    client: MlflowClient, search: str, home: str, store: Store, artifacts: str | None, tags: Mapping[str, str]
) -> str:
    """The id of a search's experiment, which is made if there is none. One that was deleted comes back, as the search
    did.

    Args:
        client: a connected client.
        search: the experiment's name (`experiment_name`).
        home: identity of the store that it was planned in.
        store: the store that holds it.
        artifacts: URI of the folder for artifacts; None leaves it to the server.
        tags: of an experiment that is made.
    """
    found = find_experiment(client, search, home)
    if found is None:
        found = _make_experiment(client, search, home, store, artifacts, tags)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _make_experiment(
    client: MlflowClient, search: str, home: str, store: Store, artifacts: str | None, tags: Mapping[str, str]
) -> Experiment:
    from mlflow.exceptions import MlflowException

    for name in (search, f"{search} ({store.root.name} {home[:8]})", f"{search} ({home})"):
        place = None if artifacts is None else f"{artifacts}/{quote(name)}"
        try:
            made = client.create_experiment(name, place, {STORE_TAG: home, SEARCH_TAG: search, **tags})
            return client.get_experiment(made)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Whose it is: ours, if another process of this store was quicker, or the answer of an earlier call was lost.
        found = find_experiment(client, search, home)
        if found is not None:
            return found
    raise AssertionError(f"three names of '{search}' are taken, one of which holds this store's identity")


def model_name(client: MlflowClient, wanted: str, home: str) -> str:
    """The name under which a store's models that should be called `wanted` are registered. It is made if need be."""
    from mlflow.exceptions import MlflowException

    for name in (wanted, f"{wanted}-{home[:8]}", f"{wanted}-{home}"):
        ours = f"tags.`{STORE_TAG}` = '{home}' AND tags.`{NAME_TAG}` = '{wanted}'"
        if found := sorted(model.name for model in client.search_registered_models(ours)):
            return str(found[0])
        try:
            client.create_registered_model(name, {STORE_TAG: home, NAME_TAG: wanted})
            return name
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    raise AssertionError(f"three names of '{wanted}' are taken, one of which holds this store's identity")
