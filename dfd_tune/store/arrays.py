"""Arrays in files of their own, mapped into memory.

A write into a map has nowhere to say that the disk is full: the process is killed by SIGBUS. So a file's room is
reserved before it is mapped. Not for: what the arrays hold (cameras.py, features.py).
"""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any

import numpy as np

from dfd_tune.store.files import is_passing, reserve


def new_array(file: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new .npy file to be filled through memory; the caller flushes it.

    Raises:
        OSError: it can't be written; ENOSPC where there is too little room, which says how much is needed.
    """
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    reserve(file)
    return array


def write_array(file: Path, array: np.ndarray) -> None:
    """Write an array, of one dimension or more, to a .npy file.

    Raises:
        OSError: as `new_array`.
    """
    mapped = new_array(file, array.dtype, array.shape)
    mapped[:] = array
    mapped.flush()


def mapped_array(file: Path, *, writable: bool = False) -> np.ndarray | None:
    """The array in a .npy file, whose pages are read as they are looked at; None if the file holds none.

    Args:
        file: the file.
        writable: whether torch is to take it; what is written there stays in memory.

    Raises:
        OSError: the disk can't be read just now.
    """
    try:
        found: np.ndarray = np.load(file, mmap_mode="c" if writable else "r", allow_pickle=False)
        return found
    except OSError as error:
        if is_passing(error):
            raise
        return None
    except (EOFError, ValueError, OverflowError, tokenize.TokenError, SyntaxError):  # EOFError: an empty file
        return None
