"""Which trials end early: by hand, whatever is replayed, and in a search that then goes on without a scheduler."""

import dataclasses
import json

import pytest

from dfd_tune.criteria import CRITERIA, DEFAULT
from dfd_tune.record import load_search, load_trials
from dfd_tune.schedulers import SCHEDULERS, EarlyStop, Scheduler, parse_early_stop
from dfd_tune.search.early_stopping import EarlyStopping
from dfd_tune.store import open_store
from tests.report.searches import make_request, trial_of
from tests.search.conftest import runs_of, trial_runs

EPOCHS = 9
CONFIG = dataclasses.replace(make_request({"lambda_": [0, 1]}).trial({"lambda_": 1.0}), epochs=EPOCHS)
PLAIN = dataclasses.replace(CONFIG, lambda_=0.0)
ASHA = EarlyStop(kind="asha", grace_epochs=1, factor=3)
MEDIAN = EarlyStop(kind="median", grace_epochs=2)
GOOD, BAD = 0.875, 0.125
"""Whose means are exact."""
STOPPING = [name for name in SCHEDULERS if EarlyStop(kind=name).stops]


class Told:
    """A scheduler, and the trials that it ended, each with the epoch at which it did."""

    def __init__(self, rule, records=()):
        self.ended = {}
        self.epoch = 0
        self.early = EarlyStopping(rule, EPOCHS, records, lambda key: self.ended.update({key: self.epoch}))

    def report(self, key, epoch, accuracy, config=CONFIG, stage="search"):
        self.epoch = epoch
        self.early.epoch(key, config, stage, {"epoch": float(epoch), "val_accuracy": accuracy})

    def run(self, key, accuracies, **kind):
        """A trial that reports these, as long as it is let."""
        for epoch, accuracy in enumerate(accuracies, 1):
            self.report(key, epoch, accuracy, **kind)
            if key in self.ended:
                return


def record(key, accuracies, config=CONFIG, status="FINISHED", stage="search"):
    made = trial_of(config, accuracies[-1], history=accuracies, status=status, stage=stage)
    return dataclasses.replace(made, key=key)


def test_asha_lets_the_best_third_of_each_rung_go_on():
    """Rungs after 1 and 3 epochs. The first one at a rung goes on; then whoever is not below the upper tercile."""
    told = Told(ASHA)
    told.run("first", [0.5] * EPOCHS)
    told.run("worse", [0.4] * EPOCHS)
    told.run("better", [0.6] * EPOCHS)
    # Of 0.5, 0.4 and 0.6 the upper tercile is 0.533; after 3 epochs of 0.5 and 0.6, 0.567.
    told.run("between", [0.53] * EPOCHS)
    told.run("falls back", [0.7, 0.7, 0.55] + [0.7] * 6)
    assert told.ended == {"worse": 1, "between": 1, "falls back": 3}


def test_the_median_rule_stops_whose_best_is_below_the_median_of_the_others_means():
    told = Told(MEDIAN)
    for key, accuracy in (("a", 0.5), ("b", 0.6), ("c", 0.7)):
        told.run(key, [accuracy] * EPOCHS)
    told.run("just above", [0.61] * EPOCHS)
    told.run("below", [0.1, 0.59] + [0.9] * 7)
    told.run("late", [0.1] * EPOCHS)
    # The grace period is over with the second epoch; the median of 0.5, 0.6, 0.61 and 0.7 is 0.605.
    assert told.ended == {"below": 2, "late": 2}


def test_a_scheduler_is_a_row(monkeypatch):
    """A made-up one: below three tenths a trial ends."""
    from ray.tune.schedulers import FIFOScheduler

    class Strict(FIFOScheduler):
        def on_trial_result(self, controller, trial, result):
            return "STOP" if result["val_accuracy"] < 0.3 else "CONTINUE"

    monkeypatch.setitem(SCHEDULERS, "strict", Scheduler(make=lambda course: Strict(), rule=lambda course: "below 0.3"))
    rule, problems = parse_early_stop("strict")
    assert problems == []
    told = Told(rule)
    told.run("good", [0.3] * EPOCHS)
    told.run("bad", [0.5, 0.29, 0.5, 0.5])
    assert told.ended == {"bad": 2}


