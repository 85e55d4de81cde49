"""Lighter weights on ONNX Runtime: a smaller file, nearly the same outputs, and all but the layers as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from dfd_tune.export.gain import gain_of
from dfd_tune.export.lighter import WEIGHTS, WEIGHTS_KEY, with_int8
from dfd_tune.export.onnx_file import lighter_model
from dfd_tune.export.onnx_model import INPUT, OUTPUT, drop_output, onnx_model, session
from dfd_tune.export.trained_on import find_images
from dfd_tune.models.deployed import load_deployed
from dfd_tune.models.portable import Portable
from tests.export.test_onnx_file import CARD, write_student
from tests.trained import SIDE, write_trained

LIGHTER = WEIGHTS[1:]


def models_of(folder, **settings):
    """The student, its images, and its models by their weights."""
    store, file = write_trained(folder, **settings)
    deployed, card = load_deployed(file)
    images, portable = find_images(store, card), Portable(deployed)
    model = onnx_model(portable, card)
    for name in portable.stages:
        drop_output(model, name)
    before = model.SerializeToString()
    models = {"float32": model} | {name: lighter_model(portable, model, name, images) for name in LIGHTER}
    assert model.SerializeToString() == before
    return portable, images, models


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return models_of(tmp_path_factory.mktemp("made"))


def stored(model: onnx.ModelProto, kind: int) -> dict[str, np.ndarray]:
    return {found.name: numpy_helper.to_array(found) for found in model.graph.initializer if found.data_type == kind}


def layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]


def ancestors(model: onnx.ModelProto, name: str) -> list[bytes]:
    """Whatever `name` is computed from, nodes and numbers."""
    wanted, found = {name}, []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.append(node.SerializeToString())
    numbers = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    return sorted([*found, *(tensor.SerializeToString() for tensor in numbers)])


@pytest.mark.parametrize("weights", LIGHTER)
def test_the_outputs_are_near_and_the_file_is_smaller(made, weights):
    portable, images, models = made
    gain = gain_of(portable, models["float32"], models[weights], weights, images)
    share = {"float16": 0.6, "int8": 0.45}[weights]  # besides the weights there is the graph
    assert gain.sizes[1] < share * gain.sizes[0]
    assert gain.accuracies[0] == 1
    assert gain.accuracies[1] > 0.9
    assert min(*gain.image_seconds, *gain.batch_seconds) > 0
    pictures, _ = images.validation()
    (before,), (after,) = (
        session(model).run([OUTPUT], {INPUT: pictures}) for model in (models["float32"], models[weights])
    )
    np.testing.assert_allclose(after, before, atol={"float16": 2e-3, "int8": 0.1}[weights])


@pytest.mark.parametrize("weights", LIGHTER)
def test_what_the_network_sees_is_computed_as_before(made, weights):
    portable, _, models = made
    seen = portable.stages[-1]
    assert len(ancestors(models["float32"], seen)) > 10
    assert ancestors(models[weights], seen) == ancestors(models["float32"], seen)


@pytest.mark.parametrize("weights", LIGHTER)
def test_raw_images_of_any_size_are_taken(made, weights):
    outputs = session(made[2][weights])
    for shape in ((1, 20, 20, 1), (5, 33, 47, 1), (2, 200, 20, 1)):
        (found,) = outputs.run(None, {INPUT: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)})
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_metadata_say_what_the_weights_are(made, weights):
    entries = {entry.key: entry.value for entry in made[2][weights].metadata_props}
    assert entries[WEIGHTS_KEY] == weights
    assert entries.keys() == {entry.key for entry in made[2]["float32"].metadata_props}


def test_float16_holds_every_layers_weights(made):
    _, _, models = made
    halves = stored(models["float16"], TensorProto.FLOAT16)
    before = stored(models["float32"], TensorProto.FLOAT)
    names = {node.input[1] for node in layers(models["float32"])}
    assert halves.keys() == {f"{name}.float16" for name in names}
    assert not names & stored(models["float16"], TensorProto.FLOAT).keys()
    for name in names:
        assert (halves[f"{name}.float16"] == before[name].astype(np.float16)).all()


def test_int8_holds_every_layers_weights_in_seven_bits_with_a_scale_a_channel(made):
    _, _, models = made
    numbers = {**stored(models["int8"], TensorProto.INT8), **stored(models["int8"], TensorProto.FLOAT)}
    makers = {output: node for node in models["int8"].graph.node for output in node.output}
    before = stored(models["float32"], TensorProto.FLOAT)
    assert len(layers(models["int8"])) == len(layers(models["float32"]))
    for node, as_it_was in zip(layers(models["int8"]), layers(models["float32"]), strict=True):
        back = makers[node.input[1]]
        assert back.op_type == "DequantizeLinear"
        weights, scales = (numbers[name] for name in back.input[:2])
        assert weights.dtype == np.int8
        assert 32 < abs(weights.astype(int)).max() <= 64
        assert scales.shape == weights.shape[:1]
        again = weights * scales.reshape(-1, *(1,) * (weights.ndim - 1))
        assert (abs(again - before[as_it_was.input[1]]).max(tuple(range(1, weights.ndim))) <= 0.51 * scales).all()


def test_ranges_are_told_by_training_images_alone(tmp_path, made):
    bytes_of = {}
    for name, seeds in {"others": {"validation": 70, "test": 71}, "other training": {"train": 72}}.items():
        models = models_of(tmp_path / name, seeds=seeds)[2]
        for model in (*models.values(), *made[2].values()):
            metadata = {entry.key: entry.value for entry in model.metadata_props} | {"dfd_tune.trial_key": ""}
            onnx.helper.set_model_props(model, metadata)
        assert models["float32"].SerializeToString() == made[2]["float32"].SerializeToString()
        bytes_of[name] = models["int8"].SerializeToString()
    assert bytes_of["others"] == made[2]["int8"].SerializeToString() != bytes_of["other training"]


def test_branches_are_quantised_and_what_a_front_end_shows_stays(tmp_path):
    for kind in (
        {"backbone": "resnet18", "width": 0.05, "batch_norm": False},
        {"frontend": {"kind": "espcn", "size": 0.1}},
    ):
        portable = Portable(load_deployed(write_student(tmp_path / "student.safetensors", **kind))[0])
        model = onnx_model(portable, CARD)
        images = np.random.default_rng(0).integers(0, 256, (20, SIDE, SIDE, 3), dtype=np.uint8)
        lighter = with_int8(model, portable.stages[-1], INPUT, images)
        before, after = (session(each).run(None, {INPUT: images}) for each in (model, lighter))
        np.testing.assert_allclose(after[0], before[0], atol=0.1)
        for stage, expected in zip(after[1:], before[1:], strict=True):
            assert (stage == expected).all()
