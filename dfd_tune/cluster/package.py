"""What goes along with a job: this very version of dfd-tune, the order to carry out, and credentials.

The package's own files go, not what it depends on; the cluster has that from its setup commands or its image.
Credentials lie in a file of the order that only its owner can read: never in the job's command, its environment, or its
metadata, which Ray shows and logs. Not for: images and weights (send.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dfd_tune
from dfd_tune.errors import UserError
from dfd_tune.space import shipped_spaces

ENTRYPOINT = "python -m dfd_tune.cluster.remote"
ORDER_FILE, CREDENTIALS_FILE = "order.json", "credentials.json"
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Environment variables that go along; others stay here."""
MLFLOW_URI = "DFD_TUNE_MLFLOW_URI"
"""By this name MLflow's address travels with the credentials, as it may hold a password."""
MOST_CODE_BYTES = 20_000_000
"""Of the package's own files, which take less than one of these; more is not code, and would be sent to every node."""


@dataclass(frozen=True)
class Package:
    """What a job is given: folders on this machine, which Ray takes to every node that works for it."""

    order: Path
    """The job's working directory."""
    modules: tuple[Path, ...]
    """Put on Python's path."""


def make_package(
    folder: Path, order: Mapping[str, Any], credentials: Mapping[str, str], modules: Sequence[Path] = ()
) -> Package:
    """Lay out what goes along with a job.

    Args:
        folder: an empty folder for it.
        order: JSON-able; what remote.py is to do.
        credentials: environment variables, for the job's own process alone.
        modules: further folders.

    Raises:
        UserError: the package's folder holds far more than its code.
    """
    code, place = folder / "code" / "dfd_tune", folder / "order"
    _copy_code(code)
    place.mkdir(parents=True)
    (place / ORDER_FILE).write_text(json.dumps(order, ensure_ascii=False), encoding="utf-8")
    with open(os.open(place / CREDENTIALS_FILE, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
        json.dump(dict(credentials), file)
    return Package(place, (code, *modules))


def credentials_here(environment: Mapping[str, str]) -> dict[str, str]:
    """The credentials that go along, of an environment."""
    return {name: environment[name] for name in CREDENTIALS if name in environment}


def _copy_code(target: Path) -> None:
    source = Path(dfd_tune.__file__).parent
    unwanted = shutil.ignore_patterns("__pycache__", "search_spaces", "clusters", "*.pyc", ".*")
    size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    if size > MOST_CODE_BYTES:
        raise UserError(
            f"The folder of dfd-tune's code, '{source}', holds {size / 1e6:.0f} MB, but all of it goes to every node, "
            f"and at most {MOST_CODE_BYTES / 1e6:.0f} MB may; move away what is no code."
        )
    shutil.copytree(source, target, ignore=unwanted)
    spaces = target / "search_spaces"
    spaces.mkdir()
    for file in shipped_spaces().values():
        shutil.copy(file, spaces)
