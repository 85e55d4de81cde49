"""What a search was forecast to cost, and what it did: kept with it, said at its end, and in its report."""

import dataclasses

import pytest

from dfd_tune.forecast import Forecast, against_outcome
from dfd_tune.record import load_search, load_trials
from dfd_tune.report.layouts import Found
from dfd_tune.report.write import summary
from dfd_tune.store import open_store


@pytest.fixture(scope="module")
def records(search):
    store = open_store(search.store)
    found = load_search(store, search.name)
    return found, load_trials(store, found)


def test_a_search_too_small_for_a_probe_still_says_what_came_of_it(search, records):
    found, trials = records
    forecast = Forecast.from_json(found.forecast)
    assert forecast.wall_seconds is None
    assert "Timing a few steps" not in search.output
    assert forecast.outcome["jobs"] == len(trials) + len(found.teachers)
    hours = sum(trial.metrics["device_hours"] for trial in trials)
    assert forecast.outcome["device_hours"] > hours > 0  # the teachers' too
    assert forecast.outcome["wall_seconds"] > max(trial.metrics["seconds"] for trial in trials)


def test_the_line_ends_the_launch_and_stands_in_the_report(search, records):
    found, trials = records
    line = against_outcome(found.forecast)
    assert line is not None
    assert line in search.output
    assert summary(Found(found, trials))[-1] == f"{line}."
    assert summary(Found(dataclasses.replace(found, forecast={}), trials)) == summary(Found(found, trials))[:-1]


def test_a_search_that_is_launched_again_is_forecast_by_its_own_trials(search, records, run_process):
    again = run_process(*search.arguments, "--dry-run")
    assert again.returncode == 0, again.stderr
    assert "by a probe" not in again.stdout, "nothing is left to run"
    assert again.stdout.splitlines()[-1].startswith("In all 0 trainings")
    assert load_search(open_store(search.store), search.name) == records[0]
    other = [part if part != "epochs=2" else "epochs=3" for part in search.arguments]
    refused = run_process(*other, "--dry-run")
    assert refused.returncode == 2
    assert "epochs was 2, now 3" in refused.stderr
