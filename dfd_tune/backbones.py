"""The backbones by name: the package's own, a row each, and the form that names of others have.

A backbone of the package is its row here and a file of its name in models/; nothing else names it. Not for: layers
(models/), or whether a network takes a dataset's images (fit.py). Imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """What must be known of a backbone where no network is built.

    Its file models/NAME.py holds a function NAME, which lays out the layers from the arguments of
    `models.build_network` but for the seed, and LAYERS, the names of those whose maps can be looked at.
    """

    dropout: bool = True
    """Whether the setting `dropout` does anything."""


BACKBONES: dict[str, Backbone] = {
    "alexnet": Backbone(),
    "vgg16": Backbone(),
    "resnet18": Backbone(dropout=False),
}
"""By the value of the setting `backbone`."""

TORCHVISION = "torchvision/"
"""Before the name of a network of torchvision's list."""
OTHERS = "torchvision/NAME or FILE.py:FUNCTION"
"""The form that names of other backbones have, for people."""
_OF_TORCHVISION = re.compile(r"torchvision/[a-z0-9_]{1,64}")
_UNREAD = re.compile(r"[^+\n]{1,4000}\.py:[A-Za-z_][A-Za-z0-9_]{0,60}")
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}\.py:[A-Za-z_][A-Za-z0-9_]{0,60}:[0-9a-f]{16}")


def is_other(name: str) -> bool:
    """Whether `name` has the form of a backbone that is not the package's own; there may be none of that name."""
    return _OF_TORCHVISION.fullmatch(name) is not None or is_unread(name) or is_pinned(name)


def is_unread(name: str) -> bool:
    """Whether it names a function in a user's own file, of which nothing else is known yet."""
    return _UNREAD.fullmatch(name) is not None


def is_pinned(name: str) -> bool:
    """Whether it is the name of a function in a user's own file with what that file says (own_backbones.py)."""
    return _PINNED.fullmatch(name) is not None


def has_dropout(name: str) -> bool:
    """Whether the setting `dropout` does anything for a backbone."""
    return name not in BACKBONES or BACKBONES[name].dropout
