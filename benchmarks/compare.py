"""How long the product takes, and how long four others take for the same work, measured in turns on this machine.

    uv run python benchmarks/compare.py --quick                                # minutes; drawn letters, no download
    uv run --group bench python benchmarks/compare.py --full --data FOLDER     # hours; CIFAR-10's files in FOLDER

Against: `plain` (a DataLoader script a trial), `torchdistill`, `ray` (Ray Tune with a TorchTrainer a trial), `strong`
(a good single script). Each file in baselines/ says what its side is.

Rows `training/…`: as many trials, λ above 0, as there are cores (two at least), with the teacher given and start-up
left out. Ours train side by side, one thread each, on a bank, whose filling counts by their share of the grid's
distilled trials; the others run in the layout of processes and threads that was quickest for them in one epoch. Rows
`search…/…`: the whole search, from command to report, its teacher included, images ready. Equal images, networks,
initial weights, epochs and evaluation; where the last epoch's losses are not as near as LOSSES_APART says, that is
said, and the command ends with 1. Not for: whether students are any good.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.baselines.product import GRID, STORE, Size, forget_banks, losses_of_search, make_work, space_file
from benchmarks.baselines.ratios import Ratio, apart, ratio_of
from benchmarks.baselines.running import (
    CommandFailedError,
    Layout,
    layouts,
    timed_command,
    together,
    train_trials,
)
from dfd_tune.errors import UserError
from dfd_tune.machine import usable_cores

Trials = tuple[tuple[float, int], ...]
"""λ and seed of each."""

SCRIPTS = {"plain": "plain_script", "torchdistill": "torchdistill_script", "strong": "strong_script"}
LOADING = ("plain", "torchdistill", "ray")
"""Baselines with a DataLoader."""
SEARCHES = {"plain": "loop", "ray": "ray_train_search"}
NAMES = ("plain", "torchdistill", "ray", "strong")
PACKAGES = {"torchdistill": "torchdistill"}
"""What a baseline needs beyond the product's own packages: those of the dependency group `bench`."""
BY_USE = (0.5, 1.0, 2.0, 0.2, 5.0, 0.1, 10.0)
"""Values of λ in the order in which training alone takes them."""
FOUR: Trials = tuple((lambda_, 0) for lambda_ in (0.0, 0.5, 1.0, 2.0))
FOURTEEN: Trials = tuple((lambda_, seed) for lambda_ in GRID[:7] for seed in (0, 1))

LOSSES_APART = {"same draws": 1e-3, "training": 0.05, "search": 0.10}
"""How far means of losses may be apart, as a share of ours. `same draws`: the strong script against our trial with the
teacher live, one thread each, before the clock runs. `training`: other crops and batches, bf16, and a bank's float16,
all of which a few steps amplify. `search`: teachers that saw other crops, too."""


@dataclass(frozen=True)
class Side:
    """One thing to be measured in each repeat."""

    who: str
    """`ours`, or a baseline's name."""
    what: str
    """`training` or `search`."""
    precision: str
    trials: Trials


@dataclass(frozen=True)
class Row:
    """A comparison: ours against theirs."""

    name: str
    ours: Side
    theirs: Side


@dataclass
class Seen:
    """What the repeats of a side gave."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def rows_for(against: Sequence[str], cores: int, full: bool) -> list[Row]:
    """The comparisons with those baselines.

    Args:
        against: their names.
        cores: of this machine.
        full: all of them; otherwise no search of fourteen trials, and none of Ray's.
    """
    few: Trials = tuple((lambda_, 0) for lambda_ in BY_USE[: max(2, cores)])
    rows = []
    for name in (name for name in NAMES if name in against and name in SCRIPTS):
        theirs = Side(name, "training", "float32", few)
        rows.append(Row(f"training/float32/{name}", dataclasses.replace(theirs, who="ours"), theirs))
        if name == "plain" and full:
            rows.append(Row("training/bf16/plain", Side("ours", "training", "bf16", few), theirs))
    for name in (name for name in SEARCHES if name in against):
        for trials in (FOUR, FOURTEEN) if full and name == "plain" else (FOUR,):
            theirs = Side(name, "search", "float32", trials)
            ours = dataclasses.replace(theirs, who="ours")
            rows.append(Row(f"search{len(trials)}/{name}", ours, theirs))
    return rows


def in_turns(rows: Sequence[Row], repeat: int) -> list[Side]:
    """Each row's sides, once each, in an order that begins with another one in every repeat."""
    sides = list(dict.fromkeys(side for row in rows for side in (row.ours, row.theirs)))
    first = repeat % len(sides)
    return sides[first:] + sides[:first]


