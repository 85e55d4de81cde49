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
from dfd_tune.data.pairs import evaluation_images
from dfd_tune.data.prepared import Dataset
from dfd_tune.distill.pretrained import find_pretrained
from dfd_tune.distill.student import STUDENT_FILE, accuracy_on_test_images, find_result, student_file
from dfd_tune.distill.training import evaluate
from dfd_tune.models.deployed import load_deployed
from dfd_tune.plan import PlannedNetwork
from dfd_tune.record import BestRecord, SearchRecord, TeacherRecord, TrialRecord
from dfd_tune.report.plots import lambda_curve
from dfd_tune.report.points import best_trial
from dfd_tune.report.tables import conclusion, markdown, ranking, trials_csv
from dfd_tune.search.ledger import Ledger
from dfd_tune.store import Store, write_text
from dfd_tune.tracking import Tracker

BEST_FOLDER = "best"


def base_twin(config: TrialConfig) -> TrialConfig:
    """The trial that differs from `config` in λ alone, which is 0: what distillation is to be measured against."""
    return dataclasses.replace(config, lambda_=0.0)


def conclude(ledger: Ledger, dataset: Dataset, networks: Sequence[PlannedNetwork]) -> list[Path]:
    """Choose, test and keep the best student, and write tables and figures; returns the files.

    The test images are looked at once: where the best student is the one that an earlier launch of the search
    chose, its test accuracy is taken from the record.
    """
    folder = ledger.store.path("searches", ledger.search.search)
    trials = list(ledger.trials.values())
    best = best_trial(trials)
    if best is not None:
        ledger.update_search(
            best=_tested(ledger.store, ledger.search, best, dataset),
            teachers=_tested_teachers(ledger.store, ledger.search, networks, dataset),
        )
        (folder / BEST_FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(student_file(ledger.store, best.key), folder / BEST_FOLDER / STUDENT_FILE)
    header, rows = ranking(ledger.search, trials)
    text = "\n".join(conclusion(ledger.search))
    write_text(folder / "ranking.md", f"# {ledger.search.search}\n\n{text}\n\n{markdown(header, rows)}")
    write_text(folder / "trials.csv", trials_csv(trials))
    return [folder / "ranking.md", folder / "trials.csv", *lambda_curve(ledger.search, trials, folder)]


def register(ledger: Ledger, tracker: Tracker, files: Sequence[Path]) -> str | None:
    """Send the summary and the best student to MLflow; returns the registered model's address."""
    search, trials = ledger.search, list(ledger.trials.values())
    tracker.log_summary(search, trials, files, _summary_metrics(search))
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
        description=f"{', '.join(conclusion(search)[:1])}. Classes: {', '.join(card.classes)}.",
    )
    ledger.update_search(best=dataclasses.replace(search.best, model=address))
    return address


def _tested(store: Store, search: SearchRecord, best: TrialRecord, dataset: Dataset) -> BestRecord:
    config = TrialConfig(**best.config)
    twin = base_twin(config)
    twin_key = twin.key(dataset.digest)
    has_twin = config.distills and find_result(store, twin_key) is not None
    known = search.best
    if known is not None and known.key == best.key and (known.base_key is not None) == has_twin:
        return known
    cpu = torch.device("cpu")
    return BestRecord(
        key=best.key,
        config=best.config,
        val_accuracy=best.metrics["val_accuracy"],
        test_accuracy=accuracy_on_test_images(student_file(store, best.key), config, dataset, cpu),
        teacher=best.teacher,
        base_key=twin_key if has_twin else None,
        base_test_accuracy=accuracy_on_test_images(student_file(store, twin_key), twin, dataset, cpu)
        if has_twin
        else None,
        model=None,
    )


def _tested_teachers(
    store: Store, search: SearchRecord, networks: Sequence[PlannedNetwork], dataset: Dataset
) -> list[TeacherRecord]:
    """The teachers' records with their accuracy on high-resolution test images, the HR baselines."""
    configs = {network.key: network.config for network in networks}
    tested = []
    for record in search.teachers:
        if record.test_accuracy is None and record.key in configs:
            config = configs[record.key]
            found = find_pretrained(store, config, dataset)
            if found is not None:
                images = evaluation_images(dataset, dataset.test, config.low_res, torch.device("cpu"))
                record = dataclasses.replace(record, test_accuracy=evaluate(found.network, images)[0])
        tested.append(record)
    return tested


def _summary_metrics(search: SearchRecord) -> dict[str, float]:
    metrics = {f"teacher_{teacher.backbone}_val_accuracy": teacher.val_accuracy for teacher in search.teachers}
    best = search.best
    if best is not None:
        metrics |= {"best_val_accuracy": best.val_accuracy, "best_test_accuracy": best.test_accuracy}
        metrics["best_lambda"] = best.config["lambda_"]
        if best.base_test_accuracy is not None:
            metrics["base_test_accuracy"] = best.base_test_accuracy
    return metrics
