"""A made-up search as its folder lies in a store after a launch, best student and report included."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dfd_tune.models.build import build_network
from dfd_tune.models.card import ModelCard
from dfd_tune.models.deployed import save_student
from dfd_tune.record import SearchRecord, TrialRecord, save_search, save_trial
from dfd_tune.store import Store, write_text
from tests.report.searches import TEACHERS, grid_trials, make_best, make_request, make_search
from tests.tracking.records import trial_record

REQUEST = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1, 5]})
HOME = "0123456789abcdef" * 2
"""Of the store where it was run."""


def concluded_search(name: str, **changes: object) -> tuple[SearchRecord, dict[str, TrialRecord]]:
    """A search that was interrupted when it went on after its conclusion; a trial of every status, by that status."""
    points = [(trial.key, trial.config, trial.teacher) for trial in grid_trials(REQUEST, lambda point: 0.5)]
    facts = {
        "FINISHED": {"started": 1000.0, "ended": 1060.5, "host": "node-1", "device": "cpu", "attempts": 1},
        "PLAIN": {"status": "FINISHED", "started": 1001.0, "ended": 1050.0, "attempts": 2},
        "FAILED": {"cause": "loss is nan", "fault": "trial", "started": 1060.0, "ended": 1070.0},
        "KILLED": {"started": 1070.0, "ended": 1080.0},
        "RUNNING": {"started": 1075.0},
        "PENDING": {},
    }
    epochs = {"FINISHED": 4, "PLAIN": 4, "FAILED": 2, "KILLED": 1, "RUNNING": 1, "PENDING": 0}
    trials = {}
    for (status, known), (key, config, teacher) in zip(facts.items(), points, strict=True):
        known = {"status": status, "config": config, "teacher": teacher, **known}
        trials[status] = trial_record(key, epochs=epochs[status], **known)
    search = make_search(REQUEST, TEACHERS, search=name, home=HOME, best=make_best(trials["FINISHED"]))
    planned = [trial.key for trial in trials.values()]
    return dataclasses.replace(search, planned=planned, **changes), trials


def write_folder(store: Store, search: SearchRecord, trials: dict[str, TrialRecord]) -> Path:
    """Write the search's folder as a launch leaves it, and as it comes with a copy; returns it."""
    folder = store.path("searches", search.search)
    write_records(store, search, trials)
    write_text(folder / "ranking.md", "# Ranking\n")
    write_text(folder / "trials.csv", "key,val_accuracy\n")
    write_text(folder / "report" / "report.html", "<p>Report</p>\n")
    write_text(folder / "report" / "figures" / "lambda_curve.svg", "<svg/>\n")
    network = build_network("resnet18", width=0.125, dropout=0.0, channels=3, image_size=32, num_classes=3, seed=0)
    save_student(folder / "best" / "student.safetensors", network, CARD)
    return folder


def write_records(store: Store, search: SearchRecord, trials: dict[str, TrialRecord]) -> None:
    """Write the records alone."""
    save_search(store, search)
    for trial in trials.values():
        save_trial(store, search.search, trial)


CARD = ModelCard(
    backbone="resnet18",
    width=0.125,
    dropout=0.0,
    batch_norm=True,
    channels=3,
    image_size=32,
    classes=("ring", "bar", "cross"),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    resolution=8,
    downsample="area",
    upsample="bicubic",
)
