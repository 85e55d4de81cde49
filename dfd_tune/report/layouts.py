"""Which numbers stand where: the paper's Tables 1 and 2 with ours beside them, and a table of all cells of a search.

Not for: working the numbers out (cells.py), or writing them down (formats.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.report.cells import Cell, Interval, cells_of, compare, lambda_of, tested_accuracy
from dfd_tune.report.formats import Table
from dfd_tune.report.paper import BACKBONES, DATASETS, TABLE_1, TABLE_2, is_table_2, title_of

NOTHING = "–"


@dataclass(frozen=True)
class Found:
    """A search and its trials."""

    search: SearchRecord
    trials: Sequence[TrialRecord]

    @property
    def cells(self) -> list[Cell]:
        """The cells that have at least one point."""
        return cells_of(self.search, self.trials)


def tables_of(searches: Sequence[Found]) -> list[Table]:
    """Every table that there is something to say in."""
    tables = [table1(searches), table2(searches)]
    for found in searches:
        tables += [cells_table(found), frontends_table(found)]
    return [table for table in tables if table is not None]


def table1(searches: Sequence[Found]) -> Table | None:
    """The paper's Table 1: backbones by dataset and resolution, base network and DFD; ours, and the paper's beside it.

    Of each search, the cells that differ in backbone and resolution alone. None unless some search has at least two of
    these, or more than one search is given.
    """
    columns: dict[tuple[str, int], dict[str, tuple[Found, Cell]]] = {}
    for found in searches:
        for cell in _plainest(found, {"backbone", "resolution"}):
            column = (str(found.search.dataset["dataset"]), int(cell.config["resolution"]))
            columns.setdefault(column, {}).setdefault(cell.config["backbone"], (found, cell))
    if sum(len(cells) for cells in columns.values()) < 2:
        return None
    order = sorted(columns, key=lambda column: (*_rank(column[0], DATASETS), column[1]))
    rows = []
    for backbone in sorted({name for cells in columns.values() for name in cells}, key=lambda n: _rank(n, BACKBONES)):
        entries = [_table1_entries(columns[column].get(backbone), column, backbone) for column in order]
        for number, label in enumerate(TABLE_1_ROWS):
            rows.append((f"{title_of(backbone)} {label}", *(entry[number] for entry in entries)))
    header = ("accuracy on test images, %", *(f"{title_of(name)} {side}×{side}" for name, side in order))
    caption = " ".join(caption_of(found) for found in searches)
    if any(name in DATASETS for name, _ in order):
        caption += " In brackets: the paper's number, one run."
    return Table("table1", "Table 1: base network and DFD", caption, header, tuple(rows))


TABLE_1_ROWS = ("base (λ = 0)", "DFD", "DFD − base", "gap recovered", "verdict")


def _table1_entries(entry: tuple[Found, Cell] | None, column: tuple[str, int], backbone: str) -> tuple[str, ...]:
    """What stands in the rows of `TABLE_1_ROWS` for one backbone in one column."""
    if entry is None:
        return (NOTHING,) * len(TABLE_1_ROWS)
    found, cell = entry
    result = compare(found.search, cell)
    paper = TABLE_1.get((*column, backbone))
    base, dfd = (_beside(text, paper[number] if paper else None) for number, text in enumerate(_pair(result)))
    chosen = f", λ = {lambda_of(cell.chosen):g}" if cell.chosen is not None and result.distilled is not None else ""
    difference = signed(result.difference)
    if paper and result.difference is not None:
        difference += f" ({paper[1] - paper[0]:+.2f})".replace("-", "−")
    return (base, dfd + chosen, difference, _share(result.gap_recovered), result.verdict)


def table2(searches: Sequence[Found]) -> Table | None:
    """The paper's Table 2: HR and LR baseline, each super-resolution front end, DFD. None where no front end was."""
    found = next((found for found in searches if "frontend" in found.search.explored), None)
    if found is None:
        return None
    search = found.search
    rows = []
    for cells in _by(_plainest(found, {"frontend", "backbone", "resolution"}), ("backbone", "resolution")).values():
        config = cells[0].config
        resolution, backbone = int(config["resolution"]), str(config["backbone"])
        paper = TABLE_2 if is_table_2(str(search.dataset["dataset"]), resolution, backbone) else {}
        name = f"{title_of(backbone)} at {resolution}×{resolution}"
        teacher = next((cell.teacher for cell in cells if cell.teacher is not None), None)
        if teacher is not None and teacher.test_accuracy is not None:
            rows.append((f"HR baseline, {name}", f"{100 * teacher.test_accuracy:.2f}", "", "", paper.get("high_res")))
        without = next((cell for cell in cells if cell.config["frontend"] == "none"), None)
        for cell in cells:
            kind = str(cell.config["frontend"])
            base = None if cell.base is None else tested_accuracy(search, cell.base)
            label = f"LR baseline, {name}" if kind == "none" else f"{kind.upper()} + {name}"
            rows.append(
                (label, text_of(base), _against(search, cell, without), _quality(search, cell), paper.get(kind))
            )
        for cell in cells:
            if cell.chosen is None:
                continue
            result = compare(search, cell)
            kind = "" if cell.config["frontend"] == "none" else f" behind {str(cell.config['frontend']).upper()}"
            label = f"DFD{kind}, λ = {lambda_of(cell.chosen):g}, {name}"
            gain = f"{signed(result.difference)} {result.verdict}"
            rows.append((label, text_of(result.distilled), gain, "", paper.get("dfd") if not kind else None))
    if not rows:
        return None
    header = ("", "accuracy on test images, %", "− LR baseline", "PSNR / SSIM (bicubic)", "paper")
    texts = tuple((*row[:4], NOTHING if row[4] is None else f"{row[4]:.2f}") for row in rows)
    return Table("table2", "Table 2: super-resolution front ends and DFD", caption_of(found), header, texts)


