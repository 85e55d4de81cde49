"""Leases in a bucket: held by one, taken over from who is silent, and given back."""

import subprocess
import sys
import textwrap
import threading
import time

import pytest

from dfd_tune.locks import HeldError
from dfd_tune.store.bucket import Bucket, bucket_at
from dfd_tune.store.leases import Pace, leased

PACE = Pace(beat=0.2, silent=1.5, settle=0.5)
HOLDER = """
    import sys, time
    from dfd_tune.store.bucket import bucket_at
    from dfd_tune.store.leases import Pace, leased
    with leased(bucket_at(sys.argv[1]), "mine", print, pace=Pace(0.2, 1.5, 0.5)):
        print("held", flush=True)
        time.sleep(600)
"""


@pytest.fixture
def bucket(s3, tmp_path) -> Bucket:
    return bucket_at(s3.address(f"leases/{tmp_path.name}"))


@pytest.fixture
def holder(bucket):
    """A process that holds the lease until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), bucket.address], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_of_several_who_ask_one_holds(bucket):
    inside, most, said = [], [], []

    def work(number):
        with leased(bucket, "mine", said.append, pace=PACE):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.3)
            inside.remove(number)

    people = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert most == [1, 1, 1]
    assert bucket.files("leases") == {}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_who_leaves_by_an_error_gives_it_back(bucket, error):
    with pytest.raises(error), leased(bucket, "mine", print, pace=PACE):
        raise error
    assert bucket.files("leases") == {}


def test_who_does_not_wait_is_told_who_holds_it(bucket, holder):
    with pytest.raises(HeldError) as caught, leased(bucket, "mine", print, waits=False, pace=PACE):
        pass
    assert caught.value.holder.process.pid == holder.pid


@pytest.mark.parametrize("waits", [True, False])
def test_a_killed_holders_lease_is_taken_over_after_its_silence(bucket, holder, waits):
    holder.kill()
    holder.wait()
    began = time.monotonic()
    with leased(bucket, "mine", print, waits=waits, pace=PACE):
        assert time.monotonic() - began >= PACE.silent
    assert bucket.files("leases") == {}


def test_a_long_wait_is_told_of(bucket, holder, monkeypatch):
    monkeypatch.setattr("dfd_tune.store.leases.SAY_AFTER_SECONDS", 0.1)
    said: list[str] = []
    waiting = threading.Thread(target=lambda: leased(bucket, "mine", said.append, pace=PACE).__enter__(), daemon=True)
    waiting.start()
    end = time.monotonic() + 30
    while not said and time.monotonic() < end:
        time.sleep(0.05)
    holder.kill()
    waiting.join(60)
    assert str(holder.pid) in said[0]


def test_a_lease_that_was_taken_over_is_left_to_its_new_holder(bucket):
    with leased(bucket, "mine", print, pace=PACE):
        bucket.write(b'{"token": "of another"}', "leases", "mine.json")
        time.sleep(3 * PACE.beat)
        assert bucket.read("leases", "mine.json") == b'{"token": "of another"}'
    assert bucket.read("leases", "mine.json") == b'{"token": "of another"}'
