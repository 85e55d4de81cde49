"""Where MLflow is, whether it answers, and its database made ready before anyone else touches it.

Not for: what is written there (runs.py, models.py).
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dfd_tune.errors import UserError, cause_of
from dfd_tune.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
PROBE_SECONDS = 5
"""How long a server may take to answer; MLflow's own patience is minutes."""

_ALLOWED = "a server (http://HOST:PORT) or a database (sqlite:////FOLDER/mlflow.db, postgresql://, mysql://, mssql://)"


def resolve_address(store: Store, uri: str | None) -> str:
    """The address of MLflow: as given, or the store's own SQLite database. Imports no mlflow.

    A server is asked once whether it is there.

    Raises:
        UserError: the address is none that MLflow takes, or the server there does not answer.
    """
    if uri is None:
        return _own_database(store)
    scheme = uri.split(":", 1)[0].lower() if ":" in uri else ""
    if scheme in SERVERS:
        return _answering_server(uri.rstrip("/"))
    if scheme.split("+", 1)[0] not in DATABASES or "://" not in uri:
        raise UserError(_problem_with(uri, scheme))
    if scheme.startswith("sqlite"):
        return _absolute_sqlite(uri)
    return uri


def is_server(address: str) -> bool:
    """Whether the address is an MLflow server's, which knows itself where artifacts go."""
    return address.split(":", 1)[0].lower() in SERVERS


def shown(address: str) -> str:
    """The address for messages: without its password."""
    try:
        password = urlsplit(address).password
    except ValueError:
        return address
    return address.replace(f":{password}@", ":***@", 1) if password else address


def connect(store: Store, address: str) -> MlflowClient:
    """A client for a resolved address. A database is made ready first, by one process at a time.

    Raises:
        UserError: the database can't be opened or is of another MLflow version; the server refuses.
    """
    _import_mlflow_quietly()
    from mlflow import MlflowClient

    with refusals_as_user_errors(address, "can't be used"):
        if is_server(address):
            # Later calls may wait for a busy server, but not MLflow's four minutes each.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
            client = MlflowClient(tracking_uri=address, registry_uri=address)
            with _environment(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT=str(PROBE_SECONDS)):
                client.search_experiments(max_results=1)
            return client
        with store.lease("mlflow"):
            prepare_database(store, address)
        # Not before: a client opens its database as soon as it is made.
        return MlflowClient(tracking_uri=address, registry_uri=address)


def prepare_database(store: Store, address: str) -> None:
    """Create or check the database's tables and its default experiment. The caller holds the lease."""
    _import_mlflow_quietly()
    import sqlalchemy
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # MLflow tries a database that it can't open for 100 seconds; this asks once.
    engine = sqlalchemy.create_engine(address)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()
    # The store is made directly because a client would record ./mlruns as the default place of artifacts.
    SqlAlchemyStore(address, artifact_root(store))


def artifact_root(store: Store) -> str:
    """Where artifacts go when the address is a database: a file URI, so that any folder name will do."""
    return store.path("mlflow_artifacts").as_uri()


@contextlib.contextmanager
def refusals_as_user_errors(address: str, what_happened: str) -> Iterator[None]:
    """Turn what MLflow, its database or the network raise into one UserError that names the address."""
    try:
        yield
    except Exception as error:
        if isinstance(error, _refusals()):
            raise UserError(f"MLflow at '{shown(address)}' {what_happened} ({reason(error)}).") from error
        raise


def reason(error: BaseException) -> str:
    """The cause of a failure, short enough for a sentence."""
    text = cause_of(error)
    if "out-of-date database schema" in text:
        return "its database is of another MLflow version; back it up and run `mlflow db upgrade ADDRESS`"
    return text if len(text) <= 200 else text[:200] + "…"


def _refusals() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, ImportError, OSError)


def _import_mlflow_quietly() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a search reports to its user, to nobody else
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _problem_with(uri: str, scheme: str) -> str:
    if scheme in ("", "file"):
        return (
            f"The MLflow address '{uri}' is a folder, which MLflow no longer takes; give {_ALLOWED}, "
            "or none for the database in the store."
        )
    return f"The MLflow address '{uri}' is neither {_ALLOWED.replace(' or ', ' nor ', 1)}; give one of these."


def _own_database(store: Store) -> str:
    # MLflow reads such a path both as it is and unescaped: it opens the one and makes folders for the other.
    if bad := [character for character in "%?#" if character in str(store.root)]:
        raise UserError(
            f"The store '{store.root}' has a '{bad[0]}' in its path, which MLflow's database can't have; "
            "name another store, or give the address of an MLflow server."
        )
    return f"sqlite:///{store.path('mlflow.db')}"


def _absolute_sqlite(uri: str) -> str:
    """The same database whatever folder a process works in."""
    head, _, rest = uri.partition(":///")
    file, mark, options = rest.partition("?")
    if not file or file == ":memory:":
        raise UserError(
            f"The MLflow address '{uri}' is a database in memory, which ends with the process; name a file, "
            "as in sqlite:////FOLDER/mlflow.db."
        )
    folder = os.path.dirname(os.path.abspath(file))
    if not os.path.isdir(folder):
        raise UserError(f"The MLflow address '{uri}' is in the folder '{folder}', which is not there; make it.")
    return f"{head}:///{os.path.abspath(file)}{mark}{options}"


def _answering_server(uri: str) -> str:
    try:
        if not urlsplit(uri).hostname:
            raise ValueError("it names no host")
        with urllib.request.urlopen(f"{uri}/health", timeout=PROBE_SECONDS):
            return uri
    except urllib.error.HTTPError:
        return uri  # somebody is there; whether it is MLflow, and lets us in, the client finds out
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLError):
            return uri  # MLflow has certificate settings of its own
        why = cause_of(cause) if isinstance(cause, BaseException) else str(cause)
        raise UserError(
            f"No MLflow server answers at '{shown(uri)}' ({why}); start it, correct the address, or give "
            "none for the database in the store."
        ) from None


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
