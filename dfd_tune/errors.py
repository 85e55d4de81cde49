"""The one error whose message is written for the user, and the ways such a message is put together.

Not for: internal errors. An invariant that breaks is an `assert` or a plain exception, and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

FEW = 12
"""So many names can be read in a message."""


class UserError(Exception):
    """Something the user can mend. Each problem is one sentence: what, where, what is allowed, what to do.

    Several problems found together are raised together. The command line prints them one a line and exits
    with code 2. What can't be printed in one line, as a line break in a name that the user gave, is written as \\n and
    the like. Survives pickling, as it crosses process borders.
    """

    def __init__(self, *problems: str):
        self.problems: tuple[str, ...] = tuple(_printable(problem) for problem in problems)
        super().__init__(*self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """A sentence for a name that is not among `known`: the nearest one, and all of them unless they are many."""
    names = sorted(known)
    close = nearest(name, names)
    hint = f" Did you mean '{close}'?" if close else ""
    listing = "" if close and len(names) > FEW else f" Known: {', '.join(names) or 'none'}."
    return f"Unknown {what} '{name}'.{hint}{listing}"


def nearest(name: object, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known name that `name` was probably meant to be; None if nothing is so near, from 0 to 1 for the same."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return close[0] if close else None


def raise_all(problems: Sequence[str]) -> None:
    """Raise one UserError that holds every problem; return when there is none."""
    if problems:
        raise UserError(*problems)


def cause_of(error: BaseException) -> str:
    """The reason inside an operating-system or library error, as a phrase that fits into a sentence."""
    text = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
    return (text or type(error).__name__).rstrip(".")
