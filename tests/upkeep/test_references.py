"""What a search refers to, from its records alone, held against what its plan would make."""

import dataclasses
import time

import pytest

from dfd_tune.config import TrialConfig
from dfd_tune.frozen_request import request_as_json
from dfd_tune.liveness import running
from dfd_tune.plan import make_plan
from dfd_tune.space import shipped_spaces
from dfd_tune.upkeep.references import entries_of, may_come, needs_of, references, standing, standings
from tests.report.searches import DIGEST
from tests.samples import digits_trial, request_for, tiny_dataset
from tests.upkeep.made_up import made_up, save, teachers_of, write_records


@pytest.mark.parametrize("space", sorted(shipped_spaces()))
def test_all_that_a_plan_makes_before_its_trials_is_referred_to_and_no_more(space):
    dataset = tiny_dataset(train=2000, image_size=16)
    controls = {"confirm": {"controls": "low_res_teacher"}} if space in ("lambda_grid", "tpe_all") else {}
    request = request_for(space, dataset="letters", **controls)
    plan = make_plan(request, dataset, bank_budget=0)
    networks = {network.key for network in (*plan.networks, *plan.later_networks)}
    frontends = {frontend.key for frontend in (*plan.frontends, *plan.later_frontends)}
    found = {entry for config in may_come(plan.request) for entry in needs_of(config, dataset.digest)}
    assert {key for kind, key in found if kind == "pretrained"} == networks
    assert {key for kind, key in found if kind == "frontends"} == frontends
    assert len([key for kind, key in found if kind == "low_res"]) == plan.cameras


def test_a_search_refers_to_its_trials_its_images_and_what_came_before_its_trials(folder, search):
    record, trials = search
    found = set(entries_of(folder, record, trials))
    assert {key for kind, key in found if kind == "trials"} == {trial.key for trial in trials}
    assert {key for kind, key in found if kind == "pretrained"} == teachers_of(trials, record)
    assert {key for kind, key in found if kind == "datasets"} == {record.dataset["prepared"]}
    cameras = {TrialConfig(**trial.config).camera.key(DIGEST) for trial in trials}
    assert {key for kind, key in found if kind == "low_res"} == cameras
    assert {kind for kind, _ in found} == {"trials", "pretrained", "datasets", "low_res"}


def test_a_teacher_file_and_a_backbones_text_are_referred_to():
    file = "resnet18-w0.25-bn-d64-s8-0123456789abcdef"
    found = set(needs_of(digits_trial(backbone="resnet18", width=0.25, teacher_file=file, lambda_=1), DIGEST))
    assert ("teachers", "0123456789abcdef") in found
    assert len([key for kind, key in found if kind == "pretrained"]) == 1, "what was measured of it"
    own = set(needs_of(digits_trial(backbone="net.py:small:fedcba9876543210", lambda_=0), DIGEST))
    assert ("backbones", "fedcba9876543210.py") in own


def test_a_trial_whose_record_can_not_be_read_is_referred_to_all_the_same(folder, search):
    record, trials = search
    record = dataclasses.replace(record, planned=[])
    save(folder, record, trials)
    folder.path("searches", record.search, "trials", f"{trials[0].key}.json").write_text("{")
    one = standing(folder, record.search)
    assert len(one.trials) == len(trials) - 1
    assert ("trials", trials[0].key) in set(entries_of(folder, one.search, one.trials))


def test_a_running_search_is_told_apart_and_one_that_begins_has_said_nothing_yet(folder, search):
    record, trials = search
    save(folder, record, trials)
    other, others = made_up("other", dataset=record.dataset | {"prepared": "elsewhere"})
    with running(folder, "other", lambda line: None):
        (known,) = [one for one in standings(folder) if one.name == "other"]
        assert known.begins
        write_records(folder, other, others)
        refers = references(folder, standings(folder))
        assert ("datasets", "elsewhere") in refers.running
        assert ("datasets", record.dataset["prepared"]) in refers.entries - refers.running
    assert not references(folder, standings(folder)).running
    time.sleep(0.05)
    with running(folder, "other", lambda line: None):
        (again,) = [one for one in standings(folder) if one.name == "other"]
        assert again.begins, "what stands there is of its launch before"


def test_a_space_with_ranges_is_stood_for_by_its_lists():
    request = request_for("tpe_all", "backbone=[resnet18, vgg16]")
    keys = {key for config in may_come(request) for kind, key in needs_of(config, DIGEST) if kind == "pretrained"}
    frozen = request_as_json(request)
    assert frozen["trials"]
    for backbone in ("resnet18", "vgg16"):
        point = {"backbone": backbone, "lambda_": 0.5, "learning_rate": 0.01, "student_start": "teacher"}
        assert {network.key(DIGEST) for network in request.trial(point).pretrained()} <= keys
