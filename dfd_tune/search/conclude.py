"""The end of a search: what was chosen trained anew, tested once; the best student kept, drawn and registered.

Not for: training anything, which is done as jobs, or what is to be trained anew (analysis/confirmation.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfd_tune.analysis.choice import best_trial
from dfd_tune.analysis.confirmation import anew
from dfd_tune.analysis.importances import importances
from dfd_tune.config import TrialConfig
from dfd_tune.confirm import twin_of
from dfd_tune.criteria import CRITERIA
from dfd_tune.distill.student import STUDENT_FILE, student_file
from dfd_tune.distill.testing import probabilities_on_test_images
from dfd_tune.distill.workbench import Workbench
from dfd_tune.errors import UserError
from dfd_tune.machine import this_process
from dfd_tune.models.cost import BATCH, example_images, latency_of, multiply_adds, parameters_of
from dfd_tune.models.deployed import load_deployed
from dfd_tune.plan import Plan
from dfd_tune.record import (
    BEST_FOLDER,
    PREDICTIONS_FILE,
    REPORT_FOLDER,
    BestRecord,
    CostRecord,
    Stage,
    TrialRecord,
)
from dfd_tune.report.conclusion import conclusion
from dfd_tune.report.formats import markdown
from dfd_tune.report.summary import TABLES, summary_of
from dfd_tune.report.tables import ranking, trials_csv
from dfd_tune.report.write import write_report
from dfd_tune.search.jobs import Job, JobId, prerequisite_jobs, trial_job
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.students import is_deployed, lacking, to_test
from dfd_tune.store import LATE_SECONDS, Store, replacing, write_manifest, write_text
from dfd_tune.tracking import Tracker

IMPORTED_AHEAD = (
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "scipy.special",
    "torch._dynamo",
)
"""By the report, and by the export of the best student: seconds, in which nothing else would be done at the end."""


def prepare(tracker: Tracker) -> None:
    """While trials run, connect to MLflow and import what the conclusion needs; returns at once."""
    tracker.prepare()
    threading.Thread(target=_import_ahead, args=(tracker,), name="dfd-tune-imports", daemon=True).start()


def _import_ahead(tracker: Tracker) -> None:
    # One after the other: modules that import each other in a circle are safe in one thread alone.
    with contextlib.suppress(UserError):
        tracker.wait()
    for module in IMPORTED_AHEAD:
        importlib.import_module(module)


def follow_up(ledger: Ledger, plan: Plan, say: Callable[[str], None] = lambda line: None) -> list[Job]:
    """The jobs that come once all trials have ended: what is trained anew with what it needs, then the test images.

    Students are tested whom the report speaks of; what an earlier launch tested is not asked again. A student whose
    weights are gone is trained again first. Nothing, once all of it is known.

    Args:
        ledger: of the search.
        plan: of it.
        say: takes a line where students are trained again.
    """
    trials = ledger.in_order()
    best = best_trial(ledger.search, trials)
    if best is None:
        return []
    training = _confirming(ledger, plan) or _twin(ledger, plan, best)
    if training:
        return training
    jobs: list[Job] = []
    for network in (*plan.networks, *plan.later_networks):
        record = next((found for found in ledger.search.teachers if found.key == network.key), None)
        if record is not None and record.test_accuracy is None:
            jobs.append(Job(kind="reference", key=network.key, config=network.config))
    best = best_trial(ledger.search, ledger.in_order()) or best
    again = lacking(ledger.store, ledger.search, ledger.in_order(), best, patience=LATE_SECONDS)
    if again:
        say(f"Trained again, as the store has their results alone: {', '.join(sorted(again))}.")
    for key, config in again.items():
        jobs += _again(config, key, ledger, plan)
    for key, config in to_test(ledger.search, ledger.in_order(), best).items():
        needs: frozenset[JobId] = frozenset({("trial", key)}) if key in again else frozenset()
        jobs.append(Job(kind="test", key=key, config=config, needs=needs))
    return jobs


def _again(config: TrialConfig, key: str, ledger: Ledger, plan: Plan) -> list[Job]:
    """A student whose result is there, but not its weights, trained again."""
    job = trial_job(config, key, ledger.dataset_digest, weights=True)
    return [*_before([job], ledger, plan), job]


def _confirming(ledger: Ledger, plan: Plan) -> list[Job]:
    """What is to be trained anew and has not ended, with the networks that it needs; recorded once it is known."""
    found = anew(ledger.search, ledger.in_order())
    if found.cells != ledger.search.confirmation:
        ledger.update_search(confirmation=found.cells)
    stages: list[tuple[Stage, dict[str, TrialConfig]]] = [("control", found.tuning), ("confirm", found.arms)]
    of_search = {key for key, trial in ledger.trials.items() if trial.stage == "search"} | plan.trials.keys()
    open_arms = sum("tuned_base" not in cell.arms for cell in found.cells if cell.tuning)
    later = (found.tuning.keys() | found.arms.keys()) - of_search
    ledger.watch.planned(plan.num_trials + len(later) + open_arms * plan.request.confirm.seeds)
    jobs = []
    for stage, configs in stages:
        for key, config in configs.items():
            known = ledger.trials.get(key)
            if known is None or known.status not in ("FINISHED", "FAILED"):
                jobs.append(trial_job(config, key, ledger.dataset_digest, stage=stage))
    return [*_before(jobs, ledger, plan), *jobs]


def _before(trials: Sequence[Job], ledger: Ledger, plan: Plan) -> list[Job]:
    """The networks and front ends that these trials need, and what these need themselves, from the first.

    Networks that are there are named too: a job is done at once where the store has what it is to make.
    """
    known = prerequisite_jobs(
        (*plan.networks, *plan.later_networks), (*plan.frontends, *plan.later_frontends), ledger.dataset_digest
    )
    by_id = {job.id: job for job in known}
    wanted = {needed for job in trials for needed in job.needs}
    found: set[JobId] = set()
    while wanted:
        found |= wanted
        wanted = {needed for job in wanted for needed in by_id[job].needs} - found
    return [job for job in known if job.id in found]


def _twin(ledger: Ledger, plan: Plan, best: TrialRecord) -> list[Job]:
    """Where nothing is confirmed, the best student's λ = 0 twin, if the space does not hold it and it was not run."""
    if plan.request.confirm.seeds or best.config["lambda_"] == 0 or "lambda_" not in plan.request.explore:
        return []
    config = twin_of(TrialConfig(**best.config))
    key = config.key(ledger.dataset_digest)
    known = ledger.trials.get(key)
    if known is not None and known.status in ("FINISHED", "FAILED"):
        return []
    job = trial_job(config, key, ledger.dataset_digest)
    return [*_before([job], ledger, plan), job]


