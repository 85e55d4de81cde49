"""Addresses of MLflow, and the passwords in them: told to MLflow, and shown to nobody.

An `Address` is its public text wherever it is printed. What libraries say of it goes through `Address.scrubbed`, as
they like to repeat addresses whole. Not for: whether somebody answers there (connection.py).
"""

from __future__ import annotations

import base64
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlencode

from dfd_tune.errors import UserError, raise_all
from dfd_tune.store import Store

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")

_ALLOWED = "a server (http://HOST:PORT) or a database (sqlite:////FOLDER/mlflow.db, postgresql://, mysql://, mssql://)"
_ENCODED = "what is special in a name or password is percent-encoded: '@' as %40, '/' as %2F, '?' as %3F"
_HIDDEN = "***"
_TELLING = 4
"""So many letters of a password in a row are too many."""

_SERVER = re.compile(
    r"(?P<scheme>https?)://(?:(?P<userinfo>[^/?#]*)@)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:/?#@\s]+)(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#@\s]*)?",
    re.IGNORECASE,
)
_DATABASE = re.compile(  # stricter than SQLAlchemy's, which may take half of a password for the host
    r"(?P<scheme>[\w+]+)://(?:(?P<userinfo>[^:/?]*(?::[^/?@]*)?)@)?"
    r"(?P<host>\[[^\[\]@/?]+\]|[^\[\]:/?@]*)(?::(?P<port>[0-9]{0,5}))?(?P<path>/[^?@]*)?(?:\?(?P<query>[^@]*))?",
)
_HARMLESS_OPTIONS = ("host", "port", "sslmode", "charset", "driver", "service")
"""What may follow a database's '?' and be shown and recorded; any other option may be a password."""


@dataclass(frozen=True)
class Address:
    """Where MLflow is. Make one with `read_address`."""

    uri: str = field(repr=False)
    """What MLflow is given: a database's with its password, a server's without."""
    public: str
    """Without user, password and the options that may hold one."""
    user: str | None = field(default=None, repr=False)
    """A server's, in plain text; likewise `password`."""
    password: str | None = field(default=None, repr=False)
    own: bool = False
    """Whether it is the store's own database."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Passwords and what else must not be shown."""

    def __str__(self) -> str:
        return self.public

    @property
    def is_server(self) -> bool:
        """Whether it is an MLflow server's, which knows itself where artifacts go."""
        return self.uri.split(":", 1)[0].lower() in SERVERS

    @property
    def recorded(self) -> str | None:
        """What a search's record keeps of it: None for the store's own database, which moves with the store."""
        return None if self.own else self.public

    def reveals(self, text: str) -> bool:
        """Whether a text holds a password of this address, or four letters of it in a row."""
        return any(spelling in text for spelling in self._spellings()) or any(
            part in text for secret in self.secrets for part in _parts(secret)
        )

    def scrubbed(self, text: str) -> str | None:
        """A library's text without what this address, or any other in it, keeps secret; None if that can't be told."""
        text = re.sub(r"(\w://)[^\s/'\"]*@", rf"\1{_HIDDEN}@", text)
        for spelling in self._spellings():
            if len(spelling) < _TELLING and spelling in text:
                return None  # to cut so short a word out of a sentence would spell it
            text = text.replace(spelling, _HIDDEN)
        return None if self.reveals(text) else text

    def _spellings(self) -> list[str]:
        """The secrets as libraries may write them, the longest first."""
        found: set[str] = set()
        for secret in self.secrets:
            for plain in (secret, unquote(secret), unquote_plus(secret)):
                found |= {plain, quote(plain), quote(plain, safe=""), quote_plus(plain), repr(plain)[1:-1]}
                found |= {plain.encode("unicode_escape").decode()}
        if self.user and self.password:
            found.add(base64.b64encode(f"{self.user}:{self.password}".encode()).decode())
        return sorted(found - {""}, key=lambda spelling: (-len(spelling), spelling))


def read_address(store: Store, uri: str | None) -> Address:
    """The address of MLflow: as given, or the store's own SQLite database.

    Raises:
        UserError: the address is none that MLflow takes.
    """
    own = f"sqlite:///{store.path('mlflow.db')}"
    if uri is None:
        raise_all(_problems_with_own_database(store))
        return Address(own, own, own=True)
    scheme = uri.split(":", 1)[0].lower() if ":" in uri else ""
    if not _can_be_sent(uri):
        raise UserError(f"The MLflow address '{shown(uri)}' holds a control character; leave it out.")
    if scheme in SERVERS:
        return _server(uri)
    if scheme.split("+", 1)[0] not in DATABASES or "://" not in uri:
        raise UserError(_problem_with(uri, scheme))
    if scheme.startswith("sqlite"):
        path = _absolute_sqlite(uri)
        return Address(path, path, own=path == own)
    return _database(uri)


