"""Searches on two Ray nodes under SIGKILLs at random moments, held against the same searches left alone.

Killed are the driver, also while it concludes, a trial's process, a worker of a worker group, a teacher's process, and
the raylet of a node, in whose place another node comes. Where the driver died, the search is resumed; at times with a
file of the store emptied, cut short or with a bit flipped meanwhile, which must be made anew. The store is a folder or,
with --bucket, in a bucket of a server on this machine; that of a search left alone is a folder in any case. At the end
no finished trial may be lost or doubled, in the store or in MLflow; all metrics, weights and tests must be equal, clock
readings apart; and only epochs since the last checkpoint may have been trained again. Exit code 1 if that is not so.

    uv run python benchmarks/soak.py --kills 30
    uv run python benchmarks/soak.py --kills 6 --bucket

Not for: the first node, where Ray keeps its own books; a cluster without it is no cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.buckets import SearchInBucket
from benchmarks.processes import JobLog, RayNodes, Running, Search, Verdict, held_against, wait_for
from benchmarks.s3 import VARIABLES, Server, serving
from dfd_tune.store import BucketStore

EPOCHS = 300
SETTINGS = {"train_images": 100, "test_images": 60, "width": 0.125, "epochs": EPOCHS, "teacher_epochs": EPOCHS}
CHECKPOINT_SECONDS = 0.3
LONGEST_PAUSE = 3.0
"""Seconds; a victim that is there is killed after a random part of this."""
NODE_AWAY = (2.0, 6.0)
"""Seconds from the kill of a raylet to the start of another node."""


@dataclass(frozen=True)
class Kind:
    """A search that is put under kills, one after another until enough of them are done."""

    name: str
    space: str
    options: tuple[str, ...]
    trials: int
    victims: tuple[str, ...]
    """What is killed in it; each at most as often as `most` says in one round."""
    most: int = 5


ALONE = Kind(
    "alone",
    "confirm: {seeds: 1}\nexplore:\n  lambda_: [0, 1, 2]\nsettings:\n  backbone: alexnet\n",
    (),
    trials=5,  # two of them to confirm
    victims=("teacher", "trial", "driver", "raylet", "concluding", "damage"),
)
GROUP = Kind(
    "group",
    "confirm: {seeds: 0}\nexplore:\n  batch_size: [20]\nsettings:\n  backbone: alexnet\n  lambda_: 0\n",
    ("--workers-per-trial", "2"),
    trials=1,
    victims=("worker",),
    most=3,
)
DAMAGED = ("datasets", "low_res", "banks")
"""Kinds of entries of which a file is damaged once the driver was killed: those that are made anew without training."""
SMALL_BYTES = 100_000
"""Files up to this size are held against their digest when they are opened; of larger ones a flipped bit is for
`store verify`, so they are emptied or cut."""
ONCE_A_ROUND = ("teacher", "concluding")
ORDER = {"teacher": 0, "concluding": 2}
"""The teacher comes before, and the conclusion after, all else."""


@dataclass
class Round:
    """One search under kills."""

    kind: Kind
    search: Search
    killed: list[str] = field(default_factory=list)
    launches: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    verdict: Verdict | None = None
    finished: dict[str, JobLog] = field(default_factory=dict)
    """Logs of what was done when a driver was killed: nothing may be added to them."""


class Stores:
    """In folders, one for each search.

    Args:
        home: for all of them.
    """

    def __init__(self, home: Path):
        self.home = home
        self.variables: Mapping[str, str] = {}
        """Of the environment of all that works with the stores."""

    def search(self, label: str, name: str) -> Search:
        """A search in a fresh store."""
        return Search(self.home / label, name)

    def location(self, search: Search) -> object:
        """What `--store` is to say."""
        return search.store

    def damage(self, search: Search, chance: random.Random) -> str:
        """Damage a file of an entry; says which, and how."""
        files = [
            file
            for kind in DAMAGED
            for file in sorted((search.store / kind).glob("[!.]*/*"))
            if file.is_file() and file.stat().st_size > 0
        ]
        file = chance.choice(files)
        content, told = damaged(file.read_bytes(), file.suffix, chance)
        file.write_bytes(content)
        return f"{file.relative_to(search.store)} {told}"

    def at_its_end(self, search: Search) -> Search:
        """The search as its store has it."""
        return search


class StoresInBucket(Stores):
    """In a bucket, which one machine reads and writes. Opens them, so the environment must have `variables`.

    Args:
        home: for the machine's copies.
        server: of the bucket.
    """

    def __init__(self, home: Path, server: Server):
        super().__init__(home)
        self._server = server
        self._cache = home / "cache"
        self.variables = {**VARIABLES, "DFD_TUNE_CACHE": str(self._cache)}

    def search(self, label: str, name: str) -> Search:
        """A search in a fresh store."""
        return SearchInBucket.at(self._server.address(label), name, self._cache)

    def location(self, search: Search) -> object:
        """What `--store` is to say."""
        return _in_bucket(search).location

    def damage(self, search: Search, chance: random.Random) -> str:
        """Damage an object of an entry, and have the machine forget its copies; says which, and how."""
        bucket = _in_bucket(search).bucket
        names = [(kind, name) for kind in DAMAGED for name, known in sorted(bucket.files(kind).items()) if known.bytes]
        kind, name = chance.choice(names)
        content, told = damaged(bucket.read(kind, name) or b"", Path(name).suffix, chance)
        bucket.write(content, kind, name)
        for note in self._cache.glob("*/copy.json"):
            shutil.rmtree(note.parent)
        return f"{kind}/{name} {told}"

    def at_its_end(self, search: Search) -> Search:
        """The search as its store has it, read by another machine."""
        assert isinstance(search, SearchInBucket)
        return search.as_folder(Path(tempfile.mkdtemp(dir=self.home)))


def _in_bucket(search: Search) -> BucketStore:
    assert isinstance(search, SearchInBucket)
    return search.bucket


@contextlib.contextmanager
def stores_in(home: Path, *, bucket: bool) -> Iterator[Stores]:
    """Where searches under kills have their stores; a bucket has its server for the length of the block."""
    if not bucket:
        yield Stores(home)
        return
    os.environ.update(VARIABLES)
    with serving(home) as server:
        yield StoresInBucket(home, server)


def damaged(content: bytes, suffix: str, chance: random.Random) -> tuple[bytes, str]:
    """A file's content once it is damaged, and in words how."""
    place = chance.randrange(len(content))
    small = suffix == ".json" and len(content) <= SMALL_BYTES
    how = chance.choice(["emptied", "cut", *(["flipped"] if small else [])])
    flipped = content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]
    return {"emptied": b"", "cut": content[:place], "flipped": flipped}[how], f"{how} at {place} of {len(content)}"


