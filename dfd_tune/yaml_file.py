"""A YAML file that a person wrote: its content, and on which lines its parts stand, for messages about it.

Not for: what the content means (space.py, cluster/files.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dfd_tune.errors import UserError, cause_of


class YamlFile:
    """The content of a YAML file, with the lines of its parts. Make one with `read_yaml`.

    Args:
        path: of the file.
        content: mappings, lists, and what they hold.
        root: the same as nodes, which know their lines.
    """

    def __init__(self, path: Path, content: Any, root: yaml.Node | None):
        self.path = path
        self.content = content
        self._root = root

    def line(self, *place: object) -> int | None:
        """The line, from 1, on which a part stands: a key of nested mappings, an item of a list.

        Args:
            place: the keys and indices that lead there.

        Returns:
            None if the file has no such part, as what a merge key brings in.
        """
        node, line = self._root, None
        for step in place:
            found = _step(node, step)
            if found is None:
                return None
            line, node = found
        return line

    def say(self, problem: str, *place: object) -> str:
        """A sentence about a part, with the file and the line before it; without a line if the part is not there."""
        line = self.line(*place)
        return f"{self.path}{f', line {line}' if line else ''}: {problem}"


def read_yaml(path: Path, what: str) -> YamlFile:
    """Read a YAML file; a key that is given twice is refused.

    Args:
        path: of the file.
        what: it is to be, for messages, as "space".

    Raises:
        UserError: it can't be read, or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The {what} '{path}' can't be read ({cause_of(error)}); name a .yaml file.") from None
    try:
        content = yaml.safe_load(text)
        root = yaml.compose(text, yaml.SafeLoader)
        _refuse_doubles(root, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{path}{where}: this is no YAML: {reason}.") from None
    except RecursionError:
        raise UserError(f"{path}: this is nested too deeply for a {what}.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date as 2024-13-45
        raise UserError(f"{path}: this is no YAML: {cause_of(error)}.") from None
    return YamlFile(path, content, root)


def _step(node: yaml.Node | None, step: object) -> tuple[int, yaml.Node] | None:
    """The line of a node's part, and the part."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return item.start_mark.line + 1, item
    return None


def _refuse_doubles(node: yaml.Node | None, seen: set[int]) -> None:
    """Refuse a key given twice, which YAML forbids but its readers take: the first one would be lost."""
    if node is None or id(node) in seen:  # what an alias repeats, which may be a mapping that holds itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_doubles(item, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    keys: set[tuple[str, str]] = set()
    for key, value in node.value:
        # By the tag as well: 1 and "1" are two keys.
        if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in keys:
            raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark)
        keys.add((key.tag, str(key.value)))
        _refuse_doubles(value, seen)
