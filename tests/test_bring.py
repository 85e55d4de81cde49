"""Teacher files that a request names: brought into the store, named from then on, and held against the rest of it."""

import dataclasses
import shutil

import pytest
import torch
import yaml
from torch import nn

from dfd_tune.bring import names_teacher_files, teacher_files, with_teachers_in_store
from dfd_tune.errors import UserError
from dfd_tune.frozen_request import request_as_json, request_from_json
from dfd_tune.plan import describe, make_plan
from dfd_tune.store import open_store
from dfd_tune.teacher_file import TeacherFile, parse
from tests.samples import request_for, tiny_dataset

DATASET = tiny_dataset()
DIGEST = "0123456789abcdef"
LOGITS, FEATURES = f"logits-d2-s8-{DIGEST}", f"features-d7-s8-{DIGEST}"
OWN = str(TeacherFile(gives="network", dim=128, side=8, digest=DIGEST, backbone="resnet18", width=0.25))


class Halves(nn.Module):
    def forward(self, images):
        rows = images.mean(dim=(1, 3))
        return torch.stack([rows[:, :4].mean(1), rows[:, 4:].mean(1)], 1)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.fixture
def file(tmp_path):
    images = torch.randn(2, 1, 8, 8)
    program = torch.export.export(Halves(), (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "halves.pt2")
    facts = {"gives": "logits", "image_size": 8, "mean": 0.5, "std": 0.5, "classes": ["odd", "even"]}
    (tmp_path / "halves.yaml").write_text(yaml.safe_dump(facts))
    return tmp_path / "halves.pt2"


def asked(*assignments, **options):
    return request_for("lambda_grid", "backbone=resnet18", "lambda_=[0, 2]", *assignments, **options)


def plan_of(*assignments, **options):
    return make_plan(asked(*assignments, **options), DATASET, bank_budget=10**9)


def brought(request, store):
    return with_teachers_in_store(request, store, DATASET, lambda line: None)


@pytest.mark.parametrize("text", [LOGITS, FEATURES, OWN, f"vgg16-w1e-05-nobn-d8-s32-{DIGEST}"])
def test_a_name_is_read_as_it_is_written(text):
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "cat.pt2", f"maps-d2-s8-{DIGEST}", f"logits-d0-s8-{DIGEST}", LOGITS[:-1], f"a/{OWN}"]
)
def test_what_is_no_name_is_a_path(text):
    assert parse(text) is None


def test_a_path_becomes_a_name_once(store, file):
    request = asked("method=kd", teacher=str(file))
    assert (request.settings["teacher_file"], request.origins["teacher_file"]) == (str(file), "--teacher")
    assert names_teacher_files(request)
    assert not teacher_files(request)
    found = brought(request, store)
    (name,) = teacher_files(found)
    assert (name.gives, name.dim, name.side) == ("logits", 2, 8)
    frozen = request_from_json(request_as_json(found), search="x")
    file.unlink()
    assert brought(frozen, store) == frozen
    with pytest.raises(UserError, match="is no file"):
        brought(request, store)
    shutil.rmtree(store.path("teachers"))
    with pytest.raises(UserError, match="does not have the teacher file"):
        brought(frozen, store)


def test_teachers_may_be_an_axis_and_the_same_one_is_not_named_twice(store, file, tmp_path):
    found = brought(asked("method=kd", f"teacher_file=[{file}, none]"), store)
    (name,) = teacher_files(found)
    assert found.explore["teacher_file"].values == (str(name), None)
    plan = make_plan(found, DATASET, bank_budget=10**9)
    # λ = 0 is one trial with either teacher.
    assert [(config.lambda_, config.teacher_file) for config in plan.trials.values()] == [
        (0, str(name)),
        (2, str(name)),
        (2, None),
    ]
    assert len(plan.networks) == 2
    for end in (".pt2", ".yaml"):
        shutil.copy(file.with_suffix(end), tmp_path / f"again{end}")
    with pytest.raises(UserError, match="the same teacher twice"):
        brought(asked("method=kd", f"teacher_file=[{file}, {tmp_path / 'again.pt2'}]"), store)


