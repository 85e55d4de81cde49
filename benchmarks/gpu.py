"""What the core does on a GPU: does it agree with the CPU, how fast is a trial, and what do its students reach.

    python -m benchmarks.gpu agree --data FOLDER     # 200 steps on a CPU, and on the GPU in both precisions, twice
    python -m benchmarks.gpu speed --data FOLDER     # images/s, against two plain scripts, and where time goes
    python -m benchmarks.gpu students --data FOLDER  # teacher, plain and distilled students, validation and test

CIFAR-10 seen at 8×8, ResNet-18, one process, without Ray. Each prints lines of JSON. Not for: packing trials on a GPU,
or what a search adds around its trials.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.baselines import plain_script, strong_script
from benchmarks.baselines.product import work_of
from benchmarks.baselines.work import Work
from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.distill.arithmetic import compute
from dfd_tune.distill.features import LiveFeatures
from dfd_tune.distill.networks import network_for
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import train_student
from dfd_tune.distill.testing import network_right_on_test_images
from dfd_tune.distill.workbench import Workbench
from dfd_tune.parts import PretrainedConfig
from dfd_tune.store import Store, open_store

CUDA = torch.device("cuda")
RECIPE: dict[str, Any] = {
    "resolution": 8,
    "crop_padding": 4,
    "flip": True,
    "backbone": "resnet18",
    "width": 1.0,
    "dropout": 0.0,
    "batch_size": 128,
    "learning_rate": 0.1,
    "schedule": "one_cycle",
    "lambda_": 0.5,
    "reduction": "sum",
    "student_start": "scratch",
    "precision": "bf16",
    "teacher_batch_size": 128,
    "teacher_learning_rate": 0.1,
    "teacher_schedule": "one_cycle",
    "teacher_momentum": 0.9,
    "teacher_weight_decay": 5e-4,
    "teacher_dropout": 0.0,
}


def say(**line: Any) -> None:
    """Print a line of JSON."""
    print(json.dumps(line), flush=True)


def bench_for(store: Store, data: str, device: torch.device, **dataset: Any) -> Workbench:
    """A workbench on `device` with CIFAR-10, or a part of it."""
    found = prepare_dataset(DatasetConfig(dataset="cifar10", data=data, **dataset), store, lambda line: None)
    return Workbench(store, found.folder.name, {}, device)


def trained(bench: Workbench, **settings: Any) -> tuple[Any, list[dict[str, float]], float]:
    """A student, its history, and the seconds that training it took; its teacher is trained before if need be."""
    config = TrialConfig(**RECIPE | settings)
    process = SingleProcess(device=bench.device)
    for network in config.pretrained():
        bench.prepare(network, process)
    started = time.perf_counter()
    student, result = train_student(config, bench, process)
    return student, result.history, time.perf_counter() - started


def agree(store: Store, data: str) -> None:
    """200 steps of the same trial, on a CPU in float32, and on the GPU in float32 and bf16, each of these twice."""
    part = {"train_images": 3200, "validation_fraction": 0.2, "test_images": 1000}
    settings = {"width": 0.25, "epochs": 10, "teacher_epochs": 3, "learning_rate": 0.02}
    histories = {}
    for name, device, precision in (
        ("cpu_float32", "cpu", "float32"),
        ("cuda_float32", "cuda", "float32"),
        ("cuda_float32_again", "cuda", "float32"),
        ("cuda_bf16", "cuda", "bf16"),
        ("cuda_bf16_again", "cuda", "bf16"),
    ):
        bench = bench_for(store, data, torch.device(device), **part)
        if precision == "bf16":
            _learn_from_the_same_teacher(bench)
        _, histories[name], seconds = trained(bench, **settings, precision=precision)
        say(
            what="agree",
            side=name,
            seconds=round(seconds, 1),
            losses=[round(epoch["loss"], 5) for epoch in histories[name]],
            val_accuracies=[round(epoch["val_accuracy"], 4) for epoch in histories[name]],
        )
    for first, second in (
        ("cpu_float32", "cuda_float32"),
        ("cpu_float32", "cuda_bf16"),
        ("cuda_float32", "cuda_float32_again"),
        ("cuda_bf16", "cuda_bf16_again"),
    ):
        apart = [
            abs(a["loss"] - b["loss"]) / abs(a["loss"])
            for a, b in zip(histories[first], histories[second], strict=True)
        ]
        say(what="apart", first=first, second=second, relative=[float(f"{value:.2g}") for value in apart])


def _learn_from_the_same_teacher(bench: Workbench) -> None:
    """Have students in bf16 learn from the teacher of those in float32, which runs in bf16 for them."""

    def features(config: PretrainedConfig) -> LiveFeatures:
        theirs = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, precision="float32"))
        return LiveFeatures(bench.pretrained(theirs).network, bench.images_for(config), "bf16")

    bench.features = features  # type: ignore[assignment]


def speed(store: Store, data: str, repeats: int) -> None:
    """Images/s of a distilled and a plain trial, of two plain scripts that do the same, and where the time goes."""
    bench = bench_for(store, data, CUDA)
    rate = matrix_rate()
    flops = flops_per_image(bench)
    say(what="chip", name=torch.cuda.get_device_name(), torch=torch.__version__, bf16_matrix_tflops=round(rate / 1e12))
    say(what="work", distilled_gflop_an_image=flops["distilled"] / 1e9, plain_gflop_an_image=flops["plain"] / 1e9)
    trained(bench, epochs=1, teacher_epochs=1)  # warm: the teacher, the kernels
    for number in range(repeats):
        for side, lambda_ in (("distilled", 0.5), ("plain", 0.0)):
            _, history, _ = trained(bench, epochs=2, teacher_epochs=1, lambda_=lambda_)
            images = history[-1]["images_per_second"]
            share = round(images * flops[side] / rate, 3)
            say(what="ours", side=side, repeat=number, images_per_second=round(images), share_of_matrix_rate=share)
        for name, script in (("strong_script", strong), ("plain_script", plain)):
            # The second epoch, as of ours; of the slow one a fifth of an epoch, after a start-up that does not count.
            say(what=name, repeat=number, images_per_second=round(script(bench)))
    say(what="profile", **profile(bench))


def matrix_rate(side: int = 8192, products: int = 20) -> float:
    """FLOP/s of bf16 matrix products on random data."""
    a, b = (torch.randn(side, side, device=CUDA, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(products):
        a @ b
    torch.cuda.synchronize()
    return products * 2 * side**3 / (time.perf_counter() - started)


def flops_per_image(bench: Workbench) -> dict[str, float]:
    """FLOP of a training step, per image: three forward passes' worth, and one of the teacher's."""
    from torch.utils.flop_counter import FlopCounterMode

    network = network_for(bench.dataset, _config().network, 0)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 32, 32))
    forward = counter.get_total_flops()
    return {"plain": 3.0 * forward, "distilled": 4.0 * forward}


def strong(bench: Workbench) -> float:
    """Images/s of baselines/strong_script.py, in bf16, in its second epoch."""
    work, (student, teacher) = _work(bench), _networks(bench)
    images = strong_script.Resident(*_training_images(bench), work, high=True, device=bench.device)
    validation = next(bench.validation_images(_config().low_res).batches())
    history = strong_script.train(images, student, teacher, 0.5, validation, seed=0, epochs=2, precision="bf16")
    return history[-1]["images_per_second"]


def plain(bench: Workbench, images: int = 9000, loaders: int = 8) -> float:
    """Images/s of the steps of baselines/plain_script.py, in float32, over so many images after ten batches."""
    work, (student, teacher), device = _work(bench), _networks(bench), bench.device
    pictures = plain_script.Pictures(
        *_training_images(bench), work, (plain_script.LOW, plain_script.HIGH), augment=True
    )
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    seen, started = 0, 0.0
    for number, batch in enumerate(plain_script.loader_of(pictures, work.batch_size, loaders, device)):
        if number == 10:
            torch.cuda.synchronize()
            started = time.perf_counter()
        _, count = plain_script.dfd_step(student, teacher, 0.5, optimizer, batch, device)
        seen += count if number >= 10 else 0
        if seen >= images:
            break
    torch.cuda.synchronize()
    return seen / (time.perf_counter() - started)


def _config() -> TrialConfig:
    return TrialConfig(**RECIPE, epochs=1, teacher_epochs=1)


def _work(bench: Workbench) -> Work:
    return work_of("cifar10", bench.dataset, _config())


def _training_images(bench: Workbench) -> tuple[np.ndarray, np.ndarray]:
    return np.array(bench.dataset.train.images), np.array(bench.dataset.train.labels)


def _networks(bench: Workbench) -> tuple[torch.nn.Module, torch.nn.Module]:
    student, teacher = (
        network_for(bench.dataset, _config().network, seed).to(bench.device).to(memory_format=torch.channels_last)
        for seed in (0, 1)
    )
    return student, teacher.eval()


def profile(bench: Workbench) -> dict[str, Any]:
    """Of an epoch of a distilled trial: how long the GPU computes, and what; what the host does most."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        started = time.perf_counter()
        trained(bench, epochs=1, teacher_epochs=1)
        torch.cuda.synchronize()
        wall = time.perf_counter() - started
    events = found.key_averages()
    on_gpu = sorted(events, key=lambda event: -event.self_device_time_total)
    on_host = sorted(events, key=lambda event: -event.self_cpu_time_total)
    busy = sum(event.self_device_time_total for event in events if event.device_type == torch.autograd.DeviceType.CUDA)
    return {
        "wall_s": round(wall, 2),
        "gpu_busy_s": round(busy / 1e6, 2),
        "gpu": {
            event.key[:60]: round(event.self_device_time_total / 1e6, 3)
            for event in on_gpu[:40]
            if event.device_type == torch.autograd.DeviceType.CUDA
        },
        "host": {event.key[:60]: [event.count, round(event.self_cpu_time_total / 1e6, 3)] for event in on_host[:15]},
    }


