"""The product's side of a comparison: the work made from one of its datasets, its trials alone, its whole search.

    python -m benchmarks.baselines.product --work FOLDER --lambda 0.5       # one trial, as a search's process trains it
    python -m benchmarks.baselines.product --work FOLDER --fill-bank        # what the trials share

A trial is `train_student` on a bank where the plan of the whole grid has one. Not for: the other sides, which read the
work's folder and nothing else of this.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.baselines.work import (
    IMAGES_FILE,
    TEACHER,
    TEACHER_START,
    Work,
    begin,
    done,
    parts,
    read_work,
    save_weights,
    script_arguments,
    student_start,
    warm_up,
)
from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import Dataset, prepare_dataset
from dfd_tune.data.sources import SOURCES
from dfd_tune.distill.features import fill_bank
from dfd_tune.distill.networks import network_for
from dfd_tune.distill.pretrained import fresh_network
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import find_result, initial_student, train_student
from dfd_tune.distill.training import batches
from dfd_tune.distill.workbench import Workbench
from dfd_tune.parts import Guide, PretrainedConfig
from dfd_tune.plan import Plan, make_plan
from dfd_tune.settings import resolve
from dfd_tune.space import read_space
from dfd_tune.store import Store, open_store

GRID = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""λ of the search whose trials are taken out for training alone: those of the shipped space `lambda_grid`."""
BANK_BYTES = 8 * 10**9
"""As `dfd-tune launch` has it."""
STORE, REQUEST = "store", "request.json"
EVALUATED_AT_ONCE = 128
"""Images, as `EvaluationImages.batches` has them."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a comparison is."""

    dataset: str
    data: str | None
    train_images: int
    test_images: int
    width: float
    epochs: int
    batch_size: int
    resolution: int = 8
    image_size: int = 32
    backbone: str = "resnet18"
    learning_rate: float = 0.02
    """At which rounding does not grow into another course of training within a few epochs."""

    def settings(self) -> dict[str, Any]:
        """Those of a search, all that matter said, so that no dataset's recipe makes a difference."""
        photographs = self.dataset not in ("letters", "digits")
        return {
            "train_images": self.train_images,
            "test_images": self.test_images,
            "validation_fraction": 0.1,
            "image_size": self.image_size,
            "resolution": self.resolution,
            "crop_padding": 4,
            "flip": photographs,
            "backbone": self.backbone,
            "width": self.width,
            "dropout": 0.0,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "schedule": "one_cycle",
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "student_start": "scratch",
            "reduction": "sum",
        }


def space_file(folder: Path, lambdas: Sequence[float], seeds: Sequence[int], settings: dict[str, Any]) -> Path:
    """Write the search space of so many values of λ and seeds; its path."""
    explore: dict[str, Any] = {"lambda_": list(lambdas)}
    if len(seeds) > 1:
        explore["seed"] = list(seeds)
    content = {"description": "a comparison", "sampler": "grid", "explore": explore, "settings": settings}
    file = folder / "space.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def plan_of(size: Size, space: Path, precision: str, store: Store) -> Plan:
    """What a launch of `space` on the images of `size` would do, with them prepared in `store`."""
    request = resolve(
        read_space(str(space)),
        dataset=size.dataset,
        data=size.data,
        recipe=SOURCES[size.dataset].recipe,
        assignments=[f"precision={precision}"],
    )
    dataset = prepare_dataset(request.dataset, store, lambda line: None)
    return make_plan(request, dataset, bank_budget=BANK_BYTES)


def make_work(folder: Path, size: Size, seeds: Sequence[int]) -> Plan:
    """Fill an empty folder with the work, a trained teacher included; the plan of the whole grid.

    Raises:
        UserError: the dataset or the sizes are unsuitable.
    """
    store = open_store(folder / STORE)
    (folder / REQUEST).write_text(json.dumps(dataclasses.asdict(size)))
    plan = plan_of(size, space_file(folder, GRID, [0], size.settings()), "float32", store)
    dataset, trial = plan.dataset, distilled(plan)
    work_of(size.dataset, dataset, trial).write(folder)
    splits = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
    arrays: dict[str, Any] = {f"{name}_images": np.array(split.images) for name, split in splits.items()}
    arrays |= {f"{name}_labels": np.array(split.labels) for name, split in splits.items()}
    np.savez(folder / IMAGES_FILE, **arrays)
    for seed in seeds:
        save_weights(network_for(dataset, trial.network, seed), student_start(folder, seed))
    save_weights(fresh_network(trial.trained_teacher(), dataset), folder / TEACHER_START)
    teacher = Workbench(store, dataset.folder.name, {}, torch.device("cpu")).prepare(trial.teacher(), SingleProcess())
    save_weights(teacher[0].network, folder / TEACHER)
    return plan


