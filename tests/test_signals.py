"""Signals, sent to real processes."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dfd_tune.signals import ONE_PRESS, STOPPED, Signals

ROOT = Path(__file__).parent.parent
SCRIPT = """
    import contextlib, os, subprocess, sys, time
    from dfd_tune.signals import Signals

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    closed = 0
    with Signals() as signals:
        try:
            print("ready", child.pid, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            with signals.closing():
                print("closing", flush=True)
                for _ in range(int(sys.argv[1])):
                    time.sleep(0.02)
                closed += 1
    child.kill()
    with contextlib.suppress(OSError):  # a terminal that is gone
        print("closed", closed, signals.stopping, flush=True)
    sys.exit(closed)
"""


@contextlib.contextmanager
def started(steps, **options):
    """The script, which takes `steps` × 0.02 s to close; yields it with its child's process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(steps)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **{"preexec_fn": heeding, **options},
    )
    try:
        yield process, int(process.stdout.readline().split()[1])
    finally:
        process.kill()
        process.communicate()


def heeding():
    """As in a terminal's foreground, whatever started the tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_stops_and_others_but_ctrl_c_change_nothing(number):
    with started(20) as (process, _):
        process.send_signal(number)
        assert process.stdout.readline() == "closing\n"
        for impatient in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            process.send_signal(impatient)
        output, said = process.communicate(timeout=10)
        assert output == "closed 1 True\n"
        assert process.returncode == 1
        assert said.strip().startswith("Stopping")
        assert len(said.strip().splitlines()) == 1


def test_the_second_ctrl_c_leaves_at_once_and_leaves_no_process():
    with started(1000) as (process, child):
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "closing\n"
        assert alive(child)
        time.sleep(2 * ONE_PRESS)
        process.send_signal(signal.SIGINT)
        output, said = process.communicate(timeout=10)
        assert (process.returncode, output) == (STOPPED, "")
        assert "again" in said
        end = time.monotonic() + 10  # a signal is on its way for a moment
        while alive(child) and time.monotonic() < end:
            time.sleep(0.01)
        assert not alive(child)


def test_one_press_that_comes_twice_is_no_second_one():
    clock = iter([10.0, 10.0 + ONE_PRESS / 2, 10.0 + 0.9 * ONE_PRESS])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests
    try:
        with pytest.raises(KeyboardInterrupt), Signals(clock=lambda: next(clock)) as signals, signals.closing():  # noqa: PT012
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert next(clock, None) is None, "each of them was heard, and none left at once"


def test_what_was_ignored_at_the_start_stays_so():
    def as_nohup_in_the_background():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with started(0, preexec_fn=as_nohup_in_the_background) as (process, _):
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10)[0] == "closing\nclosed 1 True\n"


def test_a_terminal_that_goes_away_stops_gracefully():
    ours, theirs = pty.openpty()
    # The script's prints go to the terminal, as they do in life; what must be known comes by the exit code.
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=heeding,
        start_new_session=True,
    )
    try:
        assert b"ready" in os.read(ours, 1000)
        os.close(theirs)
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=10) == 1
    finally:
        process.kill()


def test_a_signal_while_closing_for_another_reason_is_kept_for_the_end():
    reached = []
    with pytest.raises(KeyboardInterrupt), Signals() as signals, signals.closing():  # noqa: PT012
        with signals.closing():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            reached.append("inner")
        reached.append("outer")
        assert signals.stopping
    assert reached == ["inner", "outer"]


def test_an_exception_on_its_way_is_not_replaced_by_a_stop():
    with pytest.raises(ValueError, match="own"), Signals() as signals, signals.closing():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        raise ValueError("own")


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Signals() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray does
        signals.install()
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, *before)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_in_another_thread_it_does_nothing():
    seen = []

    def run():
        with Signals() as signals, signals.closing():
            seen.append(signals.stopping)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
