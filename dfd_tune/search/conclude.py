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

from dfd_tune.config import TrialConfig
from dfd_tune.distill.student import STUDENT_FILE, find_result, student_file
from dfd_tune.distill.testing import accuracy_on_test_images, network_test_accuracy, probabilities_on_test_images
from dfd_tune.distill.workbench import Workbench
from dfd_tune.models.deployed import load_deployed
from dfd_tune.plan import Plan, PlannedNetwork
from dfd_tune.record import (
    BEST_FOLDER,
    PREDICTIONS_FILE,
    REPORT_FOLDER,
    BestRecord,
    SearchRecord,
    TeacherRecord,
    TrialRecord,
)
from dfd_tune.report.cells import seeds_of_best, trials_to_test
from dfd_tune.report.conclusion import conclusion
from dfd_tune.report.formats import markdown
from dfd_tune.report.points import best_trial
from dfd_tune.report.tables import ranking, trials_csv
from dfd_tune.report.write import write_report
from dfd_tune.search.importance import importances
from dfd_tune.search.ledger import Ledger
from dfd_tune.store import Store, write_text
from dfd_tune.tracking import Tracker


def base_twin(config: TrialConfig) -> TrialConfig:
    """The trial that differs from `config` in λ alone, which is 0: what distillation is to be measured against."""
    return dataclasses.replace(config, lambda_=0.0)


def conclude(ledger: Ledger, plan: Plan) -> tuple[list[Path], list[Path]]:
    """Choose, test and keep the best students, and write tables and report; returns the files of each.

    The test images are looked at once: what an earlier launch of the search found is taken from the record.
    """
    store, folder = ledger.store, ledger.store.path("searches", ledger.search.search)
    # Ray has given its devices back by now; at full size, testing dozens of students takes hours on a CPU.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Workbench(store, plan.dataset.folder.name, {}, device)
    trials = list(ledger.trials.values())
    best = best_trial(trials)
    if best is not None:
        ledger.update_search(
            tested=_tested(ledger, trials, best, bench),
            teachers=_tested_teachers(ledger.search, plan.networks, bench),
            importances=importances(plan.request, trials),
        )
        ledger.update_search(best=_best_record(ledger, best, bench))
        _keep_best(store, folder / BEST_FOLDER, best, bench)
    header, rows = ranking(ledger.search, trials)
    text = "\n".join(conclusion(ledger.search, trials))
    write_text(folder / "ranking.md", f"# {ledger.search.search}\n\n{text}\n\n{markdown(header, rows)}")
    write_text(folder / "trials.csv", trials_csv(trials))
    report = write_report(store, [ledger.search], folder / REPORT_FOLDER)
    return [folder / "ranking.md", folder / "trials.csv"], report


def register(ledger: Ledger, tracker: Tracker, files: Sequence[Path], report: Sequence[Path]) -> str | None:
    """Send summary, report and the best student to MLflow; returns the registered model's address."""
    search, trials = ledger.search, list(ledger.trials.values())
    tracker.log_summary(search, trials, files, summary_metrics(search, trials))
    tracker.log_report(search, ledger.store.path("searches", search.search, REPORT_FOLDER), report)
    if search.best is None:
        return None
    file = ledger.store.path("searches", search.search, BEST_FOLDER, STUDENT_FILE)
    model, card = load_deployed(file)
    # A batch of one would fix the exported model's batch size.
    example = np.zeros((2, card.image_size, card.image_size, card.channels), dtype=np.uint8)
    address = tracker.register_best(
        search,
        ledger.trials[search.best.key],
        model,
        example,
        search.search,
        description=f"{', '.join(conclusion(search, trials)[:1])}. Classes: {', '.join(card.classes)}.",
    )
    ledger.update_search(best=dataclasses.replace(search.best, model=address))
    return address


def _tested(ledger: Ledger, trials: Sequence[TrialRecord], best: TrialRecord, bench: Workbench) -> dict[str, float]:
    """Test accuracy by trial key: of the trials that the report speaks of, and of the best and its λ = 0 twin."""
    store, known = ledger.store, ledger.search.tested
    wanted = {trial.key: TrialConfig(**trial.config) for trial in (*trials_to_test(ledger.search, trials), best)}
    twin = base_twin(TrialConfig(**best.config))
    if find_result(store, twin.key(bench.dataset.digest)) is not None:
        wanted[twin.key(bench.dataset.digest)] = twin
    # What an earlier launch tested stays, chosen or not, so that no number that was once shown disappears.
    return known | {
        key: accuracy_on_test_images(student_file(store, key), config, bench)
        for key, config in wanted.items()
        if key not in known
    }


def _best_record(ledger: Ledger, best: TrialRecord, bench: Workbench) -> BestRecord:
    config, search = TrialConfig(**best.config), ledger.search
    twin_key = base_twin(config).key(bench.dataset.digest)
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


def _keep_best(store: Store, folder: Path, best: TrialRecord, bench: Workbench) -> None:
    """The best student's file, and what it makes of each test image."""
    file = student_file(store, best.key)
    probabilities, labels = probabilities_on_test_images(file, TrialConfig(**best.config), bench)
    folder.mkdir(exist_ok=True)
    shutil.copyfile(file, folder / STUDENT_FILE)
    draft = folder / f".{PREDICTIONS_FILE}"
    with draft.open("wb") as stream:
        np.savez(stream, labels=labels, probabilities=probabilities)
    draft.replace(folder / PREDICTIONS_FILE)


def _tested_teachers(search: SearchRecord, networks: Sequence[PlannedNetwork], bench: Workbench) -> list[TeacherRecord]:
    """The teachers' records with their accuracy on high-resolution test images, the HR baselines; base networks with
    theirs on low-resolution ones."""
    configs = {network.key: network.config for network in networks}
    return [
        dataclasses.replace(record, test_accuracy=network_test_accuracy(configs[record.key], bench))
        if record.test_accuracy is None and record.key in configs
        else record
        for record in search.teachers
    ]


def summary_metrics(search: SearchRecord, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """What MLflow's summary run of a search compares by; accuracies and gains are fractions."""
    metrics = {f"teacher_{teacher.backbone}_val_accuracy": teacher.val_accuracy for teacher in search.teachers}
    for frontend in search.frontends:
        name = f"frontend_{frontend.kind}_{frontend.resolution}"
        metrics |= {f"{name}_psnr": frontend.psnr, f"{name}_ssim": frontend.ssim}
    best = search.best
    if best is not None:
        metrics |= {"best_val_accuracy": best.val_accuracy, "best_test_accuracy": best.test_accuracy}
        metrics["best_lambda"] = best.config["lambda_"]
        if best.base_test_accuracy is not None:
            metrics["base_test_accuracy"] = best.base_test_accuracy
    over_seeds = seeds_of_best(search, trials)
    if over_seeds is not None:
        metrics["mean_test_gain"] = over_seeds.difference.mean
    return metrics
