"""B2, Ray Tune with a full Ray Train `TorchTrainer` a trial, as Ray's documentation has it; the teacher looks live.

    python -m benchmarks.baselines.ray_train_search --work FOLDER --results FOLDER --trials '[[0, 0], [0.5, 0]]'

The training loop is plain_script.py's. Its start-up is tuned by what was found to help: actors are reused, health is
checked five times a second, and what nothing here needs (preemption watcher, metrics, dashboard) is off. Not for: the
product, which runs a trial of one worker without a worker group.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.baselines.loop import script, search_arguments, tested

TUNED = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, every worker would set up the project anew
}
DRIVER_CPUS = 0.01
"""Of a trial's Tune actor, which only waits; with a whole one, trials would starve their own workers."""


def train_loop(config: dict[str, Any]) -> None:
    """One trial, in a Ray Train worker."""
    import ray.train
    import ray.train.torch
    import torch

    from benchmarks.baselines import plain_script as plain
    from benchmarks.baselines.work import read_images, read_work, save_weights, student_start

    torch.set_num_threads(config["threads"])
    torch.manual_seed(config["seed"])
    folder, device = Path(config["work"]), ray.train.torch.get_device()
    work, distils = read_work(folder), config["lambda_"] > 0
    student = work.network(student_start(folder, config["seed"]))
    teacher = plain.frozen_teacher(work, Path(config["teacher"]), device) if distils else None
    sides = (plain.LOW, plain.HIGH) if distils else (plain.LOW,)
    pictures = plain.Pictures(*read_images(folder, "train"), work, sides, augment=True)
    loader = plain.loader_of(pictures, work.batch_size, config["loaders"], device)
    history = plain.train(
        work,
        ray.train.torch.prepare_model(student),
        teacher,
        config["lambda_"],
        loader,
        plain.evaluation_loader(work, folder, "validation", plain.LOW, device),
        epochs=work.epochs,
        device=device,
    )
    with tempfile.TemporaryDirectory() as kept:
        save_weights(student, Path(kept) / "student.safetensors")
        ray.train.report(history[-1], checkpoint=ray.train.Checkpoint.from_directory(kept))


def run_trial(config: dict[str, Any]) -> None:
    """A Tune function around a `TorchTrainer` of one worker; `config["trial"]` says all."""
    from ray import train, tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    trial = config["trial"]
    TorchTrainer(
        train_loop,
        train_loop_config=trial,
        scaling_config=train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": trial["threads"] - DRIVER_CPUS}),
        run_config=train.RunConfig(
            name=tune.get_context().get_trial_id(),
            storage_path=trial["results"],
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def search(given: argparse.Namespace) -> tuple[list[float], float]:
    """Each trial's last training loss, and the test accuracy of the one with the best validation accuracy."""
    import ray
    from ray import tune

    results = given.results.resolve()
    cores = given.at_once * given.threads
    teacher = results / "teacher.safetensors"
    script("--work", given.work, "--train-teacher", "--save", teacher, "--threads", cores, "--loaders", given.loaders)
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    shared = {
        "work": str(given.work.resolve()),
        "teacher": str(teacher),
        "results": str(results),
        "threads": given.threads,
        "loaders": given.loaders,
    }
    pairs = [{"lambda_": lambda_, "seed": seed} for lambda_, seed in given.trials]
    found = tune.Tuner(
        tune.with_resources(run_trial, {"CPU": DRIVER_CPUS}),
        param_space={"trial": tune.grid_search([shared | pair for pair in pairs])},
        tune_config=tune.TuneConfig(max_concurrent_trials=given.at_once, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(results), verbose=0),
    ).fit()
    best = found.get_best_result("val_accuracy", "max")
    losses = [result.metrics["loss"] for result in found]
    ray.shutdown()
    return losses, tested(given.work, Path(best.metrics["checkpoint_path"]) / "student.safetensors", cores)


def main() -> None:
    """Run the search."""
    given = search_arguments(__doc__).parse_args()
    os.environ.update(TUNED)
    started = time.perf_counter()
    losses, accuracy = search(given)
    seconds = time.perf_counter() - started
    print(json.dumps({"losses": losses, "test_accuracy": accuracy, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
