"""A table, and the forms it is written in: Markdown, CSV, LaTeX and aligned text.

Not for: what stands in a table (cell_tables.py, paper_tables.py, tables.py).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Text in rows and columns. The first column names the row; a dash stands where nothing is known."""

    name: str
    """For files, as in `table1`."""
    title: str
    caption: str
    """What the numbers are of: dataset, images, epochs, seeds, and by which images λ was chosen."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows), f"{self.name} is no table"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "λ": r"$\lambda$",
    "−": r"$-$",
    "½": r"$\frac{1}{2}$",
    "→": r"$\to$",
    "–": "--",
    "|": r"\textbar{}",
    "<": r"$<$",
    ">": r"$>$",
}


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def plain(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in aligned columns."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "".join(line.rstrip() + "\n" for line in lines)


def as_markdown(table: Table) -> str:
    """With title and caption."""
    return f"**{table.title}.** {table.caption}\n\n{markdown(table.header, table.rows)}"


def as_csv(table: Table) -> str:
    """Header and rows; title and caption are left to the other forms."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([table.header, *table.rows])
    return text.getvalue()


def as_latex(table: Table) -> str:
    """A `table` with rules of the package booktabs (https://ctan.org/pkg/booktabs), caption and label."""
    lines = [" & ".join(latex(cell) for cell in row) + r" \\" for row in (table.header, *table.rows)]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(table.title)}. {latex(table.caption)}}}",
            rf"\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{{'l' + 'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex(text: str) -> str:
    """Text with LaTeX's special characters, and this project's symbols, as LaTeX writes them."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found.group()], text)
