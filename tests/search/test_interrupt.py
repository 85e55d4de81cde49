"""A launch that is stopped from outside: what is kept, and that no process is left."""

import contextlib
import json
import os
import signal
import time

import psutil
import pytest

from dfd_tune.machine import usable_cores
from tests.search.conftest import TINY, runs_of, trial_runs


def wait_until_running(folder, process):
    """Until one trial is finished and another is running."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and process.poll() is None:
        statuses = {json.loads(file.read_text())["status"] for file in folder.glob("[!.]*.json")}
        if {"FINISHED", "RUNNING"} <= statuses:
            return
        time.sleep(0.2)
    raise AssertionError(process.communicate(timeout=10)[0])


def listening(*processes):
    """The addresses at which processes accept connections."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.parametrize(
    ("signal_number", "cpus_per_worker"),
    [(signal.SIGINT, usable_cores()), pytest.param(signal.SIGTERM, usable_cores() / 2, marks=pytest.mark.slow)],
    ids=["SIGINT, one trial at a time", "SIGTERM, two at once"],
)
def test_an_interrupt_keeps_what_is_finished_and_leaves_no_process(
    start_cli, run_cli, results_of, store_path, tmp_path, signal_number, cpus_per_worker
):
    space = tmp_path / "long.yaml"
    space.write_text("confirm: {seeds: 0}\nexplore:\n  epochs: [1, 2000, 2001, 2002]\n")
    name = f"stopped-{signal_number.name}"
    tiny = [*TINY[:-1], "lambda_=0", "--set", "backbone=alexnet", "--cpus-per-worker", cpus_per_worker]
    process = start_cli("launch", "--dataset", "digits", "--space", space, "--name", name, "--store", store_path, *tiny)
    try:
        wait_until_running(store_path / "searches" / name / "trials", process)
        family = psutil.Process(process.pid).children(recursive=True)
        assert any("raylet" in member.name() for member in family)
        addresses = listening(psutil.Process(process.pid), *family)
        assert addresses, "Ray's processes listen to each other"
        assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "nobody else can reach them"
        # Ctrl-C goes to all processes of the terminal, of which Ray's do not heed it; `kill` goes to one.
        if signal_number == signal.SIGINT:
            os.killpg(process.pid, signal_number)
        else:
            process.send_signal(signal_number)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 130, output
        assert "Traceback" not in output
        assert "to go on:" in output
    finally:
        process.kill()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    listed = results_of(name)
    statuses = {trial["config"]["epochs"]: trial["status"] for trial in listed["trials"]}
    assert statuses[1] == "FINISHED"
    assert "KILLED" in statuses.values()
    assert not list(store_path.rglob(".tune"))
    assert set(statuses.values()) == {"FINISHED", "KILLED"}
    report = run_cli("report", name, "--store", store_path, "--output", tmp_path / "report")
    assert (report.returncode, report.stderr) == (0, "")
    finished = list(statuses.values()).count("FINISHED")
    assert f"Unfinished: {finished} of 4 trials have a result" in (tmp_path / "report" / "report.html").read_text()
    runs = trial_runs(runs_of(store_path, name))
    assert {key: run.info.status for key, run in runs.items()} == {
        trial["key"]: trial["status"] for trial in listed["trials"]
    }