def test_a_teacher_is_given_once():
    with pytest.raises(UserError, match="given twice"):
        asked("teacher_file=dog.pt2", teacher="cat.pt2")
    with pytest.raises(UserError, match="given twice"):
        asked("teacher_file=[dog.pt2, cat.pt2]", teacher="cat.pt2")


def test_a_request_without_one_is_left_alone(store):
    request = asked()
    assert not names_teacher_files(request)
    assert brought(request, store) == request


def test_a_plan_has_it_in_the_teachers_place_with_a_bank_of_what_it_gives():
    plan = plan_of(f"teacher_file={FEATURES}")
    (network,) = plan.networks
    (_, config) = plan.trials.values()
    assert network.config == config.teacher()
    assert network.config.role == "teacher"
    views = 9
    assert network.bank_bytes == views * len(DATASET.train.labels) * 7 * 2
    assert any(FEATURES in line for line in describe(plan))


def test_its_recipe_is_no_part_of_the_key_where_nothing_is_trained_before():
    keys = [list(plan_of(f"teacher_file={LOGITS}", "method=kd", f"teacher_epochs={n}").trials) for n in (3, 4)]
    assert keys[0] == keys[1]
    (plain, distilled), (as_ever, other) = keys[0], plan_of("method=kd").trials
    assert plain == as_ever, "plain training does not depend on a teacher"
    assert distilled != other
    keys = [
        list(plan_of(f"teacher_file={LOGITS}", "method=kd", "student_start=base", f"teacher_epochs={n}").trials)
        for n in (3, 4)
    ]
    assert not set(keys[0]) & set(keys[1])


def test_a_teacher_that_sees_low_resolution_is_trained_here():
    plan = plan_of(f"teacher_file={FEATURES}", confirm={"seeds": 1, "controls": "low_res_teacher"})
    assert [network.config.role for network in plan.later_networks] == ["base"]
    config = dataclasses.replace(list(plan.trials.values())[1], teacher_sees="low_res")
    assert config.guides() == (config.base(),)
    assert config.key("d") == dataclasses.replace(config, teacher_file=None).key("d")


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        ((f"teacher_file={LOGITS}",), "method is dfd, which compares features"),
        ((f"teacher_file={FEATURES}", "method=[kd, dfd]"), "take dfd or rdl"),
        ((f"teacher_file={FEATURES}", "method=fitnets"), "which compares maps"),
        ((f"teacher_file={FEATURES}", "method=attention"), "which compares maps"),
        ((f"teacher_file={FEATURES}", "teachers=vgg16"), "teachers names backbones that are trained here"),
        ((f"teacher_file={FEATURES}", "student_start=teacher"), "not the student's own network"),
        ((f"teacher_file={OWN}", "student_start=teacher", "width=0.5"), "not the student's own network"),
        ((f"teacher_file={OWN}", "student_start=teacher", "batch_norm=false"), "not the student's own network"),
        ((f"teacher_file={OWN}", "method=fitnets", "hint_layer=conv3"), "hint_layer of resnet18"),
        (("teacher_file=cat.pt2",), "is no file in the store"),
    ],
)
def test_what_does_not_go_with_it_is_refused(assignments, words):
    with pytest.raises(UserError) as raised:
        plan_of(*assignments)
    assert any(words in problem for problem in raised.value.problems)


def test_the_control_that_needs_the_teachers_epochs_is_refused():
    with pytest.raises(UserError, match="control longer"):
        plan_of(f"teacher_file={FEATURES}", confirm={"seeds": 1, "controls": "longer"})


@pytest.mark.parametrize("method", ["dfd", "kd", "fitnets", "rdl", "logits", "attention"])
def test_weights_of_the_own_network_go_with_everything(method):
    plan = plan_of(f"teacher_file={OWN}", f"method={method}", "student_start=teacher")
    assert len(plan.networks) == 1
