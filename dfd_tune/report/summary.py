"""What MLflow is told of a search as a whole: numbers to compare searches by, tables, report, best student.

Not for: writing any of these (write.py), or sending them (tracking/).
"""

from __future__ import annotations

from collections.abc import Sequence

from dfd_tune.analysis.front import front_of
from dfd_tune.analysis.verdicts import headline
from dfd_tune.criteria import CRITERIA, DEFAULT
from dfd_tune.record import BEST_FOLDER, REPORT_FOLDER, SearchRecord, TrialRecord, best_file
from dfd_tune.report.captions import imported_teachers
from dfd_tune.report.conclusion import conclusion
from dfd_tune.store import Store
from dfd_tune.tracking import Summary

TABLES = ("ranking.md", "trials.csv")


def summary_of(store: Store, search: SearchRecord, trials: Sequence[TrialRecord]) -> Summary | None:
    """What lies in the folder of a search, wherever it was run, and what its records say; None before its end."""
    folder = store.path("searches", search.search)
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    report = sorted(file for file in (folder / REPORT_FOLDER).rglob("[!.]*") if file.is_file())
    if not tables and not report:
        return None
    classes = ", ".join(str(name) for name in search.dataset["classes"])
    teachers = imported_teachers(search)
    student = next((folder / BEST_FOLDER).glob("[!.]*.safetensors"), None)
    return Summary(
        metrics=summary_metrics(search, trials),
        tables=tables,
        report_folder=folder / REPORT_FOLDER,
        report=report,
        student=None if student is None else best_file(store, search.search, student.name),
        front=[trial.key for point in front_of(search, trials) for trial in point.trials],
        description=" ".join([f"{', '.join(conclusion(search, trials)[:1])}.", *teachers, f"Classes: {classes}."]),
    )


def summary_metrics(search: SearchRecord, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """What MLflow's summary run of a search compares by; accuracies and gains are fractions."""
    metrics = {f"{teacher.role}_{teacher.backbone}_val_accuracy": teacher.val_accuracy for teacher in search.teachers}
    for frontend in search.frontends:
        name = f"frontend_{frontend.kind}_{frontend.resolution}"
        metrics |= {f"{name}_psnr": frontend.psnr, f"{name}_ssim": frontend.ssim}
    best = search.best
    if best is not None:
        metrics |= {"best_val_accuracy": best.val_accuracy, "best_test_accuracy": best.test_accuracy}
        metrics["best_lambda"] = best.config["lambda_"]
        others = [criterion.column for name, criterion in CRITERIA.items() if name != DEFAULT]
        others += ["test_balanced_accuracy", "test_macro_f1"]
        metrics |= {f"best_{column}": value for column in others if (value := getattr(best, column)) is not None}
        if best.base_test_accuracy is not None:
            metrics["base_test_accuracy"] = best.base_test_accuracy
        metrics |= {} if best.cost is None else {f"best_{name}": value for name, value in best.cost.numbers().items()}
    found = headline(search, trials)
    if found is not None and found.judgement.comparison.fresh:  # what the choice has seen flatters
        metrics["mean_test_gain"] = found.difference.mean
        if found.difference.half is not None:
            metrics["mean_test_gain_half_width"] = found.difference.half
    return metrics
