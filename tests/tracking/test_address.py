"""Addresses of MLflow: which are taken, and that no password of theirs is ever shown."""

from __future__ import annotations

import base64
import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dfd_tune.errors import UserError
from dfd_tune.store import FolderStore
from dfd_tune.tracking import open_tracker
from dfd_tune.tracking.address import Address, read_address, shown
from dfd_tune.tracking.connection import reason, refusals_as_user_errors, resolve_address

STORE = FolderStore(Path("/store"))
NOBODY = "127.0.0.1:1"
"""A port where nobody listens."""

# Rare letters, so that no message holds four of them in a row by chance.
PASSWORDS = st.lists(
    st.one_of(
        st.text("QXZJ789", min_size=4, max_size=8), st.sampled_from(":@/?#%[]& +;='\"\\\n\té℀𝒜\u2028"), st.just("%41")
    ),
    min_size=1,
    max_size=8,
).map("".join)
AS_TEXT = {
    "raw": lambda password: password,
    "percent-encoded": lambda password: quote(password, safe=""),
}
FORMS = (
    "http://me:{}@" + NOBODY,
    "https://me:{}@" + NOBODY + "/mlflow",
    "http://{}@" + NOBODY,
    "http://{}:me@" + NOBODY,
    "postgresql://me:{}@" + NOBODY + "/db",
    "postgresql+psycopg2://{}@" + NOBODY + "/db",
    "postgresql://" + NOBODY + "/db?user=me&password={}",
    "mysql://me:{}@" + NOBODY + "/db",
    "mysql+pymysql://" + NOBODY + "/db?ssl_key={}",
    "mssql+pyodbc:///?odbc_connect=PWD={}",
    "ftp://me:{}@host",
    "me:{}@host:5000",
    "//me:{}@host",
    "postgresql:me:{}@host/db",
    "sqlite://me:{}@/x.db",
)


def letters_of(password: str) -> set[str]:
    """Every four letters or digits in a row, of the password as it is written and as it is meant."""
    words = re.findall(r"\w{4,}", password) + re.findall(r"\w{4,}", unquote(password))
    return {word[start : start + 4] for word in words for start in range(len(word) - 3)}


def assert_hidden(password: str, *texts: str) -> None:
    for text in texts:
        assert not [part for part in letters_of(password) if part in text], text


def all_that_is_told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


