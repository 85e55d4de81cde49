"""How many trials at once one driver keeps at work: on 2 to 16 Ray nodes of this machine, then beside stub actors.

Trials are stubs that sleep: they report a start, then an epoch after each pause, then a result. All else of a search is
real: the driver, agenda, points, ledger, progress. In the first part Ray's nodes and processes are real too, each node
with one slot. In the second, nodes and actors are stubs: a few real processes play hundreds of Tune's, so that the
driver sends, awaits and reads as many messages as it would, and nothing is started for them. The share of the slots'
time that trials slept, from when all slots are taken until the last trial begins, is what the driver let them use.
Not for: what a trial costs the driver as a search grows long (driver_scale.py).

    uv run python benchmarks/cluster_scale.py --nodes 2 4 8 16
    uv run python benchmarks/cluster_scale.py --slots 64 256 1024 --seconds 10 60
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import driver_scale
from benchmarks.driver_scale import SilentTracker, made_up, new_store, resident_mb, search_record
from benchmarks.processes import RayNodes

PLAYERS = 2
"""Processes that play stub actors."""
NODE_SLOTS = 8
"""Slots of a stub node, as of a machine with eight GPUs."""
COLUMNS = (
    ("nodes", "{}"),
    ("slots", "{}"),
    ("seconds_a_trial", "{:g}"),
    ("trials", "{}"),
    ("window_s", "{:.0f}"),
    ("trials_per_s", "{:.1f}"),
    ("share_of_time_in_use", "{:.1%}"),
    ("driver_cpu_ms_per_trial", "{:.1f}"),
    ("driver_busy", "{:.0%}"),
    ("driver_rss_mb", "{:.0f}"),
    ("cores_busy", "{:.0%}"),
)
"""What is printed of a row, and how. The first three are the question; all but the last two of the window alone."""


@dataclasses.dataclass(frozen=True)
class Sleep:
    """What a stub trial does."""

    seconds: float
    epochs: int


@dataclasses.dataclass
class Meter:
    """Reads clocks when all slots are taken for the first time, and when the last trial begins."""

    slots: int
    trials: int
    sleep: Sleep
    running: set[str] = dataclasses.field(default_factory=set)
    begun: int = 0
    ended: int = 0
    slept: float = 0.0
    seen: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def started(self, key: str) -> None:
        """A trial has begun."""
        self.begun += 1
        self.running.add(key)
        if (len(self.running) == self.slots and not self.seen) or self.begun == self.trials:
            self._read()

    def epoch(self) -> None:
        """A trial has slept for an epoch."""
        self.slept += self.sleep.seconds / self.sleep.epochs

    def done(self, key: str) -> None:
        """A trial has ended."""
        self.ended += 1
        self.running.discard(key)

    def _read(self) -> None:
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        clocks = {"wall": time.perf_counter(), "cpu": time.process_time(), "idle": idle, "all": sum(machine[:8])}
        self.seen.append(clocks | {"ended": self.ended, "slept": self.slept, "rss": resident_mb()})

    def figures(self) -> dict[str, float]:
        """What was seen between the two readings."""
        first, last = self.seen
        passed = {name: last[name] - first[name] for name in first}
        return {
            "window_s": passed["wall"],
            "trials_per_s": passed["ended"] / passed["wall"],
            "share_of_time_in_use": passed["slept"] / (self.slots * passed["wall"]),
            "driver_cpu_ms_per_trial": 1000 * passed["cpu"] / max(1.0, passed["ended"]),
            "driver_busy": passed["cpu"] / passed["wall"],
            "driver_rss_mb": last["rss"],
            "cores_busy": 1 - passed["idle"] / passed["all"],
        }


def reports(attempt: Any, digest: str, sleep: Sleep, node: str) -> Iterator[tuple[float, dict[str, Any]]]:
    """What a stub trial tells, each with the seconds that it sleeps before."""
    yield 0.0, {"started": {"host": "here", "pid": 1, "node": node, "device": "cpu"}}
    result = made_up(attempt.job.key, attempt.job.config, digest)
    for epoch in range(1, sleep.epochs + 1):
        yield sleep.seconds / sleep.epochs, {"epoch": result["history"][0] | {"epoch": float(epoch)}}
    yield 0.0, {"outcome": "done", "result": result, "peak_memory_bytes": 1}


def sleeper(sleep: Sleep) -> Callable[[dict[str, Any], Any], None]:
    """In the place of `worker.run_job`."""

    def job(point: dict[str, Any], context: Any) -> None:
        import ray
        from ray import tune

        from dfd_tune.search.process import REPORT

        node = ray.get_runtime_context().get_node_id()
        for pause, told in reports(point["attempt"], context.dataset_key, sleep, node):
            time.sleep(pause)
            tune.report({REPORT: json.dumps(told)})

    return job


def measure(folder: Path, slots: int, trials: int, sleep: Sleep, stubs: bool) -> dict[str, Any]:
    """A search of so many trials on as many slots; where there are no stubs, on the Ray that RAY_ADDRESS names."""
    from ray.cloudpickle import register_pickle_by_value
    from rich.console import Console

    from dfd_tune.search.agenda import Agenda
    from dfd_tune.search.books import SearchBooks
    from dfd_tune.search.capacity import Cluster, Node, Resources, ray_nodes
    from dfd_tune.search.context import SearchContext
    from dfd_tune.search.early_stopping import EarlyStopping
    from dfd_tune.search.estimate import site_of
    from dfd_tune.search.jobs import trial_job
    from dfd_tune.search.ledger import Ledger
    from dfd_tune.search.measured import Measured
    from dfd_tune.search.points import points_for
    from dfd_tune.search.progress import Progress
    from dfd_tune.search.runtime import RayRuntime
    from dfd_tune.search.screen import Terminal
    from dfd_tune.signals import Signals

    store, request, plan = new_store(folder, "random", trials)
    digest, record, meter = plan.dataset.digest, search_record(plan), Meter(slots, trials, sleep)
    register_pickle_by_value(driver_scale)  # which Ray's processes can't import

    class MeteredBooks(SearchBooks):
        def started(self, attempt: Any, where: Mapping[str, Any]) -> None:
            super().started(attempt, where)
            meter.started(attempt.job.key)

        def told(self, attempt: Any, what: Mapping[str, Any]) -> None:
            super().told(attempt, what)
            meter.epoch()

        def done(self, attempt: Any, what: Mapping[str, Any]) -> tuple[float, ...] | None:
            meter.done(attempt.job.key)
            return super().done(attempt, what)

    def silent(line: str) -> None:
        """Take a line that nobody reads."""

    def stub_nodes() -> list[Node]:
        return [Node(node_of(slot), "stub", NODE_SLOTS, 0.0, float("inf")) for slot in range(0, slots, NODE_SLOTS)]

    with Signals() as signals, RayRuntime(folder / "ray.log", signals) as ray, contextlib.ExitStack() as stack:
        ray.start()
        from dfd_tune.search.driver import run

        if stubs:
            stack.enter_context(stub_actors(digest, sleep))
        progress = Progress(Terminal(Console(file=io.StringIO())), trials, list(request.explore))
        ledger = Ledger(store, record, [], SilentTracker(), digest, progress)  # type: ignore[arg-type]
        cluster = Cluster(Resources("cpu", 1.0, 0.0, 1.0), stub_nodes if stubs else ray_nodes)
        agenda = Agenda(
            [],
            points_for(plan, digest, {}),
            lambda key, config: dataclasses.replace(trial_job(config, key, digest), needs=frozenset()),
            list,
            0,
        )
        measured = Measured(plan, ledger, site_of(cluster.resources, cluster.nodes(), on_cluster=False), silent)
        early = EarlyStopping(request.scheduler, sleep.epochs, [], silent)
        books = MeteredBooks(
            ledger, agenda, [], cluster, progress, measured, early, lambda: None, silent, time.monotonic
        )
        context = SearchContext(str(store.root), record.search, digest, (), cluster.resources, 60.0)
        run(agenda, cluster, context, books, trainable=sleeper(sleep))
    assert ledger.counts["FINISHED"] == trials, ledger.counts
    return meter.figures()


# Stub actors.


def node_of(slot: int) -> str:
    """Id of the stub node on which a slot is."""
    return f"node{slot // NODE_SLOTS:04d}"


class Player:
    """Plays many of Tune's actors in one process, each known by its slot."""

    def __init__(self, digest: str, sleep: Sleep):
        self._digest, self._sleep = digest, sleep
        self._trials: dict[int, Any] = {}
        self._configs: dict[int, dict[str, Any]] = {}

    async def reset(self, slot: int, config: dict[str, Any], **more: Any) -> bool:
        """The slot is given a trial; its process would be reused."""
        self._configs[slot] = config
        self._trials[slot] = reports(config["attempt"], self._digest, self._sleep, node_of(slot))
        return True

    async def train(self, slot: int) -> dict[str, Any]:
        """The trial's next report, once it has slept for it; with what Tune itself adds to one."""
        from ray.tune.result import TRIAL_INFO

        from dfd_tune.search.process import REPORT

        pause, told = next(self._trials[slot])
        await asyncio.sleep(pause)
        config = {name: value for name, value in self._configs[slot].items() if name != TRIAL_INFO}
        added = {"done": False, "training_iteration": 1, "time_this_iter_s": pause, "time_total_s": pause, "pid": 1}
        return {REPORT: json.dumps(told), "config": config, "hostname": "stub", "node_ip": "127.0.0.1"} | added

    async def ready(self) -> bool:
        """A slot's process would be up."""
        return True

    async def get_auto_filled_metrics(self, slot: int, **more: Any) -> dict[str, Any]:
        """What Tune asks of each process that a trial is given to."""
        return {"trial_id": "stub", "pid": 1, "hostname": "stub", "node_ip": "127.0.0.1"}

    async def stop(self, slot: int) -> None:
        """A slot's process would end."""


