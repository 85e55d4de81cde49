"""A search's processes on this machine, for those who kill them; and what is left of a search afterwards.

A victim is looked for among the descendants of processes that were started here, and nowhere else. Used by soak.py and
by tests/search/test_kills.py. Not for: what a search does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import psutil

ROOT = Path(__file__).parent.parent
CLOCK_READINGS = ("images_per_second", "seconds", "device_hours", "peak_memory_bytes")
"""What no two trainings of one trial have in common, and nobody expects to."""
LAUNCH_SECONDS = 300.0
"""How long anything that is waited for may take; a bound against hanging, generous as machines are shared."""

Fact = TypeVar("Fact")


def wait_for(fact: Callable[[], Fact | None], what: str, seconds: float = LAUNCH_SECONDS) -> Fact:
    """Ask until there is an answer, which is returned.

    Raises:
        TimeoutError: there is none after `seconds`.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = fact()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"no {what} after {seconds:g} s")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def environment(home: Path, **changes: str) -> dict[str, str]:
    """As a user's who has set nothing of what bears on a launch, but `changes`."""
    ours = ("DFD_TUNE_STORE", "RAY_ADDRESS", "RAY_TMPDIR", "MLFLOW_TRACKING_URI")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"HOME": str(home), "COLUMNS": "120", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | changes