def _against(search: SearchRecord, cell: Cell, without: Cell | None) -> str:
    """Plain training behind a front end against plain training without, over pairs of the same seed."""
    if without is None or cell is without or without.base is None or cell.base is None:
        return ""
    behind = Cell(cell.name, cell.setting, (without.base,), (), cell.base, cell.teacher)
    result = compare(search, behind)
    return f"{signed(result.difference)} {result.verdict}"


def _quality(search: SearchRecord, cell: Cell) -> str:
    kind, resolution = cell.config["frontend"], cell.config["resolution"]
    for record in search.frontends:
        if (record.kind, record.resolution) == (kind, resolution):
            return (
                f"{record.psnr:.2f} dB / {record.ssim:.3f} ({record.bicubic_psnr:.2f} dB / {record.bicubic_ssim:.3f})"
            )
    return ""


def cells_table(found: Found) -> Table:
    """A row a cell: base network, chosen λ, DFD, paired difference, gap recovered, verdict."""
    search = found.search
    rows = []
    for cell in found.cells:
        result = compare(search, cell)
        base, distilled = _pair(result)
        rows.append(
            (
                cell.name,
                base,
                NOTHING if cell.chosen is None else f"{lambda_of(cell.chosen):.4g}",
                distilled,
                signed(result.difference),
                _share(result.gap_recovered),
                NOTHING
                if cell.teacher is None or cell.teacher.test_accuracy is None
                else f"{100 * cell.teacher.test_accuracy:.2f}",
                result.verdict,
            )
        )
    header = (
        "cell",
        "base (λ = 0), %",
        "chosen λ",
        "distilled, %",
        "difference",
        "gap recovered",
        "HR baseline, %",
        "verdict",
    )
    title = f"{search.search}: accuracy on test images of each cell's base network and chosen student"
    return Table(f"cells-{search.search}", title, caption_of(found), header, tuple(rows))


