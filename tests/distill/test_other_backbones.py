"""A student and a teacher of torchvision's list, from training to what is deployed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import find_result, save_result, student_file
from dfd_tune.distill.teacher_network import declared_of
from dfd_tune.distill.testing import accuracy_on_test_images
from dfd_tune.errors import UserError
from dfd_tune.export.agreement import compare
from dfd_tune.export.onnx_file import LARGEST_DIFFERENCE
from dfd_tune.export.onnx_model import onnx_model
from dfd_tune.models.deployed import load_deployed
from dfd_tune.models.portable import Portable
from dfd_tune.objectives import MOST_ACCURATE
from dfd_tune.search.costs import StudentCosts
from dfd_tune.tracking.models import student_in
from tests.distill.tiny import bits, fresh_store, prepared, run, trial

BACKBONE = "torchvision/mobilenet_v3_small"
OTHER = {"backbone": BACKBONE, "width": 0.5, "dropout": 0.1}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return prepared(fresh_store(tmp_path_factory.mktemp("other") / "store"), trial(**OTHER, student_start="teacher"))


@pytest.fixture(scope="module")
def trained(bench):
    config = trial(**OTHER)
    student, result = run(config, bench)
    save_result(student, result, config, bench)
    return config, student, result


def test_it_is_distilled_from_a_teacher_of_its_kind(bench, trained):
    config, student, result = trained
    assert find_result(bench.store, result.key) == result
    assert result.history[0]["distillation"] > 0
    assert bench.pretrained(config.teacher()).network.feature_dim == student.feature_dim == 512
    again, same = run(config, bench)
    assert bits(again) == bits(student)
    assert same.key == result.key


def test_it_starts_from_its_teacher_and_learns_from_its_maps_and_from_others(bench):
    maps = trial(**OTHER, student_start="teacher", method="attention", hint_layer="features.1", epochs=1)
    several = trial(**OTHER, method="kd", teachers=f"{BACKBONE}+alexnet", epochs=1)
    for config in (maps, several):
        for guide in config.guides():
            bench.prepare(guide, SingleProcess())
        _, result = run(config, bench)
        assert result.history[0]["distillation"] > 0


def test_what_is_deployed_is_what_was_trained(bench, trained):
    config, student, result = trained
    file = student_file(bench.store, result.key)
    deployed, card = load_deployed(file)
    assert card.backbone == BACKBONE
    assert bits(deployed.network) == bits(student)
    assert 0 <= accuracy_on_test_images(file, config, bench) <= 1
    portable = Portable(deployed)
    found = compare(portable, onnx_model(portable, card))
    assert found.on_same_bytes <= LARGEST_DIFFERENCE


def test_the_registered_model_says_the_same_of_images_of_any_size(bench, trained):
    model, example = student_in(student_file(bench.store, trained[2].key))
    free = torch.export.Dim.AUTO
    program = torch.export.export(model, (torch.from_numpy(example),), dynamic_shapes=({0: free, 1: free, 2: free},))
    for shape in ((1, 20, 24, 1), (5, 8, 8, 1)):
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(images), model(images), rtol=1e-5, atol=1e-6)


def test_it_is_no_teacher_file_as_weights(bench, trained):
    with pytest.raises(UserError, match=rf"is a {BACKBONE}, but weights must be of one of alexnet"):
        declared_of(student_file(bench.store, trained[2].key), bench.dataset)


def test_its_cost_is_known_before_it_is_trained(bench, trained):
    config, student, _ = trained
    costs = StudentCosts(bench.dataset, ["accuracy"], MOST_ACCURATE).of(config)
    assert costs["parameters"] == sum(part.numel() for part in student.parameters())
    assert costs["multiply_adds"] > costs["parameters"]
