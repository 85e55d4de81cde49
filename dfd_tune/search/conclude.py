"""The end of a search: the best student chosen on validation, tested once, kept, drawn and registered.

Not for: training anything.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dfd_tune.analysis.cells import trials_to_test
from dfd_tune.analysis.choice import best_trial
from dfd_tune.analysis.importances import importances
from dfd_tune.config import TrialConfig
from dfd_tune.distill.student import STUDENT_FILE, student_file, student_there
from dfd_tune.distill.testing import probabilities_on_test_images
from dfd_tune.distill.workbench import Workbench
from dfd_tune.plan import Plan
from dfd_tune.record import (
    BEST_FOLDER,
    PREDICTIONS_FILE,
    REPORT_FOLDER,
    BestRecord,
    TrialRecord,
)
from dfd_tune.report.conclusion import conclusion
from dfd_tune.report.formats import markdown
from dfd_tune.report.summary import summary_of
from dfd_tune.report.tables import ranking, trials_csv
from dfd_tune.report.write import write_report
from dfd_tune.search.jobs import Job, JobId, trial_job
from dfd_tune.search.ledger import Ledger
from dfd_tune.store import Store, write_text
from dfd_tune.tracking import Tracker


def base_twin(config: TrialConfig) -> TrialConfig:
    """The trial that differs from `config` in λ alone, which is 0: what distillation is to be measured against."""
    return dataclasses.replace(config, lambda_=0.0)


def follow_up(ledger: Ledger, plan: Plan) -> list[Job]:
    """The jobs that come once all trials have ended: the λ = 0 twin of the best student, then the test images.

    Students are tested whom the report speaks of; what an earlier launch tested is not asked again. A student whose
    weights are gone is trained again first. Nothing, once all of it is known.
    """
    trials = ledger.in_order()
    best = best_trial(trials)
    if best is None:
        return []
    twin = open_twin(ledger, plan, best)
    if twin is not None:
        return [twin]
    digest = ledger.dataset_digest
    untested = {record.key for record in ledger.search.teachers if record.test_accuracy is None}
    jobs = [
        Job(kind="reference", key=network.key, config=network.config)
        for network in plan.networks
        if network.key in untested
    ]
    for key, config in _to_test(ledger, trials, best).items():
        retrained = not student_there(ledger.store, key)
        if retrained:
            jobs.append(trial_job(config, key, digest, weights=True))
        needs: frozenset[JobId] = frozenset({("trial", key)}) if retrained else frozenset()
        jobs.append(Job(kind="test", key=key, config=config, needs=needs))
    kept = _is_kept(ledger.store.path("searches", ledger.search.search, BEST_FOLDER))
    if not jobs and not kept and not student_there(ledger.store, best.key):
        jobs.append(trial_job(TrialConfig(**best.config), best.key, digest, weights=True))  # it is to be deployed
    return jobs


def open_twin(ledger: Ledger, plan: Plan, best: TrialRecord) -> Job | None:
    """The best student's λ = 0 twin, where the space does not hold it and it was not run yet."""
    if best.config["lambda_"] == 0 or "lambda_" not in plan.request.explore:
        return None
    config = base_twin(TrialConfig(**best.config))
    key = config.key(ledger.dataset_digest)
    known = ledger.trials.get(key)
    if known is not None and known.status in ("FINISHED", "FAILED"):
        return None
    return trial_job(config, key, ledger.dataset_digest)


def conclude(ledger: Ledger, plan: Plan) -> None:
    """Choose and keep the best student, and write tables and report."""
    store, folder = ledger.store, ledger.store.path("searches", ledger.search.search)
    trials = ledger.in_order()
    best = best_trial(trials)
    if best is not None and best.key in ledger.search.tested:
        before = ledger.search.best
        if before is None or before.key != best.key or not _is_kept(folder / BEST_FOLDER):
            _keep_best(store, folder / BEST_FOLDER, best, plan.dataset.folder.name)
        ledger.update_search(importances=importances(ledger.search, trials), best=_best_record(ledger, best))
    header, rows = ranking(ledger.search, trials)
    text = "\n".join(conclusion(ledger.search, trials))
    write_text(folder / "ranking.md", f"# {ledger.search.search}\n\n{text}\n\n{markdown(header, rows)}")
    write_text(folder / "trials.csv", trials_csv(trials))
    write_report(store, [ledger.search], folder / REPORT_FOLDER)


def register(ledger: Ledger, tracker: Tracker) -> str | None:
    """Send summary, report and the best student to MLflow; returns the registered model's address."""
    search, trials = ledger.search, ledger.in_order()
    summary = summary_of(ledger.store, search, trials)
    address = None if summary is None else tracker.conclude(search, trials, summary)
    if search.best is not None and address is not None:
        ledger.update_search(best=dataclasses.replace(search.best, model=address))
    return address


def _to_test(ledger: Ledger, trials: Sequence[TrialRecord], best: TrialRecord) -> dict[str, TrialConfig]:
    """By key, the students that are to be tested and are not yet: those that the report speaks of, and the best with
    its λ = 0 twin."""
    wanted = {trial.key: TrialConfig(**trial.config) for trial in (*trials_to_test(ledger.search, trials), best)}
    twin = base_twin(TrialConfig(**best.config))
    twin_key = twin.key(ledger.dataset_digest)
    known = ledger.trials.get(twin_key)
    if known is not None and known.status == "FINISHED":
        wanted[twin_key] = twin
    return {key: config for key, config in wanted.items() if key not in ledger.search.tested}


def _best_record(ledger: Ledger, best: TrialRecord) -> BestRecord:
    config, search = TrialConfig(**best.config), ledger.search
    twin_key = base_twin(config).key(ledger.dataset_digest)
    has_twin = config.distills and twin_key in search.tested
    model = search.best.model if search.best is not None and search.best.key == best.key else None
    return BestRecord(
        key=best.key,
        config=best.config,
        val_accuracy=best.metrics["val_accuracy"],
        test_accuracy=search.tested[best.key],
        teacher=best.teacher,
        base_key=twin_key if has_twin else None,
        base_test_accuracy=search.tested[twin_key] if has_twin else None,
        model=model,
    )


def _is_kept(folder: Path) -> bool:
    return (folder / STUDENT_FILE).is_file() and (folder / PREDICTIONS_FILE).is_file()


def _keep_best(store: Store, folder: Path, best: TrialRecord, dataset: str) -> None:
    """The best student's file, and what it makes of each test image, for the figures of its mistakes."""
    file = student_file(store, best.key)
    bench = Workbench(store, dataset, {}, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    probabilities, labels = probabilities_on_test_images(file, TrialConfig(**best.config), bench)
    folder.mkdir(exist_ok=True)
    shutil.copyfile(file, folder / STUDENT_FILE)
    draft = folder / f".{PREDICTIONS_FILE}"
    with draft.open("wb") as stream:
        np.savez(stream, labels=labels, probabilities=probabilities)
    draft.replace(folder / PREDICTIONS_FILE)