def work_of(name: str, dataset: Dataset, trial: TrialConfig) -> Work:
    """The sizes and recipe of a trial on a dataset of that name."""
    return Work(
        dataset=name,
        classes=len(dataset.classes),
        channels=dataset.channels,
        image_size=dataset.image_size,
        mean=dataset.mean,
        std=dataset.std,
        resolution=trial.resolution,
        crop_padding=trial.crop_padding,
        flip=trial.flip,
        backbone=trial.backbone,
        width=trial.width,
        epochs=trial.epochs,
        batch_size=trial.batch_size,
        learning_rate=trial.learning_rate,
        momentum=trial.momentum,
        weight_decay=trial.weight_decay,
    )


def distilled(plan: Plan) -> TrialConfig:
    """A trial of the plan that distils."""
    return next(trial for trial in plan.trials.values() if trial.distills)


class OneTeacher(Workbench):
    """A workbench on which trials in bf16 look, in bf16, at the teacher that was trained in float32.

    So that all sides have the same teacher, whatever their precision.
    """

    def _pretrained(self, config: Guide) -> Any:
        assert isinstance(config, PretrainedConfig)
        recipe = dataclasses.replace(config.recipe, precision="float32")
        return super()._pretrained(dataclasses.replace(config, recipe=recipe))


def bench_of(folder: Path, precision: str, device: torch.device) -> tuple[Plan, OneTeacher]:
    """The plan of the whole grid in that precision, and a workbench with its banks."""
    size = Size(**json.loads((folder / REQUEST).read_text()))
    store = open_store(folder / STORE)
    plan = plan_of(size, folder / "space.yaml", precision, store)
    guide = distilled(plan).trained_teacher()
    plain = dataclasses.replace(guide, recipe=dataclasses.replace(guide.recipe, precision="float32"))
    digest = plan.dataset.digest
    banks = plan.banks
    if guide.key(digest) in banks:  # under both keys, as the teacher's own is that of float32
        banks[plain.key(digest)] = banks[guide.key(digest)]
    return plan, OneTeacher(store, plan.dataset.folder.name, banks, device)


def forget_banks(folder: Path) -> None:
    """Have the next `--fill-bank` begin anew."""
    shutil.rmtree(folder / STORE / "banks", ignore_errors=True)


def run(given: argparse.Namespace) -> None:
    """Train the one student that the arguments ask for, or fill the bank."""
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    plan, bench = bench_of(given.work, given.precision, device)
    base = distilled(plan)
    config = dataclasses.replace(
        base, lambda_=given.lambda_, seed=given.seed, epochs=given.epochs or base.epochs, teacher_epochs=base.epochs
    )
    if given.fill_bank:
        _fill(bench, base.trained_teacher(), given.wait)
        return
    if given.live:
        bench.banks = {}
    # A search's processes have these at hand from trial to trial.
    bench.images_for(config)
    bench.validation_images(config.low_res)
    for guide in config.guides():
        bench.features(guide)
    warm_up(
        initial_student(config, bench),
        bench.pretrained(config.guides()[0]).network if given.live and config.distills else None,
        read_work(given.work),
        trained=map(len, batches(len(plan.dataset.train.labels), config.batch_size, config.seed, 0)),
        evaluated=parts(len(plan.dataset.validation.labels), EVALUATED_AT_ONCE),
        layout=torch.channels_last,
        precision=given.precision,
    )
    begin(given.wait)
    started = time.perf_counter()
    _, result = train_student(config, bench, SingleProcess(device=device))
    done(result.history, seconds=time.perf_counter() - started)


def _fill(bench: Workbench, guide: PretrainedConfig, wait: bool) -> None:
    live, identity = bench._live(guide)
    begin(wait)
    started = time.perf_counter()
    if bench.banks:
        with bench.store.publish("banks", identity.key) as folder:
            fill_bank(folder, identity, live)
    done([{}], seconds=time.perf_counter() - started)


def losses_of_search(store: Path, size: Size, space: Path, precision: str) -> list[float]:
    """The last epoch's training loss of each trial of a finished search."""
    found = open_store(store)
    plan = plan_of(size, space, precision, found)
    results = [find_result(found, key) for key in plan.trials]
    return [result.metrics["loss"] for result in results if result is not None]


def main() -> None:
    """Read the arguments, and train."""
    parser = script_arguments(__doc__)
    parser.add_argument("--fill-bank", action="store_true", help="the teacher's features, once for all trials")
    parser.add_argument("--live", action="store_true", help="without a bank, as the baselines do")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
