"""The paper's Tables 1 and 2 with a search's numbers in them, and the paper's beside them.

Not for: what the paper's numbers are (paper.py), or a search's own tables (cell_tables.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dfd_tune.analysis.cells import Cell
from dfd_tune.analysis.comparisons import Comparison, compare, compare_plain, high_resolution, pair_of
from dfd_tune.analysis.points import lambda_of, tested_accuracy
from dfd_tune.analysis.verdicts import Judgement, judge
from dfd_tune.record import FrontendRecord, SearchRecord
from dfd_tune.report.captions import caption_of, marked, on_verdicts
from dfd_tune.report.formats import Table
from dfd_tune.report.found import Found, plainest, share_of_cells
from dfd_tune.report.numbers import NOTHING, share, signed, text_of
from dfd_tune.report.paper import (
    BACKBONES,
    DATASETS,
    FRONTENDS,
    TABLE_1,
    TABLE_2,
    is_papers_protocol,
    is_table_2,
    title_of,
)

TABLE_1_ROWS = ("HR baseline", "base (λ = 0)", "DFD", "chosen λ", "DFD − base", "gap recovered", "verdict")

Column = tuple[str, int, str]
"""Of Table 1: dataset, resolution, and the search's name where another search has that column already."""


def table1(searches: Sequence[Found]) -> Table | None:
    """The paper's Table 1: backbones by dataset and resolution, base network and DFD; ours, and the paper's beside it.

    Of each search, the cells of DFD without front end that differ in backbone and resolution alone. None unless there
    are at least two of these.
    """
    columns, shares = _table1_columns(searches)
    if sum(len(cells) for cells in columns.values()) < 2:
        return None
    order = sorted(columns, key=lambda column: (*_rank(column[0], DATASETS), *column[1:]))
    backbones = sorted({name for cells in columns.values() for name in cells}, key=lambda name: _rank(name, BACKBONES))
    shown = [(column, backbone) for backbone in backbones for column in order if backbone in columns[column]]
    compared = [
        compare(found.search, cell) for column, backbone in shown for found, cell in [columns[column][backbone]]
    ]
    judgements = dict(zip(shown, judge(compared), strict=True))
    rows = []
    for backbone in backbones:
        entries = [
            _table1_entries(columns[column].get(backbone), judgements.get((column, backbone)), column, backbone)
            for column in order
        ]
        for number, label in enumerate(TABLE_1_ROWS):
            rows.append((f"{title_of(backbone)} {label}", *(entry[number] for entry in entries)))
    used = list({id(found): found for cells in columns.values() for found, _ in cells.values()}.values())
    captions = [text for found in used for text in (caption_of(found.search, found.trials), shares[id(found)]) if text]
    beside = [
        found
        for column in order
        for backbone, (found, cell) in columns[column].items()
        if _papers_pair(found.search, cell, column, backbone) is not None
    ]
    captions += [_beside_the_paper(beside[0].search)] if beside else []
    header = ("accuracy on test images, %", *(_column_title(column, columns[column]) for column in order))
    caption = " ".join(filter(None, [*captions, on_verdicts(compared)]))
    return Table("table1", "Table 1: base network and DFD", caption, header, tuple(rows))


def _table1_columns(searches: Sequence[Found]) -> tuple[dict[Column, dict[str, tuple[Found, Cell]]], dict[int, str]]:
    """By column and backbone, the cells of Table 1; by a search's identity, which of its cells these are, in words."""
    columns: dict[Column, dict[str, tuple[Found, Cell]]] = {}
    shares: dict[int, str] = {}
    for found in searches:
        cells = plainest(found, {"backbone", "resolution"}, {"method": "dfd", "frontend": "none"})
        shares[id(found)] = share_of_cells(found, cells, {"backbone", "resolution"})
        for cell in cells:
            dataset, resolution = str(found.search.dataset["dataset"]), int(cell.config["resolution"])
            column: Column = (dataset, resolution, "")
            if cell.config["backbone"] in columns.get(column, {}):
                column = (dataset, resolution, found.search.search)
            columns.setdefault(column, {})[cell.config["backbone"]] = (found, cell)
    return columns, shares


def _column_title(column: Column, cells: Mapping[str, tuple[Found, Cell]]) -> str:
    dataset, side, search = column
    title = " ".join(filter(None, [title_of(dataset), f"{side}×{side}", search and f"({search})"]))
    on_test = next((found.search for found, _ in cells.values() if found.search.protocol == "paper"), None)
    return title if on_test is None else marked(title, on_test)


def _table1_entries(
    entry: tuple[Found, Cell] | None, judgement: Judgement | None, column: Column, backbone: str
) -> tuple[str, ...]:
    """What stands in the rows of `TABLE_1_ROWS` for one backbone in one column."""
    if entry is None or judgement is None:
        return (NOTHING,) * len(TABLE_1_ROWS)
    found, cell = entry
    result = judgement.comparison
    paper = _papers_pair(found.search, cell, column, backbone)
    base, dfd = (
        _beside(text_of(ours), paper[number] if paper else None)
        for number, ours in enumerate((result.base, result.distilled))
    )
    chosen = NOTHING if cell.chosen is None else f"{lambda_of(cell.chosen):.4g}"
    difference = signed(result.difference)
    if paper and result.difference is not None:
        difference += f" ({paper[1] - paper[0]:+.2f})".replace("-", "−")
    high = text_of(high_resolution(found.search, cell))
    return (high, base, dfd, chosen, difference, share(result.gap_recovered), judgement.verdict)