class Method:
    """A method of a player's for one slot; called as an actor's."""

    def __init__(self, method: Any, *bound: Any):
        self._method, self._bound = method, bound

    def remote(self, *arguments: Any, **named: Any) -> Any:
        """A reference to what it will return."""
        return self._method.remote(*self._bound, *arguments, **named)


class StubActor:
    """What Tune takes for the handle of an actor."""

    def __init__(self, player: Any, slot: int):
        self.train = Method(player.train, slot)
        self.reset = Method(player.reset, slot)
        self.stop = Method(player.stop, slot)
        self.get_auto_filled_metrics = Method(player.get_auto_filled_metrics, slot)
        self.__ray_ready__ = Method(player.ready)
        self.__ray_terminate__ = Method(player.ready)


@contextlib.contextmanager
def stub_actors(digest: str, sleep: Sleep) -> Iterator[None]:
    """While the block lasts, Tune's actors are stubs, and no room is asked for them: the agenda bounds their number."""
    import ray
    from ray.air.execution.resources.request import AcquiredResources
    from ray.air.execution.resources.resource_manager import ResourceManager

    kind = ray.remote(num_cpus=0, max_concurrency=10_000)(Player)
    players = [kind.remote(digest, sleep) for _ in range(PLAYERS)]
    slots = itertools.count()

    class Maker:
        @staticmethod
        def remote(config: dict[str, Any], **more: Any) -> StubActor:
            slot = next(slots)
            actor = StubActor(players[slot % PLAYERS], slot)
            actor.reset.remote(config)
            return actor

    class Granted(AcquiredResources):
        def annotate_remote_entities(self, entities: Sequence[Any]) -> list[Any]:
            return [Maker for _ in entities]

    class Manager(ResourceManager):
        def request_resources(self, resource_request: Any) -> None: ...
        def cancel_resource_request(self, resource_request: Any) -> None: ...
        def free_resources(self, acquired_resource: Any) -> None: ...
        def has_resources_ready(self, resource_request: Any) -> bool:
            return True

        def acquire_resources(self, resource_request: Any) -> Any:
            return Granted(resource_request)

        def get_resource_futures(self) -> list[Any]:
            return []

        def update_state(self) -> None: ...
        def clear(self) -> None: ...

    with (
        mock.patch("ray.tune.execution.tune_controller.PlacementGroupResourceManager", Manager),
        mock.patch("ray.kill"),  # of actors, at the end
    ):
        yield


