"""The driver with a real Ray, and jobs that train nothing."""

import json
import subprocess
import sys

MOST = 1_500
"""So many jobs of 20 ms last several times as long as a process takes to start."""


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
