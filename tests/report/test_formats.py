"""A table comes out of each form as it went in, whatever characters it holds."""

import csv
import io
import re

import pytest

from dfd_tune.report.formats import Table, as_csv, as_latex, as_markdown, latex, markdown, plain

HOSTILE = ("a & b", "50 %", "$x$", "#1", "snake_case", "{braces}", "~tilde", "^hat", "back\\slash", "a|b", "1 < 2 > 0")
SYMBOLS = ("95.69 ± 1.35", "8×8", "λ = 2", "−0.5", "½", "–", "4×4 → 8×8")
TABLE = Table(
    "table_x",
    "100 % & more",
    "Of λ_1 and {2}.",
    ("name", *(f"column {number}" for number in range(len(SYMBOLS) - 1))),
    (SYMBOLS, HOSTILE[: len(SYMBOLS)], tuple(reversed(HOSTILE))[: len(SYMBOLS)]),
)


def test_a_row_of_another_length_is_no_table():
    with pytest.raises(AssertionError, match="x is no table"):
        Table("x", "", "", ("a", "b"), (("1",),))


def test_csv_comes_back_cell_by_cell():
    awkward = Table("x", "", "", ("a", "b"), (("comma, here", 'quote " here'), ("line\nbreak", "")))
    for table in (TABLE, awkward):
        assert [tuple(row) for row in csv.reader(io.StringIO(as_csv(table)))] == [table.header, *table.rows]


def test_markdown_keeps_its_columns_whatever_stands_in_them():
    text = as_markdown(TABLE)
    title, empty, *lines = text.splitlines()
    assert title == "**100 % & more.** Of λ_1 and {2}."
    assert empty == ""
    assert len(lines) == 2 + len(TABLE.rows)
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == len(TABLE.header) + 1
    assert r"a\|b" in text


def test_tables_keep_their_columns():
    header, rows = ["a", "long"], [["1", "x"], ["22", ""]]
    assert plain(header, rows) == "a   long\n1   x\n22\n"
    assert markdown(header, rows) == "| a | long |\n| --- | --- |\n| 1 | x |\n| 22 |  |\n"
    assert plain(header, []) == "a  long\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a & b", r"a \& b"),
        ("50 %", r"50 \%"),
        ("$x$", r"\$x\$"),
        ("#1", r"\#1"),
        ("snake_case", r"snake\_case"),
        ("{braces}", r"\{braces\}"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("back\\slash", r"back\textbackslash{}slash"),
        ("a|b", r"a\textbar{}b"),
        ("1 < 2 > 0", "1 $<$ 2 $>$ 0"),
        ("95.69 ± 1.35", r"95.69 $\pm$ 1.35"),
        ("4×4 → 8×8", r"4$\times$4 $\to$ 8$\times$8"),
        ("λ = −½", r"$\lambda$ = $-$$\frac{1}{2}$"),
        ("–", "--"),
    ],
)
def test_latex_has_every_special_character_escaped(text, written):
    assert latex(text) == written


def test_latex_is_a_table_that_can_be_typeset():
    text = as_latex(TABLE)
    assert text.isascii(), "without a Unicode engine, nothing else is set"
    # Without what is escaped, braces are balanced and each row has its columns.
    bare = re.sub(r"\\[&%$#_{}]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    columns = re.search(r"\\begin\{tabular\}\{(l?r*)\}", bare).group(1)
    rows = [line for line in bare.splitlines() if line.endswith(r"\\")]
    assert len(columns) == len(TABLE.header)
    assert len(rows) == 1 + len(TABLE.rows)
    assert {row.count("&") for row in rows} == {len(columns) - 1}
    opened, closed = (re.findall(rf"\\{word}\{{(\w+)\}}", bare) for word in ("begin", "end"))
    assert opened == closed[::-1] == ["table", "tabular"]
    assert r"\label{tab:table_x}" in text