class Running:
    """A command of dfd-tune that runs; what it prints goes to a file, which a kill does not take away.

    Args:
        arguments: of dfd-tune.
        home: an empty folder; the output goes there.
        changes: of the environment.
    """

    def __init__(self, *arguments: object, home: Path, **changes: str):
        descriptor, name = tempfile.mkstemp(prefix="output-", dir=home)
        self._output = Path(name)
        with os.fdopen(descriptor, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dfd_tune.cli", *map(str, arguments)],
                cwd=home,
                env=environment(home, **changes),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._family = Family(self.process.pid)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(errors="replace")

    @property
    def family(self) -> Family:
        """Its processes."""
        return self._family

    def ended(self, seconds: float = LAUNCH_SECONDS) -> int:
        """Wait for its end; its exit code, negative if it was killed."""
        return self.process.wait(seconds)

    def until(self, fact: Callable[[], Fact | None], what: str) -> Fact:
        """Wait for a fact, as long as it runs.

        Raises:
            TimeoutError: it has ended, or the fact is none after minutes.
        """

        def while_it_runs() -> Fact | None:
            found = fact()
            if not found and self.process.poll() is not None:
                raise TimeoutError(f"no {what} before the end of the launch:\n{self.output}")
            return found

        try:
            return wait_for(while_it_runs, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; so far:\n{self.output}") from None

    def kill(self) -> None:
        """SIGKILL to the driver alone."""
        self._family.look()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """End it and all that descends from it, whatever state it is in."""
        self._family.look()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._family.kill_all()


class Family:
    """A process and all that were ever seen to descend from it.

    Args:
        pid: of the process, which was started by us.
    """

    def __init__(self, pid: int):
        self._root = psutil.Process(pid)
        self._seen: set[psutil.Process] = {self._root}

    def look(self) -> set[psutil.Process]:
        """Those that are alive; to be called now and then, as who has lost its parent descends from nobody."""
        for known in list(self._seen):
            with contextlib.suppress(psutil.NoSuchProcess):
                self._seen.update(known.children(recursive=True))
        return {known for known in self._seen if _alive(known)}

    def member(self, pid: int) -> psutil.Process | None:
        """The process of that id, if it is one of the family and alive."""
        return next((known for known in self.look() if known.pid == pid), None)

    def kill_all(self) -> None:
        """SIGKILL to all of them."""
        for known in self.look():
            with contextlib.suppress(psutil.NoSuchProcess):
                known.kill()


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# The nodes share one machine, so each would reckon with all of its memory; the host's name is theirs in common as well.
_NODES = """
import json, sys
from ray.cluster_utils import Cluster
common = dict(node_ip_address="127.0.0.1", num_cpus=1, object_store_memory=80_000_000, include_dashboard=False)
cluster = Cluster(initialize_head=True, head_node_args=common)
def raylet(node):
    return node.all_processes["raylet"][0].process.pid
print(json.dumps({"address": cluster.address, "raylet": raylet(cluster.head_node)}), flush=True)
for line in sys.stdin:
    print(json.dumps({"raylet": raylet(cluster.add_node(**common))}), flush=True)
cluster.shutdown()
"""


class RayNodes:
    """Ray nodes of one CPU each, all on this machine, apart from any other Ray cluster; the first is the head.

    Enter it to start the head; add others to it.

    Args:
        variables: of the environment of all that runs there.
    """

    def __init__(self, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        self._variables = dict(variables)
        self._stack = contextlib.ExitStack()
        self.raylets: list[int] = []
        """Process ids of the other nodes' raylets."""
        self.address = ""
        self.folder = ""

    def __enter__(self) -> RayNodes:
        # Short, as the paths of Ray's sockets may not be long.
        self.folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dfd-", ignore_cleanup_errors=True))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NODES],
            env=environment(Path(self.folder), RAY_USAGE_STATS_ENABLED="0", **self._common),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.family = Family(self._process.pid)
        self._stack.callback(self.family.kill_all)
        self.address = self._told()["address"]
        return self

    def __exit__(self, *error: object) -> None:
        self.family.look()
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """For launches on these nodes."""
        return {"RAY_ADDRESS": self.address} | self._common

    @property
    def _common(self) -> dict[str, str]:
        # The second is Ray's switch for machines that are no cluster: it leaves addresses of the loopback as they are.
        return {**self._variables, "RAY_TMPDIR": self.folder, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

    def add(self) -> int:
        """Add a node; the process id of its raylet."""
        assert self._process.stdin is not None
        self._process.stdin.write("add\n")
        self._process.stdin.flush()
        self.raylets.append(int(self._told()["raylet"]))
        self.family.look()
        return self.raylets[-1]

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@dataclass(frozen=True)
class Search:
    """A search in a store, as its files tell of it."""

    store: Path
    name: str

    @property
    def folder(self) -> Path:
        """Its own."""
        return self.store / "searches" / self.name

    def records(self) -> dict[str, dict[str, Any]]:
        """The trials' records by key."""
        found = map(_read, (self.folder / "trials").glob("[!.]*.json"))
        return {record["key"]: record for record in found if record is not None}

    def statuses(self) -> Counter[str]:
        """How many trials are of each status."""
        return Counter(record["status"] for record in self.records().values())

    def tests(self) -> dict[str, dict[str, Any]]:
        """What the test images say, by trial key."""
        found = map(_read, (self.folder / "tests").glob("[!.]*.json"))
        return {record["key"]: record for record in found if record is not None}

    def own(self) -> dict[str, Any]:
        """Its own record."""
        return _read(self.folder / "search.json") or {}

    def checkpointed(self, kind: str) -> str | None:
        """Key of a training of that kind (trials, pretrained) that has a whole checkpoint, the newest one."""
        found = list((self.store / "checkpoints").glob(f"{kind}-*/[0-9]*/state.json"))
        with contextlib.suppress(OSError):
            newest = max(found, key=lambda file: file.stat().st_mtime, default=None)
            return None if newest is None else newest.parent.parent.name.removeprefix(f"{kind}-")
        return None

    def log(self, name: str) -> JobLog:
        """The log of a job: a trial's by its key, others' by kind and key."""
        return JobLog.read(self.folder / "logs" / f"{name}.log")

    def logs(self) -> dict[str, JobLog]:
        """Of all jobs that have one, by name."""
        files = (self.folder / "logs").glob("*.log")
        return {file.stem: JobLog.read(file) for file in files if file.name != "ray.log"}


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    except (OSError, ValueError):
        return None


@dataclass
class JobLog:
    """What a job's processes wrote: who they were, which epochs they trained, which of them they kept."""

    processes: list[int] = field(default_factory=list)
    """Ids, in the order in which they began; of a worker group, Tune's process, then the workers."""
    trained: Counter[int] = field(default_factory=Counter)
    """Epoch -> how often it was trained to its end and reported; 0 where a kill came between checkpoint and report."""
    allowed: int = 0
    """How many epochs may have been trained again: at each new beginning, those since the checkpoint before it."""
    problems: list[str] = field(default_factory=list)
    """Where a training began anew before its latest checkpoint."""

    @classmethod
    def read(cls, file: Path) -> JobLog:
        """The log in a file; an empty one where there is none."""
        log, at, furthest, kept, fresh = cls(), 0, 0, 0, False
        before_it = 0  # the latest checkpoint when the attempt began
        with contextlib.suppress(FileNotFoundError):
            for line in file.read_text(errors="replace").splitlines():
                if found := _PROCESS.match(line):
                    log.processes.append(int(found[1]))
                    log.allowed += 0 if fresh else furthest - kept
                    fresh, before_it = True, kept
                elif found := _KEPT.match(line):
                    kept = int(found[1])
                    furthest = max(furthest, kept)
                    log.trained.setdefault(kept, 0)
                elif found := _GOES_ON.match(line) or _EPOCH.match(line):
                    epoch = int(found[1])
                    before = epoch - 1 if found.re is _EPOCH else epoch
                    if fresh:
                        at, fresh = max(before, before_it), False
                    if before != at:
                        log.problems.append(f"{file.stem}: '{line}' after epoch {at}")
                    if found.re is _EPOCH:
                        log.trained[epoch] += 1
                    elif epoch:
                        # A kill can come between a checkpoint and the line that tells of it.
                        kept = max(kept, epoch)
                        log.trained.setdefault(epoch, 0)
                    at = epoch
                    furthest = max(furthest, at)
        return log

    @property
    def repeated(self) -> int:
        """How many epochs were trained more than once, all repetitions counted."""
        return sum(max(0, count - 1) for count in self.trained.values())


_PROCESS = re.compile(r"--- .* attempt \d+ on .*, process (\d+)$")
_EPOCH = re.compile(r"epoch (\d+): ")
_KEPT = re.compile(r"checkpoint of epoch (\d+) kept$")
_GOES_ON = re.compile(r"going on after epoch (\d+)$")


def outcome_of(search: Search) -> dict[str, Any]:
    """All that a search found, but for clock readings: equal for equal searches, bit by bit."""
    own = search.own()
    trials = {
        key: {
            "status": record["status"],
            "metrics": _timeless(record["metrics"]),
            "history": list(map(_timeless, record["history"])),
            "student": _digest(search.store / "trials" / key / "student.safetensors"),
        }
        for key, record in search.records().items()
    }
    networks = {teacher["key"]: _digest_of_weights(search.store, teacher["key"]) for teacher in own["teachers"]}
    return {
        "trials": trials,
        "tests": search.tests(),
        "teachers": own["teachers"],
        "weights": networks,
        "best": {name: value for name, value in (own["best"] or {}).items() if name not in ("model", "cost")},
    }


def _timeless(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in CLOCK_READINGS}


def _digest(file: Path) -> str:
    """Of the tensors in a safetensors file and what is said of them, whose order in the file is left to chance."""
    if not file.is_file():
        return "gone"
    from safetensors import safe_open

    with safe_open(file, "numpy") as content:
        told = [f"{name}={value}".encode() for name, value in sorted((content.metadata() or {}).items())]
        names = sorted(content.keys())
        tensors = [name.encode() + content.get_tensor(name).tobytes() for name in names]
    return hashlib.sha256(b"".join([*told, *tensors])).hexdigest()


def _digest_of_weights(store: Path, key: str) -> str:
    facts = _read(store / "pretrained" / key / "network.json") or {}
    return str(facts.get("weights_digest", "gone"))


@dataclass(frozen=True)
class Tracked:
    """What MLflow holds of a search's trials."""

    runs: Counter[str]
    """Trial key -> how many runs it has."""
    statuses: dict[str, str]
    doubled_steps: list[str]
    """Metrics of which a step was written twice."""
    histories: dict[str, list[tuple[int, float]]]
    """Trial key -> steps and values of the validation accuracy."""


def tracked(uri: str, name: str) -> Tracked:
    """Read a search's runs from MLflow at `uri`."""
    from mlflow import MlflowClient

    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(name)
    runs = [run for run in client.search_runs([experiment.experiment_id]) if run.data.tags.get("dfd.kind") == "trial"]
    histories, doubled = {}, []
    for run in runs:
        key = run.data.tags["dfd.trial_key"]
        for metric in ("val_accuracy", "loss"):
            points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
            if len({step for step, _ in points}) < len(points):
                doubled.append(f"{metric} of {key}")
            if metric == "val_accuracy":
                histories[key] = sorted(points)
    return Tracked(
        Counter(run.data.tags["dfd.trial_key"] for run in runs),
        {run.data.tags["dfd.trial_key"]: run.info.status for run in runs},
        doubled,
        histories,
    )


@dataclass(frozen=True)
class Verdict:
    """A disturbed search held against an undisturbed one."""

    lost: list[str]
    """Trials that the undisturbed one finished and this one did not."""
    doubled: list[str]
    """Trials that have a second record, run or step."""
    changed: list[str]
    """What differs."""
    epochs: int
    """How many the search has."""
    repeated: int
    """How many were trained again."""
    allowed: int
    """How many may have been."""
    too_early: list[str]
    """Trainings that went on from an earlier checkpoint than the latest."""
    left: list[str]
    """What is still there of killed processes."""

    @property
    def problems(self) -> list[str]:
        """All that is not as promised."""
        found = [f"lost: {key}" for key in self.lost] + [f"doubled: {key}" for key in self.doubled]
        found += [f"changed: {what}" for what in self.changed] + self.too_early
        found += [f"left over: {what}" for what in self.left]
        if self.repeated > self.allowed:
            found.append(f"{self.repeated} epochs were trained again, of which {self.allowed} had no checkpoint")
        return found

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)


def held_against(disturbed: Search, undisturbed: Search, mlflow: str) -> Verdict:
    """Compare two searches of the same trials.

    Args:
        disturbed: the one that was killed.
        undisturbed: the one that was not.
        mlflow: address to which the disturbed one was recorded.
    """
    found, meant = outcome_of(disturbed), outcome_of(undisturbed)
    seen = tracked(mlflow, disturbed.name)
    finished = [key for key, trial in meant["trials"].items() if trial["status"] == "FINISHED"]
    is_there = {key for key, trial in found["trials"].items() if trial["status"] == "FINISHED"}
    lost = [key for key in finished if key not in is_there or seen.statuses.get(key) != "FINISHED"]
    doubled = [key for key, count in seen.runs.items() if count > 1] + seen.doubled_steps
    doubled += [key for key in {*found["trials"], *seen.runs} if key not in meant["trials"]]
    changed = [what for what in meant if what != "trials" and found[what] != meant[what]]
    changed += [
        f"{part} of {key}"
        for key in is_there & set(finished)
        for part, value in meant["trials"][key].items()
        if found["trials"][key][part] != value
    ]
    changed += [
        f"MLflow's history of {key}"
        for key in is_there & set(finished)
        if seen.histories.get(key)
        != [(int(entry["epoch"]), entry["val_accuracy"]) for entry in meant["trials"][key]["history"]]
    ]
    logs = disturbed.logs()
    return Verdict(
        lost=sorted(lost),
        doubled=sorted(doubled),
        changed=changed,
        epochs=sum(len(log.trained) for log in logs.values()),
        repeated=sum(log.repeated for log in logs.values()),
        allowed=sum(log.allowed for log in logs.values()),
        too_early=[problem for log in logs.values() for problem in log.problems],
        left=[str(file.relative_to(disturbed.store)) for file in _left_over(disturbed)],
    )


def _left_over(search: Search) -> Iterator[Path]:
    """Checkpoints of what is finished, and drafts that nobody finished."""
    yield from (search.store / "checkpoints").glob("*/[0-9]*")
    yield from (search.folder / ".tune").glob("*")