class Bench:
    """Measures sides on one work.

    Args:
        folder: of the work, filled; and room for what sides write.
        size: of the work.
        cores: of this machine.
    """

    def __init__(self, folder: Path, size: Size, cores: int):
        self.folder, self.size, self.cores = folder, size, cores
        self.layouts: dict[str, Layout] = {}

    def tune(self, name: str, trials: Trials) -> str:
        """Find the layout that is quickest for a baseline in one epoch; a line that says what was tried."""
        script = SCRIPTS.get(name, "plain_script")  # Ray's loop is the plain script's
        tried = layouts(self.cores, len(trials), name in LOADING)
        arguments = ["--work", self.folder, "--epochs", 1]
        taken = {layout: train_trials(script, trials, layout, arguments)[0] for layout in tried}
        self.layouts[name] = min(taken, key=lambda layout: taken[layout])
        return f"{name} runs {self.layouts[name]}: " + "; ".join(
            f"{key}: {value:.1f} s" for key, value in taken.items()
        )

    def same_draws(self) -> float:
        """How far a trial of ours, its teacher live, and the strong script are apart on equal batches and views."""
        arguments = ["--work", self.folder, "--lambda", BY_USE[0], "--epochs", 1]
        _, ours = together([["product", *arguments, "--live"]], 1)
        _, theirs = together([["strong_script", *arguments]], 1)
        return apart([ours[0]["loss"]], [theirs[0]["loss"]])

    def measure(self, side: Side) -> tuple[float, list[float]]:
        """Seconds, and each trial's last loss.

        Raises:
            CommandFailedError: a command failed.
        """
        if side.what == "training":
            return self._our_training(side) if side.who == "ours" else self._their_training(side)
        with tempfile.TemporaryDirectory(prefix="compare-") as empty:
            return self._our_search(side, Path(empty)) if side.who == "ours" else self._their_search(side, Path(empty))

    def _our_training(self, side: Side) -> tuple[float, list[float]]:
        arguments = ["--work", self.folder, "--precision", side.precision]
        forget_banks(self.folder)
        filling, _ = together([["product", *arguments, "--fill-bank", "--threads", self.cores]], self.cores)
        at_once = min(self.cores, len(side.trials))
        seconds, losses = train_trials("product", side.trials, Layout(at_once, 1), arguments)
        distilled = sum(lambda_ > 0 for lambda_ in GRID)
        return seconds + filling * len(side.trials) / distilled, losses

    def _their_training(self, side: Side) -> tuple[float, list[float]]:
        arguments = ["--work", self.folder, "--precision", side.precision]
        return train_trials(SCRIPTS[side.who], side.trials, self.layouts[side.who], arguments)

    def _our_search(self, side: Side, empty: Path) -> tuple[float, list[float]]:
        lambdas, seeds = (list(dict.fromkeys(column)) for column in zip(*side.trials, strict=True))
        space = space_file(empty, lambdas, seeds, self.size.settings())
        arguments: list[object] = ["dfd_tune.cli", "launch", "--space", space, "--dataset", self.size.dataset]
        arguments += ["--data", self.size.data] if self.size.data is not None else []
        arguments += ["--set", f"precision={side.precision}", "--device", "cpu", "--confirm-seeds", 0]
        store = empty / "store"
        shutil.copytree(self.folder / STORE / "datasets", store / "datasets")  # theirs finds its images ready, too
        seconds, _ = timed_command([*arguments, "--store", store], 0, {"HOME": str(empty)})
        return seconds, losses_of_search(store, self.size, space, side.precision)

    def _their_search(self, side: Side, empty: Path) -> tuple[float, list[float]]:
        layout = self.layouts[side.who]
        arguments = ["--work", self.folder, "--results", empty, "--trials", json.dumps(side.trials)]
        arguments += ["--at-once", layout.at_once, "--threads", layout.threads, "--loaders", layout.loaders]
        script = f"benchmarks.baselines.{SEARCHES[side.who]}"
        seconds, printed = timed_command([script, *arguments], layout.threads, {})
        return seconds, json.loads(printed.splitlines()[-1])["losses"]


def compare(bench: Bench, rows: Sequence[Row], repeats: int) -> list[dict[str, Any]]:
    """Measure all rows in turns; a JSON-able object for each.

    Raises:
        CommandFailedError: a command failed.
    """
    for name in dict.fromkeys(row.theirs.who for row in rows):
        few = next(row.theirs.trials for row in rows if row.theirs.who == name)
        say(bench.tune(name, tuple(trial for trial in few if trial[0] > 0)[: max(2, bench.cores)]))
    exact = bench.same_draws()
    say(f"strong_script and ours, teacher live, one thread each, on equal batches and views: losses {exact:.1e} apart")
    seen = {side: Seen() for row in rows for side in (row.ours, row.theirs)}
    for repeat in range(repeats):
        for side in in_turns(rows, repeat):
            seconds, losses = bench.measure(side)
            seen[side].seconds.append(seconds)
            seen[side].losses += losses
            what = f"{side.what} of {len(side.trials)}, {side.precision}, {side.who}"
            say(f"{repeat + 1}/{repeats} {what}: {seconds:.1f} s")
    return [_result(row, seen, exact) for row in rows]