class Soak:
    """The kills, and the searches under them.

    Args:
        home: an empty folder for everything.
        nodes: two Ray nodes.
        chance: where all that is random comes from.
        stores: where searches that are killed have theirs.
    """

    def __init__(self, home: Path, nodes: RayNodes, chance: random.Random, stores: Stores):
        self._home = home
        self._nodes = nodes
        self._chance = chance
        self._stores = stores

    def start(self, kind: Kind, search: Search, store: object, *, again: bool = False) -> Running:
        """Launch or resume a search."""
        if again:
            arguments: tuple[object, ...] = ("resume", search.name, "--store", store)
        else:
            space = self._home / f"{kind.name}.yaml"
            space.write_text(kind.space)
            settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
            arguments = (
                "launch",
                "--dataset",
                "digits",
                "--space",
                space,
                "--name",
                search.name,
                "--store",
                store,
                *settings,
            )
            arguments += ("--checkpoint-seconds", CHECKPOINT_SECONDS, "--max-failures", 100, *kind.options)
        return Running(*arguments, home=self._home, **self._nodes.environment)

    def undisturbed(self, kind: Kind) -> tuple[Search, float]:
        """A search that nobody kills, and how many seconds it took."""
        search, began = Search(self._home / f"{kind.name}-undisturbed", kind.name), time.monotonic()
        running = self.start(kind, search, search.store)
        try:
            if running.ended() != 0:
                raise RuntimeError(running.output)
        finally:
            running.end()
        return search, time.monotonic() - began

    def round(self, kind: Kind, number: int, victims: list[str], reference: Search) -> Round:
        """One search with these kills, as many of them as find their victim before it is over."""
        search = self._stores.search(f"{kind.name}-{number}", kind.name)
        this, began = Round(kind, search, launches=1), time.monotonic()
        running = self.start(kind, search, self._stores.location(search))
        try:
            for victim in sorted(victims, key=lambda name: ORDER.get(name, 1)):
                if not self._kill(victim, this, running):
                    continue
                this.killed.append(victim)
                print(f"  {kind.name} {number}: killed {victim}", flush=True)
                if running.process.poll() is not None:
                    running.end()
                    if victim == "damage":
                        print(f"  {kind.name} {number}: {self._stores.damage(search, self._chance)}", flush=True)
                    running = self._resumed(this)
            if running.ended() != 0:
                this.problems.append(f"exit code {running.process.returncode}:\n{running.output}")
        except TimeoutError as error:
            this.problems.append(str(error))
        finally:
            running.end()
        this.seconds = time.monotonic() - began
        self._judge(this, reference)
        return this

    def _resumed(self, this: Round) -> Running:
        this.launches += 1
        logs = this.search.logs()
        done = [key for key, record in this.search.records().items() if record["status"] == "FINISHED"]
        done += [f"test-{key}" for key in this.search.tests()]
        this.finished |= {name: logs[name] for name in done if name in logs}
        return self.start(this.kind, this.search, self._stores.location(this.search), again=True)

    def _judge(self, this: Round, reference: Search) -> None:
        if this.problems:
            return
        there = self._stores.at_its_end(this.search)
        this.verdict = held_against(there, reference, f"sqlite:///{this.search.store}/mlflow.db")
        this.problems += this.verdict.problems
        logs = there.logs()
        this.problems += [f"done a second time: {name}" for name, log in this.finished.items() if logs[name] != log]

    def _kill(self, victim: str, this: Round, running: Running) -> bool:
        """Kill once there is such a victim and a random while is over; False if the search ends before."""
        find = self._finder(victim, this, running)
        after: float | None = None

        def found_at_last() -> psutil.Process | str | None:
            nonlocal after
            if running.process.poll() is not None:
                return "over"
            found = find()
            if found is not None and after is None:
                after = time.monotonic() + self._chance.uniform(0, LONGEST_PAUSE)
            return found if after is not None and time.monotonic() >= after else None

        found = wait_for(found_at_last, f"{victim} to kill")
        if not isinstance(found, psutil.Process):
            return False
        if found.pid == running.process.pid:
            running.kill()
        else:
            found.kill()
        if victim == "raylet":
            time.sleep(self._chance.uniform(*NODE_AWAY))
            self._nodes.add()
        return True

    def _finder(self, victim: str, this: Round, running: Running) -> Callable[[], psutil.Process | None]:
        search = this.search
        driver = psutil.Process(running.process.pid)

        def in_training() -> list[str]:
            """Names of logs of what trains just now, not near its end."""
            kind = "pretrained" if victim == "teacher" else "trials"
            key = search.checkpointed(kind)
            name = f"network-{key}" if victim == "teacher" else str(key)
            trained = search.log(name).trained
            return [name] if key is not None and trained and max(trained) < EPOCHS - 10 else []

        def process_of_a_job() -> psutil.Process | None:
            for name in in_training():
                processes = search.log(name).processes
                if victim != "worker":
                    processes = processes[-1:]
                alive = [found for pid in processes if (found := self._nodes.family.member(pid)) is not None]
                if victim == "worker":
                    alive = alive[1:]  # Tune's process, which only waits for its workers, begins first
                if alive:
                    return self._chance.choice(alive)
            return None

        def concluding() -> psutil.Process | None:
            return driver if search.statuses()["FINISHED"] == this.kind.trials else None

        def working() -> psutil.Process | None:
            return driver if in_training() else None

        def raylet() -> psutil.Process | None:
            return self._nodes.family.member(self._nodes.raylets[-1]) if in_training() else None

        special = {"driver": working, "damage": working, "concluding": concluding, "raylet": raylet}
        return special.get(victim, process_of_a_job)