def shown(text: str) -> str:
    """Any text that was given as an address, for messages: what may be user, password or option is hidden.

    Rather too much is hidden than too little: an address that can't be read may have a password anywhere.
    """
    text = "".join(character if character.isprintable() else "�" for character in text)
    head, mark, rest = text.rpartition("://") if text.count("://") == 1 else ("", "", text)
    is_file = head.lower() in ("sqlite", "file") and rest.startswith("/")
    is_path = not mark and rest.startswith(("/", ".", "~")) and not rest.startswith("//")
    if is_file or is_path:
        return text
    if re.search("[?#].*@", rest):
        return f"{head}{mark}{_HIDDEN}"  # either may be a part of a password
    if "@" in rest:
        rest = f"{_HIDDEN}@{rest.rpartition('@')[2]}"
    return head + mark + re.sub(r"[?#].*", rf"?{_HIDDEN}", rest)


def _server(uri: str) -> Address:
    match = _SERVER.fullmatch(uri)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise UserError(f"The MLflow address '{shown(uri)}' is not of the form http://HOST:PORT; {_ENCODED}.")
    port = f":{match['port']}" if match["port"] else ""
    public = f"{match['scheme'].lower()}://{match['host']}{port}{match['path'] or ''}".rstrip("/")
    raw_user, _, raw_password = (match["userinfo"] or "").partition(":")
    user, password = unquote(raw_user), unquote(raw_password)
    if not _can_be_sent(user + password):
        raise UserError(f"The MLflow address '{shown(uri)}' has a control character in user or password; change it.")
    if bool(user) != bool(password):
        raise UserError(
            f"The MLflow address '{shown(uri)}' has one of user and password, where MLflow takes both or none; a token "
            "goes into the environment variable MLFLOW_TRACKING_TOKEN."
        )
    secrets = (raw_password,) if raw_password else ()
    return Address(public, public, user or None, password or None, secrets=secrets)


def _database(uri: str) -> Address:
    match = _DATABASE.fullmatch(uri)
    if match is None:
        raise UserError(
            f"The MLflow address '{shown(uri)}' is not of the form {uri.split(':', 1)[0]}://USER:PASSWORD@HOST:PORT"
            f"/DATABASE; {_ENCODED}."
        )
    user, _, password = (match["userinfo"] or "").partition(":")
    options = parse_qsl(match["query"] or "", keep_blank_values=True)
    # A user's name without a password may be a token.
    secrets = [password or user, *(value for name, value in options if name not in _HARMLESS_OPTIONS)]
    harmless = urlencode([(name, value) for name, value in options if name in _HARMLESS_OPTIONS])
    port = f":{match['port']}" if match["port"] else ""
    public = f"{match['scheme']}://{match['host']}{port}{match['path'] or ''}" + (f"?{harmless}" if harmless else "")
    return Address(uri, public, secrets=tuple(secret for secret in secrets if secret))


def _can_be_sent(text: str) -> bool:
    """Whether a text holds no control characters, and nothing that is no character at all."""
    return all(unicodedata.category(character) not in ("Cc", "Cs") for character in text)


def _parts(secret: str) -> Iterator[str]:
    """Every four letters or digits in a row."""
    for word in re.findall(rf"\w{{{_TELLING},}}", secret):
        yield from (word[start : start + _TELLING] for start in range(len(word) - _TELLING + 1))


def _problem_with(uri: str, scheme: str) -> str:
    if scheme in ("", "file"):
        return (
            f"The MLflow address '{shown(uri)}' is a folder, which MLflow no longer takes; give {_ALLOWED}, "
            "or none for the database in the store."
        )
    return f"The MLflow address '{shown(uri)}' is neither {_ALLOWED.replace(' or ', ' nor ', 1)}; give one of these."


def _problems_with_own_database(store: Store) -> list[str]:
    # MLflow reads such a path both as it is and unescaped: it opens the one and makes folders for the other.
    return [
        f"The store '{store.root}' has a '{character}' in its path, which MLflow's database can't have; "
        "name another store, or give the address of an MLflow server."
        for character in "%?#"
        if character in str(store.root)
    ]


def _absolute_sqlite(uri: str) -> str:
    """The same database whatever folder a process works in."""
    head, _, rest = uri.partition(":///")
    file, mark, options = rest.partition("?")
    if not file or file == ":memory:":
        raise UserError(
            f"The MLflow address '{shown(uri)}' is a database in memory, which ends with the process; name a file, "
            "as in sqlite:////FOLDER/mlflow.db."
        )
    folder = os.path.dirname(os.path.abspath(file))
    if not os.path.isdir(folder):
        raise UserError(f"The MLflow address '{uri}' is in the folder '{folder}', which is not there; make it.")
    return f"{head}:///{os.path.abspath(file)}{mark}{options}"