def _papers_pair(search: SearchRecord, cell: Cell, column: Column, backbone: str) -> tuple[float, float] | None:
    """The paper's base network and DFD, where ours are of its protocol."""
    known = TABLE_1.get((*column[:2], backbone))
    return known if known is not None and is_papers_protocol(search.dataset, cell.config) else None


def _beside_the_paper(search: SearchRecord) -> str:
    """What the paper's numbers beside ours are, and what differs."""
    held_out = search.dataset["validation_images"]
    trained = search.dataset["train_images"]
    return (
        f"In brackets: the paper's number, one run on all training images; ours are trained on {trained:,} of "
        f"{trained + held_out:,}, as the others are held out to choose by."
    )


def table2(found: Found, name: str = "") -> Table | None:
    """The paper's Table 2: HR and LR baseline, each super-resolution front end, DFD. None where nothing has finished.

    Args:
        found: a search that explored front ends.
        name: tells the table from those of other searches; empty if it is the only one.
    """
    drafts: list[_Row] = []
    free = {"frontend", "backbone", "resolution"}
    cells = plainest(found, free, {"method": "dfd"})
    for group in _by(cells, ("backbone", "resolution")).values():
        drafts += _table2_rows(found.search, group)
    if not drafts:
        return None
    compared = [draft.comparison for draft in drafts if draft.comparison is not None]
    judgements = iter(judge(compared))
    rows = [draft.text(None if draft.comparison is None else next(judgements)) for draft in drafts]
    header = ("", "accuracy on test images, %", "− LR baseline", "verdict", "PSNR, dB / SSIM", "paper")
    title = f"Table 2{name and f' of {name}'}: super-resolution front ends and DFD"
    quality = "PSNR and SSIM are of validation images; those of the LR baseline, of bicubic enlargement."
    caption = " ".join(
        filter(None, [found.caption, share_of_cells(found, cells, free), quality, on_verdicts(compared)])
    )
    return Table(f"table2{name and f'-{name}'}", marked(title, found.search), caption, header, tuple(rows))


@dataclass(frozen=True)
class _Row:
    """A row of Table 2 before all of its comparisons are judged together."""

    label: str
    accuracy: str
    comparison: Comparison | None
    """With the LR baseline; None where that would mean nothing."""
    quality: str
    paper: str

    def text(self, judgement: Judgement | None) -> tuple[str, ...]:
        compared = ("", "")
        if judgement is not None:
            compared = (signed(judgement.comparison.difference), judgement.verdict)
        return (self.label, self.accuracy, *compared, self.quality, self.paper)


def _table2_rows(search: SearchRecord, cells: Sequence[Cell]) -> list[_Row]:
    """The rows of one backbone at one resolution, in the paper's order."""
    backbone, resolution = str(cells[0].config["backbone"]), int(cells[0].config["resolution"])
    of_paper = is_table_2(str(search.dataset["dataset"]), resolution, backbone)
    paper = TABLE_2 if of_paper and is_papers_protocol(search.dataset, cells[0].config) else {}
    name = f"{title_of(backbone)} at {resolution}×{resolution}"
    by_frontend = {str(cell.config["frontend"]): cell for cell in cells}
    plain = by_frontend.get("none")
    ordered = {kind: by_frontend[kind] for kind in FRONTENDS if kind in by_frontend}
    high = next((text for cell in cells if (text := text_of(high_resolution(search, cell))) != NOTHING), NOTHING)
    rows = [_Row(f"HR baseline, {title_of(backbone)}", high, None, "", _paper(paper, "high_res"))]
    for kind, cell in ordered.items():
        own = pair_of(search, cell)[1]
        base = None if own is None else tested_accuracy(search, own)
        label = f"LR baseline, {name}" if kind == "none" else f"{kind.upper()} + {name}"
        beside = None if cell is plain else compare_plain(search, cell, plain)
        quality = _quality(search, kind, cell.config)
        rows.append(_Row(label, text_of(base), beside, quality, _paper(paper, kind)))
    for kind, cell in ordered.items():
        if cell.chosen is None:
            continue
        result = compare(search, cell)
        behind = "" if kind == "none" else f" behind {kind.upper()}"
        label = f"DFD{behind}, λ = {lambda_of(cell.chosen):.4g}, {name}"
        printed = NOTHING if behind else _paper(paper, "dfd")
        rows.append(_Row(label, text_of(result.distilled), result, "", printed))
    return rows


def _quality(search: SearchRecord, kind: str, config: Mapping[str, Any]) -> str:
    """PSNR and SSIM of a front end's images or, where there is none, of bicubic enlargement to the same side."""
    records = [
        record for record in search.frontends if all(config[name] == value for name, value in record.camera.items())
    ]
    if kind == "none":
        return f"{records[0].bicubic_psnr:.2f} / {records[0].bicubic_ssim:.3f}" if records else ""
    found: FrontendRecord | None = next((record for record in records if record.kind == kind), None)
    return "" if found is None else f"{found.psnr:.2f} / {found.ssim:.3f}"


def _paper(numbers: Mapping[str, float], row: str) -> str:
    return f"{numbers[row]:.2f}" if row in numbers else NOTHING


def _beside(ours: str, paper: float | None) -> str:
    return ours if paper is None else f"{ours} ({paper:.2f})"


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name), "") if name in order else (len(order), name)


def _by(cells: Sequence[Cell], names: Sequence[str]) -> Mapping[tuple[Any, ...], list[Cell]]:
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.config[name] for name in names), []).append(cell)
    return groups