def planned(kills: int, chance: random.Random) -> list[str]:
    """What is to be killed: all kinds of victims in turn, in random order."""
    kinds = [*ALONE.victims, *GROUP.victims]
    found: list[str] = []
    while len(found) < kills:
        found += chance.sample(kinds, len(kinds))
    return found[:kills]


def next_round(left: list[str]) -> tuple[Kind, list[str]]:
    """The kind of search for what is left to be killed, and the kills of its first round."""
    kind = ALONE if any(victim in ALONE.victims for victim in left) else GROUP
    victims: list[str] = []
    for victim in left:
        once = victim in ONCE_A_ROUND and victim in victims
        if victim in kind.victims and not once and len(victims) < kind.most:
            victims.append(victim)
    return kind, victims


def soak(kills: int, seed: int, home: Path, stores: Stores) -> tuple[list[Round], dict[str, float]]:
    """All rounds, and by name how many seconds each kind of search takes undisturbed."""
    chance = random.Random(seed)
    left = planned(kills, chance)
    rounds: list[Round] = []
    seconds: dict[str, float] = {}
    references: dict[str, Search] = {}
    with RayNodes(stores.variables) as nodes:
        nodes.add()
        at_work = Soak(home, nodes, chance, stores)
        while left:
            kind, victims = next_round(left)
            if kind.name not in references:
                print(f"{kind.name}: undisturbed", flush=True)
                references[kind.name], seconds[kind.name] = at_work.undisturbed(kind)
            this = at_work.round(kind, len(rounds) + 1, victims, references[kind.name])
            rounds.append(this)
            for victim in this.killed:
                left.remove(victim)
            if this.problems or not this.killed:
                break
    return rounds, seconds


