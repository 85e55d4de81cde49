"""The outbox: the latest of each key, written by a thread of its own, however long that takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from dfd_tune.tracking.outbox import Outbox, Pauses

NO_PAUSE = Pauses(0.001, 0.001)


class AwayError(Exception):
    """Nobody answers."""


def outbox(write: Callable[[int], None], **options: object) -> Outbox[int]:
    options = {"pauses": NO_PAUSE, **options}
    return Outbox(write, lambda error: f"problem: {error}", lambda error: isinstance(error, AwayError), **options)


def test_it_keeps_the_latest_of_each_key_and_does_not_make_its_owner_wait() -> None:
    gate, written = threading.Event(), []

    def write(update: int) -> None:
        gate.wait(10)
        written.append(update)

    box = outbox(write)
    box.put("a", 1)
    while box._waiting:  # until the thread holds the first
        time.sleep(0.001)
    for update in (2, 3, 4):
        box.put("a", update)
    box.put("b", 5)
    [slow] = box.flush(0.01)
    assert "3 trials not written" in slow
    gate.set()
    assert box.close(10) == []
    assert written == [1, 4, 5]
    box._thread.join(10)
    assert not box._thread.is_alive()


def test_a_problem_is_forgotten_once_the_key_is_written() -> None:
    refuse = True

    def write(update: int) -> None:
        if refuse:
            raise RuntimeError("no")

    box = outbox(write)
    box.put("a", 1)
    box.put("b", 1)
    assert box.flush(10) == ["problem: no"]
    refuse = False
    assert box.close(10) == []


def test_what_is_refused_is_tried_twice_then_left_until_there_is_news_and_holds_nobody_up() -> None:
    written: list[int] = []

    def write(update: int) -> None:
        written.append(update)
        if update < 10:
            raise RuntimeError("no")

    box = outbox(write)
    box.put("a", 1)
    for update in range(10, 15):
        box.put(f"b{update}", update)
    assert box.flush(10) == ["problem: no"]
    assert sorted(written) == [1, 1, 10, 11, 12, 13, 14]
    assert box.flush(10) == ["problem: no"]
    assert sorted(written)[:3] == [1, 1, 1]
    box.put("a", 10)
    assert box.flush(10) == []
    assert box._refused == {}
    assert box.close(10) == []


def test_while_nobody_answers_the_latest_of_each_key_waits_and_nothing_is_lost() -> None:
    here, written, attempts = threading.Event(), {}, []

    def write(update: int) -> None:
        attempts.append(update)
        if not here.is_set():
            raise AwayError("nobody there")
        key, value = divmod(update, 1000)
        written[key] = value

    box = outbox(write)
    for value in range(1, 100):
        for key in range(5):
            box.put(str(key), 1000 * key + value)
        assert len(box._waiting) <= 5
    for _ in range(5000):  # at most 5 s
        if len(attempts) >= 20:
            break
        time.sleep(0.001)
    assert len(attempts) >= 20
    here.set()
    assert box.close(10) == []
    assert written == dict.fromkeys(range(5), 99)


def test_it_gives_up_after_its_patience_and_says_so_once() -> None:
    def write(update: int) -> None:
        raise AwayError("nobody there")

    box = outbox(write)
    for key in "abc":
        box.put(key, 1)
    start = time.monotonic()
    problem, slow = box.close(0.2)
    assert 0.2 <= time.monotonic() - start < 5
    assert problem == "problem: nobody there"
    assert "3 trials not written" in slow
    box._thread.join(10)
    assert not box._thread.is_alive()


def test_patience_begins_anew_with_every_write() -> None:
    def write(update: int) -> None:
        time.sleep(0.05)

    box = outbox(write)
    for key in range(12):
        box.put(str(key), key)
    assert box.flush(0.2, while_it_goes_on=True) == []
    for key in range(12):
        box.put(str(key), key)
    assert box.flush(0.2) != []
    assert box.close(10) == []


def test_pauses_grow_to_a_bound_and_begin_anew_after_a_success() -> None:
    assert [Pauses(0.5, 15).after(failures) for failures in (1, 2, 3, 5, 6, 1000)] == [0.5, 1, 2, 8, 15, 15]


@pytest.mark.parametrize("failures", [1, 4, 9])
def test_between_attempts_it_waits_as_its_pauses_say(failures: int) -> None:
    now, waits = [0.0], []
    done = threading.Event()

    def wait(condition: threading.Condition, seconds: float | None) -> None:
        """Time passes at once."""
        if seconds is None:
            condition.wait(0.01)
            return
        waits.append(seconds)
        now[0] += seconds

    def write(update: int) -> None:
        if len(waits) < failures:
            raise AwayError("nobody there")
        done.set()

    box = outbox(write, pauses=Pauses(1, 16), clock=lambda: now[0], wait=wait)
    box.put("a", 1)
    assert done.wait(10)
    assert waits == [min(16, 2**attempt) for attempt in range(failures)]
    assert box.close(10) == []


def test_ten_thousand_updates_wait_at_a_cost_that_does_not_grow() -> None:
    def seconds_for(count: int) -> float:
        gate = threading.Event()
        box = outbox(lambda update: gate.wait(30) and None)
        start = time.perf_counter()
        for key in range(count):
            box.put(str(key), key)
        gate.set()
        assert box.close(60) == []
        return (time.perf_counter() - start) / count

    seconds_for(1000)
    assert min(seconds_for(20_000) for _ in range(3)) < 5 * min(seconds_for(2000) for _ in range(3))


def test_what_waits_and_says_the_same_is_kept() -> None:
    gate, written = threading.Event(), []

    def write(update: int) -> None:
        gate.wait(10)
        written.append(update)

    box = outbox(write)
    box.put("first", 0)
    box.put("a", 11)
    box.put("a", 21, says_the_same=lambda waiting: waiting % 10 == 1)
    box.put("a", 32, says_the_same=lambda waiting: waiting % 10 == 2)
    box.put("a", 42, says_the_same=lambda waiting: waiting % 10 == 2)
    gate.set()
    assert box.close(10) == []
    assert written == [0, 32]