def students(store: Store, data: str, epochs: int, which: list[str], results: Path) -> None:
    """Train the students named, of the form ROW or ROW:λ, and test them; `teacher` has the teacher alone tested."""
    bench = bench_for(store, data, CUDA)
    for name in which:
        row, _, value = name.partition(":")
        started = time.perf_counter()
        settings = {"epochs": epochs, "teacher_epochs": epochs, "lambda_": float(value or 0)}
        if row == "longer":
            settings["epochs"] = 2 * epochs
        config = TrialConfig(**RECIPE | settings)
        if row == "teacher":
            network = dataclasses.replace(config, lambda_=1.0).guides()[0]
            history = bench.prepare(network, SingleProcess(device=CUDA))[0].history
            right = network_right_on_test_images(network, bench)
        else:
            student, history, _ = trained(bench, **settings)
            right = _right(student, config, bench)
        line = {
            "what": "student",
            "name": name,
            "epochs": len(history),
            "seconds": round(time.perf_counter() - started, 1),
            "images_per_second": round(float(np.median([epoch["images_per_second"] for epoch in history]))),
            "val_accuracy": history[-1]["val_accuracy"],
            "test_accuracy": float(np.mean(right)),
        }
        say(**line)
        results.mkdir(parents=True, exist_ok=True)
        (results / f"{name.replace(':', '-')}.json").write_text(json.dumps(line))


