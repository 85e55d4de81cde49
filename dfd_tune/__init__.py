"""dfd-tune: hyperparameter search for deep feature distillation.

`dfd_tune.launch(…)` runs a search and `dfd_tune.load(NAME)` opens one: see api.py, imported once they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfd_tune.api import Search as Search
    from dfd_tune.api import launch as launch
    from dfd_tune.api import load as load

__all__ = ["Search", "launch", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("dfd_tune.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
