"""Downloads of public datasets: once, by one process, whole or not at all, and what to do instead without a network.

Not for: what the files hold (cifar10.py, svhn.py).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from dfd_tune.errors import UserError, cause_of
from dfd_tune.locks import holding


def download_once(
    folder: Path,
    *,
    name: str,
    title: str,
    size: str,
    fetch: Callable[[Path], None],
    expected: str,
    say: Callable[[str], None],
) -> Path:
    """The folder, downloaded unless it is there; one process downloads at a time.

    Args:
        folder: the final place; its parent is made when needed.
        name: the source's name.
        title: what messages call the dataset.
        size: of the download, for the line of progress.
        fetch: makes, in the empty folder that it is given, a folder with the final one's name, complete and checked.
        expected: what `--data` must hold instead, as a phrase.
        say: takes the line of progress.

    Returns:
        `folder`.

    Raises:
        UserError: the download fails; nothing half-made is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with holding(folder.parent / f"{name}.lock", say=say):
        if not folder.is_dir():
            say(f"Downloading {title} ({size}).")
            _download(folder, name, title, fetch, expected)
    return folder


def _download(folder: Path, name: str, title: str, fetch: Callable[[Path], None], expected: str) -> None:
    """Download beside the final place, and rename: what is there is complete."""
    from http.client import HTTPException
    from tarfile import TarError

    draft = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    try:
        fetch(draft)
        (draft / folder.name).rename(folder)
    except (OSError, EOFError, RuntimeError, HTTPException, TarError) as error:
        reason = getattr(error, "reason", error)  # what is inside a URLError
        cause = cause_of(reason) if isinstance(reason, BaseException) else str(reason)
        raise UserError(
            f"{title} can't be downloaded ({cause}); get it elsewhere and name its folder with --data PATH: {expected}."
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
