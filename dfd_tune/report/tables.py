"""A search's trials: as a JSON object, as CSV, ranked.

Not for: comparisons of cells (cell_tables.py), what came out (conclusion.py), or figures (figures/).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dfd_tune.analysis.choice import ranked
from dfd_tune.analysis.points import Interval, Point, points_of
from dfd_tune.axes import explored_at
from dfd_tune.criteria import CRITERIA, DEFAULT, Criterion
from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.report.class_tables import recalls_of
from dfd_tune.report.fronts import cost_columns, front_objects
from dfd_tune.report.numbers import percent


def results_object(search: SearchRecord, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """What `results --format json` prints. Accuracies are fractions in 0..1."""
    best = search.best
    return {
        "search": search.search,
        "space": search.space,
        "dataset": search.dataset["dataset"],
        "dataset_facts": search.dataset,
        "teachers": [dataclasses.asdict(teacher) for teacher in search.teachers],
        "trials": [
            {
                "key": trial.key,
                "status": trial.status,
                "stage": trial.stage,
                "config": trial.config,
                "metrics": trial.metrics,
                "teacher": trial.teacher,
                "error": trial.error,
                "gpus": trial.gpus,
            }
            for trial in trials
        ],
        "protocol": search.protocol,
        "choose_by": search.choose_by,
        "tested": search.tested,
        "tests": {key: _scores(search, key) for key in search.tested},
        "recall": recalls_of(search),
        "confirm": dataclasses.asdict(search.confirm),
        "confirmation": [dataclasses.asdict(cell) for cell in search.confirmation],
        "frontends": [dataclasses.asdict(frontend) for frontend in search.frontends],
        "importances": search.importances,
        "objectives": search.objectives,
        "choose": search.choose,
        "front": front_objects(search, trials),
        "best": None if best is None else dataclasses.asdict(best),
    }


def _scores(search: SearchRecord, key: str) -> dict[str, float | None]:
    """What the test images say of a trial; of one that an older version tested, accuracy alone."""
    record = search.tests.get(key)
    scores = {"balanced_accuracy": record.balanced_accuracy, "macro_f1": record.macro_f1} if record is not None else {}
    return {"accuracy": search.tested[key], **scores}


def trials_csv(trials: Sequence[TrialRecord], choose_by: str = DEFAULT) -> str:
    """One line a trial: key, status, stage, every setting, every metric; and what the search chooses by, where that is
    not accuracy."""
    by = {} if choose_by == DEFAULT else {"choose_by": choose_by}
    settings = list(dict.fromkeys(name for trial in trials for name in trial.config))
    metrics = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "status", "stage", *by, *settings, *metrics])
    for trial in trials:
        writer.writerow(
            [
                trial.key,
                trial.status,
                trial.stage,
                *by.values(),
                *(trial.config.get(name, "") for name in settings),
                *(trial.metrics.get(name, "") for name in metrics),
            ]
        )
    return text.getvalue()


def ranking(search: SearchRecord, trials: Sequence[TrialRecord]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the ranking: one row a point of the search, best first, then its trials that did not finish.

    Numbers are means over a point's seeds; what was trained anew is not among them.
    """
    explored = [name for name in search.explored if name != "seed"]
    points = ranked(search, points_of(trials))
    with_seeds = any(len(point.trials) > 1 for point in points)
    of_costs, costs = cost_columns(search, trials)
    shown = [search.criterion, *([] if search.choose_by == DEFAULT else [CRITERIA[DEFAULT]])]
    header = ["rank", *explored, *(f"val. {criterion.words}" for criterion in shown), *of_costs]
    header += [*(["seeds"] if with_seeds else []), "train accuracy", "seconds"]
    rows = []
    for place, point in enumerate(points, 1):
        rows.append(
            [
                str(place),
                *_values(search, point.config, explored),
                *(value_of(point.interval(criterion), criterion) for criterion in shown),
                *costs.get(id(point.trials[0]), ()),
                *([str(len(point.trials))] if with_seeds else []),
                percent(_mean(point, "train_accuracy")),
                f"{_mean(point, 'seconds'):.0f}",
            ]
        )
    for trial in trials:
        if trial.stage == "search" and trial.status != "FINISHED":
            rest = [""] * (len(header) - 2 - len(explored))
            after = f" after {len(trial.history)} epochs" if trial.status == "STOPPED" else ""
            rows.append(["–", *_values(search, trial.config, explored), f"{trial.status}{after}", *rest])
    return header, rows


def _values(search: SearchRecord, config: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """A trial's values of these axes; a dash where an axis is not explored at its point."""
    there = explored_at(config, search.explored)
    return [_text(config[name]) if name in there else "–" for name in names]


def _mean(point: Point, metric: str) -> float:
    return statistics.fmean(trial.metrics[metric] for trial in point.trials)


def value_of(interval: Interval, criterion: Criterion) -> str:
    """What the search chooses by, of a point, with its interval: a share in per cent with two digits."""
    text = percent(interval.mean) if criterion.is_share else criterion.text(interval.mean)
    if interval.half is None:
        return text
    return f"{text} ± {100 * interval.half:.2f}" if criterion.is_share else f"{text} ± {interval.half:.2g}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
