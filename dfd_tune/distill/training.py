"""The training loop, one for teachers, base networks and students: SGD on Eq. 4 over views of images.

Not for: which images, weights and teacher go in (pretrained.py, student.py), nor for where it runs (process.py).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler

from dfd_tune.data.pairs import Draw, EvaluationImages, Mix, TrainingImages
from dfd_tune.data.splits import random_order
from dfd_tune.distill.checkpoints import Checkpoints
from dfd_tune.distill.distillation import Distillation
from dfd_tune.distill.losses import Losses, MixedIn, image_weights, joint_loss
from dfd_tune.distill.networks import computed_in
from dfd_tune.distill.process import EpochMetrics, Process
from dfd_tune.distill.resume import Resumable, Trainee
from dfd_tune.distill.scores import balanced_accuracy, class_counts, macro_f1
from dfd_tune.models import Network
from dfd_tune.parts import Recipe

MIXING = 3
"""Sets the stream of what is mixed apart from others of the same seed."""


class DivergedError(RuntimeError):
    """The loss is no longer a finite number, so that further epochs can't help. Survives pickling.

    Attributes:
        epoch: in which that was, from 1.
    """

    def __init__(self, problem: str, epoch: int):
        super().__init__(problem, epoch)
        self.epoch = epoch

    def __str__(self) -> str:
        return str(self.args[0])


def train_network(
    network: Network,
    images: TrainingImages,
    validation: EvaluationImages,
    *,
    recipe: Recipe,
    process: Process,
    distillation: Distillation | None = None,
    checkpoints: Checkpoints | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[EpochMetrics]:
    """Train `network` in place and report every epoch; go on from the latest of `checkpoints`, and keep more of them.

    Weights that require no gradient stay as they are.

    Each epoch's metrics are: epoch (from 1), loss, cross_entropy, distillation, train_accuracy (over the epoch's
    views, as they were trained on; of mixed images, by the label of the heavier one), learning_rate (of the last step),
    images_per_second (training only); after every `evaluate_every` epochs, and after the last, val_accuracy,
    val_balanced_accuracy, val_macro_f1 and val_loss. Losses are means per image, those of training with the recipe's
    class weights; accuracies and F1 are fractions. Rank 0 evaluates; all ranks return the same metrics, but for
    images_per_second.

    Raises:
        DivergedError: an epoch's loss is not finite.
        OSError: a checkpoint can't be written, or not be read just now.
    """
    torch.manual_seed(recipe.seed + process.rank)
    network.to(memory_format=torch.channels_last)
    outputs = _Outputs(network, distillation).to(process.device)
    model = _wrapped(outputs, process)
    trainee = _trainee(outputs, recipe, len(images))
    run = Resumable(checkpoints, {"network": trainee}, process, epochs=recipe.epochs, clock=clock, draws=True)
    weights = image_weights(recipe.class_weights, images.labels)
    history = run.resume(warm_up=lambda: _warm_up(model, images, recipe, process, distillation, weights))
    if history:
        process.resumed(list(history))
    for epoch in range(len(history), recipe.epochs):
        started = clock()
        metrics = _train_epoch(model, trainee, images, recipe, process, distillation, epoch, weights)
        metrics["images_per_second"] = len(images) / max(clock() - started, 1e-9)
        if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
            metrics |= validation_metrics(_evaluated_once(network, validation, process))
        if not all(map(math.isfinite, metrics.values())):
            raise DivergedError(
                f"The loss is not finite in epoch {epoch + 1}: learning_rate {recipe.learning_rate:g} or λ is too "
                "high for this network; lower one of them.",
                epoch + 1,
            )
        history.append(metrics)
        run.epoch_done(history)
        process.report(metrics)
        run.reported(history)
    network.to(memory_format=torch.contiguous_format)
    return history


def _trainee(outputs: _Outputs, recipe: Recipe, count: int) -> Trainee:
    """What is trained, with the optimiser of `recipe` and its schedule for so many images."""
    optimizer = torch.optim.SGD(
        [weight for weight in outputs.parameters() if weight.requires_grad],  # a frozen one has no momentum to keep
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,  # one call for all parameters
    )
    steps = math.ceil(count / recipe.batch_size)
    return Trainee(outputs, optimizer, learning_rate_schedule(optimizer, recipe, total_steps=recipe.epochs * steps))


def _train_epoch(
    model: nn.Module,
    trainee: Trainee,
    images: TrainingImages,
    recipe: Recipe,
    process: Process,
    distillation: Distillation | None,
    epoch: int,
    weights: Tensor | None = None,
) -> EpochMetrics:
    optimizer = trainee.optimizer
    model.train()
    # Of the epoch's losses and right answers, on the device: reading one a step would wait for the device every time.
    sums = torch.zeros(4, dtype=torch.float64, device=process.device)
    used_rate = recipe.learning_rate
    global_batches = batches(len(images), recipe.batch_size, recipe.seed, epoch)
    for draw, batch in zip(_shares(images, recipe, process, epoch, global_batches), global_batches, strict=True):
        losses, correct = _losses(model, images, recipe, distillation, draw, weights)
        optimizer.zero_grad(set_to_none=True)
        # DDP averages gradients over ranks; this weight makes that the mean over the global batch, even when
        # the ranks' shares of it differ by an image.
        (losses.total * (len(draw) * process.world_size / len(batch))).backward()
        optimizer.step()
        used_rate = optimizer.param_groups[0]["lr"]  # before the schedule sets that of the next step
        trainee.schedule.step()
        sums += torch.stack([*(loss.detach() * len(draw) for loss in losses), correct]).double()
    if process.world_size > 1:
        torch.distributed.all_reduce(sums)
    loss, cross_entropy, distilled, accuracy = (sums / len(images)).tolist()
    return {
        "epoch": epoch + 1,
        "loss": loss,
        "cross_entropy": cross_entropy,
        "distillation": distilled,
        "train_accuracy": accuracy,
        "learning_rate": used_rate,
    }


def _shares(
    images: TrainingImages, recipe: Recipe, process: Process, epoch: int, global_batches: list[np.ndarray]
) -> list[Draw]:
    """This process's share of every batch of an epoch, mixed with other images of the batch if the recipe says so.

    What an image is mixed with may lie in another process's share: each has all images.
    """

    def mine(of_batches: list[np.ndarray]) -> list[Draw]:
        return images.draws(epoch, [np.array_split(batch, process.world_size)[process.rank] for batch in of_batches])

    draws = mine(global_batches)
    if not recipe.mixup:
        return draws
    found = [mixing(len(batch), recipe, epoch, number) for number, batch in enumerate(global_batches)]
    others = mine([batch[places] for batch, (_, places) in zip(global_batches, found, strict=True)])
    return [
        dataclasses.replace(draw, mixed=Mix(share, other))
        for draw, other, (share, _) in zip(draws, others, found, strict=True)
    ]


def _losses(
    model: nn.Module,
    images: TrainingImages,
    recipe: Recipe,
    distillation: Distillation | None,
    draw: Draw,
    weights: Tensor | None = None,
) -> tuple[Losses, Tensor]:
    """Losses of what a draw sees, and how many of its images were told right: if mixed, by the heavier one's label.
    `weights` has one of each image of all, float32 (N,)."""
    inputs, labels = images.views(draw), images.labels_of(draw)
    mixed = None
    if draw.mixed is not None:
        others = draw.mixed.others
        theirs = None if weights is None else weights[others.indices]
        mixed = MixedIn(images.labels_of(others), draw.mixed.share, theirs)
    with computed_in(recipe.precision, inputs.device):
        logits, adapted = model(inputs)
    own = None if weights is None else weights[draw.indices]
    if distillation is None:
        losses = joint_loss(logits, labels, None, 0.0, mixed, own)
    else:
        losses = joint_loss(logits, labels, distillation.loss(adapted, draw), distillation.lambda_, mixed, own)
    heavier = labels if mixed is None or mixed.share >= 0.5 else mixed.labels
    return losses, (logits.detach().argmax(1) == heavier).sum()


def _warm_up(
    model: nn.Module,
    images: TrainingImages,
    recipe: Recipe,
    process: Process,
    distillation: Distillation | None,
    weights: Tensor | None,
) -> None:
    """Bring a model that is to go on where it was to the state of one that has taken a step.

    After its first step, DistributedDataParallel puts the gradients into another order, in which three processes or
    more round their sums otherwise. The step is not taken, but running statistics and random states have moved on.
    """
    if process.world_size == 1:
        return
    model.train()
    first = batches(len(images), recipe.batch_size, recipe.seed, 0)[:1]
    (draw,) = _shares(images, recipe, process, 0, first)
    _losses(model, images, recipe, distillation, draw, weights)[0].total.backward()
    model.zero_grad(set_to_none=True)


def batches(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The global batches of an epoch (from 0): int64 index arrays that partition range(count).

    Sizes differ by at most one: a small last batch would give batch norm poor statistics.
    """
    order = random_order(count, (seed << 16) + epoch)
    return np.array_split(order, math.ceil(count / batch_size))


