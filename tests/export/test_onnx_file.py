"""A student as ONNX: ONNX Runtime says what the student says of raw images of any size; what can't be is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfd_tune.errors import UserError
from dfd_tune.export.agreement import compare
from dfd_tune.export.gain import Gain
from dfd_tune.export.onnx_file import (
    LARGEST_DIFFERENCE,
    _check_gain,
    check_destination,
    check_loss,
    export_onnx,
)
from dfd_tune.export.onnx_model import onnx_model
from dfd_tune.models.card import ModelCard
from dfd_tune.models.deployed import load_deployed, network_of, save_student
from dfd_tune.models.portable import Portable
from dfd_tune.models.super_resolution import build_frontend
from dfd_tune.store import open_store
from tests.trained import COUNTS, write_trained

CARD = ModelCard(
    backbone="alexnet",
    width=0.1,
    dropout=0.1,
    batch_norm=True,
    channels=3,
    image_size=16,
    classes=("cat", "dog", "Möwe"),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    resolution=8,
    downsample="bicubic",
    upsample="bicubic",
    extras={"trial_key": "0123abcd", "config": {"lambda_": 2.0}},
)
GREY = {"channels": 1, "mean": (0.5,), "std": (0.2,)}
KINDS: dict[str, dict[str, Any]] = {
    "vgg16, grey, odd sides": {
        "backbone": "vgg16", "width": 0.05, "image_size": 24, "resolution": 7, "upsample": "bilinear", **GREY,
    },
    "resnet18, no batch norm": {
        "backbone": "resnet18", "width": 0.05, "batch_norm": False, "downsample": "bilinear", "upsample": "nearest",
    },
    "alexnet, area": {"downsample": "area", "upsample": "area", "resolution": 5},
    "vdsr, nearest": {"frontend": {"kind": "vdsr", "size": 0.1}, "downsample": "nearest"},
    "espcn, reduced again": {"frontend": {"kind": "espcn", "size": 0.1}, "resolution": 12, **GREY},
    "srgan": {"frontend": {"kind": "srgan", "size": 0.1}},
}  # fmt: skip
"""Beside the one that `exported` exports."""
OFTEN = ("vgg16, grey, odd sides", "alexnet, area", "espcn, reduced again")
"""The others are slow: they go the same ways."""


def write_student(file: Path, **changes: Any) -> Path:
    """A student whose classes differ from image to image, as an untrained one's hardly do."""
    card = dataclasses.replace(CARD, **changes)
    network = network_of(card, seed=1)
    frontend = None
    if card.frontend is not None:
        frontend = build_frontend(card.frontend["kind"], channels=card.channels, size=card.frontend["size"], seed=1)
    generator = torch.Generator().manual_seed(2)
    for part in (network, frontend):
        for name, tensor in {} if part is None else part.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(generator=generator).mul_(0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
    save_student(file, network, card, frontend)
    return file


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = write_student(folder / "student.safetensors")
    export_onnx(model, folder / "student.onnx")
    return model, folder / "student.onnx"


@pytest.mark.parametrize(
    "kind", [kind if kind in OFTEN else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_onnx_runtime_says_what_the_student_says(tmp_path, kind):
    portable = Portable(load_deployed(write_student(tmp_path / "student.safetensors", **KINDS[kind]))[0])
    found = compare(portable, onnx_model(portable, dataclasses.replace(CARD, **KINDS[kind])))
    assert found.on_same_bytes <= LARGEST_DIFFERENCE
    assert found.rounded_otherwise > 0 or found.same_class == found.images


def test_the_file_takes_raw_images_of_any_size_and_any_number(exported):
    import onnxruntime

    model, file = exported
    deployed = load_deployed(model)[0]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probabilities"]
    random = np.random.default_rng(0)
    for shape in ((1, 20, 20, 3), (5, 33, 47, 3), (2, 200, 20, 3), (1, 8, 8, 3), (3, 1, 9, 3)):
        images = random.integers(0, 256, shape, dtype=np.uint8)
        (found,) = session.run(None, {"images": images})
        with torch.inference_mode():
            expected = deployed(torch.from_numpy(images)).numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_file_says_what_it_is_and_not_where_it_was_made(exported):
    import onnx

    content = onnx.load(exported[1])
    metadata = {entry.key: entry.value for entry in content.metadata_props}
    assert json.loads(metadata["dfd_tune.classes"]) == list(CARD.classes)
    assert json.loads(metadata["dfd_tune.mean"]) == list(CARD.mean)
    assert json.loads(metadata["dfd_tune.std"]) == list(CARD.std)
    assert json.loads(metadata["dfd_tune.resolution"]) == 8
    assert metadata["dfd_tune.trial_key"] == "0123abcd"
    sides = [dim.dim_param or dim.dim_value for dim in content.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["N", "H", "W", 3]
    assert b".py" not in exported[1].read_bytes()


def test_batch_norm_is_folded_into_the_convolutions(exported):
    import onnx

    kinds = {node.op_type for node in onnx.load(exported[1]).graph.node}
    assert "Conv" in kinds
    assert "BatchNormalization" not in kinds


def test_a_model_that_differs_is_not_written(exported, tmp_path, monkeypatch):
    from onnx import numpy_helper

    def wrong(portable: Portable, card: ModelCard) -> Any:
        model = onnx_model(portable, card)
        weights = next(node for node in model.graph.node if node.op_type == "Gemm").input[1]
        stored = next(tensor for tensor in model.graph.initializer if tensor.name == weights)
        stored.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(stored), weights))
        return model

    monkeypatch.setattr("dfd_tune.export.onnx_file.onnx_model", wrong)
    with pytest.raises(UserError, match="was not written"):
        export_onnx(exported[0], tmp_path / "student.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("student.pt", "ends in .onnx"), ("folder.onnx", "is a folder"), ("none/student.onnx", "make it first")],
)
def test_a_place_that_can_not_be_is_refused(tmp_path, name, expected):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UserError, match=expected):
        check_destination(tmp_path / name)


def test_a_folder_that_can_not_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match="can't be written to"):
        check_destination(tmp_path / "student.onnx")


