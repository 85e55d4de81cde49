"""The books of a search, and what a person sees of them while it runs."""

import io

from rich.console import Console

from dfd_tune.distill.student import TrialResult
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.progress import Progress
from dfd_tune.store import open_store
from tests.report.searches import make_request, make_search
from tests.samples import digits_trial

DIGEST = "feedfacefeedface"


class SilentTracker:
    """Takes everything, as MLflow's outbox does."""

    def log_trial(self, search, trial):
        pass


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def watched(tmp_path, clock, total=4, terminal=False):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    progress = Progress(console, total, ["backbone", "lambda_"], clock)
    store = open_store(tmp_path)
    search = make_search(make_request({"lambda_": [0, 1, 2, 5]}), {})
    return progress, Ledger(store, search, [], SilentTracker(), DIGEST, progress), console


def result_of(config, accuracy=0.9):
    metrics = {"val_accuracy": accuracy, "val_loss": 0.3, "seconds": 10.0}
    return TrialResult(config.key(DIGEST), {**vars(config)}, DIGEST, None, metrics, [{"epoch": 1, **metrics}])


def lines(console):
    return console.file.getvalue().splitlines()


def test_plain_lines_tell_each_trial_once_and_the_time_left(tmp_path):
    clock = Clock()
    _, ledger, console = watched(tmp_path, clock)
    reused, first, second = (digits_trial(lambda_=value) for value in (0.0, 1.0, 2.0))
    ledger.finished(reused, result_of(reused))
    for config in (first, second):
        ledger.started(config)
    clock.now = 10.0
    ledger.finished(first, result_of(first))
    ledger.failed(second.key(DIGEST), "Traceback\nValueError: no")
    # One of two trials that ran took the 10 s; the reused one took none: 10 s for each of the 2 that are left.
    assert lines(console) == [
        "[1/4] resnet18 λ=0: validation accuracy 90.0% in 10 s",
        "[2/4] resnet18 λ=1: validation accuracy 90.0% in 10 s, about 20 s left",
        "[3/4] resnet18 λ=2: FAILED: ValueError: no",
    ]


def test_the_live_table_shows_running_trials_the_best_and_the_rate(tmp_path):
    clock = Clock()
    progress, ledger, console = watched(tmp_path, clock, terminal=True)
    with progress:
        first, second = (digits_trial(lambda_=value) for value in (1.0, 2.0))
        ledger.started(first)
        ledger.finished(first, result_of(first, accuracy=0.95))
        ledger.started(second)
        epoch = {"epoch": 3, "val_accuracy": 0.5, "images_per_second": 1234.0}
        ledger.epoch_done(second.key(DIGEST), epoch)
    shown = console.file.getvalue()
    assert "1/4 trials done, 1 running, best 95.0% (resnet18 λ=1), 1,234 images/s" in shown
    assert f"3/{second.epochs}" in shown


def test_an_epoch_reported_twice_counts_once(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    config = digits_trial()
    ledger.started(config)
    for _ in range(2):
        ledger.epoch_done(config.key(DIGEST), {"epoch": 1, "loss": 1.0})
    assert ledger.trials[config.key(DIGEST)].history == [{"epoch": 1.0, "loss": 1.0}]


def test_a_result_of_another_search_is_recorded_as_this_searchs_trial(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    here, there = (digits_trial(lambda_=0.0, reduction=reduction) for reduction in ("mean", "sum"))
    assert here.key(DIGEST) == there.key(DIGEST)
    ledger.finished(here, result_of(there))
    assert ledger.trials[here.key(DIGEST)].config["reduction"] == "mean"


def test_what_an_earlier_launch_left_unfinished_is_pending(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    done, broken = digits_trial(lambda_=0.0), digits_trial(lambda_=1.0)
    ledger.finished(done, result_of(done))
    ledger.started(broken)
    ledger.failed(broken.key(DIGEST), "ValueError: no")
    again = Ledger(ledger.store, ledger.search, list(ledger.trials.values()), SilentTracker(), DIGEST, ledger.watch)
    assert [trial.status for trial in again.trials.values()] == ["FINISHED", "PENDING"]
