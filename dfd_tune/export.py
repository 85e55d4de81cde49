"""The stored student as an ONNX file, which ONNX Runtime is asked about before anybody else is.

Resizing and normalisation are inside (models/portable.py). Not for: the registered model (tracking/models.py), nor for
commands (cli/models.py). Needs the packages of `dfd-tune[onnx]`, which this file alone imports.
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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dfd_tune.data.degradation import enlarge, normalise, resize
from dfd_tune.errors import UserError, cause_of
from dfd_tune.models.card import ModelCard
from dfd_tune.models.cost import BATCH, example_images, latency, latency_of
from dfd_tune.models.deployed import Deployed, load_deployed
from dfd_tune.models.portable import Portable

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


def export_onnx(model_file: Path, file: Path) -> Agreement:
    """Write a stored student as ONNX, and compare ONNX Runtime with it; a file that was there is replaced.

    Its input `images` is uint8 (N, H, W, C) with N, H and W free, its output `probabilities` float32 (N, K). The
    metadata say the rest: classes (a JSON list), resolution, mean, std, and the other settings of the card.

    Raises:
        UserError: the model can't be loaded, the file can't be written, a package is missing, or ONNX Runtime does not
            say what the student says; then no file is left.
    """
    check_destination(file)
    check_packages()
    deployed, card = load_deployed(model_file)
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
    _write(file, model.SerializeToString())
    return agreement


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
    return {
        f"dfd_tune.{name}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }


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
