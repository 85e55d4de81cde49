"""The student's ONNX model again, its weights in fewer bits.

float16 rounds the weights of convolutions and fully connected layers; the runtime makes them float32 as it loads the
file, so that only the file is smaller. int8 computes in bytes too, from the bytes that the network sees to the logits;
resizing, a front end and normalisation stay as they are. Not for: whether that pays or costs accuracy (gain.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

WEIGHTS = ("float32", "float16", "int8")
WEIGHTS_KEY = "dfd_tune.weights"
"""Of a model's metadata."""
CALIBRATION_IMAGES = 256
_BATCH = 32
_LAYERS = ("Conv", "Gemm")
_IN_BYTES = (*_LAYERS, "Add", "MaxPool", "Relu")
"""Whose results are bytes: what stands between two layers has to be among them, or bytes go to floats and back."""
_FOREWORD = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""Tells ONNX Runtime that the model is simplified already, as it is by the exporter."""


def with_float16(model: ModelProto) -> ModelProto:
    """A copy whose layers' weights are stored as float16, each with a cast behind it."""
    from onnx import TensorProto, helper, numpy_helper

    lighter = _copy(model)
    graph = lighter.graph
    layers = {node.input[1] for node in graph.node if node.op_type in _LAYERS}
    stored = [tensor for tensor in graph.initializer if tensor.name in layers]
    casts = []
    for tensor in stored:
        half = f"{tensor.name}.float16"
        graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float16"), half))
        graph.initializer.remove(tensor)
        casts.append(helper.make_node("Cast", [half], [tensor.name], name=f"cast.{half}", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return _finished(lighter, "float16")


def with_int8(model: ModelProto, seen: str, images_name: str, images: np.ndarray) -> ModelProto:
    """A copy that computes in bytes behind `seen`: weights int8 with a scale for each channel, maps uint8.

    Args:
        model: the student, of float32.
        seen: the name of what its network sees, before normalisation.
        images_name: the name of its input.
        images: training images, uint8 (N, H, W, C), by which the ranges of the maps are told.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    given = _copy(model)
    onnx.helper.set_model_props(given, {entry.key: entry.value for entry in model.metadata_props} | _FOREWORD)
    behind = _nodes_behind(model, seen)
    with tempfile.TemporaryDirectory(prefix="dfd_tune.") as folder:
        before, after = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save(given, before)
        quantize_static(
            before,
            after,
            _Batches(images_name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_IN_BYTES),
            nodes_to_exclude=[node.name for node in model.graph.node if node.name not in behind],
            per_channel=True,
            # Seven bits: CPUs without VNNI add two products of a byte and a weight in 16 bits, where eight overflow.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return _finished(onnx.load(after), "int8")


class _Batches:
    """A `CalibrationDataReader` but for its base, which would have to be imported."""

    def __init__(self, name: str, images: np.ndarray):
        self._left = ({name: images[start : start + _BATCH]} for start in range(0, len(images), _BATCH))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def _nodes_behind(model: ModelProto, seen: str) -> set[str]:
    """Names of the nodes that depend on `seen`."""
    reached, names = {seen}, set()
    for node in model.graph.node:  # in an order in which inputs come first
        if reached.intersection(node.input):
            reached.update(node.output)
            names.add(node.name)
    return names


def _copy(model: ModelProto) -> ModelProto:
    from onnx import ModelProto

    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _finished(model: ModelProto, weights: str) -> ModelProto:
    """Checked; with our own metadata alone, which say what the weights are."""
    import onnx

    del model.graph.value_info[:]
    ours = {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith("dfd_tune.")}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, ours | {WEIGHTS_KEY: weights})
    onnx.checker.check_model(model)
    return model
