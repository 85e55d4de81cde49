"""B0, what a paper's author would write: one script a trial, `DataLoader`, PIL and torchvision; the teacher looks live.

    python -m benchmarks.baselines.plain_script --work FOLDER --lambda 0.5 --threads 2

Float32 and PyTorch's own memory layout, as in most published code; images are made small and large again once, ahead
of training, not in each epoch. Trains the teacher too (`--train-teacher`). Not for: all that is known to be quicker
(strong_script.py).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandomCrop
from torchvision.transforms import functional as TF

from benchmarks.baselines.work import (
    TEACHER,
    TEACHER_START,
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

LOW, HIGH = "low", "high"
EVALUATED_AT_ONCE = 128


class Pictures(Dataset):
    """Items are (sides, label): a float32 tensor (C, S, S) for each of the sides, all in one view, and an int.

    Args:
        images: uint8 (N, C, S, S).
        labels: int64 (N,).
        work: says how they are made small, cropped and standardised.
        sides: of `LOW` and `HIGH`, those that are looked at.
        augment: whether they are cropped and flipped at random.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, work: Work, sides: tuple[str, ...], augment: bool):
        self.work, self.augment, self.labels = work, augment, labels
        self.pictures = [_sides_of(image, work.resolution, sides) for image in images]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        work, pictures = self.work, self.pictures[index]
        if self.augment:
            pictures = [TF.pad(picture, [work.crop_padding] * 4) for picture in pictures]
            place = RandomCrop.get_params(pictures[0], (work.image_size, work.image_size))
            pictures = [TF.crop(picture, *place) for picture in pictures]
            if work.flip and torch.rand(()) < 0.5:
                pictures = [TF.hflip(picture) for picture in pictures]
        tensors = [TF.normalize(TF.to_tensor(picture), work.mean, work.std) for picture in pictures]
        return tensors, int(self.labels[index])


def _sides_of(image: np.ndarray, resolution: int, sides: tuple[str, ...]) -> list[Image.Image]:
    high = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    low = high.resize((resolution, resolution), Image.Resampling.BICUBIC).resize(high.size, Image.Resampling.BICUBIC)
    return [{LOW: low, HIGH: high}[side] for side in sides]


def loader_of(pictures: Pictures, batch_size: int, loaders: int, device: torch.device) -> Any:
    """A `DataLoader` that shuffles what is augmented, and keeps its processes from epoch to epoch."""
    return DataLoader(
        pictures,
        batch_size=batch_size,
        shuffle=pictures.augment,
        num_workers=loaders,
        persistent_workers=loaders > 0,
        pin_memory=device.type == "cuda",
    )


def dfd_step(
    student: Any, teacher: Any, lambda_: float, optimizer: torch.optim.Optimizer, batch: Any, device: torch.device
) -> tuple[Tensor, int]:
    """A step on one batch of a loader; the loss, a mean over its images, and how many these are.

    Without a teacher, the batch's first side is what the network sees.
    """
    sides, labels = batch
    low, *high = (side.to(device, non_blocking=True) for side in sides)
    labels = labels.to(device, non_blocking=True)
    features = student.features(low)
    loss = F.cross_entropy(student.classifier(features), labels)
    if teacher is not None:
        with torch.no_grad():
            target = teacher.features(high[0])
        loss = loss + lambda_ * 0.5 * (features - target).pow(2).sum(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), len(labels)


def train(
    work: Work,
    student: nn.Module,
    teacher: nn.Module | None,
    lambda_: float,
    train_loader: Any,
    validation_loader: Any,
    *,
    epochs: int,
    device: torch.device,
    step: Any = dfd_step,
) -> list[dict[str, float]]:
    """Train `student` in place; for each epoch its loss, a mean over the images, and `val_accuracy`, a fraction."""
    optimizer = torch.optim.SGD(
        student.parameters(), lr=work.learning_rate, momentum=work.momentum, weight_decay=work.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, work.learning_rate, total_steps=max(epochs * len(train_loader), 4) + 1, cycle_momentum=False
    )
    history = []
    for _ in range(epochs):
        student.train()
        total, seen = 0.0, 0
        for batch in train_loader:
            loss, count = step(student, teacher, lambda_, optimizer, batch, device)
            schedule.step()
            total, seen = total + loss.item() * count, seen + count
        history.append({"loss": total / seen, "val_accuracy": evaluate(student, validation_loader, device)})
    return history


@torch.no_grad()
def evaluate(network: nn.Module, loader: Any, device: torch.device) -> float:
    """The share of a loader's images, by their first side, that `network` names rightly; leaves it in evaluation."""
    network.eval()
    right = count = 0
    for (images, *_), labels in loader:
        right += int((network(images.to(device)).argmax(1).cpu() == labels).sum())
        count += len(labels)
    return right / count


def evaluation_loader(work: Work, folder: Path, split: str, side: str, device: torch.device) -> Any:
    """A loader of a whole split's images of one side, as they are."""
    pictures = Pictures(*read_images(folder, split), work, (side,), augment=False)
    return loader_of(pictures, EVALUATED_AT_ONCE, 0, device)


def frozen_teacher(work: Work, weights: Path, device: torch.device) -> nn.Module:
    """The trained teacher, in evaluation mode."""
    return work.network(weights).to(device).eval().requires_grad_(False)


def run(given: argparse.Namespace) -> None:
    """Train the one network that the arguments ask for."""
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    work, device, folder = read_work(given.work), torch.device(given.device), given.work
    if given.train_teacher:
        sides: tuple[str, ...] = (HIGH,)
        network, teacher = work.network(folder / TEACHER_START).to(device), None
    else:
        distils = given.lambda_ > 0
        sides = (LOW, HIGH) if distils else (LOW,)
        network = work.network(student_start(folder, given.seed)).to(device)
        teacher = frozen_teacher(work, given.teacher or folder / TEACHER, device) if distils else None
    pictures = Pictures(*read_images(folder, "train"), work, sides, augment=True)
    train_loader = loader_of(pictures, work.batch_size, given.loaders, device)
    validation = evaluation_loader(work, folder, "validation", sides[0], device)
    warm_up(
        network,
        teacher,
        work,
        trained=parts(len(pictures), work.batch_size),
        evaluated=parts(len(validation.dataset), EVALUATED_AT_ONCE),
        layout=torch.contiguous_format,
    )
    begin(given.wait)
    started = time.perf_counter()
    history = train(
        work,
        network,
        teacher,
        given.lambda_,
        train_loader,
        validation,
        epochs=given.epochs or work.epochs,
        device=device,
    )
    if given.save is not None:
        save_weights(network, given.save)
    done(history, seconds=time.perf_counter() - started)


def main() -> None:
    """Read the arguments, and train."""
    parser = script_arguments(__doc__)
    parser.add_argument("--train-teacher", action="store_true", help="the teacher, on high-resolution images")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
