"""The stored student as an ONNX model in memory, and the session in which ONNX Runtime runs it.

Resizing and normalisation are inside (models/portable.py). Not for: files (onnx_file.py), or whether the model says
what the student says (agreement.py).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from dfd_tune.export.lighter import WEIGHTS, WEIGHTS_KEY
from dfd_tune.models.card import ModelCard
from dfd_tune.models.portable import Portable

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "images", "probabilities"
FREE_SIDES = ("N", "H", "W")


def onnx_model(portable: Portable, card: ModelCard) -> ModelProto:
    """The model in memory, the images at each of `portable.stages` among its outputs."""
    import onnx

    example = torch.zeros(2, 37, 41, portable.deployed.channels, dtype=torch.uint8)
    # A size of 1 would be taken for the only one, as would one that two sides share.
    free = torch.export.Dim.DYNAMIC
    with silence():
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


def drop_output(model: ModelProto, name: str) -> None:
    """Take an output off the model, in place; what it named is still computed where others need it."""
    kept = [value for value in model.graph.output if value.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def session(model: ModelProto, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on CPUs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def silence() -> Iterator[None]:
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