def test_missing_packages_are_named_with_what_installs_them(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'onnxscript, onnxruntime.*pip install "dfd-tune\[onnx\]"'):
        export_onnx(exported[0], tmp_path / "student.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """A store, and a student in it that says nothing any more once it computes in bytes."""
    return write_trained(tmp_path_factory.mktemp("fragile"), fragile=True)


def test_weights_that_cost_too_much_are_refused_and_nothing_is_written(fragile, tmp_path):
    store, model = fragile
    file = tmp_path / "student.onnx"
    file.write_text("an older one")
    with pytest.raises(UserError, match=r"float32 100\.0 %.*--weights float16.*--allow-loss") as refused:
        export_onnx(model, file, weights="int8", store=lambda: store)
    assert len(refused.value.problems) == 1
    assert file.read_text() == "an older one"
    assert list(tmp_path.iterdir()) == [file]


def test_a_larger_allowance_lets_them_pass(fragile, tmp_path):
    store, model = fragile
    gain = export_onnx(model, tmp_path / "s.onnx", weights="int8", allowed_loss=100, store=lambda: store).gain
    assert gain is not None
    assert gain.images == COUNTS["validation"]
    assert gain.loss > 20
    assert gain.sizes[1] == (tmp_path / "s.onnx").stat().st_size < gain.sizes[0]
    with pytest.raises(UserError, match="was not written"):
        export_onnx(model, tmp_path / "t.onnx", weights="int8", allowed_loss=gain.loss - 1, store=lambda: store)
    assert not (tmp_path / "t.onnx").exists()


def test_a_loss_as_large_as_the_allowance_passes(fragile):
    settings = {"weights": "int8", "sizes": (2, 1), "image_seconds": (1, 1), "batch_seconds": (1, 1), "images": 1000}
    for before, after in ((0.923, 0.913), (0.6, 0.59), (1.0, 0.99), (0.5, 0.7)):
        _check_gain(fragile[1], Gain(accuracies=(before, after), **settings), 1.0)
    for before, after in ((0.923, 0.912), (0.6, 0.589)):
        with pytest.raises(UserError, match="was not written"):
            _check_gain(fragile[1], Gain(accuracies=(before, after), **settings), 1.0)


@pytest.mark.parametrize(
    ("weights", "loss", "expected"),
    [
        ("int8", -0.5, "0 to 100"),
        ("int8", float("nan"), "0 to 100"),
        ("float16", 101.0, "0 to 100"),
        ("float32", 2.0, "leave it out"),
    ],
)
def test_an_allowance_that_can_not_be_meant_is_refused(weights, loss, expected):
    with pytest.raises(UserError, match=expected):
        check_loss(weights, loss)


def test_lighter_weights_need_the_students_images(exported, tmp_path):
    store = open_store(tmp_path / "store")
    with pytest.raises(UserError, match=r"--weights float16 needs the images.*does not hold.*--store"):
        export_onnx(exported[0], tmp_path / "student.onnx", weights="float16", store=lambda: store)
    assert not (tmp_path / "student.onnx").exists()


def test_the_command_with_lighter_weights(run_cli, fragile, tmp_path):
    store, model = fragile
    file = tmp_path / "student.onnx"
    done = run_cli("export", model, "--onnx", file, "--weights", "float16", "--store", store.root)
    assert done.returncode == 0, done.stderr
    assert "validation accuracy 100.0 → 100.0 %" in done.stdout
    assert file.stat().st_size < 0.7 * model.stat().st_size
    file.unlink()
    for arguments, expected in (
        (("--weights", "int8", "--store", store.root), "may lose at most 1 points"),
        (("--weights", "int8", "--store", store.root, "--allow-loss", "-3"), "0 to 100"),
        (("--weights", "bf16", "--store", store.root), "'float32', 'float16', 'int8'"),
        (("--weights", "int8", "--store", tmp_path / "none"), str(tmp_path / "none")),
        (("--allow-loss", "3"), "leave it out"),
    ):
        refused = run_cli("export", model, "--onnx", file, *arguments)
        assert refused.returncode == 2, refused.stdout
        assert expected in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
        assert list(tmp_path.iterdir()) == []


def test_the_command(run_cli, tmp_path):
    model = write_student(tmp_path / "student.safetensors")
    file = tmp_path / "student.onnx"
    done = run_cli("export", model, "--onnx", file)
    assert done.returncode == 0, done.stderr
    assert str(file) in done.stdout
    for arguments, expected in (
        (("export", model), "Missing option '--onnx'"),
        (("export", model, "--onnx", tmp_path / "student.pt"), "ends in .onnx"),
        (("export", "x", "--onnx", file, "--store", tmp_path), "Unknown search 'x'"),
        (("export", tmp_path / "none.safetensors", "--onnx", tmp_path / "new.onnx"), "there is no such file"),
    ):
        refused = run_cli(*arguments)
        assert refused.returncode == 2, refused.stdout
        assert expected in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "new.onnx").exists()
