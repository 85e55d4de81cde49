"""Whether MLflow answers, its database made ready before anyone else touches it, and what its failures mean.

Not for: what is written there (runs.py, models.py), nor for addresses as such (address.py).
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from dfd_tune.errors import UserError, cause_of
from dfd_tune.store import Store
from dfd_tune.tracking.address import Address, read_address

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_SECONDS = 5
"""How long a server may take to answer; MLflow's own patience is minutes."""
REQUEST_SECONDS = 20

_REFUSALS = (
    "BAD_REQUEST",
    "CUSTOMER_UNAUTHORIZED",
    "ENDPOINT_NOT_FOUND",
    "FEATURE_DISABLED",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_CONFLICT",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
)
"""MLflow's answers that asking once more, later, does not change."""


def resolve_address(store: Store, uri: str | None) -> Address:
    """The address of MLflow: as given, or the store's own SQLite database. Imports no mlflow.

    A server is asked once whether it is there.

    Raises:
        UserError: the address is none that MLflow takes, or the server there does not answer.
    """
    address = read_address(store, uri)
    if address.is_server:
        _ask_whether_it_is_there(address)
    return address


def connect(store: Store, address: Address) -> MlflowClient:
    """A client for a resolved address. A database is made ready first, by one process at a time.

    Raises:
        UserError: the database can't be opened or is of another MLflow version; the server refuses.
    """
    import_mlflow_quietly()
    from mlflow import MlflowClient

    with refusals_as_user_errors(address, "can't be used"):
        if address.is_server:
            _tell_mlflow_how_to_ask(address)
            client = MlflowClient(tracking_uri=address.uri, registry_uri=address.uri)
            with _environment(MLFLOW_HTTP_REQUEST_TIMEOUT=str(PROBE_SECONDS)):
                client.search_experiments(max_results=1)
            return client
        with store.node_lease("mlflow"):
            prepare_database(store, address)
        # Not before: a client opens its database as soon as it is made.
        return MlflowClient(tracking_uri=address.uri, registry_uri=address.uri)


def prepare_database(store: Store, address: Address) -> None:
    """Create or check the database's tables and its default experiment. The caller holds the lease."""
    import_mlflow_quietly()
    import sqlalchemy
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # MLflow tries a database that it can't open for 100 seconds; this asks once.
    engine = sqlalchemy.create_engine(address.uri)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()
    # The store is made directly because a client would record ./mlruns as the default place of artifacts.
    SqlAlchemyStore(address.uri, artifact_root(store))


def artifact_root(store: Store) -> str:
    """Where artifacts go when the address is a database: a file URI, so that any folder name will do."""
    return store.path("mlflow_artifacts").as_uri()


@contextlib.contextmanager
def refusals_as_user_errors(address: Address, what_happened: str) -> Iterator[None]:
    """Turn what MLflow, its database or the network raise into one UserError that names the address.

    Nothing is chained to it, as its causes may hold the password. An error of any other kind goes on, unless it
    holds the password.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, _failures()) or any(address.reveals(str(link)) for link in _chain(error)):
            raise UserError(f"MLflow at '{address}' {what_happened} ({reason(error, address)}).") from None
        raise


def reason(error: BaseException, address: Address) -> str:
    """The cause of a failure, short enough for a sentence, and without the address's password."""
    links = list(_chain(error))
    if isinstance(error, _failures()):
        if system := next((link for link in links if isinstance(link, OSError) and link.strerror), None):
            return address.scrubbed(cause_of(system)) or type(system).__name__
        if any(type(link).__name__.endswith("Timeout") for link in links):
            return "no answer in time"
    text = re.sub(r" object at 0x[0-9a-f]+", "", cause_of(error))
    if "out-of-date database schema" in text:
        return "its database is of another MLflow version; back it up and run `mlflow db upgrade ADDRESS`"
    text = address.scrubbed(text) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"


def is_away(error: BaseException) -> bool:
    """Whether a failure may pass by itself: no answer, a broken connection, a busy or full database."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code not in _REFUSALS
    status = getattr(getattr(error, "response", None), "status_code", None)  # of artifacts, which have no error codes
    if status is not None and 400 <= status < 500 and status not in (408, 429):  # too slow, or too much at once
        return False
    return isinstance(error, _failures()) and not isinstance(error, ImportError)


def import_mlflow_quietly() -> None:
    """Import mlflow without what it and its libraries log: failures are told by us, once."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a search reports to its user, to nobody else
    import mlflow  # noqa: F401

    # Their errors are raised as well; what they log repeats addresses, passwords and all.
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _failures() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, ImportError, OSError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _tell_mlflow_how_to_ask(address: Address) -> None:
    """The process-wide settings of MLflow's REST client, which has no others."""
    # MLflow's own repeats would make a run twice where just the answer was lost; who repeats here looks first.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    if address.user and address.password:
        # Not in the address, which MLflow and its libraries repeat in logs and errors.
        os.environ["MLFLOW_TRACKING_USERNAME"] = address.user
        os.environ["MLFLOW_TRACKING_PASSWORD"] = address.password


def _ask_whether_it_is_there(address: Address) -> None:
    try:
        with urllib.request.urlopen(f"{address.uri}/health", timeout=PROBE_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # somebody is there; whether it is MLflow, and lets us in, the client finds out
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLError):
            return  # MLflow has certificate settings of its own
        why = address.scrubbed(cause_of(cause) if isinstance(cause, BaseException) else str(cause))
    raise UserError(
        f"No MLflow server answers at '{address}' ({why or 'no reason given'}); start it, or correct the address "
        "(none is the database in the store)."
    )


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Connection:
    """A client that a thread makes once it is wanted; seconds, for importing mlflow and making tables.

    Args:
        connect: makes it; may raise.
    """

    def __init__(self, connect: Callable[[], MlflowClient]):
        self._connect = connect
        self._begun = threading.Lock()
        self._made: Future[MlflowClient] = Future()

    def begin(self) -> None:
        """Have it made; returns at once. The process does not end before it is, so that no table is half made."""
        if self._begun.acquire(blocking=False):
            threading.Thread(target=self._make, name="dfd-tune-mlflow-connect").start()

    def client(self) -> MlflowClient:
        """The client, waited for.

        Raises:
            UserError: what `connect` raised.
        """
        if self._begun.acquire(blocking=False):
            self._make()
        return self._made.result()

    def raise_if_refused(self) -> None:
        """Raise what `connect` raised, if it has by now."""
        if self._made.done() and (error := self._made.exception()) is not None:
            raise error

    def _make(self) -> None:
        try:
            self._made.set_result(self._connect())
        except BaseException as error:
            self._made.set_exception(error)
