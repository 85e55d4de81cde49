"""The arithmetic of costs, held against sums done by hand."""

import dataclasses

import pytest

from dfd_tune.forecast import (
    FIRST_PROCESS_SECONDS,
    JOB_SECONDS,
    Forecast,
    Pool,
    Speed,
    Task,
    Work,
    against_outcome,
    finished_after,
    forecast,
    in_words,
)

ONE = Pool(1)
TWO = Pool(2)


def test_a_training_costs_its_epochs_of_training_and_validation_and_what_it_looks_at_once():
    work = Work(what="", stage="search", kind="k", count=1, epochs=10, images=200, evaluated=50, looked_at=30, cpus=1)
    # 10 × (200 × 0.01 + 50 × 0.002) + 30 × 0.002
    assert work.seconds(Speed(0.01, 0.002, "")) == pytest.approx(10 * (2 + 0.1) + 0.06 + JOB_SECONDS)


@pytest.mark.parametrize(
    ("tasks", "pool", "seconds"),
    [
        ([], TWO, 0),
        ([Task(3, 1), Task(3, 1), Task(3, 1)], ONE, 9),
        ([Task(3, 1), Task(3, 1), Task(3, 1)], TWO, 6),
        ([Task(5, 1), Task(1, 1), Task(1, 1)], TWO, 5),  # the short ones run beside the long one
        ([Task(1, 1), Task(1, 1), Task(5, 1)], TWO, 6),
        ([Task(4, 2), Task(3, 1), Task(3, 1)], TWO, 7),  # the first holds both cores
        ([Task(4, 9)], TWO, 4),  # more than there is: all there is
        # λ = 0 runs beside the teacher; the others wait for it.
        (
            [Task(4, 1, makes="t"), Task(3, 1, needs=frozenset("t")), Task(3, 1, needs=frozenset("t")), Task(4, 1)],
            TWO,
            7,
        ),
        ([Task(4, 1, makes="t"), Task(2, 1, needs=frozenset("t")), Task(6, 1)], TWO, 6),
        (
            [Task(2, 1, makes="f"), Task(3, 1, makes="t", needs=frozenset("f")), Task(1, 1, needs=frozenset("t"))],
            TWO,
            6,
        ),
        # Two share the GPU, however many cores there are.
        ([Task(2, 1, 0.5)] * 4, Pool(8, 1), 4),
        ([Task(2, 1, 1 / 3)] * 3, Pool(8, 1), 2),
    ],
)
def test_what_is_ready_begins_in_order_as_there_is_room(tasks, pool, seconds):
    assert finished_after(tasks, pool) == pytest.approx(seconds)


def test_many_trials_are_scheduled_at_once():
    assert finished_after([Task(1, 1)] * 20_000, Pool(100)) == pytest.approx(200)


def works():
    common = {"epochs": 2, "images": 100, "evaluated": 0, "cpus": 1}
    return [
        Work(what="teacher", stage="search", kind="fast", count=1, makes="t", bytes_each=100, **common),
        Work(what="plain", stage="search", kind="fast", count=1, bytes_each=10, **common),
        Work(
            what="distilled",
            stage="search",
            kind="slow",
            count=3,
            reused=2,
            needs=frozenset("t"),
            bytes_each=10,
            **common,
        ),
        Work(what="anew", stage="confirm", kind="slow", count=2, needs=frozenset("t"), bytes_each=10, **common),
    ]


SPEEDS = {"fast": Speed(0.095, 0.0, "a probe"), "slow": Speed(0.195, 0.0, "earlier trials")}
FAST, SLOW = 19 + JOB_SECONDS, 39 + JOB_SECONDS


def forecast_of(works, speeds=SPEEDS, pool=TWO, device="cpu", **options):
    return forecast(works, speeds, device=device, pool=pool, trial=(1, 1.0, 0.0), **options)


def test_a_confirmation_begins_when_the_search_has_ended():
    found = forecast_of(works(), disk_bytes=1000)
    # Teacher and plain trial side by side, then two and one distilled trial, then two anew at once.
    assert found.wall_seconds == pytest.approx(FIRST_PROCESS_SECONDS + FAST + 2 * SLOW + SLOW)
    assert found.device_hours == pytest.approx((2 * FAST + 5 * SLOW) / 3600)
    assert found.disk_bytes == 1000 + 100 + 10 + 3 * 10 + 2 * 10
    assert (found.jobs, found.at_once) == (7, 2)
    assert [(part.count, part.reused, part.seconds) for part in found.parts] == [
        (1, 0, pytest.approx(FAST)),
        (1, 0, pytest.approx(FAST)),
        (3, 2, pytest.approx(SLOW)),
        (2, 0, pytest.approx(SLOW)),
    ]


def test_what_the_store_has_is_not_waited_for():
    teacher, _, distilled, _ = works()
    there = dataclasses.replace(teacher, count=0, reused=1)
    assert forecast_of([there, distilled]).wall_seconds == pytest.approx(FIRST_PROCESS_SECONDS + 2 * SLOW)
    nothing = forecast_of([there])
    assert (nothing.wall_seconds, nothing.device_hours, nothing.jobs, nothing.disk_bytes) == (0, 0, 0, 0)


def test_workers_and_shares_of_gpus_count_in_device_hours():
    (_, plain, _, _) = works()
    shared = dataclasses.replace(plain, workers=2, cpus=3, gpus=0.5)
    assert forecast_of([shared], pool=Pool(16, 1), device="cuda").device_hours == pytest.approx(FAST / 3600)
    assert forecast_of([shared], pool=Pool(16, 1)).device_hours == pytest.approx(6 * FAST / 3600)


def test_what_is_not_known_is_not_summed():
    found = forecast_of(works(), {"fast": SPEEDS["fast"]})
    assert found.wall_seconds is None
    assert found.device_hours is None
    assert [part.seconds is None for part in found.parts] == [False, False, True, True]
    unplaced = forecast_of(works(), pool=None)
    assert (unplaced.wall_seconds, unplaced.at_once) == (None, None)
    assert unplaced.device_hours == forecast_of(works()).device_hours


def test_parts_that_say_the_same_are_one():
    teacher = works()[0]
    (part,) = forecast_of([teacher, dataclasses.replace(teacher, makes="u")]).parts
    assert (part.what, part.count) == ("teacher", 2)


def test_a_forecast_survives_json_and_is_held_against_what_came():
    found = forecast_of(works())
    assert Forecast.from_json(found.to_json()) == found
    assert against_outcome({}) is None
    assert against_outcome(found.to_json()) is None  # still running, or stopped
    took = {"jobs": 7, "wall_seconds": 1.5 * found.wall_seconds, "device_hours": 1.0}
    line = against_outcome(dataclasses.replace(found, outcome=took).to_json())
    assert "7 trainings (planned 7)" in line
    assert "+50%" in line
    unknown = against_outcome(dataclasses.replace(forecast_of(works(), {}), outcome=took).to_json())
    assert "not forecast" in unknown
    assert "%" not in unknown


def test_each_part_and_the_sum_have_a_line():
    lines = in_words(forecast_of(works()))
    assert [line.partition(":")[0] for line in lines[:-1]] == ["teacher", "plain", "distilled", "anew"]
    assert "2 more from the store" in lines[2]
    assert "core-hours" in lines[-1]
    assert "GPU-hours" in in_words(forecast_of(works(), device="cuda", pool=Pool(4, 1)))[-1]
