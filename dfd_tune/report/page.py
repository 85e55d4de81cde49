"""The report's page: one HTML file that holds its pictures and needs neither network nor script.

Its layout is page.html, a Jinja template. Not for: what it says (write.py, layouts.py).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.report.formats import Table


@dataclass(frozen=True)
class Figure:
    """A figure of the page."""

    title: str
    caption: str
    files: tuple[Path, ...]
    """A PNG, which the page shows, and an SVG."""

    def data_uri(self) -> str:
        """The PNG as an address that holds it."""
        picture = next(file for file in self.files if file.suffix == ".png").read_bytes()
        return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


@dataclass(frozen=True)
class Section:
    """What the page says of one search."""

    name: str
    summary: tuple[str, ...]
    figures: tuple[Figure, ...]
    left_out: tuple[str, ...]
    """Why which figure is not there."""


def page(title: str, tables: Sequence[Table], sections: Sequence[Section]) -> str:
    """The page as HTML; all text is escaped."""
    from jinja2 import Environment, StrictUndefined

    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template).render(title=title, tables=tables, sections=sections)
