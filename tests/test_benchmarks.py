"""The benchmark of the driver runs on the driver as it is now: its stand-ins keep up with what they stand for.

Not for: how fast anything is.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
POINTS = 100


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_drivers_benchmark_measures_all_that_it_names():
    script = ["benchmarks/driver_scale.py", "--points", str(POINTS), "--samplers", "grid"]
    done = subprocess.run([sys.executable, *script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    machine, *rows = map(json.loads, done.stdout.splitlines())
    assert machine["cores"] >= 1
    assert {row["points"] for row in rows} == {POINTS}
    assert [row["what"] for row in rows[:3]] == ["plain Tune", "search", "relaunch"]
    assert rows[1]["rate_over_plain"] > 0
