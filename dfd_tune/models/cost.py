"""What a model costs where it runs: parameters, multiply-adds, seconds.

Not for: what training costs (forecast.py, distill/probe.py).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

BATCH = 64
"""Images in the batch whose latency is measured."""
REPEATS = 15
PATIENCE_SECONDS = 0.2
"""After which no measurement begins any more."""


def parameters_of(model: nn.Module) -> int:
    """How many numbers were learned."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, images: Tensor) -> int:
    """How many products convolutions and fully connected layers add up for one image; all else is left out.

    Args:
        model: in evaluation mode; it is run once.
        images: what it takes, the first dimension being images.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        # A weight's first dimension is the outputs': all others are what is added up for one of them.
        total += output.numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return total // len(images)


def example_images(count: int, size: int, channels: int) -> Tensor:
    """Noise, uint8 (count, size, size, channels), always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, size, size, channels), generator=generator, dtype=torch.uint8)


def latency(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that `run` takes: the median of `REPEATS` after one that warms up; of a slow one fewer, at least 1."""
    return latencies([run], clock=clock)[0]


def latencies(
    runs: Sequence[Callable[[], object]],
    *,
    repeats: int = REPEATS,
    patience: float = PATIENCE_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, ...]:
    """As `latency`, of each run, measured in turn: what else the machine does slows all of them alike.

    Args:
        runs: what is measured.
        repeats: how often, unless they are slow.
        patience: seconds after which none is begun again.
        clock: tells seconds.
    """
    end = clock() + patience
    for run in runs:
        run()
    rounds: list[list[float]] = []
    while len(rounds) < repeats and not (rounds and clock() >= end):
        rounds.append([])
        for run in runs:
            began = clock()
            run()
            rounds[-1].append(clock() - began)
    return tuple(statistics.median(seconds) for seconds in zip(*rounds, strict=True))


def latency_of(model: nn.Module, images: Tensor) -> float:
    """Seconds that a model takes for these images on one thread of the CPU; see `latency`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return latency(lambda: model(images))
    finally:
        torch.set_num_threads(threads)
