"""A made-up search as its folder lies in a store after a launch, best student and report included."""

from __future__ import annotations

from pathlib import Path

from dfd_tune.models.build import build_network
from dfd_tune.models.card import ModelCard
from dfd_tune.models.deployed import save_student
from dfd_tune.record import BestRecord, SearchRecord, TrialRecord, save_search, save_trial
from dfd_tune.store import Store, write_text
from tests.tracking.records import search_record, trial_record

CLASSES = ("ring", "bar", "cross")
HOME = "0123456789abcdef" * 2
"""Of the store where it was run."""
KEYS = FINISHED, PLAIN, FAILED, KILLED, RUNNING = tuple(letter * 16 for letter in "abcdf")


def concluded_search(name: str, **changes: object) -> tuple[SearchRecord, list[TrialRecord]]:
    """A search that was interrupted after it had been concluded once: a trial of every status."""
    trials = [
        trial_record(FINISHED, epochs=4, started=1000.0, ended=1060.5, host="node-1", device="cpu", attempts=1),
        trial_record(PLAIN, epochs=4, started=1001.0, ended=1050.0, attempts=2),
        trial_record(
            FAILED, epochs=2, status="FAILED", cause="loss is nan", fault="trial", started=1060.0, ended=1070.0
        ),
        trial_record(KILLED, epochs=1, status="KILLED", started=1070.0, ended=1080.0),
        trial_record(RUNNING, epochs=1, status="RUNNING", started=1075.0),
        trial_record("e" * 16, epochs=0, status="PENDING"),
    ]
    best = BestRecord(
        key=FINISHED,
        config=trials[0].config,
        val_accuracy=0.9,
        test_accuracy=0.8,
        teacher=None,
        base_key=PLAIN,
        base_test_accuracy=0.7,
        model=None,
    )
    search = search_record(name, best=best, home=HOME, planned=[trial.key for trial in trials], **changes)
    return search, trials


def write_folder(store: Store, search: SearchRecord, trials: list[TrialRecord]) -> Path:
    """Write the search's folder as a launch leaves it, and as it comes with a copy; returns it."""
    folder = store.path("searches", search.search)
    save_search(store, search)
    for trial in trials:
        save_trial(store, search.search, trial)
    write_text(folder / "ranking.md", "# Ranking\n")
    write_text(folder / "trials.csv", "key,val_accuracy\n")
    write_text(folder / "report" / "report.html", "<p>Report</p>\n")
    write_text(folder / "report" / "figures" / "lambda_curve.svg", "<svg/>\n")
    network = build_network("resnet18", width=0.125, dropout=0.0, channels=3, image_size=32, num_classes=3, seed=0)
    save_student(folder / "best" / "student.safetensors", network, CARD)
    return folder


CARD = ModelCard(
    backbone="resnet18",
    width=0.125,
    dropout=0.0,
    channels=3,
    image_size=32,
    classes=CLASSES,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    resolution=8,
    downsample="area",
    upsample="bicubic",
)