def frontends_table(found: Found) -> Table | None:
    """The front ends of a search: how near their images come to true ones, beside plain bicubic enlargement."""
    records = found.search.frontends
    if not records:
        return None
    rows = tuple(
        (
            record.kind,
            f"{record.resolution}×{record.resolution} → {2 * record.resolution}×{2 * record.resolution}",
            f"{record.psnr:.2f}",
            f"{record.ssim:.4f}",
            f"{record.bicubic_psnr:.2f}",
            f"{record.bicubic_ssim:.4f}",
            record.content or NOTHING,
        )
        for record in records
    )
    header = ("front end", "pixels", "PSNR, dB", "SSIM", "bicubic PSNR, dB", "bicubic SSIM", "content loss on")
    caption = (
        f"{found.search.dataset['dataset']}: {found.search.dataset['validation_images']:,} validation images; PSNR of "
        "all images together, SSIM with a window of 7 pixels; widths and depths "
        f"{records[0].size:g} times the published ones."
    )
    return Table(f"frontends-{found.search.search}", "Super-resolution front ends", caption, header, rows)


def caption_of(found: Found) -> str:
    """What the numbers of a search are of, in sentences."""
    search = found.search
    facts = search.dataset
    epochs = sorted({trial.config["epochs"] for trial in found.trials}) or [search.settings.get("epochs", 0)]
    seeds = sorted({trial.config["seed"] for trial in found.trials if trial.status == "FINISHED"})
    many = f"{len(seeds)} seeds, ± is the 95 % interval of the mean" if len(seeds) > 1 else "one seed, so no intervals"
    parts = [
        f"{facts['dataset']}: {facts['train_images']:,} training, {facts['validation_images']:,} validation and "
        f"{facts['test_images']:,} test images of {facts['image_size']}×{facts['image_size']} pixels; "
        f"{' to '.join(f'{count}' for count in dict.fromkeys((epochs[0], epochs[-1])))} epochs; {many}.",
        chosen_by(search),
    ]
    missing = missing_of(found)
    return " ".join([*parts, missing] if missing else parts)


def chosen_by(search: SearchRecord) -> str:
    """By which images λ was chosen, as a sentence."""
    if search.protocol == "paper":
        return "λ was chosen on TEST images, as the paper appears to do: no honest estimate."
    return "λ was chosen on validation images."


def missing_of(found: Found) -> str:
    """What an unfinished search lacks, as a sentence; empty if nothing."""
    search = found.search
    statuses = [trial.status for trial in found.trials]
    finished = statuses.count("FINISHED")
    lines = []
    if finished < search.num_trials:
        others = {status: statuses.count(status) for status in ("RUNNING", "FAILED", "KILLED") if status in statuses}
        more = "".join(f", {count} {status}" for status, count in others.items())
        lines.append(f"Unfinished: {finished} of {search.num_trials} trials have a result{more}.")
    if not search.tested:
        lines.append("Test images are looked at when the search is concluded, so there are no test accuracies yet.")
    return " ".join(lines)


def text_of(interval: Interval | None) -> str:
    """An accuracy in per cent with its interval, as in 95.69 ± 1.35."""
    if interval is None:
        return NOTHING
    half = "" if interval.half is None else f" ± {100 * interval.half:.2f}"
    return f"{100 * interval.mean:.2f}{half}"


def signed(interval: Interval | None) -> str:
    """A difference in points with its sign, as in +0.62 ± 0.58."""
    if interval is None:
        return NOTHING
    half = "" if interval.half is None else f" ± {100 * interval.half:.2f}"
    return f"{100 * interval.mean:+.2f}{half}".replace("-", "−")


def _pair(result: Any) -> tuple[str, str]:
    return text_of(result.base), text_of(result.distilled)


def _beside(ours: str, paper: float | None) -> str:
    return ours if paper is None else f"{ours} ({paper:.2f})"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}".replace("-", "−")


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name), "") if name in order else (len(order), name)


def _plainest(found: Found, free: set[str]) -> list[Cell]:
    """The cells that differ in `free` alone: those whose other axes have the values of the first cell."""
    cells = found.cells
    if not cells:
        return []
    fixed = {name: value for name, value in cells[0].setting.items() if name not in free}
    return [cell for cell in cells if all(cell.setting.get(name) == value for name, value in fixed.items())]


def _by(cells: Sequence[Cell], names: Sequence[str]) -> Mapping[tuple[Any, ...], list[Cell]]:
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.config[name] for name in names), []).append(cell)
    return groups
