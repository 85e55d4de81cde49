"""Which tables a report of searches has: the paper's, then each search's own.

Not for: what stands in them (paper_tables.py, cell_tables.py), or writing them down (formats.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from dfd_tune.report.cell_tables import cells_table, controls_table, frontends_table
from dfd_tune.report.class_tables import recall_table, scores_table
from dfd_tune.report.formats import Table
from dfd_tune.report.found import Found
from dfd_tune.report.paper_tables import table1, table2


def tables_of(searches: Sequence[Found]) -> list[Table]:
    """Every table that there is something to say in."""
    tables = [table1(searches)]
    behind = [found for found in searches if "frontend" in found.search.explored]
    tables += [table2(found, "" if len(behind) == 1 else found.search.search) for found in behind]
    for found in searches:
        tables += [cells_table(found), controls_table(found), scores_table(found), recall_table(found)]
        tables.append(frontends_table(found))
    return [table for table in tables if table is not None]