def addresses(max_examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Have a test run with so many of them, and with these."""
    chosen = settings(max_examples=max_examples, deadline=None)
    drawn = given(password=PASSWORDS, form=st.sampled_from(FORMS), as_text=st.sampled_from(sorted(AS_TEXT)))
    known = [("p@ssQXZJ", FORMS[4]), ("QXZJ/7897", FORMS[0]), ("𝒜QXZJ℀", FORMS[0]), ("QX%00ZJ789", FORMS[0])]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        for password, form in known:
            test = example(password=password, form=form, as_text="raw")(test)
        return chosen(drawn(test))

    return decorate


@addresses(60)
def test_what_an_address_shows_holds_no_password(password: str, form: str, as_text: str) -> None:
    no_password_in(password, form, as_text)


@pytest.mark.slow
@addresses(400)
def test_what_any_of_many_addresses_shows_holds_no_password(password: str, form: str, as_text: str) -> None:
    no_password_in(password, form, as_text)


def no_password_in(password: str, form: str, as_text: str) -> None:
    uri = form.format(AS_TEXT[as_text](password))
    assert_hidden(password, shown(uri))
    try:
        address = read_address(STORE, uri)
    except UserError as error:
        assert_hidden(password, all_that_is_told(error))
        if "\n" in str(error):
            pytest.fail("a problem is one line")
        return
    assert_hidden(password, str(address), repr(address), str(address.recorded), f"{address!s} {address}")
    if address.is_server:
        assert_hidden(password, address.uri)


@settings(max_examples=60, deadline=None)
@given(password=PASSWORDS, form=st.sampled_from(FORMS), as_text=st.sampled_from(sorted(AS_TEXT)))
def test_no_failure_to_connect_tells_the_password(
    tmp_path_factory: pytest.TempPathFactory, password: str, form: str, as_text: str
) -> None:
    store = FolderStore(tmp_path_factory.getbasetemp())
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(handler.format(record))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(UserError) as caught:
            open_tracker(store, form.format(AS_TEXT[as_text](password)))
    finally:
        logging.getLogger().removeHandler(handler)
    assert_hidden(password, all_that_is_told(caught.value), *told)


SPELLINGS = {
    "the address itself": lambda address, password: address.uri,
    "plain": lambda address, password: password,
    "percent-encoded": lambda address, password: quote(password, safe=""),
    "in Python": lambda address, password: repr(password),
    "in a header": lambda address, password: base64.b64encode(f"me:{password}".encode()).decode(),
    "a part of it": lambda address, password: (
        f"could not translate host name '{re.findall('[QXZJ789]{4,}', password)[-1]}'"
    ),
}


@settings(max_examples=200, deadline=None)
@given(
    password=PASSWORDS.filter(lambda password: re.search("[QXZJ789]{4}", password)),
    form=st.sampled_from(("http://me:{}@" + NOBODY, "postgresql://me:{}@host/db", "mysql://host/db?password={}")),
    spelling=st.sampled_from(sorted(SPELLINGS)),
    kind=st.sampled_from(
        ["MlflowException", "RequestException", "OperationalError", "OSError", "ValueError", "chained"]
    ),
)
def test_what_libraries_say_of_an_address_is_told_without_the_password(
    password: str, form: str, spelling: str, kind: str
) -> None:
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        address = read_address(STORE, form.format(quote(password, safe="")))
    except UserError:
        assume(False)
    text = f"API request failed with {SPELLINGS[spelling](address, password)}: no route"
    errors = {
        "MlflowException": MlflowException(text),
        "RequestException": requests.ConnectionError(text),
        "OperationalError": sqlalchemy.exc.OperationalError(text, {}, Exception(text)),
        "OSError": OSError(113, text),
        "ValueError": ValueError(text),
        "chained": RuntimeError("something else"),
    }
    errors["chained"].__cause__ = ValueError(text)
    with pytest.raises((UserError, type(errors[kind]))) as caught, refusals_as_user_errors(address, "can't be used"):
        raise errors[kind]
    told = all_that_is_told(caught.value)
    assert_hidden(password, told)
    header = base64.b64encode(f"me:{password}".encode()).decode()
    assert address.user is None or header not in told


def test_an_error_that_holds_no_password_keeps_its_type_and_one_that_is_mlflows_its_text() -> None:
    address = read_address(STORE, "postgresql://me:QXZJ789@host/db")
    with pytest.raises(ZeroDivisionError), refusals_as_user_errors(address, "can't be used"):
        _ = 1 / 0
    assert reason(OSError(113, "No route to host"), address) == "No route to host"
    assert reason(Exception('authentication failed for user "me"'), address) == 'authentication failed for user "me"'
    assert reason(Exception("connecting to postgresql://me:QXZJ789@host/db"), address) == (
        "connecting to postgresql://***@host/db"
    )
    assert reason(Exception("QXZJ789 is wrong"), address) == "*** is wrong"
    # Two letters cannot be cut out of a sentence without spelling them.
    assert reason(KeyError("xx is not exact"), read_address(STORE, "mysql://me:xx@host/db")) == "KeyError"


def test_a_server_is_told_user_and_password_as_they_are_meant() -> None:
    address = read_address(STORE, "https://m%40e:p%40ss:w%2Ford@host:5000/mlflow/")
    assert (address.user, address.password) == ("m@e", "p@ss:w/ord")
    assert address.uri == str(address) == address.recorded == "https://host:5000/mlflow"


def test_a_database_keeps_its_password_for_mlflow_alone() -> None:
    uri = "postgresql://me:p%40ss@host:5432/db?sslmode=require&password=other"
    address = read_address(STORE, uri)
    assert address.uri == uri
    assert str(address) == address.recorded == "postgresql://host:5432/db?sslmode=require"


def test_the_stores_own_database_is_recorded_as_such_however_it_is_named() -> None:
    own = read_address(STORE, None)
    assert own.uri == str(own) == "sqlite:////store/mlflow.db"
    assert own.recorded is None


def test_another_database_is_recorded(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/a@b.db"
    assert read_address(STORE, uri).recorded == uri
    own = read_address(FolderStore(tmp_path), f"sqlite:///{tmp_path}/mlflow.db")
    assert (own.own, own.recorded) == (True, None)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("./mlruns", "is a folder"),
        ("file:///tmp/mlruns", "is a folder"),
        ("ftp://host/x", "is neither a server"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:////no/such/folder/mlflow.db", "make it"),
        ("http://", "http://HOST:PORT"),
        ("http://127.0.0.1:port", "http://HOST:PORT"),
        ("http://127.0.0.1:65536", "http://HOST:PORT"),
        ("http://host/?x=1", "http://HOST:PORT"),
        ("http://token@host", "MLFLOW_TRACKING_TOKEN"),
        ("postgresql://me:a@b@host/db", "%40"),
        ("postgresql://me:a@b/c@host/db", "%40"),
        ("postgresql://host:port/db", "HOST:PORT"),
    ],
)
def test_an_address_that_will_not_do_is_refused_with_a_remedy(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolve_address(FolderStore(tmp_path), uri)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    "uri", ["postgresql://u@server:p@host/db", "mssql+pyodbc://u:p@dsn", "mysql:///db", "http://[::1]:5"]
)
def test_addresses_that_will_do(uri: str) -> None:
    assert isinstance(read_address(STORE, uri), Address)


def test_a_store_whose_path_mlflow_would_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a '%' in its path"):
        resolve_address(FolderStore(tmp_path / "50%"), None)


def test_a_relative_database_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_address(FolderStore(tmp_path), "sqlite:///a.db").uri == f"sqlite:///{tmp_path}/a.db"