# Rows.


def row(slots: int, trials: int, sleep: Sleep, *, stubs: bool, **variables: str) -> dict[str, Any]:
    """A row's figures, measured in a new process and folder."""
    folder = tempfile.mkdtemp(prefix="cluster-scale-")
    question = json.dumps({"slots": slots, "trials": trials, "sleep": dataclasses.asdict(sleep), "stubs": stubs})
    try:
        told = subprocess.run(
            [sys.executable, __file__, "--in", folder, question],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | variables,
        ).stdout
        return {"slots": slots, "trials": trials, "seconds_a_trial": sleep.seconds} | json.loads(told.splitlines()[-1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def node_rows(counts: Sequence[int], sleep: Sleep, waves: int) -> Iterator[dict[str, Any]]:
    """Rows of the first part: Ray nodes of one CPU each."""
    for count in counts:
        with RayNodes() as nodes:
            for _ in range(count - 1):
                nodes.add()
            yield {"nodes": count} | row(count, waves * count, sleep, stubs=False, **nodes.environment)


def stub_rows(counts: Sequence[int], pauses: Sequence[float], epochs: int, window: float) -> Iterator[dict[str, Any]]:
    """Rows of the second part; as many trials as would begin in `window` seconds, beside a first one in each slot."""
    for slots, seconds in itertools.product(counts, pauses):
        trials = slots + max(slots // 4, int(slots * window / seconds))
        figures = row(slots, trials, Sleep(seconds, epochs), stubs=True)
        yield {"nodes": f"{slots // NODE_SLOTS} stubs"} | figures


def show(rows: Iterator[dict[str, Any]]) -> None:
    """Print rows as they come, as a table."""
    names = [name for name, _ in COLUMNS]
    print(f"| {' | '.join(name.replace('_', ' ') for name in names)} |\n|{'---|' * len(names)}", flush=True)
    for found in rows:
        print(f"| {' | '.join(form.format(found[name]) for name, form in COLUMNS)} |", flush=True)


def main() -> None:
    """Measure and print all rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[], help="numbers of Ray nodes, one slot each")
    parser.add_argument("--slots", type=int, nargs="+", default=[], help=f"stub slots; multiples of {NODE_SLOTS}")
    parser.add_argument("--seconds", type=float, nargs="+", default=[2.0], help="that a trial sleeps")
    parser.add_argument("--epochs", type=int, default=4, help="in so many pauses")
    parser.add_argument("--waves", type=int, default=20, help="trials for each Ray node")
    parser.add_argument("--window", type=float, default=60.0, help="seconds for which stub slots have trials")
    parser.add_argument("--in", dest="one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        question = json.loads(options.one[1])
        figures = measure(Path(options.one[0]), **question | {"sleep": Sleep(**question["sleep"])})
        print(json.dumps(figures), flush=True)
        return
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    print(f"{len(os.sched_getaffinity(0))} cores; load averages before: {load}", flush=True)
    show(
        itertools.chain.from_iterable(
            [
                *(
                    node_rows(options.nodes, Sleep(seconds, options.epochs), options.waves)
                    for seconds in options.seconds
                ),
                stub_rows(options.slots, options.seconds, options.epochs, options.window),
            ]
        )
    )


if __name__ == "__main__":
    main()
