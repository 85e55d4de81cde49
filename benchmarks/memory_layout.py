"""Training steps with images channels last in memory against channels first, in one process.

Prints each network's seconds per step, the smallest of several interleaved rounds, and their ratio.
Not for: whole trials (feature_bank.py).

    uv run python benchmarks/memory_layout.py
"""

from __future__ import annotations

import argparse
import platform
import time

import torch
from torch.nn import functional as F

from dfd_tune.models import BACKBONES, build_network

LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last}


def step_seconds(backbone: str, layout: torch.memory_format, size: int, channels: int, steps: int) -> float:
    """Mean seconds of a training step of 64 images."""
    network = build_network(
        backbone, width=0.25, dropout=0.0, channels=channels, image_size=size, num_classes=10, seed=0
    ).to(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(64, channels, size, size).contiguous(memory_format=layout)
    labels = torch.arange(64) % 10
    started = time.perf_counter()
    for _ in range(steps):
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - started) / steps


def main() -> None:
    """Run both sides and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{platform.processor() or platform.machine()}, {options.threads} thread(s), torch {torch.__version__}")
    for size, channels in ((8, 1), (32, 3)):
        for backbone in BACKBONES:
            rounds = [
                {
                    name: step_seconds(backbone, layout, size, channels, options.steps)
                    for name, layout in LAYOUTS.items()
                }
                for _ in range(options.rounds)
            ]
            first, last = (min(times[name] for times in rounds) for name in LAYOUTS)
            print(
                f"{backbone:9} {size}×{size}×{channels}: channels first {1e3 * first:.1f} ms, "
                f"last {1e3 * last:.1f} ms, ratio {first / last:.2f}"
            )


if __name__ == "__main__":
    main()
