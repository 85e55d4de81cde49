"""Content digests: the names under which results are found again.

Not for: security. A digest that names content is cut to 16 hexadecimal digits (64 bits).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = 16


def digest_json(value: Mapping[str, Any]) -> str:
    """Digest of a JSON-able mapping; the order of its keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Digest of named arrays: names, dtypes, shapes and bytes."""
    running = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        running.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        running.update(array.reshape(-1).view(np.uint8).data)
    return running.hexdigest()[:DIGITS]


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's content, whole, in hexadecimal digits; for manifests."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
