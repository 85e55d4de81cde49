"""`stop`, `logs`, and what `results` says of a search whose launch was killed: on real processes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dfd_tune.cli.entry import main
from dfd_tune.record import save_search, save_trial
from dfd_tune.store import open_store
from tests.report.searches import make_request, make_search, make_trial

ROOT = Path(__file__).parents[2]
LAUNCH = """
    import sys, time
    from dfd_tune.liveness import running, stop_asked
    from dfd_tune.store import open_store
    store = open_store(sys.argv[1])
    with running(store, "mine", print):
        record = store.path("searches", "mine", "search.json")
        record.write_text(record.read_text())
        print("runs", flush=True)
        while not (stop_asked(store, "mine") and sys.argv[2] == "heeds"):
            time.sleep(0.02)
        raise KeyboardInterrupt
"""
REQUEST = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1]})
STATUSES = ("FINISHED", "RUNNING", "FAILED", "PENDING")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("DFD_TUNE_STORE", raising=False)
    store = open_store(tmp_path / "store")
    save_search(store, make_search(REQUEST, {}, search="mine"))
    for trial in trials():
        save_trial(store, "mine", trial)
    return store


def trials():
    points = [{"backbone": backbone, "lambda_": weight} for backbone in ("resnet18", "vgg16") for weight in (0.0, 1.0)]
    return [make_trial(REQUEST, point, 0.9, status=status) for point, status in zip(points, STATUSES, strict=True)]


@pytest.fixture
def launch(store):
    """Start a launch of the search; it is killed at the end."""
    started = []

    def start(manner="heeds"):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(LAUNCH), str(store.root), manner],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "runs\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def dfd_tune(store, monkeypatch, capsys):
    """Run a command on the store in this process: its exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["dfd-tune", *map(str, arguments), "--store", str(store.root)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def listed(dfd_tune):
    return json.loads(dfd_tune("results", "mine", "--format", "json")[1])


def test_results_say_running_while_it_runs_and_interrupted_after_a_kill(dfd_tune, launch):
    process = launch()
    told = listed(dfd_tune)
    assert {trial["status"] for trial in told["trials"]} == set(STATUSES)
    assert told["state"]["kind"] == "running"
    assert told["state"]["process"]["pid"] == process.pid
    table = dfd_tune("results", "mine")[1]
    assert "RUNNING since" in table
    killed(process)
    told = listed(dfd_tune)
    assert [trial["status"] for trial in told["trials"]].count("INTERRUPTED") == 1
    assert "RUNNING" not in [trial["status"] for trial in told["trials"]]
    assert told["state"]["kind"] == "interrupted"
    assert time.time() - 60 < told["state"]["since"] <= time.time()
    table = dfd_tune("results", "mine")[1]
    assert "RUNNING" not in table
    assert table.count("INTERRUPTED") == 2
    assert "dfd-tune resume mine --store" in table
    assert "INTERRUPTED" in dfd_tune("results", "mine", "--format", "csv")[1]


def test_stop_ends_a_running_search_and_says_how_to_go_on(dfd_tune, launch):
    process = launch()
    code, output, _ = dfd_tune("stop", "mine")
    assert code == 0
    assert process.wait(timeout=5) != 0
    assert str(process.pid) in output
    assert "dfd-tune resume mine --store" in output
    assert listed(dfd_tune)["state"]["how"] == "stopped"


def test_stop_of_what_does_not_run_is_refused_in_one_sentence(dfd_tune, launch):
    code, _, errors = dfd_tune("stop", "mine")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "does not run" in errors
    killed(launch())
    code, _, errors = dfd_tune("stop", "mine")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "INTERRUPTED" in errors
    assert "Unknown search" in dfd_tune("stop", "yours")[2]
    assert "Unknown search" in dfd_tune("stop", "../mine")[2]


def test_stop_waits_no_longer_than_asked(dfd_tune, launch):
    launch("heeds not")
    assert dfd_tune("stop", "mine", "--wait", "0")[0] == 0
    code, _, errors = dfd_tune("stop", "mine", "--wait", "0.2")
    assert code == 1
    assert "has not ended" in errors
    assert dfd_tune("stop", "mine", "--wait", "nan")[0] == 2


def test_ctrl_c_ends_only_the_waiting(dfd_tune, launch, store):
    process = launch("heeds not")
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        code, _, errors = dfd_tune("stop", "mine")
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
    assert code == 130
    assert "ending all the same" in errors
    assert process.poll() is None
    assert store.path("searches", "mine", "stop").exists()


def test_a_wish_to_stop_that_is_lost_is_repeated(dfd_tune, launch, store):
    """A launch that has just begun clears away what older ones left."""
    process = launch()
    os.kill(process.pid, signal.SIGSTOP)
    wish = store.path("searches", "mine", "stop")

    def lose():
        while not wish.exists():
            time.sleep(0.01)
        wish.unlink()
        os.kill(process.pid, signal.SIGCONT)

    thread = threading.Thread(target=lose)
    thread.start()
    assert dfd_tune("stop", "mine", "--wait", "10")[0] == 0
    thread.join()


def with_logs(store):
    folder = store.path("searches", "mine", "logs")
    folder.mkdir()
    keys = [trial.key for trial in trials()]
    (folder / f"{keys[0]}.log").write_text("epoch 1\nπ\n")
    (folder / f"{keys[2]}.log").write_text("Traceback: boom\n")
    (folder / "ray.log").write_text("raylet died\n")
    return keys


def test_logs_list_the_trials_that_have_any(dfd_tune, store):
    code, output, _ = dfd_tune("logs", "mine")
    assert (code, "No trial" in output) == (0, True)
    keys = with_logs(store)
    code, output, _ = dfd_tune("logs", "mine")
    rows = {line.split()[0]: line for line in output.splitlines()[1:3]}
    assert rows.keys() == {keys[0], keys[2]}
    assert "resnet18 λ=0" in rows[keys[0]]
    assert rows[keys[2]].endswith("FAILED")
    assert str(store.path("searches", "mine", "logs", "ray.log")) in output


def test_logs_of_a_trial_by_its_key_or_the_beginning_of_it(dfd_tune, store):
    keys = with_logs(store)
    assert dfd_tune("logs", "mine", keys[0]) == (0, "epoch 1\nπ\n", "")
    unique = next(n for n in range(1, 17) if sum(key.startswith(keys[2][:n]) for key in keys) == 1)
    assert dfd_tune("logs", "mine", keys[2][:unique])[1] == "Traceback: boom\n"


@pytest.mark.parametrize("trial", ["zz", "", "*", "ray", "../search"])
def test_logs_of_no_trial_are_refused_in_one_sentence(dfd_tune, store, trial):
    with_logs(store)
    code, output, errors = dfd_tune("logs", "mine", trial)
    assert (code, output, len(errors.splitlines())) == (2, "", 1)
    assert "Unknown trial" in errors


def test_logs_of_several_trials_or_of_one_that_has_none_are_refused(dfd_tune, store):
    keys = with_logs(store)
    assert "has no log" in dfd_tune("logs", "mine", keys[1])[2]
    for number in range(2):
        store.path("searches", "mine", "logs", f"zz{number}.log").write_text("of a teacher\n")
    code, _, errors = dfd_tune("logs", "mine", "zz")
    assert code == 2
    assert "2 trials" in errors
    assert dfd_tune("logs", "mine", "zz1")[1] == "of a teacher\n"
    assert dfd_tune("logs", "mine", "--follow")[0] == 2


def test_following_shows_what_is_added_until_the_search_has_ended(dfd_tune, store, launch):
    keys = with_logs(store)
    process = launch()
    log = store.path("searches", "mine", "logs", f"{keys[0]}.log")

    def go_on():
        time.sleep(0.2)
        with log.open("a") as file:
            file.write("epoch 2\n")
            file.flush()
            process.kill()
            process.wait()
            file.write("the last\n")

    thread = threading.Thread(target=go_on)
    thread.start()
    code, output, _ = dfd_tune("logs", "mine", keys[0], "-f")
    thread.join()
    assert code == 0
    assert output.startswith("epoch 1\nπ\nepoch 2\n")
