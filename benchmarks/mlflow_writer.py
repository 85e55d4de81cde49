"""How fast trials are written to MLflow: made-up records through `Tracker` into a fresh store's database, or a server.

    python benchmarks/mlflow_writer.py --trials 300 --epochs 10 [--server]

Each trial is reported as a search does: begun, then its epochs, then finished. Prints one JSON line. Not for: what a
search as a whole costs the driver.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from dfd_tune.record import SearchRecord, TrialRecord, TrialStatus
from dfd_tune.store import Store, open_store
from dfd_tune.tracking import open_tracker, serve_ui

METRICS = ("loss", "cross_entropy", "distillation", "train_accuracy", "val_accuracy", "val_loss", "learning_rate")
WHOLE = {"seconds": 1.0, "device_hours": 1 / 3600, "peak_memory_bytes": 1e9}
SETTINGS = {f"setting_{number}": number for number in range(40)}
SEARCH = SearchRecord(
    search="written",
    space="made_up",
    explored={"lambda_": [0.0, 1.0]},
    dataset={"dataset": "digits", "digest": "d" * 16},
    settings={},
    sampler="random",
    num_trials=0,
    seed=0,
    planned=[],
)


def trial(number: int, epochs: int, status: TrialStatus) -> TrialRecord:
    """A made-up trial after some epochs."""
    history = [{"epoch": float(epoch), **dict.fromkeys(METRICS, number / epoch)} for epoch in range(1, epochs + 1)]
    return TrialRecord(
        key=f"{number:016x}",
        status=status,
        config={"backbone": "resnet18", "lambda_": 1.0, "seed": number, **SETTINGS},
        metrics=WHOLE if status == "FINISHED" else {},
        history=history,
        host="node",
        device="cpu",
        attempts=1,
    )


@contextmanager
def server(store: Store) -> Iterator[str]:
    """The address of an MLflow server on the store's database, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = get_context("spawn")
    said = context.Queue()
    process = context.Process(target=serve_ui, args=(store, port, said.put))
    process.start()
    try:
        yield said.get(timeout=180).split()[1]
    finally:
        process.terminate()
        process.join(20)


def written(store: Store, uri: str | None, trials: int, epochs: int, every_epoch: bool) -> dict[str, float]:
    """Write all trials, and once more, as a relaunch does; seconds of each and of the caller's longest wait."""
    tracker = open_tracker(store, uri)
    tracker.experiment_id(SEARCH)
    begin, longest = time.perf_counter(), 0.0
    for number in range(trials):
        for epoch in range(epochs + 1):
            record = trial(number, epoch, "RUNNING" if epoch < epochs else "FINISHED")
            start = time.perf_counter()
            tracker.log_trial(SEARCH, record)
            longest = max(longest, time.perf_counter() - start)
            while every_epoch and tracker.waiting:
                time.sleep(0.0005)
    problems = tracker.close(patience=3600)
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    relaunched = open_tracker(store, uri)
    problems += relaunched.sync(SEARCH, [trial(number, epochs, "FINISHED") for number in range(trials)])
    assert len(relaunched.runs(SEARCH)) == trials
    problems += relaunched.close()
    assert problems == [], problems
    return {"seconds": seconds, "relaunch_seconds": time.perf_counter() - begin, "longest_wait_seconds": longest}


def main() -> None:
    """Parse the arguments, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--every-epoch", action="store_true", help="write each epoch by itself, however fast they come")
    parser.add_argument("--server", action="store_true", help="through an MLflow server on this machine")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder, "store"))
        open_tracker(store, None).close()
        arguments = (options.trials, options.epochs, options.every_epoch)
        if options.server:
            with server(store) as uri:
                took = written(store, uri, *arguments)
        else:
            took = written(store, None, *arguments)
    metrics = options.trials * (options.epochs * (len(METRICS) + 1) + len(WHOLE))
    outcome = {
        "trials": options.trials,
        "epochs": options.epochs,
        "every_epoch": options.every_epoch,
        "server": options.server,
        "runs_per_second": round(options.trials / took["seconds"], 1),
        "metrics_per_second": round(metrics / took["seconds"], 1),
        **{name: round(value, 4) for name, value in took.items()},
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