def _result(row: Row, seen: dict[Side, Seen], exact: float) -> dict[str, Any]:
    ours, theirs = seen[row.ours], seen[row.theirs]
    ratio = ratio_of(ours.seconds, theirs.seconds)
    away = apart(ours.losses, theirs.losses)
    agree = away <= LOSSES_APART[row.theirs.what] and (
        row.theirs.who != "strong" or exact <= LOSSES_APART["same draws"]
    )
    return {"name": row.name, **dataclasses.asdict(ratio), "losses_apart": away, "losses_agree": agree}


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """The rows in Markdown."""
    lines = [
        "| | ours, s | theirs, s | ratio | 95 % | repeats | losses apart |",
        "|---|---|---|---|---|---|---|",
    ]
    names = [entry.name for entry in dataclasses.fields(Ratio)]
    for result in results:
        found = Ratio(**{name: result[name] for name in names})
        remark = "" if result["losses_agree"] else ", too far"
        lines.append(
            f"| {result['name']} | {found.ours_s:.1f} | {found.theirs_s:.1f} | {found.ratio:.2f} "
            f"| {found.low:.2f} to {found.high:.2f} | {found.repeats} | {result['losses_apart']:.2%}{remark} |"
        )
    return lines


def machine() -> str:
    """The processor, how much of it may be used, and torch's version."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = (
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        )
        name = next(named, name)
    return f"{name}, {usable_cores()} cores, torch {torch.__version__}"


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


def size_of(given: argparse.Namespace) -> Size:
    """The size that the arguments ask for."""
    size = Size(
        dataset="letters" if given.data is None else "cifar10",
        data=given.data,
        train_images=4000 if given.full else 1040,
        test_images=2600 if given.full else 520,
        width=0.25 if given.full else 0.125,
        epochs=3 if given.full else 2,
        batch_size=128 if given.full else 64,
    )
    changes = {name: getattr(given, name) for name in ("train_images", "test_images", "width", "epochs", "batch_size")}
    return dataclasses.replace(size, **{name: value for name, value in changes.items() if value is not None})


def chosen(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[str]:
    """The baselines to compare with; ends the command where one's package is missing and nothing else was named."""
    names = given.against or (list(NAMES) if given.full else ["plain", "strong"])
    missing = [name for name in names if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None]
    for name in missing:
        text = (
            f"{name} is not installed: `uv run --group bench python benchmarks/compare.py …` installs it, "
            f"and --against without {name} leaves it out."
        )
        if given.against is None or len(missing) == len(names):
            parser.error(text)
        say(text)
    return [name for name in names if name not in missing]


def arguments_of() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--quick", action="store_true", help="small networks, three repeats, plain and strong: minutes")
    how.add_argument("--full", action="store_true", help="ResNet-18 at quarter width, five repeats, all rows: hours")
    parser.add_argument("--data", help="folder of CIFAR-10's files; without it, letters drawn at 32×32")
    parser.add_argument("--against", nargs="+", choices=NAMES, help="baselines; with --quick, plain and strong")
    parser.add_argument(
        "--rows", nargs="+", help="names of rows, or how these begin: training search4; all where left out"
    )
    parser.add_argument("--repeats", type=int, help="three with --quick, else five")
    parser.add_argument("--json", action="store_true", help="one object a comparison, a line each, in place of a table")
    for name, kind in (
        ("train-images", int),
        ("test-images", int),
        ("epochs", int),
        ("batch-size", int),
        ("width", float),
    ):
        parser.add_argument(f"--{name}", type=kind, help="in the place of what --quick or --full has")
    return parser


def main() -> int:
    """Measure and print; 1 where losses are too far apart or a command failed, 2 for bad input."""
    parser = arguments_of()
    given = parser.parse_args()
    repeats = given.repeats if given.repeats is not None else (5 if given.full else 3)
    if repeats < 1:
        parser.error(f"--repeats is {repeats}, but must be at least 1.")
    cores = usable_cores()
    rows = rows_for(chosen(parser, given), cores, given.full)
    rows = [row for row in rows if not given.rows or row.name.startswith(tuple(given.rows))]
    if not rows:
        parser.error("no row is left; leave out --rows or --against, or name others.")
    size = size_of(given)
    what = "CIFAR-10" if given.data is not None else "letters drawn at 32×32 (--data FOLDER takes CIFAR-10)"
    say(
        f"{machine()}; {what}, {size.train_images} images for training and validation, epochs: {size.epochs}, "
        f"{size.backbone} at width {size.width:g}"
    )
    try:
        with tempfile.TemporaryDirectory(prefix="compare-") as folder:
            make_work(Path(folder), size, seeds=[0, 1])
            results = compare(Bench(Path(folder), size, cores), rows, repeats)
    except UserError as error:
        parser.error(str(error))
    except CommandFailedError as error:
        say(str(error))
        return 1
    print("\n".join(map(json.dumps, results) if given.json else table(results)))
    return 0 if all(result["losses_agree"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
