"""JSON files that tell when they are not what was written: the last field holds the digest of all text before it.

For files that change, as a search's records; an entry's files have its manifest for that. Not for: writing them
(files.py, store.py), or keeping anybody from changing them, who can seal as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

SEAL = "seal"

_TAIL = re.compile(rf',?\n  "{SEAL}": "([0-9a-f]{{64}})"\n}}\n\Z')


def sealed(text: str) -> str:
    """The text of a JSON object, whose fields begin lines of their own, with its seal as the last one."""
    body = text.removesuffix("}\n").rstrip("\n")
    comma = "" if body == "{" else ","
    return f'{body}{comma}\n  "{SEAL}": "{_digest(body)}"\n}}\n'


def object_in(text: str) -> dict[str, Any]:
    """The JSON object in a text, without its seal; what has none is taken as it is.

    Raises:
        ValueError: it is no JSON object, or not what was sealed.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    if SEAL in value:
        tail = _TAIL.search(text)
        if tail is None or _digest(text[: tail.start()]) != tail[1]:
            raise ValueError("it is not what was written")
        del value[SEAL]
    return value


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
