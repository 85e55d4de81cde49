"""The stored student as an ONNX file, which ONNX Runtime is asked about before anybody else is.

Resizing and normalisation are inside (models/portable.py). Not for: the registered model (tracking/models.py), nor for
commands (cli/models.py), nor for how weights are made lighter (lighter.py). Needs the packages of `dfd-tune[onnx]`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dfd_tune.data.degradation import enlarge, normalise, resize
from dfd_tune.errors import UserError, cause_of
from dfd_tune.lighter import CALIBRATION_IMAGES, WEIGHTS, WEIGHTS_KEY, with_float16, with_int8
from dfd_tune.models.card import ModelCard
from dfd_tune.models.cost import BATCH, example_images, latencies, latency, latency_of
from dfd_tune.models.deployed import Deployed, load_deployed
from dfd_tune.models.portable import Portable
from dfd_tune.store import Store
from dfd_tune.trained_on import TrainedOn, find_images

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIX = ".onnx"
INPUT, OUTPUT = "images", "probabilities"
FREE_SIDES = ("N", "H", "W")
LARGEST_DIFFERENCE = 1e-4
"""Of a probability, between ONNX Runtime and torch on the same bytes."""
SIDES = ((20, 20), (21, 34), (33, 32), (64, 48), (97, 51), (128, 128), (200, 143), (199, 200))
"""Height and width of the images that a written model is tried on."""
IMAGES_A_SIDE = 4
ALLOWED_LOSS = 1.0
"""Percentage points of validation accuracy that lighter weights may cost unless another allowance is given."""
_REPEATS, _PATIENCE_SECONDS = 101, 2.0
"""Of what is measured in turn, one image and 64 at once: the two models may be nearly as fast."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What ONNX Runtime makes of images, beside what the stored student makes of them."""

    images: int
    same_class: int
    """Of how many images both say the same class."""
    largest_difference: float
    """Of a probability, over all images."""
    on_same_bytes: float
    """Likewise, where both networks see the very same bytes."""
    rounded_otherwise: int
    """Of how many images a value just between two bytes was rounded to the other one, somewhere on the way."""

    seconds: tuple[float, float]
    """On one thread of ONNX Runtime, for one image of the network's own side, and for 64 at once: medians."""
    torch_seconds: tuple[float, float]
    """Likewise of the stored student in torch."""

    def in_words(self) -> list[str]:
        """A line each: what was compared, what was rounded otherwise if anything was, and how fast it is."""
        heights = [side for sides in SIDES for side in sides]
        lines = [
            f"ONNX Runtime says the student's class of {self.same_class} of {self.images} images with sides of "
            f"{min(heights)} to {max(heights)} pixels; on the same bytes, probabilities differ by at most "
            f"{self.on_same_bytes:.1e}."
        ]
        if self.rounded_otherwise:
            lines.append(
                f"Of {self.rounded_otherwise} of them, resized values just between two bytes were rounded to the other "
                f"one; probabilities then differ by at most {self.largest_difference:.1e}."
            )
        one, many = (f"{1000 * value:.3g} ms" for value in self.seconds)
        torch_one, torch_many = (f"{1000 * value:.3g} ms" for value in self.torch_seconds)
        lines.append(
            f"On one thread of this machine ONNX Runtime takes {one} for one image and {many} for {BATCH} at once; "
            f"torch {torch_one} and {torch_many}."
        )
        return lines


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What lighter weights bring and cost: of each pair, float32 comes first."""

    weights: str
    sizes: tuple[int, int]
    """Bytes of the files."""
    image_seconds: tuple[float, float]
    """On one thread of ONNX Runtime, for one image of the network's own side: medians."""
    batch_seconds: tuple[float, float]
    """Likewise for 64 at once."""
    accuracies: tuple[float, float]
    """On the validation images, a fraction."""
    images: int
    """How many these are."""

    @property
    def loss(self) -> float:
        """Percentage points of validation accuracy; below 0 if it rose."""
        before, after = self.accuracies
        return 100 * (before - after)

    def in_words(self) -> list[str]:
        """Size and time, then accuracy, in a line each."""
        one, many = (
            f"{before / after:.1f} times as fast on {what} ({1000 * before:.3g} → {1000 * after:.3g} ms)"
            for what, (before, after) in (("one image", self.image_seconds), (f"{BATCH} at once", self.batch_seconds))
        )
        before, after = (f"{100 * accuracy:.1f}" for accuracy in self.accuracies)
        return [
            f"{self.weights}: {self.sizes[1] / self.sizes[0]:.2f} of the size, {one}, {many}.",
            f"{self.weights}: validation accuracy {before} → {after} % ({self.images} images).",
        ]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What is known of a file that was written."""

    agreement: Agreement
    """Of the model in float32."""
    gain: Gain | None = None
    """None of a file in float32."""

    def in_words(self) -> list[str]:
        """Lines for a person."""
        if self.gain is None:
            return self.agreement.in_words()
        return [*self.gain.in_words(), "In float32:", *(f"  {line}" for line in self.agreement.in_words())]


def check_destination(file: Path) -> None:
    """Nothing, if an ONNX file can be written there.

    Raises:
        UserError: its name has another ending, or its folder is not there or can't be written to.
    """
    if file.suffix != SUFFIX:
        raise UserError(f"--onnx '{file}' must be a file whose name ends in {SUFFIX}.")
    if file.is_dir():
        raise UserError(f"--onnx '{file}' is a folder; name a file.")
    if not file.parent.is_dir():
        raise UserError(f"--onnx '{file}': there is no folder '{file.parent}'; make it first.")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise UserError(f"--onnx '{file}': the folder '{file.parent}' can't be written to; name another one.")


def check_packages() -> None:
    """Nothing, if all that an export needs is installed.

    Raises:
        UserError: it is not.
    """
    missing = []
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UserError(f'`export` needs {", ".join(missing)}; install them by `pip install "dfd-tune[onnx]"`.')


def export_onnx(
    model_file: Path,
    file: Path,
    *,
    weights: str = WEIGHTS[0],
    allowed_loss: float | None = None,
    store: Callable[[], Store] | None = None,
) -> Exported:
    """Write a stored student as ONNX, and compare ONNX Runtime with it; a file that was there is replaced.

    Its input `images` is uint8 (N, H, W, C) with N, H and W free, its output `probabilities` float32 (N, K). The
    metadata say the rest: classes (a JSON list), resolution, mean, std, and the other settings of the card.

    Args:
        model_file: the student's.
        file: to write.
        weights: one of `WEIGHTS`; those lighter than float32 are measured on the student's validation images.
        allowed_loss: percentage points of validation accuracy that lighter weights may cost, `ALLOWED_LOSS` if None.
        store: opens the store that holds the student's images; not called for float32.

    Raises:
        UserError: the model can't be loaded, the file can't be written, a package or the images are missing, ONNX
            Runtime does not say what the student says, or lighter weights cost too much; then no file is left.
    """
    check_destination(file)
    check_loss(weights, allowed_loss)
    check_packages()
    deployed, card = load_deployed(model_file)
    images = None
    if weights != WEIGHTS[0]:
        assert store is not None
        images = _images_of(model_file, card, store(), weights)
    portable = Portable(deployed)
    model = onnx_model(portable, card)
    agreement = compare(portable, model)
    if agreement.on_same_bytes > LARGEST_DIFFERENCE:
        raise UserError(
            f"The ONNX model of '{model_file}' was not written: on ONNX Runtime its probabilities differ from the "
            f"student's by up to {agreement.on_same_bytes:.1e}, but must not by more than {LARGEST_DIFFERENCE:g}; "
            "other versions of onnxruntime or onnxscript may agree."
        )
    for name in portable.stages:
        _drop_output(model, name)
    gain = None
    if images is not None:
        lighter = lighter_model(portable, model, weights, images)
        gain = gain_of(portable, model, lighter, weights, images)
        _check_gain(model_file, gain, ALLOWED_LOSS if allowed_loss is None else allowed_loss)
        model = lighter
    _write(file, model.SerializeToString())
    return Exported(agreement=agreement, gain=gain)


def check_loss(weights: str, allowed_loss: float | None) -> None:
    """Nothing, if that allowance can be meant.

    Raises:
        UserError: it is out of range, or the weights are float32, which lose nothing.
    """
    assert weights in WEIGHTS
    if allowed_loss is None:
        return
    if not 0 <= allowed_loss <= 100:
        raise UserError(f"--allow-loss is {allowed_loss:g}, but must be 0 to 100 percentage points.")
    if weights == WEIGHTS[0]:
        others = " or ".join(WEIGHTS[1:])
        raise UserError(f"--allow-loss goes with --weights {others}; float32 loses nothing, so leave it out.")


def _images_of(model_file: Path, card: ModelCard, store: Store, weights: str) -> TrainedOn:
    images = find_images(store, card)
    if images is None:
        raise UserError(
            f"--weights {weights} needs the images that the student '{model_file}' was trained on and chosen by, which "
            f"the store '{store.root}' does not hold; name the store that does with --store, launch the search again "
            "to prepare them, or leave --weights out."
        )
    return images


def lighter_model(portable: Portable, model: ModelProto, weights: str, images: TrainedOn) -> ModelProto:
    """The model with its weights as float16 or int8; of the images, training ones alone are looked at."""
    if weights == "float16":
        return with_float16(model)
    with _silence():
        return with_int8(model, portable.stages[-1], INPUT, images.training(CALIBRATION_IMAGES))


def gain_of(portable: Portable, model: ModelProto, lighter: ModelProto, weights: str, images: TrainedOn) -> Gain:
    """Both models measured: the files, both in turn for the seconds, and the validation images."""
    sessions = (session(model), session(lighter))
    deployed = portable.deployed
    examples = example_images(BATCH, deployed.image_size, deployed.channels).numpy()
    one, many = (
        latencies(
            [partial(outputs.run, [OUTPUT], {INPUT: batch}) for outputs in sessions],
            repeats=_REPEATS,
            patience=_PATIENCE_SECONDS,
        )
        for batch in (examples[:1], examples)
    )
    pictures, labels = images.validation()
    before, after = (_accuracy(outputs, pictures, labels) for outputs in sessions)
    return Gain(
        weights=weights,
        sizes=(model.ByteSize(), lighter.ByteSize()),
        image_seconds=(one[0], one[1]),
        batch_seconds=(many[0], many[1]),
        accuracies=(before, after),
        images=len(labels),
    )


def _accuracy(outputs: Any, images: np.ndarray, labels: np.ndarray) -> float:
    right = 0
    for start in range(0, len(images), BATCH):
        (probabilities,) = outputs.run([OUTPUT], {INPUT: images[start : start + BATCH]})
        right += int((probabilities.argmax(1) == labels[start : start + BATCH]).sum())
    return right / len(labels)


def _check_gain(model_file: Path, gain: Gain, allowed_loss: float) -> None:
    # A loss is a difference of two fractions; what it is in decimals must not decide.
    if gain.loss <= allowed_loss + 1e-9:
        return
    before, after = (f"{100 * accuracy:.1f}" for accuracy in gain.accuracies)
    others = "try --weights float16" if gain.weights == "int8" else "leave --weights out"
    raise UserError(
        f"The ONNX model of '{model_file}' was not written: with {gain.weights} weights its validation accuracy is "
        f"{after} %, with float32 {before} %, and it may lose at most {allowed_loss:g} points; {others}, or "
        "allow more with --allow-loss."
    )


def onnx_model(portable: Portable, card: ModelCard) -> ModelProto:
    """The model in memory, the images at each of `portable.stages` among its outputs."""
    import onnx

    example = torch.zeros(2, 37, 41, portable.deployed.channels, dtype=torch.uint8)
    # A size of 1 would be taken for the only one, as would one that two sides share.
    free = torch.export.Dim.DYNAMIC
    with _silence():
        program = torch.onnx.export(
            portable,
            (example,),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: free, 1: free, 2: free},),
            input_names=[INPUT],
            output_names=[OUTPUT, *portable.stages],
        )
    assert program is not None
    model = program.model_proto
    _name_sides(model)
    _forget_sources(model)
    onnx.helper.set_model_props(model, _metadata(card))
    onnx.checker.check_model(model)
    return model


def _metadata(card: ModelCard) -> dict[str, str]:
    values: dict[str, Any] = {
        "classes": card.classes,
        "resolution": card.resolution,
        "image_size": card.image_size,
        "mean": card.mean,
        "std": card.std,
        "downsample": card.downsample,
        "upsample": card.upsample,
        "backbone": card.backbone,
        "width": card.width,
        "frontend": None if card.frontend is None else dict(card.frontend),
        "trial_key": card.extras.get("trial_key"),
    }
    metadata = {
        f"dfd_tune.{name}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }
    return metadata | {WEIGHTS_KEY: WEIGHTS[0]}


def _name_sides(model: ModelProto) -> None:
    """Free sides by names of ours, as the exporter calls them s77 and the like."""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim, name in zip(dims, FREE_SIDES if value.name == INPUT else FREE_SIDES[:1], strict=False):
            dim.dim_param = name


def _forget_sources(model: ModelProto) -> None:
    """Without the exporter's notes on which line of which file of this machine a node comes from."""
    model.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = ""
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _drop_output(model: ModelProto, name: str) -> None:
    kept = [value for value in model.graph.output if value.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def compare(portable: Portable, model: ModelProto) -> Agreement:
    """ONNX Runtime beside the stored student, on images of many sizes.

    Resized values that lie just between two bytes may be rounded either way, as sums are not taken in the same order.
    So from one rounding to the next each runtime's own bytes are followed: none may be further off than 1, and the
    probabilities are compared on the bytes that ONNX Runtime saw.

    Raises:
        UserError: bytes differ by more than 1.
    """
    outputs = session(model)
    difference = on_same_bytes = 0.0
    images = same = rounded = 0
    for sample in _samples(portable.deployed.channels):
        theirs, *stages = (torch.from_numpy(value) for value in outputs.run(None, {INPUT: sample.numpy()}))
        with torch.inference_mode():
            ours = portable.deployed(sample)
            steps = _steps(portable.deployed, sample, stages)
            again = _classify(portable.deployed, stages[-1])
        otherwise = torch.zeros(len(sample), dtype=torch.bool)
        for name, expected, found in zip(portable.stages, steps, stages, strict=True):
            apart = (expected.to(torch.float32) - found).abs().flatten(1).amax(dim=1)
            if apart.max() > 1:
                raise UserError(
                    f"The ONNX model was not written: on ONNX Runtime its images '{name}' differ from torch's by up to "
                    f"{apart.max():.0f} of 255; other versions of onnxruntime or onnxscript may agree."
                )
            otherwise |= apart > 0
        images += len(sample)
        same += int((ours.argmax(1) == theirs.argmax(1)).sum())
        rounded += int(otherwise.sum())
        difference = max(difference, float((ours - theirs).abs().max()))
        on_same_bytes = max(on_same_bytes, float((again - theirs).abs().max()))
    return Agreement(
        images=images,
        same_class=same,
        largest_difference=difference,
        on_same_bytes=on_same_bytes,
        rounded_otherwise=rounded,
        **_latencies(portable.deployed, outputs),
    )


def _latencies(deployed: Deployed, outputs: Any) -> dict[str, tuple[float, float]]:
    images = example_images(BATCH, deployed.image_size, deployed.channels)
    batches = (images[:1], images)
    theirs = [latency(partial(outputs.run, [OUTPUT], {INPUT: batch.numpy()})) for batch in batches]
    ours = [latency_of(deployed, batch) for batch in batches]
    return {"seconds": (theirs[0], theirs[1]), "torch_seconds": (ours[0], ours[1])}


def _steps(deployed: Deployed, images: Tensor, stages: list[Tensor]) -> list[Tensor]:
    """What torch makes of the images, then of each stage that another runtime reached; uint8 (N, C, S, S)."""
    given = images.permute(0, 3, 1, 2).contiguous()
    steps = [resize(given, deployed.resolution, deployed.downsample)]
    before = [stage.to(torch.uint8) for stage in stages]
    if deployed.frontend is not None:
        steps.append(deployed.frontend.restore(before[0]))
    steps.append(enlarge(before[-2], deployed.image_size, deployed.upsample))
    return steps


def _classify(deployed: Deployed, seen: Tensor) -> Tensor:
    logits: Tensor = deployed.network(normalise(seen, deployed.mean, deployed.std))
    return torch.softmax(logits, dim=1)


def _samples(channels: int) -> Iterator[Tensor]:
    """Images uint8 (N, H, W, C) of each of `SIDES`: noise, black and white, and smooth ones."""
    generator = torch.Generator().manual_seed(0)
    for height, width in SIDES:
        noise = torch.randint(0, 256, (2, height, width, channels), generator=generator, dtype=torch.uint8)
        coarse = torch.randint(0, 256, (2, channels, 6, 6), generator=generator).to(torch.float32)
        smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").to(torch.uint8)
        yield torch.cat([noise[:1], (noise[1:] > 127).to(torch.uint8) * 255, smooth.permute(0, 2, 3, 1)])


def session(model: ModelProto, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on CPUs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _write(file: Path, content: bytes) -> None:
    """All of it, or nothing."""
    draft = None
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(draft, 0o644)
        os.replace(draft, file)
    except OSError as error:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)
        raise UserError(f"--onnx '{file}' can't be written: {cause_of(error)}; name another file.") from None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what the exporter prints, logs and warns about off the terminal."""
    nowhere = io.StringIO()
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