@torch.no_grad()
def _right(student: Any, config: TrialConfig, bench: Workbench) -> np.ndarray:
    """bool (N,), whether a student is right on each test image."""
    student.eval()
    batches = bench.test_images(config.low_res).batches()
    return np.concatenate([(student(images).argmax(1) == labels).cpu().numpy() for images, labels in batches])


def main() -> None:
    """Do what the first argument says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["agree", "speed", "students"])
    parser.add_argument("--data", required=True, help="folder of CIFAR-10's files")
    parser.add_argument("--store", type=Path, default=Path("dfd-tune-store"), help="for images and teachers")
    parser.add_argument("--deterministic", action="store_true", help="as of `dfd-tune launch`")
    parser.add_argument("--repeats", type=int, default=2, help="of `speed`")
    parser.add_argument("--epochs", type=int, default=30, help="of `students`: of each, and of the teacher")
    parser.add_argument("--which", nargs="+", default=["teacher", "plain", "dfd:0.5"], help="of `students`")
    parser.add_argument("--results", type=Path, default=Path("gpu-results"), help="of `students`")
    given = parser.parse_args()
    compute(deterministic=given.deterministic)  # as each job of a search does
    store = open_store(given.store)
    if given.what == "agree":
        agree(store, given.data)
    elif given.what == "speed":
        speed(store, given.data, given.repeats)
    else:
        students(store, given.data, given.epochs, given.which, given.results)


if __name__ == "__main__":
    main()
