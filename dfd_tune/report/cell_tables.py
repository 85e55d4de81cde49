"""Tables of a search: its cells, what was held against their students, and its front ends.

Not for: the paper's own tables (paper_tables.py), or working the numbers out (analysis/).
"""

from __future__ import annotations

from dfd_tune.analysis.comparisons import compare_controls, high_resolution, pooled
from dfd_tune.analysis.points import lambda_of
from dfd_tune.analysis.verdicts import Judgement, judge, judge_cells
from dfd_tune.confirm import CONTROLS
from dfd_tune.record import describe_point
from dfd_tune.report.captions import marked, on_verdicts
from dfd_tune.report.formats import Table
from dfd_tune.report.found import Found
from dfd_tune.report.numbers import NOTHING, share, signed, text_of

CELLS_HEADER = (
    "cell",
    "seeds",
    "start",
    "epochs",
    "base (λ = 0), %",
    "chosen λ",
    "distilled, %",
    "difference",
    "gap recovered",
    "HR baseline, %",
    "would have seen",
    "p (Holm)",
    "verdict",
)

CONTROLS_HEADER = (
    "cell",
    "held against",
    "its accuracy, %",
    "distilled, %",
    "difference",
    "would have seen",
    "p (Holm)",
    "verdict",
)


def cells_table(found: Found) -> Table | None:
    """A row a cell: base network, chosen λ, student, paired difference, gap recovered, verdict; and one for all of them
    pooled, where there are several. None without cells."""
    search, cells = found.search, found.cells
    judgements = judge_cells(search, cells)
    rows = [
        _cells_row(
            cell.name,
            (str(cell.config["student_start"]), str(cell.config["epochs"])),
            NOTHING if cell.chosen is None else f"{lambda_of(cell.chosen):.4g}",
            text_of(high_resolution(search, cell)),
            judgement,
        )
        for cell, judgement in zip(cells, judgements, strict=True)
    ]
    if not rows:
        return None
    together = pooled(search, cells)
    if together is not None:
        rows.append(_cells_row("pooled", (NOTHING, NOTHING), NOTHING, NOTHING, judge([together])[0]))
    title = marked(f"{search.search}: accuracy on test images of each cell's base network and chosen student", search)
    caption = " ".join(filter(None, [found.caption, on_verdicts([judgement.comparison for judgement in judgements])]))
    return Table(f"cells-{search.search}", title, caption, CELLS_HEADER, tuple(rows))


def _cells_row(
    name: str, training: tuple[str, str], chosen: str, high_res: str, judgement: Judgement
) -> tuple[str, ...]:
    result = judgement.comparison
    seen = None if result.paired is None else result.paired.smallest_seen
    return (
        name,
        NOTHING if result.difference is None else str(result.difference.seeds),
        *training,
        text_of(result.base),
        chosen,
        text_of(result.distilled),
        signed(result.difference),
        share(result.gap_recovered),
        high_res,
        NOTHING if seen is None else f"{100 * seen:.2f}",
        NOTHING if judgement.p_value is None else f"{judgement.p_value:.2g}",
        judgement.verdict,
    )


def controls_table(found: Found) -> Table | None:
    """A row a control and cell: what might have done as well as the distilled student, on the same fresh seeds. None
    without controls."""
    compared = [
        (cell, control, comparison)
        for cell in found.cells
        for control, comparison in compare_controls(found.search, cell).items()
    ]
    if not compared:
        return None
    judgements = judge([comparison for _, _, comparison in compared])
    rows = []
    for (cell, control, _), judgement in zip(compared, judgements, strict=True):
        entries = dict(zip(CELLS_HEADER, _cells_row(cell.name, ("", ""), "", "", judgement), strict=True))
        entries |= {"held against": CONTROLS[control], "its accuracy, %": entries["base (λ = 0), %"]}
        rows.append(tuple(entries[name] for name in CONTROLS_HEADER))
    what = "A control asks whether something simpler than a high-resolution teacher would have done as well."
    caption = " ".join(filter(None, [found.caption, what, on_verdicts([one for _, _, one in compared])]))
    title = f"{found.search.search}: the distilled student against controls"
    return Table(f"controls-{found.search.search}", title, caption, CONTROLS_HEADER, tuple(rows))


def frontends_table(found: Found) -> Table | None:
    """The front ends of a search: how near their images come to true ones, beside plain bicubic enlargement."""
    records = found.search.frontends
    if not records:
        return None
    rows = tuple(
        (
            record.kind,
            describe_point(record.camera, ("downsample", "blur", "noise", "jpeg_quality")),
            f"{record.resolution}×{record.resolution} → {2 * record.resolution}×{2 * record.resolution}",
            f"{record.psnr:.2f}",
            f"{record.ssim:.4f}",
            f"{record.bicubic_psnr:.2f}",
            f"{record.bicubic_ssim:.4f}",
            record.content or NOTHING,
        )
        for record in records
    )
    header = (
        "front end",
        "camera",
        "pixels",
        "PSNR, dB",
        "SSIM",
        "bicubic PSNR, dB",
        "bicubic SSIM",
        "content loss on",
    )
    caption = (
        f"{found.search.dataset['dataset']}: {found.search.dataset['validation_images']:,} validation images; PSNR of "
        "all images together, SSIM with a window of 7 pixels; widths and depths "
        f"{records[0].size:g} times the published ones."
    )
    title = f"{found.search.search}: super-resolution front ends"
    return Table(f"frontends-{found.search.search}", title, caption, header, rows)