def table(rounds: list[Round], undisturbed: dict[str, float]) -> str:
    """One line a round."""
    head = (
        "search",
        "killed",
        "launches",
        "trials",
        "lost",
        "doubled",
        "changed",
        "epochs",
        "again",
        "allowed",
        "seconds",
    )
    rows = []
    for this in rounds:
        counts = Counter(this.killed)
        killed = ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())
        found = this.verdict
        numbers = ["?"] * 6
        if found is not None:
            parts = (
                len(found.lost),
                len(found.doubled),
                len(found.changed),
                found.epochs,
                found.repeated,
                found.allowed,
            )
            numbers = list(map(str, parts))
        seconds = f"{this.seconds:.0f} ({undisturbed[this.kind.name]:.0f})"
        rows.append((this.kind.name, killed, str(this.launches), str(this.kind.trials), *numbers, seconds))
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run it and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bucket", action="store_true", help="stores in a bucket (moto's server)")
    options = parser.parse_args()
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder,
        stores_in(Path(folder), bucket=options.bucket) as stores,
    ):
        rounds, undisturbed = soak(options.kills, options.seed, Path(folder), stores)
    killed = Counter(victim for this in rounds for victim in this.killed)
    problems = [problem for this in rounds for problem in this.problems]
    if killed.total() < options.kills:
        problems.append(f"{killed.total()} of {options.kills} kills found a victim")
    print(f"\n{platform.machine()}, {os.cpu_count()} cores; seconds in brackets: undisturbed\n")
    print(table(rounds, undisturbed))
    verdicts = [this.verdict for this in rounds if this.verdict is not None]
    summary = {
        "kills": dict(killed),
        "seed": options.seed,
        "bucket": options.bucket,
        "rounds": len(rounds),
        "launches": sum(this.launches for this in rounds),
        "lost": sum(len(found.lost) for found in verdicts),
        "doubled": sum(len(found.doubled) for found in verdicts),
        "changed": sum(len(found.changed) for found in verdicts),
        "epochs": sum(found.epochs for found in verdicts),
        "repeated": sum(found.repeated for found in verdicts),
        "allowed": sum(found.allowed for found in verdicts),
        "seconds": round(time.monotonic() - began, 1),
        "problems": problems,
    }
    print(f"\n{json.dumps(summary)}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
