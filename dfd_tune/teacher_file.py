"""The name that a teacher file has in the setting `teacher_file` once it lies in the store: what it is, and a digest.

No path is part of it, so a key is the same wherever the file was. The digest is of the file's bytes and of all that is
declared of it. Not for: reading such a file (distill/imported.py), nor for bringing it into the store (bring.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Gives = Literal["network", "logits", "features"]
"""What can be had of it: features, logits and maps of one of the backbones; or a program's only output."""

KIND = "teachers"
"""The folder of the store that holds such files, each under its digest."""

_NETWORK = re.compile(
    r"(?P<backbone>[a-z]+[0-9]*)-w(?P<width>[0-9.e+-]+)-(?P<norm>bn|nobn)"
    r"-d(?P<dim>[1-9][0-9]*)-s(?P<side>[1-9][0-9]*)-(?P<digest>[0-9a-f]{16})"
)
_PROGRAM = re.compile(
    r"(?P<gives>logits|features)-d(?P<dim>[1-9][0-9]*)-s(?P<side>[1-9][0-9]*)-(?P<digest>[0-9a-f]{16})"
)


@dataclass(frozen=True, kw_only=True)
class TeacherFile:
    """A teacher that was trained elsewhere, as far as a plan must know it."""

    gives: Gives
    dim: int
    """How many features, or of a program how many numbers, it gives of an image."""
    side: int
    """Of the images that it takes, in pixels."""
    digest: str
    backbone: str | None = None
    """Of a network; None of a program, likewise `width`."""
    width: float | None = None
    batch_norm: bool = True

    def __str__(self) -> str:
        """The value of the setting."""
        what: str = self.gives
        if self.backbone is not None:
            what = f"{self.backbone}-w{self.width!r}-{'bn' if self.batch_norm else 'nobn'}"
        return f"{what}-d{self.dim}-s{self.side}-{self.digest}"

    @property
    def architecture(self) -> str:
        """In a word: a backbone's name, or "program"."""
        return self.backbone or "program"


@lru_cache
def parse(text: str) -> TeacherFile | None:
    """The file that such a name stands for; None if it is no such name, as a path."""
    found = _NETWORK.fullmatch(text)
    try:
        if found is not None:
            return TeacherFile(
                gives="network",
                dim=int(found["dim"]),
                side=int(found["side"]),
                digest=found["digest"],
                backbone=found["backbone"],
                width=float(found["width"]),
                batch_norm=found["norm"] == "bn",
            )
    except ValueError:  # a width that is no number
        return None
    found = _PROGRAM.fullmatch(text)
    if found is None:
        return None
    gives: Gives = "logits" if found["gives"] == "logits" else "features"
    return TeacherFile(gives=gives, dim=int(found["dim"]), side=int(found["side"]), digest=found["digest"])
