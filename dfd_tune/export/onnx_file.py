"""A stored student is written as an ONNX file, of which ONNX Runtime is asked before anybody else is.

Not for: the registered model (tracking/models.py), nor for commands (cli/models.py). Needs the packages of
`dfd-tune[onnx]`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfd_tune.errors import UserError, cause_of
from dfd_tune.export.agreement import Agreement, compare
from dfd_tune.export.gain import Gain, gain_of
from dfd_tune.export.lighter import CALIBRATION_IMAGES, WEIGHTS, with_float16, with_int8
from dfd_tune.export.onnx_model import INPUT, drop_output, onnx_model, silence
from dfd_tune.export.trained_on import TrainedOn, find_images
from dfd_tune.models.card import ModelCard
from dfd_tune.models.deployed import load_deployed
from dfd_tune.models.portable import Portable
from dfd_tune.store import Store, replacing

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIX = ".onnx"
LARGEST_DIFFERENCE = 1e-4
"""Of a probability, between ONNX Runtime and torch on the same bytes."""
ALLOWED_LOSS = 1.0
"""Percentage points of validation accuracy that lighter weights may cost unless another allowance is given."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


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


def export_onnx(
    model_file: Path,
    file: Path,
    *,
    weights: str = WEIGHTS[0],
    allowed_loss: float | None = None,
    store: Callable[[], Store] | None = None,
    run_code: bool = False,
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
        run_code: as of `load_deployed`.

    Raises:
        UserError: the model can't be loaded, the file can't be written, a package or the images are missing, ONNX
            Runtime does not say what the student says, or lighter weights cost too much; then no file is left.
    """
    check_destination(file)
    check_loss(weights, allowed_loss)
    check_packages()
    deployed, card = load_deployed(model_file, run_code=run_code)
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
        drop_output(model, name)
    gain = None
    if images is not None:
        lighter = lighter_model(portable, model, weights, images)
        gain = gain_of(portable, model, lighter, weights, images)
        _check_gain(model_file, gain, ALLOWED_LOSS if allowed_loss is None else allowed_loss)
        model = lighter
    _write(file, model.SerializeToString())
    return Exported(agreement=agreement, gain=gain)


def _images_of(model_file: Path, card: ModelCard, store: Store, weights: str) -> TrainedOn:
    images = find_images(store, card)
    if images is None:
        raise UserError(
            f"--weights {weights} needs the images that the student '{model_file}' was trained on and chosen by, which "
            f"the store '{store.location}' does not hold; name the store that does with --store, launch the search "
            "again to prepare them, or leave --weights out."
        )
    return images


def lighter_model(portable: Portable, model: ModelProto, weights: str, images: TrainedOn) -> ModelProto:
    """The model with its weights as float16 or int8; of the images, training ones alone are looked at."""
    if weights == "float16":
        return with_float16(model)
    with silence():
        return with_int8(model, portable.stages[-1], INPUT, images.training(CALIBRATION_IMAGES))


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


def _write(file: Path, content: bytes) -> None:
    """All of it, or nothing."""
    try:
        with replacing(file) as draft:
            draft.write_bytes(content)
    except OSError as error:
        raise UserError(f"--onnx '{file}' can't be written: {cause_of(error)}; name another file.") from None