@pytest.mark.parametrize("kind", STOPPING)
def test_what_is_measured_by_or_at_its_end_is_never_stopped(kind):
    told = Told(EarlyStop(kind=kind, grace_epochs=1))
    for number in range(4):
        told.run(f"good {number}", [GOOD] * EPOCHS)
    told.run("plain", [BAD] * EPOCHS, config=PLAIN)
    told.run("anew", [BAD] * EPOCHS, stage="confirm")
    told.run("control", [BAD] * EPOCHS, stage="control")
    told.report("last epoch alone", EPOCHS, BAD)
    assert told.ended == {}
    told.run("bad", [BAD] * EPOCHS)
    assert told.ended == {"bad": 1}


@pytest.mark.parametrize("kind", STOPPING)
def test_epochs_without_a_look_at_validation_images_decide_nothing(kind):
    told = Told(EarlyStop(kind=kind, grace_epochs=2))
    for number in range(4):
        told.run(f"good {number}", [GOOD] * EPOCHS)
    told.early.epoch("bad", CONFIG, "search", {"epoch": 2.0, "loss": 1.0})
    assert told.ended == {}
    told.report("bad", 4, BAD)
    assert told.ended == {"bad": 4}


@pytest.mark.parametrize("kind", STOPPING)
def test_a_scheduler_that_reads_the_records_decides_as_one_that_was_there(kind):
    rule = EarlyStop(kind=kind, grace_epochs=2)
    past = {f"trial {number}": [number / 8] * EPOCHS for number in (3, 6, 2, 5, 0, 7, 1, 4)}
    there = Told(rule)
    for key, accuracies in past.items():
        there.run(key, accuracies)
    records = [
        record(key, accuracies[: there.ended.get(key, EPOCHS)], status="STOPPED" if key in there.ended else "FINISHED")
        for key, accuracies in past.items()
    ]
    assert there.ended
    back = Told(rule, [*records, record("plain", [0.99] * EPOCHS, config=PLAIN)])
    assert back.ended == {}, "what is past is not decided again"
    there.ended.clear()
    for number, accuracy in enumerate([1 / 8, 9 / 16, 5 / 16, 13 / 16, 11 / 16, 1.0]):
        for told in (there, back):
            told.run(f"new {number}", [accuracy] * EPOCHS)
    assert back.ended == there.ended
    assert 0 < len(back.ended) < 6


@pytest.mark.parametrize("choose_by", [name for name in CRITERIA if name != DEFAULT])
@pytest.mark.parametrize("kind", STOPPING)
def test_who_is_stopped_is_worse_by_what_the_search_chooses_by(kind, choose_by):
    """Whose accuracy, which says the opposite, is not asked."""
    by, ended = CRITERIA[choose_by], []
    early = EarlyStopping(EarlyStop(kind=kind, grace_epochs=1), EPOCHS, [], ended.append, by)
    better, worse = (GOOD, BAD) if by.larger_is_better else (BAD, GOOD)

    def report(key, value, epoch):
        metrics = {"epoch": float(epoch), "val_accuracy": 1 - value if by.larger_is_better else value}
        early.epoch(key, CONFIG, "search", {**metrics, by.column: value})

    for epoch in range(1, EPOCHS + 1):
        for number in range(4):
            report(f"good {number}", better, epoch)
    report("bad", worse, 1)
    assert ended == ["bad"]


def test_an_epoch_that_is_reported_again_counts_once():
    """As after a lost machine, by a trial that goes on from a checkpoint before it."""
    told = Told(ASHA)
    told.run("good", [GOOD] * EPOCHS)
    told.report("again", 1, 0.95)
    told.early.behind("again", CONFIG, "search", [{"epoch": 1.0, "val_accuracy": 0.1}])
    told.report("again", 1, 0.1)
    assert told.ended == {}
    told.report("again", 3, 0.1)
    assert told.ended == {"again": 3}