def mixing(count: int, recipe: Recipe, epoch: int, number: int) -> tuple[float, np.ndarray]:
    """What a global batch is mixed with, by `mixup` and the seed of a recipe alone; the same for good.

    Args:
        count: of its images.
        recipe: of the training.
        epoch: from 0.
        number: of the batch in the epoch, from 0.

    Returns:
        The share of each image itself, in 0..1, drawn from Beta(α, α); and for each the place in the batch of the image
        that the rest is of, int64 (count,), a permutation. It may be its own.
    """
    # The streams of RandomState are fixed for good; those of newer generators are not.
    seed = np.random.SeedSequence([MIXING, recipe.seed, epoch, number])
    source = np.random.RandomState(np.random.MT19937(seed))
    return float(source.beta(recipe.mixup, recipe.mixup)), source.permutation(count)


def learning_rate_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, total_steps: int) -> LRScheduler:
    """The course of the learning rate, stepped once a batch.

    - one_cycle: Smith & Topin 2018, https://arxiv.org/abs/1708.07120: up to the peak over 30 % of the steps, then
      down to nearly nothing, along cosines; momentum stays as it is.
    - cosine: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts.
    - step: a tenth after 50 % and again after 75 % of the steps, as in He et al. 2016 on CIFAR-10.
    - constant.
    """
    kinds = torch.optim.lr_scheduler
    if recipe.schedule == "one_cycle":
        # The cycle has a rise and a fall of at least a step each, so it cannot be shorter than this.
        return kinds.OneCycleLR(
            optimizer, max_lr=recipe.learning_rate, total_steps=max(total_steps, 4) + 1, cycle_momentum=False
        )
    if recipe.schedule == "cosine":
        return kinds.CosineAnnealingLR(optimizer, T_max=total_steps)
    if recipe.schedule == "step":
        return kinds.MultiStepLR(optimizer, milestones=[total_steps // 2, total_steps * 3 // 4])
    return kinds.ConstantLR(optimizer, factor=1.0)


class Evaluation(NamedTuple):
    """What a network makes of some images: shares of them, but for the loss, the mean cross entropy."""

    accuracy: float
    loss: float
    balanced_accuracy: float
    macro_f1: float


@torch.no_grad()
def evaluate(network: Network, images: EvaluationImages) -> Evaluation:
    """How well `images` are classified; leaves the network in evaluation mode."""
    network.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=images.labels.device)
    told, classes = [], 0
    for inputs, labels in images.batches():
        logits = network(inputs).float()
        predicted = logits.argmax(1)
        right = (predicted == labels).sum()
        sums += torch.stack([right, F.cross_entropy(logits, labels, reduction="sum")]).double()
        told.append(predicted)
        classes = logits.shape[1]
    counts = class_counts(images.labels, torch.cat(told), classes)
    scores = torch.stack([balanced_accuracy(counts), macro_f1(counts)])
    return Evaluation(*torch.cat([sums / len(images.labels), scores]).tolist())


def validation_metrics(found: Evaluation) -> EpochMetrics:
    """An evaluation of the validation images as an epoch's metrics."""
    return {f"val_{name}": value for name, value in found._asdict().items()}


def _evaluated_once(network: Network, images: EvaluationImages, process: Process) -> Evaluation:
    """What `evaluate` gives on rank 0, told to all ranks, so that they agree on whether training diverged."""
    found = evaluate(network, images) if process.rank == 0 else Evaluation(0.0, 0.0, 0.0, 0.0)
    if process.world_size == 1:
        return found
    shared = torch.tensor(found, dtype=torch.float64, device=process.device)
    torch.distributed.broadcast(shared, src=0)
    return Evaluation(*shared.tolist())


class _Outputs(nn.Module):
    """All that a step needs of the student from one forward call, as DistributedDataParallel watches only `forward`.

    Holds the adapters too, so that they are trained, and their gradients averaged, with the student's.
    """

    def __init__(self, network: Network, distillation: Distillation | None):
        super().__init__()
        self.network = network
        self.compared = () if distillation is None else tuple(term.output for term in distillation.terms)
        self.layer = "" if distillation is None else distillation.layer
        teachers = 0 if distillation is None else len(distillation.targets)
        given = () if distillation is None else distillation.adapters
        untouched = [nn.Identity() for _ in range(teachers * len(self.compared))]
        self.adapters = nn.ModuleList(list(chain(*given)) or untouched)  # those of one teacher after those of another

    def forward(self, inputs: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Logits (B, K), and for each teacher the student's outputs as they are to be compared."""
        maps = None
        if "maps" in self.compared:
            features, maps = self.network.features_and_maps(inputs, self.layer)
        else:
            features = self.network.features(inputs)
        logits = self.network.classifier(features)
        outputs = {"features": features, "logits": logits, "maps": maps}
        count = len(self.compared)
        adapted = [adapter(outputs[self.compared[place % count]]) for place, adapter in enumerate(self.adapters)]
        return logits, [adapted[first : first + count] for first in range(0, len(adapted), max(count, 1))]


def _wrapped(outputs: _Outputs, process: Process) -> nn.Module:
    if process.world_size == 1:
        return outputs
    return nn.parallel.DistributedDataParallel(outputs)
