"""B3, a strong single script: images on the device, views of a whole batch at once, channels last; teacher live.

    python -m benchmarks.baselines.strong_script --work FOLDER --lambda 0.5 --threads 2

In the precision of the product's trials, and on the batches and views that the product draws, so that its losses can
be held against theirs step by step. What the product has beyond this is what its trials share. Not for: training a
teacher.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.work import (
    TEACHER,
    Work,
    begin,
    done,
    parts,
    read_images,
    read_work,
    save_weights,
    script_arguments,
    student_start,
    warm_up,
)
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill.training import batches

AUGMENT_SEED = 0
EVALUATED_AT_ONCE = 128


def lowered(images: Tensor, resolution: int) -> Tensor:
    """Images uint8 (N, C, S, S) made small and large again, rounded to uint8 after both."""
    size = images.shape[-1]
    small = F.interpolate(images.float(), size=(resolution, resolution), mode="bicubic", antialias=True)
    small = small.round().clamp(0, 255)
    return F.interpolate(small, size=(size, size), mode="bicubic").round().clamp(0, 255).to(torch.uint8)


def cut(padded: Tensor, tops: Tensor, lefts: Tensor, flipped: Tensor, size: int) -> Tensor:
    """A crop of each image, some of them mirrored.

    Args:
        padded: uint8 (B, C, P, P).
        tops: int64 (B,), the crops' first rows; likewise `lefts`.
        flipped: bool (B,).
        size: S, the crops' side.

    Returns:
        uint8 (B, C, S, S).
    """
    count, channels, _, side = padded.shape
    steps = torch.arange(size, device=padded.device)
    columns = torch.where(flipped[:, None], steps.flip(0), steps) + lefts[:, None]
    rows = (tops[:, None] + steps)[:, None, :, None].expand(-1, channels, -1, side)
    return padded.gather(2, rows).gather(3, columns[:, None, None, :].expand(count, channels, size, size))


class Resident:
    """Training images on the device, low and high resolution behind each other as channels, padded.

    Args:
        images: uint8 (N, C, S, S), high resolution.
        labels: int64 (N,).
        work: how they are made small, cropped and standardised.
        high: whether the high-resolution side is needed.
        device: where they go.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, work: Work, high: bool, device: torch.device):
        sides = torch.from_numpy(images)
        low = lowered(sides, work.resolution)
        both = torch.cat([low, sides], 1) if high else low
        self.padded = F.pad(both, (work.crop_padding,) * 4).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.work, self.device = work, device
        self.mean, self.std = (
            torch.tensor(values, device=device).reshape(1, -1, 1, 1).repeat(1, both.shape[1] // len(values), 1, 1)
            for values in (work.mean, work.std)
        )

    def batch(self, epoch: int, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Views, float32 (B, C or 2C, S, S), and labels, int64 (B,)."""
        work, offsets, flips = self.work, 2 * self.work.crop_padding + 1, 2 if self.work.flip else 1
        drawn = ViewSpace(work.crop_padding, work.flip).draw(AUGMENT_SEED, epoch, indices)
        where, ids = (torch.from_numpy(values).to(self.device) for values in (indices, drawn))
        tops, lefts = ids // flips // offsets, ids // flips % offsets
        crops = cut(self.padded[where], tops, lefts, ids % flips == 1, work.image_size)
        return (crops.float() / 255 - self.mean) / self.std, self.labels[where]


def train(
    images: Resident,
    student: Any,
    teacher: Any,
    lambda_: float,
    validation: tuple[Tensor, Tensor],
    *,
    seed: int,
    epochs: int,
    precision: str,
) -> list[dict[str, float]]:
    """Train `student` in place.

    Args:
        images: to train on.
        student: on their device.
        teacher: in evaluation mode there; None for plain training.
        lambda_: λ.
        validation: standardised images, float32 (N, C, S, S), and labels, int64 (N,).
        seed: of the batch order.
        epochs: how many.
        precision: float32 or bf16.

    Returns:
        For each epoch its loss, a mean over the images, `val_accuracy`, a fraction, and `images_per_second` of
        training alone.
    """
    work, device, count = images.work, images.device, len(images.labels)
    student.to(memory_format=torch.channels_last)
    if teacher is not None:
        teacher.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=work.learning_rate,
        momentum=work.momentum,
        weight_decay=work.weight_decay,
        fused=True,
    )
    steps = len(batches(count, work.batch_size, seed, 0))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, work.learning_rate, total_steps=max(epochs * steps, 4) + 1, cycle_momentum=False
    )
    history = []
    for epoch in range(epochs):
        started = time.perf_counter()
        student.train()
        total = torch.zeros((), dtype=torch.float64, device=device)
        for indices in batches(count, work.batch_size, seed, epoch):
            views, labels = images.batch(epoch, indices)
            total += _step(student, teacher, lambda_, optimizer, views, labels, precision).double() * len(indices)
            schedule.step()
        loss = total.item() / count
        seconds = time.perf_counter() - started
        accuracy = evaluate(student, *validation)
        history.append({"loss": loss, "val_accuracy": accuracy, "images_per_second": count / seconds})
    return history


def _step(
    student: Any,
    teacher: Any,
    lambda_: float,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    labels: Tensor,
    precision: str,
) -> Tensor:
    sides = views.chunk(1 if teacher is None else 2, 1)
    low, *high = (side.contiguous(memory_format=torch.channels_last) for side in sides)
    with torch.autocast(views.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        features = student.features(low)
        logits = student.classifier(features)
        with torch.no_grad():
            targets = [teacher.features(side).float() for side in high]
    loss = F.cross_entropy(logits.float(), labels)
    for target in targets:
        loss = loss + lambda_ * 0.5 * (features.float() - target).pow(2).sum(1).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def evaluate(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images, float32 (N, C, S, S), that `network` names rightly; leaves it in evaluation mode."""
    network.eval()
    right = sum(
        (network(part).argmax(1) == told).sum()
        for part, told in zip(images.split(EVALUATED_AT_ONCE), labels.split(EVALUATED_AT_ONCE), strict=True)
    )
    return float(right) / len(labels)


def evaluation_images(work: Work, folder: Path, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """A split's low-resolution images, standardised, float32 (N, C, S, S), channels last, and labels, int64 (N,)."""
    images, labels = read_images(folder, split)
    low = lowered(torch.from_numpy(images), work.resolution)
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (work.mean, work.std))
    standardised = ((low.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
    return standardised.to(device), torch.from_numpy(labels).to(device)


def run(given: argparse.Namespace) -> None:
    """Train the student that the arguments ask for."""
    torch.set_num_threads(given.threads)
    work, device, folder = read_work(given.work), torch.device(given.device), given.work
    distils = given.lambda_ > 0
    images = Resident(*read_images(folder, "train"), work, distils, device)
    validation = evaluation_images(work, folder, "validation", device)
    student = work.network(student_start(folder, given.seed)).to(device)
    teacher = None
    if distils:
        teacher = work.network(given.teacher or folder / TEACHER).to(device).eval().requires_grad_(False)
    warm_up(
        student,
        teacher,
        work,
        trained=map(len, batches(len(images.labels), work.batch_size, given.seed, 0)),
        evaluated=parts(len(validation[1]), EVALUATED_AT_ONCE),
        layout=torch.channels_last,
        precision=given.precision,
    )
    begin(given.wait)
    started = time.perf_counter()
    history = train(
        images,
        student,
        teacher,
        given.lambda_,
        validation,
        seed=given.seed,
        epochs=given.epochs or work.epochs,
        precision=given.precision,
    )
    if given.save is not None:
        save_weights(student, given.save)
    done(history, seconds=time.perf_counter() - started)


def main() -> None:
    """Read the arguments, and train."""
    run(script_arguments(__doc__).parse_args())


if __name__ == "__main__":
    main()
