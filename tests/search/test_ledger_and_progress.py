"""The books of a search, and what a person sees of them while it runs."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from dfd_tune.analysis.choice import best_trial
from dfd_tune.distill.student import TrialResult
from dfd_tune.record import TeacherRecord, TrialRecord, find_search, load_tests, load_trials
from dfd_tune.record import test_record as record_of_test
from dfd_tune.search.faults import Failure
from dfd_tune.search.ledger import Ledger, reopened
from dfd_tune.search.progress import Progress
from dfd_tune.search.screen import JsonLines, Row, Terminal, show, told_in
from dfd_tune.store import open_store, read_json
from tests.report.conftest import SilentTracker
from tests.report.searches import make_request, make_search, make_trial
from tests.samples import digits_trial

DIGEST = "feedfacefeedface"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def watched(tmp_path, clock, total=4, terminal=False):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    progress = Progress(Terminal(console), total, ["backbone", "lambda_"], clock)
    store = open_store(tmp_path)
    search = make_search(make_request({"lambda_": [0, 1, 2, 5]}), {})
    return progress, Ledger(store, search, [], SilentTracker(), DIGEST, progress, clock), console


def start(ledger, config):
    ledger.started(config, config.key(DIGEST), host="here", device="cpu")


def fail(ledger, config, fault="trial"):
    ledger.failed(config, config.key(DIGEST), Failure(fault, "ValueError: no", "Traceback\nValueError: no"))


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
        start(ledger, config)
    clock.now = 10.0
    ledger.finished(first, result_of(first))
    fail(ledger, second)
    # One of two trials that ran took the 10 s; the reused one took none: 10 s for each of the 2 that are left.
    assert lines(console) == [
        "[1/4] resnet18 λ=0: validation accuracy 90.0% in 10 s",
        "[2/4] resnet18 λ=1: validation accuracy 90.0% in 10 s, about 20 s left",
        "[3/4] resnet18 λ=2: FAILED: ValueError: no",
    ]


def test_the_live_table_shows_running_trials_the_best_and_the_rate(tmp_path):
    clock = Clock()
    progress, ledger, console = watched(tmp_path, clock, terminal=True)
    with progress.screen:
        first, second = (digits_trial(lambda_=value) for value in (1.0, 2.0))
        start(ledger, first)
        ledger.finished(first, result_of(first, accuracy=0.95))
        start(ledger, second)
        progress.network_started("teacher", "Teacher resnet18", first.teacher())
        progress.network_epoch("teacher", {"epoch": 7, "val_accuracy": 0.25, "images_per_second": 10.0})
        epoch = {"epoch": 3, "val_accuracy": 0.5, "images_per_second": 1234.0}
        ledger.epoch_done(second.key(DIGEST), epoch)
    shown = console.file.getvalue()
    assert "1/4 trials done, 1 running, best 95.0% (resnet18 λ=1), 1,234 images/s" in shown
    assert f"3/{second.epochs}" in shown
    assert "Teacher resnet18" in shown
    assert f"7/{first.teacher_epochs}" in shown


def test_an_attempt_that_begins_earlier_than_the_last_one_ended_replaces_its_epochs(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    config = digits_trial()
    key = config.key(DIGEST)
    start(ledger, config)
    for epoch in (1, 2, 3):
        ledger.epoch_done(key, {"epoch": epoch, "loss": 1.0 / epoch})
    ledger.interrupted(config, key)
    start(ledger, config)
    ledger.resumed(key, [{"epoch": 1.0, "loss": 1.0}])
    for epoch in (2, 2):
        ledger.epoch_done(key, {"epoch": epoch, "loss": 0.25})
    assert ledger.trials[key].history == [{"epoch": 1.0, "loss": 1.0}, {"epoch": 2.0, "loss": 0.25}]
    assert ledger.trials[key].attempts == 2


def test_a_record_holds_the_share_of_a_gpu_of_the_last_attempt_however_it_ended(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    ends = {"FINISHED": lambda config: ledger.finished(config, result_of(config)), "FAILED": lambda c: fail(ledger, c)}
    for seed, (status, end) in enumerate(ends.items()):
        config = digits_trial(seed=seed)
        key = config.key(DIGEST)
        start(ledger, config)
        assert ledger.trials[key].gpus is None
        ledger.interrupted(config, key)
        ledger.started(config, key, host="here", device="cuda", gpus=0.5)
        end(config)
        assert (ledger.trials[key].status, ledger.trials[key].gpus) == (status, 0.5)
    assert {record.gpus for record in load_trials(ledger.store, ledger.search)} == {0.5}


def test_device_hours_are_those_of_all_attempts_and_all_workers(tmp_path):
    clock = Clock()
    _, ledger, _ = watched(tmp_path, clock)
    config = digits_trial(workers=2)
    key = config.key(DIGEST)
    for _ in range(2):
        start(ledger, config)
        clock.now += 1800
        ledger.interrupted(config, key)
    start(ledger, config)
    clock.now += 3600
    ledger.finished(config, result_of(config), peak_memory_bytes=5e8)
    assert ledger.trials[key].metrics["device_hours"] == 2 * (0.5 + 0.5 + 1)
    assert ledger.trials[key].metrics["peak_memory_bytes"] == 5e8


def test_a_process_that_never_spoke_can_fail(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    config = digits_trial()
    fail(ledger, config, "machine")
    (record,) = load_trials(ledger.store, ledger.search)
    assert (record.status, record.cause, record.fault) == ("FAILED", "ValueError: no", "machine")


def test_counts_follow_every_change_and_the_best_is_the_best(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    configs = [digits_trial(lambda_=value) for value in (0.0, 1.0, 2.0)]
    for config, accuracy in zip(configs, (0.5, 0.9, 0.7), strict=True):
        start(ledger, config)
        assert list(ledger.running) == [config.key(DIGEST)]
        ledger.finished(config, result_of(config, accuracy))
    assert ledger.counts["FINISHED"] == len(ledger.with_status("FINISHED")) == 3
    assert (ledger.counts["RUNNING"], ledger.running) == (0, {})
    assert ledger.best.key == configs[1].key(DIGEST)


def test_a_result_of_another_search_is_recorded_as_this_searchs_trial(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    here, there = (digits_trial(lambda_=0.0, reduction=reduction) for reduction in ("mean", "sum"))
    assert here.key(DIGEST) == there.key(DIGEST)
    ledger.finished(here, result_of(there))
    assert ledger.trials[here.key(DIGEST)].config["reduction"] == "mean"


@pytest.mark.parametrize(
    ("status", "fault", "has_result", "retry_failed", "expected"),
    [
        ("FINISHED", None, True, False, "FINISHED"),
        ("FINISHED", None, False, False, "PENDING"),  # its result is gone, so that the record is not believed
        ("FAILED", "trial", False, False, "FAILED"),  # it would come again
        ("FAILED", "trial", False, True, "PENDING"),
        ("FAILED", "machine", False, False, "PENDING"),
        ("FAILED", "unknown", False, False, "PENDING"),
        ("RUNNING", None, False, False, "PENDING"),
        ("KILLED", None, False, False, "PENDING"),
    ],
)
def test_how_the_next_launch_begins_with_a_record(tmp_path, status, fault, has_result, retry_failed, expected):
    config = digits_trial()
    record = TrialRecord(key=config.key(DIGEST), status=status, config=vars(config), fault=fault, cause="x", attempts=3)
    again = reopened(record, has_result=has_result, retry_failed=retry_failed)
    assert again.status == expected
    assert again.attempts == 3
    if expected == "PENDING":
        assert (again.cause, again.fault, again.error) == (None, None, None)


def test_a_search_that_is_stopped_has_nothing_running_nor_waiting_to_go_on(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    running, waiting, done = (digits_trial(lambda_=value) for value in (0.0, 1.0, 2.0))
    start(ledger, running)
    start(ledger, waiting)
    ledger.interrupted(waiting, waiting.key(DIGEST))
    ledger.finished(done, result_of(done))
    ledger.kill_running()
    statuses = {record.key: record.status for record in load_trials(ledger.store, ledger.search)}
    assert statuses == {
        running.key(DIGEST): "KILLED",
        waiting.key(DIGEST): "KILLED",
        done.key(DIGEST): "FINISHED",
    }


def test_what_the_test_images_said_is_kept_at_once_with_each_image(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    right = np.array([True, False, True] * 7)
    ledger.tested("somekey", record_of_test("somekey", right))
    (found,) = load_tests(ledger.store, ledger.search.search).values()
    assert found.right().tolist() == right.tolist()
    assert found.accuracy == ledger.search.tested["somekey"] == 14 / 21
    assert ledger.search.tests == {"somekey": found}


def test_a_teachers_test_images_are_kept_as_well_and_are_no_trials(tmp_path):
    _, ledger, _ = watched(tmp_path, Clock())
    teacher = TeacherRecord(key="t", role="teacher", backbone="vgg16", width=0.25, val_accuracy=0.98)
    ledger.update_search(teachers=[teacher])
    ledger.tested_network("t", record_of_test("t", np.array([True, False])))
    ledger.tested("s", record_of_test("s", np.array([True, True])))
    ledger.update_search()
    again = find_search(ledger.store, ledger.search.search)
    assert again == ledger.search
    assert (again.teachers[0].test_accuracy, again.tested, set(again.tests)) == (0.5, {"s": 1.0}, {"s", "t"})
    assert "tests" not in read_json(ledger.store.path("searches", again.search, "search.json"))


def test_among_equals_the_choice_does_not_depend_on_which_trial_came_first(tmp_path):
    configs = [digits_trial(lambda_=value) for value in (0.0, 1.0, 2.0)]
    planned = [config.key(DIGEST) for config in configs]
    chosen = set()
    for place, order in enumerate(([0, 1, 2], [2, 1, 0], [1, 2, 0])):
        _, ledger, _ = watched(tmp_path / str(place), Clock())
        ledger.update_search(planned=planned)
        for number in order:
            start(ledger, configs[number])
            ledger.finished(configs[number], result_of(configs[number]))
        assert [trial.key for trial in ledger.in_order()] == planned
        chosen.add(best_trial(ledger.search, ledger.in_order()).key)
    assert chosen == {planned[0]}


def test_a_screen_elsewhere_shows_what_one_here_would(tmp_path):
    def story(screen):
        screen.line("Made once and shared: 1 teacher")
        with screen:
            screen.row("t", Row("Teacher resnet18", 9, {"epoch": 7.0, "val_accuracy": 0.25}))
            screen.row("a", Row("λ=1", 3, {}))
            screen.totals("0/2 trials done")
            screen.line("FAILED: no", in_table=False)
            screen.line("[1/2] λ=1: 90%", in_table=True)
            screen.row("t", None)
            told.append(shown_by(screen))

    def shown_by(screen):
        if isinstance(screen, Terminal):
            buffer = Console(file=io.StringIO(), width=100)
            buffer.print(screen.table())
            return buffer.file.getvalue()
        return ""

    told = []
    for terminal in (True, False):
        direct = Terminal(Console(file=io.StringIO(), force_terminal=terminal, width=100))
        story(direct)
        log = io.StringIO()
        story(JsonLines(log, Clock()))
        far = Terminal(Console(file=io.StringIO(), force_terminal=terminal, width=100))
        shown = ""
        for line in ["Ray says something", '{"dfd-tune": broken', *log.getvalue().splitlines()]:
            found = told_in(line)
            if found is not None:
                assert show(*found, far)
                shown = shown_by(far) if far.has_table else shown
        assert ("[1/2] λ=1: 90%" in far.console.file.getvalue()) == (not terminal)
        assert "FAILED: no" in far.console.file.getvalue()
        if terminal:
            assert shown == told[0]
            assert "7/9" not in shown
            assert "0/3" in shown


def test_rows_are_written_at_most_once_a_second_and_the_last_ones_count(tmp_path):
    clock, log = Clock(), io.StringIO()
    screen = JsonLines(log, clock)
    with screen:
        for epoch in range(10):
            screen.row("a", Row("λ=1", 10, {"epoch": float(epoch)}))
            clock.now += 0.25
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    epochs = [one["value"]["last"]["epoch"] for one in told if one["dfd-tune"] == "row"]
    assert epochs == [0.0, 4.0, 8.0, 9.0]


def test_the_first_trial_measured_tells_once_how_long_the_others_take_and_what_that_costs(tmp_path):
    clock = Clock()
    _, ledger, console = watched(tmp_path, clock, total=9)
    ledger.watch = Progress(
        Terminal(console), 9, ["lambda_"], clock, price_of=lambda seconds: f" for {seconds / 3600 * 90:g} shells"
    )
    reused, first, second, third = (digits_trial(lambda_=value) for value in (0.0, 1.0, 2.0, 5.0))
    ledger.finished(reused, result_of(reused))
    for config in (first, second, third):
        start(ledger, config)
    ledger.finished(first, result_of(first))
    ledger.finished(second, result_of(second))
    # 7 of 9 are left after the first that ran took 10 s, and 3 ran at once: 7 * 10 / 3 s.
    told = [line for line in lines(console) if line.startswith("By the first trial")]
    assert told == ["By the first trial, the other 7 take about 23 s for 0.583333 shells."]


def test_a_trial_began_with_its_first_attempt_and_ended_with_its_last(tmp_path):
    now, config, taken = Clock(), digits_trial(lambda_=1.0), digits_trial(lambda_=0.0)
    progress, _, _ = watched(tmp_path, Clock())
    search = make_search(make_request({"lambda_": [0, 1]}), {})
    ledger = Ledger(open_store(tmp_path), search, [], SilentTracker(), DIGEST, progress, now=now)
    key = config.key(DIGEST)

    def times():
        return ledger.trials[key].started, ledger.trials[key].ended

    now.now = 100.0
    start(ledger, config)
    assert times() == (100.0, None)
    now.now = 110.0
    ledger.kill_running()
    assert times() == (100.0, 110.0)
    again = reopened(ledger.trials[key], has_result=False, retry_failed=False)
    ledger = Ledger(open_store(tmp_path), search, [again], SilentTracker(), DIGEST, progress, now=now)
    assert times() == (100.0, None)
    now.now = 200.0
    start(ledger, config)
    now.now = 230.0
    ledger.finished(config, result_of(config))
    assert times() == (100.0, 230.0)
    ledger.finished(taken, result_of(taken))  # of another search
    assert ledger.trials[taken.key(DIGEST)].started is None


def test_costs_that_an_earlier_launch_was_not_after_are_added_once(tmp_path):
    asked = []

    def costs(config):
        asked.append(config)
        return {"parameters": 7.0, "image_seconds": 0.5}

    request = make_request({"lambda_": [0, 1]})
    search, before = make_search(request, {}), make_trial(request, {"lambda_": 1.0}, 0.9)
    before = dataclasses.replace(before, metrics=before.metrics | {"parameters": 7.0})
    progress, _, _ = watched(tmp_path, Clock())
    ledger = Ledger(open_store(tmp_path), search, [before], SilentTracker(), DIGEST, progress, costs=costs)
    ledger.cost_out(["parameters"])
    assert not asked
    ledger.cost_out(["parameters", "image_seconds"])
    ledger.cost_out(["parameters", "image_seconds"])
    assert len(asked) == 1
    (kept,) = load_trials(open_store(tmp_path), search)
    assert kept.metrics == before.metrics | {"image_seconds": 0.5}
