"""What the processes of trials on one machine share: their memory, each shared page counted by its share (PSS).

As many processes as asked for open one prepared dataset and one feature bank, as a search's do, put a student's images
at hand and read all of them; then each reads its own /proc/self/smaps_rollup. Resident memory (RSS) counts a shared
page once a process, PSS once in all. Not for: a launch, or what training itself allocates.

    uv run python benchmarks/shared_memory.py --processes 4 --dataset cifar10 --data FOLDER
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import tempfile
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.data.sources import SOURCES
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.workbench import BankPlan, Workbench
from dfd_tune.settings import resolve
from dfd_tune.space import read_space
from dfd_tune.store import FolderStore, open_store

MEGABYTE = 1e6


def memory() -> dict[str, float]:
    """This process's figures, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) * 1024 / MEGABYTE for name, rest in (line.split(":") for line in lines)}


def trial_process(
    root: Path, key: str, banks: dict[str, BankPlan], config: TrialConfig, meet: Barrier
) -> tuple[dict[str, float], dict[str, float]]:
    """Before and after a process has at hand what a trial reads; all of them measure at once."""
    torch.set_num_threads(1)
    bench = Workbench(FolderStore(root), key, banks, torch.device("cpu"))
    meet.wait()
    before = memory()
    bench.images_for(config)
    bench.validation_images(config.low_res)
    features = bench.features(config.teacher())
    _ = sum(int(image.max()) for image in bench.dataset.train.images)  # every page, and no copy of all
    bank = getattr(features, "features", None)
    _ = None if bank is None else sum(float(slot.sum()) for slot in bank)
    meet.wait()
    found = memory()
    meet.wait()
    return before, found


def main() -> None:
    """Prepare, fill the bank, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--dataset", default="letters")
    parser.add_argument("--data", default=None)
    parser.add_argument("--train-images", type=int, default=10_000)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--epochs", type=int, default=10, help="slots of the bank")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        request = resolve(
            read_space("lambda_grid"),
            dataset=options.dataset,
            data=options.data,
            recipe=SOURCES[options.dataset].recipe,
            assignments=[
                f"train_images={options.train_images}",
                f"epochs={options.epochs}",
                "teacher_epochs=1",
                f"width={options.width}",
                "precision=float32",
            ],
        )
        dataset = prepare_dataset(request.dataset, store, lambda line: None)
        config = request.trial({"backbone": "resnet18", "lambda_": 1.0})
        banks = {config.teacher().key(dataset.digest): BankPlan("epochs", options.epochs)}
        bench = Workbench(store, dataset.folder.name, banks, torch.device("cpu"))
        bench.prepare(config.teacher(), SingleProcess())
        bench.images_for(config)
        files = {kind: _megabytes(store.path(kind)) for kind in ("datasets", "low_res", "banks")}
        print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.dataset}")
        print("files, MB: " + ", ".join(f"{kind} {size:.0f}" for kind, size in files.items()))
        context = multiprocessing.get_context("spawn")
        for count in options.processes:
            with context.Manager() as manager, context.Pool(count) as pool:
                meet = manager.Barrier(count)
                tasks = [(store.root, dataset.folder.name, banks, config, meet)] * count
                found = [after for _, after in pool.starmap(trial_process, tasks, chunksize=1)]
            rss, pss, private = (
                sum(sum(one[name] for name in names) for one in found)
                for names in (("Rss",), ("Pss",), ("Private_Clean", "Private_Dirty"))
            )
            print(
                f"{count} processes: RSS {rss:.0f} MB in all, PSS {pss:.0f} MB ({pss / count:.0f} each), of which "
                f"{private:.0f} MB is a process's own"
            )


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / MEGABYTE


if __name__ == "__main__":
    main()
