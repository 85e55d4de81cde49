"""Backbones from a user's own Python file: their text, found by its digest; read, kept in the store, run if it may be.

Such a backbone's name begins as `net.py:small` and, once its file was read, tells what the file said:
`net.py:small:0123456789abcdef`. By that name its text is looked for, never by the file's place: in what this process
was given, then in stores whose searches it runs. Text that is found nowhere there is not run. Not for: running it
(models/from_file.py). Imports no torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from dfd_tune.backbones import is_pinned, is_unread
from dfd_tune.digest import DIGITS
from dfd_tune.errors import UserError, cause_of
from dfd_tune.store import BACKBONES as FOLDER
from dfd_tune.store import Store

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}\.py")

_texts: dict[str, str] = {}
"""By digest, the texts that this process may run."""
_stores: list[Store] = []
"""Whose texts it may run as well."""


def read_backbone(name: str) -> str:
    """The name of a backbone of the form FILE.py:FUNCTION with what its file says; this process may then run it. Any
    other name is given back as it is.

    Raises:
        UserError: the file can't be read, or has a name that can't be part of another one.
    """
    if not is_unread(name):
        return name
    place, _, function = name.rpartition(":")
    file = Path(place).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"backbone {name}: the file can't be read: {cause_of(error)}.") from None
    if _FILE_NAME.fullmatch(file.name) is None:
        raise UserError(
            f"backbone {name}: the file's name goes into names elsewhere, so it must have letters, digits, '_', '-' "
            "and '.' alone, at most 64; rename it."
        )
    digest = _digest(text)
    _texts[digest] = text
    return f"{file.name}:{function}:{digest}"


def text_of(name: str) -> str | None:
    """The text of a backbone whose file was read, if this process may run it; None if it may not, or has none."""
    digest = _digest_in(name)
    for store in _stores:
        if digest in _texts:
            break
        text = _text_in(store, digest)
        if text is not None:
            _texts[digest] = text
    return _texts.get(digest)


def may_run(name: str, text: str) -> None:
    """Let this process run the text of a backbone, as somebody has said that it may.

    Raises:
        ValueError: it is not the one that the name tells.
    """
    if _digest(text) != _digest_in(name):
        raise ValueError(f"its source is not the one that its backbone, {name}, tells")
    _texts[_digest_in(name)] = text


def run_those_of(store: Store, names: Iterable[str] = ()) -> None:
    """Let this process run the texts that a store holds, as it runs its searches; those of `names` are put there first.

    Args:
        store: that of the search.
        names: backbones of the search, of all kinds.

    Raises:
        UserError: the text of one of them is neither there nor known here.
    """
    if store not in _stores:
        _stores.append(store)
    for name in filter(is_pinned, names):
        text = text_of(name)
        if text is None:
            raise UserError(
                f"The source of the backbone {name} is not in the store ('{entry_of(name)}' in '{store.location}'); "
                "put the file there, as it was, or launch with the file again."
            )
        if _text_in(store, _digest_in(name)) is None:
            store.write_text(text, FOLDER, f"{_digest_in(name)}.py")


def _text_in(store: Store, digest: str) -> str | None:
    """The text that a store holds under a digest; None if there is none, or another one."""
    try:
        text = store.read_text(FOLDER, f"{digest}.py")
    except UnicodeDecodeError:
        return None
    return text if text is not None and _digest(text) == digest else None


def entry_of(name: str) -> str:
    """The place of a backbone's text in a store, with slashes."""
    return f"{FOLDER}/{_digest_in(name)}.py"


def _digest_in(name: str) -> str:
    return name.rpartition(":")[2]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
