"""The teacher files that a request names, brought into the store: from then on a name and a digest stand for each.

Done once the images are known, ahead of the plan. Not for: reading such a file (distill/imported.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfd_tune.data.prepared import Dataset
from dfd_tune.distill.imported import bring_in, imported
from dfd_tune.errors import UserError
from dfd_tune.settings import Request, with_values
from dfd_tune.store import Store
from dfd_tune.teacher_file import TeacherFile, parse

SETTING = "teacher_file"


def with_teachers_in_store(request: Request, store: Store, dataset: Dataset, say: Callable[[str], None]) -> Request:
    """The request with the name that each teacher file has in the store in the place of its path.

    A request that has gone through here before, as that of a search that goes on, comes back as it was.

    Args:
        request: as resolved.
        store: in which the files will lie.
        dataset: whose images they are to look at.
        say: takes a line for each that is brought in.

    Raises:
        UserError: a file can't be used, is gone from the store, or is named twice.
    """

    def named(value: str) -> str:
        known = parse(value)
        if known is None:
            return str(bring_in(store, Path(value).expanduser(), dataset, say))
        imported(store, known)
        return value

    names = {value: named(value) for value in _values(request)}
    try:
        return with_values(request, lambda name, value: names.get(value, value) if name == SETTING else value)
    except ValueError:
        raise UserError(f"{SETTING} names the same teacher twice, with the same declaration; leave one out.") from None


def teacher_files(request: Request) -> list[TeacherFile]:
    """The teacher files that a request names, once they are in the store."""
    found = map(parse, _values(request))
    return [file for file in found if file is not None]


def names_teacher_files(request: Request) -> bool:
    """Whether a request names any, in the store or not."""
    return bool(_values(request))


def _values(request: Request) -> list[str]:
    return [value for value in request.possible(SETTING) if isinstance(value, str)]
