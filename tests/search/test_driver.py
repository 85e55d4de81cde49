"""The driver with a real Ray, and jobs that train nothing."""

import errno
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dfd_tune.search.agenda import Agenda
from dfd_tune.search.capacity import Cluster, Node, Resources
from dfd_tune.search.driver import AgendaCallback, AgendaSearcher
from dfd_tune.search.jobs import Attempt, Job
from dfd_tune.search.process import REPORT
from tests.samples import digits_trial
from tests.search.test_agenda import ListedPoints

MOST = 1_500
"""So many jobs of 20 ms last several times as long as a process takes to start."""


@pytest.mark.slow
def test_jobs_shorter_than_the_start_of_a_process_get_a_second_one(tmp_path):
    """Tune would give every process that has ended a job to one that waits for its own, and end that."""
    words = [sys.executable, "-m", "tests.search.short_jobs", str(tmp_path), str(MOST)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["processes"] == 2
    assert seen["ended"] == seen["told"] == [1] * seen["given"], "each job ends once"
    assert seen["log"] == "", "Tune looks for no files of results"
    assert seen["left behind"] == []


@pytest.mark.slow
def test_a_trial_short_of_a_gpus_memory_goes_on_with_a_larger_share_and_fails_only_at_a_whole_one(tmp_path):
    words = [sys.executable, "-m", "tests.search.short_of_memory", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    trials = seen["trials"]
    assert {name: (trial["status"], trial["gpus"], trial["attempts"]) for name, trial in trials.items()} == {
        "0.125, 0": ("FINISHED", None, 1),
        "0.25, 0": ("FINISHED", 1.0, 2),
        "0.25, 1": ("FINISHED", 1.0, 1),
        "0.375, 0": ("FAILED", 1.0, 2),
    }
    failed = trials.pop("0.375, 0")
    assert failed["fault"] == "trial"
    assert "batch_size" in failed["cause"]
    assert len(failed["history"]) == 3, "it went on from its checkpoint of two epochs"
    for name, trial in trials.items():
        assert trial["history"] == seen["alone"][name], "as if nothing had happened, bit by bit"
    larger = [line for line in seen["lines"] if "width=0.25" in line or "width=0.375" in line]
    assert len(seen["lines"]) == len(larger) == 2, "one line for each that was given more"


class BooksWithoutRoom:
    """Nothing can be written into them."""

    def started(self, *arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device", "/store/searches/s/trials/k.json")

    told = done = failed = stopped_early = started


@pytest.mark.parametrize("event", ["epoch", "complete", "error"])
def test_books_that_can_not_be_written_end_tunes_loop_with_their_own_error(event):
    """Of an `Exception`, Tune would make a text with a traceback, and go on with other trials."""
    config = digits_trial()
    attempt = Attempt(job=Job(kind="trial", key="k", config=config), number=1)
    trial = SimpleNamespace(config={"attempt": attempt}, trial_id="t", pickled_error_file=None)
    node = Node("node", "host", 1.0, 0.0, 1e12)
    resources = Resources("cpu", 1.0, 0.0, 1.0)
    agenda = Agenda([attempt.job], ListedPoints([]), lambda key, config: attempt.job, list, 3)
    room = Cluster(resources, lambda: [node])
    assert agenda.next(room) is not None
    callback = AgendaCallback(agenda, room, BooksWithoutRoom(), AgendaSearcher(agenda, room, BooksWithoutRoom()))
    calls = {
        "epoch": lambda: callback.on_trial_result(0, [], trial, {REPORT: json.dumps({"epoch": {"epoch": 1}})}),
        "complete": lambda: callback.on_trial_complete(0, [], trial),
        "error": lambda: callback.on_trial_error(0, [], trial),
    }
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        calls[event]()
    assert not isinstance(caught.value, Exception)
    assert isinstance(caught.value.cause, OSError)