def test_without_a_scheduler_nothing_is_stopped():
    told = Told(EarlyStop())
    told.run("good", [GOOD] * EPOCHS)
    told.run("bad", [BAD] * EPOCHS)
    assert told.ended == {}


# In a search.

SPACE = """
confirm: {seeds: 0}
scheduler: asha
explore: {learning_rate: RATES}
settings: {epochs: 9, lambda_: 1, backbone: alexnet, batch_size: 25, reduction: mean}
"""


def trials_of(store_path, name):
    """By key, the records of a search."""
    store = open_store(store_path)
    return {trial.key: trial for trial in load_trials(store, load_search(store, name))}


def arguments(tmp_path, name, rates, epochs):
    """Of a launch of trials that differ in their learning rate, of which the first alone learns anything."""
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("RATES", rates))
    return ["--space", space, "--name", name, "--set", f"epochs={epochs}"]


def stopped_of(store_path, name, epochs):
    """Those that were stopped, by key, with how far they came; nothing of them is taken for a result."""
    runs, found = trial_runs(runs_of(store_path, name)), {}
    for key, trial in trials_of(store_path, name).items():
        assert trial.status in ("STOPPED", "FINISHED")
        if trial.status == "STOPPED":
            assert trial.config["lambda_"] > 0
            assert not (store_path / "trials" / key).exists()
            assert runs[key].info.status == "KILLED"
            said = f"STOPPED early after {len(trial.history)} of {epochs} epochs"
            assert runs[key].data.tags["dfd.state"] == said
            found[key] = trial
    return found


def checkpoint_of(store_path, key):
    (checkpoint,) = (store_path / "checkpoints" / f"trials-{key}").iterdir()
    return int(checkpoint.name)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_stopped_trials_keep_record_and_checkpoint_and_go_on_without_the_scheduler(launch, store_path, tmp_path):
    options = arguments(tmp_path, "early", "[0.1, 1.0e-6, 1.0e-7, 1.0e-8]", 9)
    done = launch(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    stopped = stopped_of(store_path, "early", 9)
    assert len(stopped) >= 2, "of those that begin first, each may have been the best so far"
    for key, trial in stopped.items():
        assert len(trial.history) == checkpoint_of(store_path, key)
        assert len(trial.history) in (1, 3)
    trials = trials_of(store_path, "early")
    again = launch(*options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert trials_of(store_path, "early") == trials
    on = launch(*options, "--scheduler", "none")
    assert on.returncode == 0, on.stdout + on.stderr
    finished, runs = trials_of(store_path, "early"), trial_runs(runs_of(store_path, "early"))
    assert {trial.status for trial in finished.values()} == {"FINISHED"}
    for key, trial in stopped.items():
        assert len(finished[key].history) == 9
        assert finished[key].history[: len(trial.history)] == trial.history, "none of it was trained again"
        assert json.loads((store_path / "trials" / key / "result.json").read_text())["history"] == finished[key].history
        assert (runs[key].info.status, runs[key].data.tags.get("dfd.state")) == ("FINISHED", None)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_group_ends_early_too(launch, store_path, tmp_path):
    """It does not wait until its report is heard, so that it may be further when it is told."""
    options = arguments(tmp_path, "groups", "[0.1, 1.0e-6, 1.0e-7]", 27)
    done = launch(*options, "--workers-per-trial", 2, "--cpus-per-worker", 0.5)
    assert done.returncode == 0, done.stdout + done.stderr
    stopped = stopped_of(store_path, "groups", 27)
    assert stopped
    for key, trial in stopped.items():
        assert 3 <= len(trial.history) < 27
        assert len(trial.history) <= checkpoint_of(store_path, key) < 27
