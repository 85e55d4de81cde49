"""Run short jobs through the real driver and Ray until two processes have done some; what was seen comes out as JSON.

python -m tests.search.short_jobs STORE MOST
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

from dfd_tune.machine import usable_cores
from dfd_tune.search.agenda import Agenda
from dfd_tune.search.capacity import Cluster, Resources, ray_nodes
from dfd_tune.search.context import SearchContext
from dfd_tune.search.jobs import trial_job
from dfd_tune.search.process import REPORT
from dfd_tune.search.runtime import RayRuntime
from dfd_tune.signals import Signals
from dfd_tune.store import FolderStore
from tests.samples import digits_trial


def short_job(point, context):
    """A job of 20 ms."""
    import ray
    from ray import tune

    where = {"node": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}
    tune.report({REPORT: json.dumps({"started": where})})
    time.sleep(0.02)
    tune.report({REPORT: json.dumps({"outcome": "done"})})


class UntilTwoProcesses:
    """Points without end, until two processes have begun jobs; it keeps the books, too."""

    at_once = False

    def __init__(self, most):
        self.most, self.given, self.told_of = most, 0, Counter()
        self.began, self.ended = Counter(), Counter()

    def left(self):
        return len(self.began) < 2 and self.given < self.most

    def ask(self):
        if not self.left():
            return None
        self.given += 1
        return f"key{self.given}", digits_trial(seed=self.given, lambda_=0.0)

    def tell(self, key, value):
        self.told_of[key] += 1

    def started(self, attempt, where):
        self.began[where["pid"]] += 1

    def done(self, attempt, what):
        self.ended[attempt.job.key] += 1
        return 0.5

    def failed(self, attempt, failure, *, again, gpus):
        raise AssertionError(failure)

    def tick(self):
        pass


def main():
    """See above."""
    store, most = Path(sys.argv[1]), int(sys.argv[2])
    points = UntilTwoProcesses(most)
    with Signals() as signals, RayRuntime(store / "ray.log", signals) as ray:
        ray.start()
        from dfd_tune.search.driver import run

        resources = Resources("cpu", usable_cores() / 2, 0.0, 1.0)
        agenda = Agenda([], points, lambda key, config: trial_job(config, key, "digest"), list, 0)
        context = SearchContext(str(FolderStore(store).root), "short", "digest", (), resources, 60.0)
        run(agenda, Cluster(resources, ray_nodes), context, points, trainable=short_job)
    seen = {
        "given": points.given,
        "processes": len(points.began),
        "ended": sorted(points.ended.values()),
        "told": sorted(points.told_of.values()),
        "log": (store / "ray.log").read_text(),
        "left behind": [str(file) for file in (store / "searches" / "short").rglob("*")],
    }
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main()