def conclude(ledger: Ledger, plan: Plan) -> None:
    """Choose and keep the best student, and write tables and report."""
    store, folder = ledger.store, ledger.store.path("searches", ledger.search.search)
    trials = ledger.in_order()
    best = best_trial(ledger.search, trials)
    if best is not None and best.key in ledger.search.tested:
        if not is_deployed(store, ledger.search, best):
            _keep_best(store, folder / BEST_FOLDER, best, plan.dataset.folder.name)
            store.push("searches", ledger.search.search, BEST_FOLDER)  # whole, before the record speaks of it
        ledger.update_search(
            importances=importances(ledger.search, trials),
            best=_best_record(ledger, best, partial(cost_of, folder / BEST_FOLDER / STUDENT_FILE)),
        )
    elif best is None and ledger.search.best is not None:
        ledger.update_search(best=None)  # of those that an earlier launch chose from, a limit now allows none
    header, rows = ranking(ledger.search, trials)
    text = "\n".join(conclusion(ledger.search, trials))
    write_text(folder / "ranking.md", f"# {ledger.search.search}\n\n{text}\n\n{markdown(header, rows)}")
    write_text(folder / "trials.csv", trials_csv(trials, ledger.search.choose_by))
    write_report(store, [ledger.search], folder / REPORT_FOLDER)
    for part in (REPORT_FOLDER, *TABLES):
        store.push("searches", ledger.search.search, part)


def register(ledger: Ledger, tracker: Tracker) -> str | None:
    """Send summary, report and the best student to MLflow; returns the registered model's address."""
    search, trials = ledger.search, ledger.in_order()
    summary = summary_of(ledger.store, search, trials)
    address = None if summary is None else tracker.conclude(search, trials, summary)
    if search.best is not None and address is not None:
        ledger.update_search(best=dataclasses.replace(search.best, model=address))
    return address


def _best_record(ledger: Ledger, best: TrialRecord, measure: Callable[[], CostRecord | None]) -> BestRecord:
    config, search = TrialConfig(**best.config), ledger.search
    twin_key = twin_of(config).key(ledger.dataset_digest)
    has_twin = config.distills and twin_key in search.tested
    before = search.best if search.best is not None and search.best.key == best.key else None
    tested = search.tests.get(best.key)
    columns = [criterion.column for criterion in CRITERIA.values()]
    validation: dict[str, Any] = {column: best.metrics.get(column) for column in columns}
    return BestRecord(
        key=best.key,
        config=best.config,
        test_accuracy=search.tested[best.key],
        teacher=best.teacher,
        base_key=twin_key if has_twin else None,
        base_test_accuracy=search.tested[twin_key] if has_twin else None,
        model=None if before is None else before.model,
        cost=(None if before is None else before.cost) or measure(),
        test_balanced_accuracy=None if tested is None else tested.balanced_accuracy,
        test_macro_f1=None if tested is None else tested.macro_f1,
        **validation,
    )


def cost_of(file: Path) -> CostRecord:
    """What the student in a file costs on this machine; takes half a second, or two runs of 64 images if those last
    longer."""
    deployed, card = load_deployed(file)
    images = example_images(BATCH, card.image_size, card.channels)
    return CostRecord(
        parameters=parameters_of(deployed),
        multiply_adds=multiply_adds(deployed, images[:1]),
        file_bytes=file.stat().st_size,
        image_seconds=latency_of(deployed, images[:1]),
        batch_seconds=latency_of(deployed, images),
        host=this_process().host,
    )


def _keep_best(store: Store, folder: Path, best: TrialRecord, dataset: str) -> None:
    """The best student's file, and what it makes of each test image, for the figures of its mistakes."""
    file = student_file(store, best.key)
    bench = Workbench(store, dataset, {}, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    probabilities, labels = probabilities_on_test_images(file, TrialConfig(**best.config), bench)
    with replacing(folder / STUDENT_FILE) as draft:
        shutil.copyfile(file, draft)
    with replacing(folder / PREDICTIONS_FILE) as draft, draft.open("wb") as stream:
        np.savez(stream, labels=labels, probabilities=probabilities)
    write_manifest(folder)
