"""An experiment: a training step as the product takes it, captured once as a CUDA graph, and under torch.compile; and
likewise the evaluation. Which of them is a GPU to run?

    eager            the product's own loop
    captured         a step that reads and writes buffers alone, captured once for each size of batch
    compiled         the same step, its views, losses and gradients under torch.compile
    reduce_overhead  likewise in its mode of that name, which captures as well

All of one network from the same weights, with the same draws; images and the teacher's bank on the device. Batches of
an epoch differ by one image, so there are two sizes, of many batches each.

    python -m benchmarks.captured_step --check            # on a CPU, where nothing is captured: do all train alike?
    python -m benchmarks.captured_step --check --compile  # torch.compile as well; needs a C++ compiler
    python -m benchmarks.captured_step --data FOLDER      # on a GPU: how fast; CIFAR-10 seen at 8×8

Prints lines of JSON; --check ends with 1 if losses are other ones. Not for: teachers that look at images themselves,
dropout, several processes; nor any use of this in a search.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.baselines.ratios import ratio_of
from benchmarks.cohort import Member, _now, _without_speed, apart, bench_for, members, say
from dfd_tune.config import TrialConfig
from dfd_tune.data.pairs import EvaluationImages, TrainingImages
from dfd_tune.distill.arithmetic import compute
from dfd_tune.distill.distillation import Distillation
from dfd_tune.distill.features import BankedFeatures
from dfd_tune.distill.process import EpochMetrics, SingleProcess
from dfd_tune.distill.training import (
    _losses,
    _Outputs,
    _train_epoch,
    _trainee,
    batches,
    evaluate,
    learning_rate_schedule,
)
from dfd_tune.distill.workbench import Workbench
from dfd_tune.errors import UserError
from dfd_tune.models import Network
from dfd_tune.parts import Recipe
from dfd_tune.store import open_store

MODES = {"compiled": "default", "reduce_overhead": "reduce-overhead"}
"""Of torch.compile, by variant."""
VARIANTS = ("eager", "captured", *MODES)
WARM_UP = 3
"""Steps before a capture, in which libraries choose their algorithms and set memory aside."""
MEASURED: dict[str, Any] = {"width": 1.0, "batch_size": 128, "train_images": None}
CHECKED: dict[str, Any] = {"width": 0.125, "batch_size": 32, "train_images": 154}
"""What is trained where nothing else is asked for; of --check, batches of 28 and of 27."""
CHECKED_EPOCHS = 2
COMPARED_EPOCHS, COMPARED_STEPS = 10, 20
"""200 steps, whose losses are compared an epoch at a time."""
LEARNING_RATE = 0.02
"""At which rounding does not grow into another course of training within 200 steps."""
MOST_APART = 0.02
"""Losses of an epoch where bits may differ: on a GPU two equal eager trainings are up to 0.8 % apart."""


@dataclass(frozen=True)
class Course:
    """What a training goes through: the first `count` images, as the recipe says."""

    recipe: Recipe
    count: int

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return math.ceil(self.count / self.recipe.batch_size)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Those of the product."""
        return batches(self.count, self.recipe.batch_size, self.recipe.seed, epoch)

    @property
    def sizes(self) -> list[int]:
        """Of batches, the largest first; at most two."""
        return sorted({len(batch) for batch in self.batches(0)}, reverse=True)

    def rates(self) -> list[float]:
        """The learning rate of every step, by the product's schedule."""
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=self.recipe.learning_rate)
        schedule = learning_rate_schedule(optimizer, self.recipe, self.recipe.epochs * self.steps)
        found = []
        for _ in range(self.recipe.epochs * self.steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    def part(self) -> Course:
        """200 steps in ten epochs, of the same sizes of batch, if there are images for them."""
        sizes = self.sizes
        count = COMPARED_STEPS * sizes[0] - (COMPARED_STEPS // 2 if len(sizes) > 1 else 0)
        recipe = dataclasses.replace(self.recipe, epochs=COMPARED_EPOCHS)
        return Course(recipe, min(count, self.count))


def images_of(member: Member, bench: Workbench) -> tuple[TrainingImages, EvaluationImages]:
    """A member's images to train on, and those to evaluate on."""
    return bench.images_for(member.config), bench.validation_images(member.config.low_res)


class Eager:
    """The product's own loop.

    Args:
        member: what is trained.
        bench: has its images.
    """

    def __init__(self, member: Member, bench: Workbench):
        self.device, self.network, self.distillation = bench.device, member.student, member.distillation
        self.images, self.validation = images_of(member, bench)
        self.outputs = _outputs(self.network, self.distillation, self.device)
        self._start = _copied(self.outputs)

    def begin(self, course: Course) -> None:
        """Put the training back to its first step."""
        self.course = course
        self.outputs.load_state_dict(self._start)
        self.trainee = _trainee(self.outputs, course.recipe, course.count)

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def epoch(self, number: int) -> EpochMetrics:
        """Train for an epoch (from 0); its metrics, without speed and validation."""
        images = dataclasses.replace(self.images, labels=self.images.labels[: self.course.count])
        process = SingleProcess(device=self.device)
        return _train_epoch(self.outputs, self.trainee, images, self.course.recipe, process, self.distillation, number)

    def evaluate(self) -> tuple[float, float]:
        """Accuracy and mean cross entropy of the validation images."""
        return evaluate(self.network, self.validation)[:2]


@dataclass(frozen=True)
class StaticDraw:
    """As a `Draw`, in buffers that the draw of each step is copied into; no host knows what is in them."""

    epoch: Tensor
    """int64 (1,): of a tensor without dimensions, torch would ask the device for the number, and wait."""
    both: Tensor
    """int64 (2, B): indices and ids."""
    mixed: None = None

    @property
    def indices(self) -> Tensor:
        """int64 (B,)."""
        return self.both[0]

    @property
    def ids(self) -> Tensor:
        """int64 (B,)."""
        return self.both[1]

    def __len__(self) -> int:
        return self.both.shape[1]


class Static:
    """A step, and an evaluation, that read and write buffers alone: draw, learning rate, weights, sums of metrics.

    Args:
        member: what is trained.
        bench: has its images.
        how: `captured`, or a variant that torch.compile makes.
        smaller: whether the smaller size of batch is captured too; else its steps are launched one by one.

    Raises:
        UserError: a teacher's outputs don't lie on the device.
    """

    def __init__(self, member: Member, bench: Workbench, *, how: str, smaller: bool = True):
        refuse_outputs_elsewhere(member.distillation, bench.device)
        self.device, self.how, self.smaller = bench.device, how, smaller
        self.network, self.distillation = member.student, member.distillation
        self.images, self.validation = images_of(member, bench)
        self.outputs = _outputs(self.network, self.distillation, self.device)
        self._start = _copied(self.outputs)
        self._make_buffers(member.config.recipe)
        self._losses: Callable[..., Any] = partial(
            _losses, self.outputs, self.images, member.config.recipe, self.distillation
        )
        self._told: Callable[..., Tensor] = partial(told, self.network)
        if how in MODES:
            self._compile()
        self._evaluation: Callable[[], None] = self._evaluate

    def _make_buffers(self, recipe: Recipe) -> None:
        self.rate = torch.zeros((), device=self.device)  # float32: all that the fused SGD of a GPU takes
        self.optimizer = torch.optim.SGD(
            self.outputs.parameters(),
            lr=self.rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.number = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        self.validation_sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        self.draws: dict[int, StaticDraw] = {}
        self.steps: dict[int, Callable[[], None]] = {}

    def _compile(self) -> None:
        import torch._inductor.config

        torch._inductor.config.force_disable_caches = True  # seconds are to be those of a first time
        banks = [target.features.features for target in _targets(self.distillation)]
        kept = (self.images.images, self.images.labels, self.images.mean, self.images.std)
        self._mark_static(self.number, *kept, *banks)
        how: Any = {"mode": MODES[self.how], "dynamic": False, "fullgraph": True}
        self._losses = torch.compile(_unbound(self._losses), **how)
        self._told = torch.compile(_unbound(self._told), **how)

    def _mark_static(self, *tensors: Any) -> None:
        """Say that they stay where they are: else each step would copy images and bank into its graph's memory."""
        if self.how in MODES:
            for tensor in tensors:
                torch._dynamo.mark_static_address(tensor)

    def begin(self, course: Course) -> None:
        """Put the training back to its first step, all in the same memory."""
        self.course = course
        self.outputs.load_state_dict(self._start)
        for state in self.optimizer.state.values():
            state["momentum_buffer"].zero_()  # as good as none: the first step adds the gradient to it
        self.host_rates = course.rates()
        self.rates = torch.tensor(self.host_rates, device=self.device)
        for size in course.sizes:
            if size not in self.draws:
                both = torch.zeros(2, size, dtype=torch.int64, device=self.device)
                self._mark_static(both)
                self.draws[size] = StaticDraw(self.number, both)
                self.steps[size] = partial(self._step, self.draws[size])

    def prepare(self) -> None:
        """Have steps and evaluation warm, compiled and captured; moves the training on, so that it must begin again."""
        sizes = self.course.sizes
        self.outputs.train()
        for batch in self.course.batches(0):
            size = len(batch)
            if size in sizes:
                sizes.remove(size)
                draw = self.images.draw(0, batch)
                self._load(torch.stack([draw.indices, draw.ids]), step=0)
                work = partial(self._step, self.draws[size])
                self.steps[size] = self._prepared(work, captured=self.smaller or size == self.course.sizes[0])
        self.outputs.eval()
        self._evaluation = self._prepared(self._evaluate, captured=True)

    def _prepared(self, work: Callable[[], None], *, captured: bool) -> Callable[[], None]:
        """The same work, warm, and captured where that is asked for and there is a GPU."""
        if self.device.type != "cuda" or self.how in MODES:
            for _ in range(WARM_UP):
                work()
            return work
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream(self.device).wait_stream(side)
        if not captured:
            return work
        # The graphs share their memory: none runs beside another one, nor reads what that has left there.
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=side):
            work()
        return graph.replay

    def _load(self, both: Tensor, step: int) -> None:
        """Put a draw, int64 (2, B), and the learning rate of a step into their buffers."""
        self.draws[both.shape[1]].both.copy_(both)
        self.rate.copy_(self.rates[step])

    def _step(self, draw: StaticDraw) -> None:
        self._mark()
        self.optimizer.zero_grad(set_to_none=True)
        losses, correct = self._losses(draw)
        losses.total.backward()
        self.optimizer.step()
        self.sums += torch.stack([*(loss.detach() * len(draw) for loss in losses), correct]).double()

    @torch.no_grad()
    def _evaluate(self) -> None:
        self.validation_sums.zero_()
        for inputs, labels in self.validation.batches():
            self._mark()
            self.validation_sums += self._told(inputs, labels)

    def _mark(self) -> None:
        """Tell torch.compile's graphs that what they gave before is no longer needed."""
        if self.how == "reduce_overhead" and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()

    def epoch(self, number: int) -> EpochMetrics:
        """Train for an epoch (from 0), after which the host waits once; its metrics, without speed and validation."""
        self.outputs.train()
        parts, first = self.course.batches(number), number * self.course.steps
        draws = self.images.draws(number, parts)
        table = torch.stack([torch.cat([draw.indices for draw in draws]), torch.cat([draw.ids for draw in draws])])
        self.sums.zero_()
        self.number.fill_(number)
        for step, both in enumerate(table.split([len(part) for part in parts], dim=1)):
            self._load(both, first + step)
            self.steps[both.shape[1]]()
        loss, cross_entropy, distilled, accuracy = (self.sums / self.course.count).tolist()
        return {
            "epoch": number + 1,
            "loss": loss,
            "cross_entropy": cross_entropy,
            "distillation": distilled,
            "train_accuracy": accuracy,
            "learning_rate": self.host_rates[first + len(parts) - 1],
        }

    def evaluate(self) -> tuple[float, float]:
        """Accuracy and mean cross entropy of the validation images."""
        self.outputs.eval()
        self._evaluation()
        accuracy, loss = (self.validation_sums / len(self.validation.labels)).tolist()
        return accuracy, loss


def told(network: Network, inputs: Tensor, labels: Tensor) -> Tensor:
    """float64 (2,): how many images a network tells right, and the sum of their cross entropies, as `evaluate` does."""
    logits = network(inputs).float()
    right = (logits.argmax(1) == labels).sum()
    return torch.stack([right, F.cross_entropy(logits, labels, reduction="sum")]).double()


def refuse_outputs_elsewhere(distillation: Distillation | None, device: torch.device) -> None:
    """Refuse a teacher that is not a bank on the device.

    Raises:
        UserError: its bank lies in the host's memory, or it has none.
    """
    for target in _targets(distillation):
        bank = target.features
        if not isinstance(bank, BankedFeatures):
            raise UserError("The teacher looks at images itself, but a step that is captured reads a bank; plan one.")
        if bank.features.device.type != device.type:
            raise UserError(
                f"The teacher's bank of {bank.features.nbytes} bytes has no room on the device; take fewer images."
            )


def _targets(distillation: Distillation | None) -> tuple[Any, ...]:
    return () if distillation is None else distillation.targets


def _outputs(network: Network, distillation: Distillation | None, device: torch.device) -> _Outputs:
    network.to(memory_format=torch.channels_last)
    return _Outputs(network, distillation).to(device)


def _copied(outputs: _Outputs) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in outputs.state_dict().items()}


def _unbound(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same as a plain function, which is what torch.compile reads."""
    return lambda *given: work(*given)


Variant = Eager | Static


def variant_of(name: str, member: Member, bench: Workbench, smaller: bool = True) -> Variant:
    """The variant of that name."""
    if name == "eager":
        return Eager(member, bench)
    return Static(member, bench, how=name, smaller=smaller)


def variants_of(names: Sequence[str], config: TrialConfig, bench: Workbench, smaller: bool) -> dict[str, Variant]:
    """By name, each with a network of its own from the same weights."""
    made = members([config] * len(names), bench)
    return {name: variant_of(name, member, bench, smaller) for name, member in zip(names, made, strict=True)}


def course_of(config: TrialConfig, bench: Workbench) -> Course:
    """All images, for the trial's epochs."""
    return Course(config.recipe, len(bench.images_for(config)))


def history_of(variant: Variant, course: Course) -> list[EpochMetrics]:
    """Of a whole training, as `train_network` gives it but for the speed."""
    variant.begin(course)
    history = []
    for number in range(course.recipe.epochs):
        metrics = variant.epoch(number)
        if (number + 1) % course.recipe.evaluate_every == 0 or number + 1 == course.recipe.epochs:
            metrics["val_accuracy"], metrics["val_loss"] = variant.evaluate()
        history.append(metrics)
    return history


def check(names: Sequence[str], config: TrialConfig, bench: Workbench, smaller: bool = True) -> bool:
    """Whether each variant trains as `train_network` does: bit by bit on a CPU, if torch.compile has no part in it."""
    course = course_of(config, bench)
    (alone,) = members([config], bench)
    expected = _without_speed(alone.train(bench))
    good = True
    for name, variant in variants_of(names, config, bench, smaller).items():
        variant.begin(course)
        variant.prepare()
        found = history_of(variant, course)
        told = [{key: epoch[key] for key in ours} for ours, epoch in zip(found, expected, strict=True)]
        same, distance = found == told, apart([found], [told])  # of validation images a variant tells less
        exact = bench.device.type == "cpu" and name not in MODES
        good = good and (same if exact else distance <= MOST_APART)
        say(what="check", variant=name, sizes=course.sizes, steps=course.steps, same=same, apart=distance)
    return good


@dataclass
class Found:
    """What was measured of a variant."""

    prepare_s: float = 0.0
    peak_memory_bytes: int | None = None
    """Beyond images, bank and the networks of all variants: set aside while it was prepared and trained an epoch."""
    waits: int | None = None
    """How often the host waited for the device in an epoch."""
    epochs_s: list[float] = dataclasses.field(default_factory=list)
    evaluations_s: list[float] = dataclasses.field(default_factory=list)


def speed(variants: dict[str, Variant], course: Course, repeats: int) -> None:
    """Print how fast steps and evaluations are, in rounds by turns, and how far 200 steps are apart."""
    variants["eager"].begin(course)
    variants["eager"].epoch(0)  # in which libraries try out their algorithms, which takes memory that no step takes
    found = {name: _first(variant, course) for name, variant in variants.items()}
    for number in range(1, repeats + 1):
        for name, variant in variants.items():
            found[name].epochs_s.append(_seconds(variant.device, partial(variant.epoch, number)))
            found[name].evaluations_s.append(_seconds(variant.device, variant.evaluate))
            say(what="round", variant=name, number=number, seconds=round(found[name].epochs_s[-1], 4))
    part = course.part()
    eager = history_of(variants["eager"], part)
    for name, variant in variants.items():
        distance = apart([history_of(variant, part)], [eager])  # of eager itself: of two equal trainings
        steps = part.steps * part.recipe.epochs
        say(**_line_of_steps(name, found, course), losses_apart=float(f"{distance:.3g}"), of_steps=steps)
    for name, variant in variants.items():
        say(**_line_of_evaluations(name, found, len(variant.validation.labels)))


def _first(variant: Variant, course: Course) -> Found:
    """Prepare a variant and train it for an epoch; then count what it waits for in another one."""
    found, device = Found(), variant.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_reserved()
    variant.begin(course)
    found.prepare_s = _seconds(device, variant.prepare)
    variant.begin(course)
    variant.epoch(0)
    variant.evaluate()
    if device.type == "cuda":
        found.peak_memory_bytes = torch.cuda.max_memory_reserved() - before
        found.waits = _waits(variant)
    return found


def _waits(variant: Variant) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            variant.epoch(0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def _seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds until all of the work is done on the device."""
    started = _now(device)
    work()
    return _now(device) - started


def _line_of_steps(name: str, found: dict[str, Found], course: Course) -> dict[str, Any]:
    ours, eager = found[name], found["eager"]
    ratio = ratio_of(ours.epochs_s, eager.epochs_s)
    saved = (ratio.theirs_s - ratio.ours_s) / course.steps
    return {
        "what": "step",
        "variant": name,
        "ms_a_step": round(1e3 * ratio.ours_s / course.steps, 4),
        "images_per_second": round(course.count / ratio.ours_s),
        "times_as_fast_as_eager": [round(value, 3) for value in (ratio.ratio, ratio.low, ratio.high)],
        "rounds": ratio.repeats,
        "prepare_seconds": round(ours.prepare_s, 2),
        "pays_after_steps": math.ceil(ours.prepare_s / saved) if saved > 0 else None,
        "peak_memory_bytes": ours.peak_memory_bytes,
        "waits_an_epoch": ours.waits,
    }


def _line_of_evaluations(name: str, found: dict[str, Found], images: int) -> dict[str, Any]:
    ratio = ratio_of(found[name].evaluations_s, found["eager"].evaluations_s)
    return {
        "what": "evaluation",
        "variant": name,
        "ms": round(1e3 * ratio.ours_s, 3),
        "images_per_second": round(images / ratio.ours_s),
        "times_as_fast_as_eager": [round(value, 3) for value in (ratio.ratio, ratio.low, ratio.high)],
    }


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare losses alone; on a CPU where there is no GPU")
    parser.add_argument("--compile", action="store_true", help="of --check: torch.compile's variants as well")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="beside eager; else all")
    parser.add_argument("--smaller-eagerly", action="store_true", help="capture the larger size of batch alone")
    parser.add_argument("--data", help="folder of CIFAR-10's files; without it, the embedded digits")
    parser.add_argument("--store", type=Path, help="for images, teacher and bank; else a folder that is removed")
    parser.add_argument("--repeats", type=int, default=5, help="epochs that count, after one that warms up")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--width", type=float, help="else 1, for --check an eighth")
    parser.add_argument("--batch-size", type=int, help="else 128, for --check 32")
    parser.add_argument("--train-images", type=int, help="a subset; else all, for --check 154")
    return parser


def names_of(given: argparse.Namespace, device: torch.device) -> list[str]:
    """Which variants are asked for, eager first."""
    asked: set[str] = set(given.variants or VARIANTS)
    if given.check and not given.variants and not given.compile:
        asked -= MODES.keys()
    if device.type == "cpu" and not given.variants:
        asked -= {"reduce_overhead"}  # captures nothing there, and compiles the same as the other one
    return [name for name in VARIANTS if name == "eager" or name in asked]


def main() -> int:
    """Do what is asked for; 1 where losses are other ones, 2 for bad input."""
    parser = arguments()
    given = parser.parse_args()
    if given.repeats < 1:
        parser.error(f"--repeats is {given.repeats}, but must be at least 1.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not given.check and device.type != "cuda":
        parser.error("torch finds no GPU on this machine, on which alone a speed is measured; take --check.")
    if given.compile and not given.check:
        parser.error("--compile is of --check; without it, torch.compile's variants are measured anyway.")
    names = names_of(given, device)
    for name, value in (CHECKED if given.check else MEASURED).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    given.epochs = CHECKED_EPOCHS if given.check else max(given.repeats + 1, COMPARED_EPOCHS)  # slots of the bank
    compute(deterministic=given.check)
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        return run(given, names, device)
    except UserError as problem:
        parser.error(str(problem))


def run(given: argparse.Namespace, names: Sequence[str], device: torch.device) -> int:
    """Check or measure these variants; 1 where losses are other ones.

    Raises:
        UserError: the dataset is unsuitable, or the bank has no room on the device.
    """
    with contextlib.ExitStack() as stack:
        folder = given.store or stack.enter_context(tempfile.TemporaryDirectory(prefix="captured-step-"))
        bench, config = bench_for(open_store(folder), given, device)
        config = dataclasses.replace(config, learning_rate=LEARNING_RATE)
        smaller = not given.smaller_eagerly
        if given.check:
            return 0 if check(names, config, bench, smaller) else 1
        say(what="chip", gpu=torch.cuda.get_device_name(), torch=torch.__version__, precision=config.precision)
        speed(variants_of(names, config, bench, smaller), course_of(config, bench), given.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
