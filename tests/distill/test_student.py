"""A student's life: where it starts, what its key holds, what is stored, and that trials leave no trace."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import bits, network, prepared, run, trial, without_times, workbench

from dfd_tune.config import TrialConfig
from dfd_tune.distill.networks import arrays_of
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import (
    RESULT_FILE,
    TrialResult,
    find_result,
    initial_student,
    measured_anew,
    save_result,
    student_file,
    student_there,
    train_student,
)
from dfd_tune.distill.testing import accuracy_on_test_images
from dfd_tune.distill.training import evaluate
from dfd_tune.distill.workbench import KEPT, BankPlan
from dfd_tune.models.deployed import load_deployed
from dfd_tune.rules import settings_of
from dfd_tune.store import MANIFEST_FILE, STUDENT_FILE, write_manifest

DIGEST = "d" * 16


def weights_of(model):
    return {name: array.tobytes() for name, array in arrays_of(model).items()}


# Where it starts.


def test_a_student_from_scratch_has_weights_of_its_seed_alone(store):
    bench = workbench(store)  # without a teacher
    start = bits(initial_student(trial(seed=3), bench))
    torch.manual_seed(99)
    assert bits(initial_student(trial(seed=3, lambda_=5.0, resolution=2), bench)) == start
    assert bits(initial_student(trial(seed=4), bench)) != start
    assert start == bits(network(seed=3))


def test_starts_are_scratch_teacher_and_base_network(bench, config):
    teacher, *_ = bench.prepare(config.teacher(), SingleProcess())
    base, *_ = bench.prepare(config.base(), SingleProcess())
    starts = {
        start: weights_of(initial_student(trial(student_start=start), bench))
        for start in ("scratch", "teacher", "base")
    }
    assert starts["teacher"] == weights_of(teacher.network)
    assert starts["base"] == weights_of(base.network)
    assert len({frozenset(start.items()) for start in starts.values()}) == 3


def test_a_student_that_starts_from_its_teacher_does_not_change_it(bench, config):
    teacher = bench.pretrained(config.teacher())
    before = bits(teacher.network)
    arrays = {name: array.copy() for name, array in teacher.weights.items()}
    student, _ = run(trial(student_start="teacher", lambda_=0.0), bench)
    assert bits(student) != before
    assert bits(teacher.network) == before
    assert all(np.array_equal(teacher.weights[name], array) for name, array in arrays.items())


def test_a_student_that_starts_from_trained_weights_is_trained_at_its_own_rate(bench):
    settings = {"lambda_": 0.0, "start_rate_factor": 0.25, "epochs": 1}
    rates = {
        start: run(trial(student_start=start, **settings), bench)[1].history[-1]["learning_rate"]
        for start in ("scratch", "teacher")
    }
    assert rates == pytest.approx({"scratch": 0.02, "teacher": 0.005})


def test_a_start_that_is_not_in_the_store_is_named(bench):
    with pytest.raises(FileNotFoundError, match=r"base \w+ is not in the store"):
        initial_student(trial(student_start="base"), bench)


def test_a_teacher_as_its_own_student_has_nothing_to_learn_from_itself(store):
    # Where the low-resolution image is the image itself, student and teacher see the same pixels, if they see the
    # same view: then their features are equal, as long as the student has the teacher's weights.
    config = trial(resolution=8, student_start="teacher", epochs=2, learning_rate=1e-30)
    key = config.teacher().key(workbench(store).dataset.digest)
    for banks in ({}, {key: BankPlan("views", 1)}, {key: BankPlan("epochs", 2)}):
        bench = workbench(store, banks)
        bench.prepare(config.teacher(), SingleProcess())
        _, result = run(config, bench)
        draw = bench.images_for(config).draw(0, np.arange(40))
        scale = bench.features(config.teacher())(draw).square().mean().item()
        for metrics in result.history:
            # Features of a bank are rounded: (2⁻¹¹)² of their square at most.
            assert metrics["distillation"] < 2e-7 * scale
    _, other = run(dataclasses.replace(config, resolution=4), bench)
    assert other.history[0]["distillation"] > 1e-3 * scale


# Its key.

CHANGES = {
    "resolution": 2,
    "downsample": "area",
    "upsample": "nearest",
    "blur": 1.0,
    "noise": 1.0,
    "jpeg_quality": 50,
    "frontend": "espcn",
    "crop_padding": 2,
    "flip": False,
    "augment_seed": 1,
    "backbone": "vgg16",
    "width": 0.25,
    "dropout": 0.1,
    "batch_norm": True,
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 0.03,
    "schedule": "cosine",
    "momentum": 0.8,
    "weight_decay": 1e-4,
    "mixup": 0.2,
    "class_weights": "balanced",
    "seed": 1,
    "lambda_": 2.0,
    "method": "rdl",
    "reduction": "sum",
    "projector": "always",
    "teachers": "vgg16",
    "teacher_sees": "low_res",
    "teacher_file": "logits-d3-s8-0123456789abcdef",
    "student_start": "teacher",
    "workers": 2,
    "precision": "bf16",
    "teacher_epochs": 2,
    "teacher_batch_size": 8,
    "teacher_learning_rate": 0.03,
    "teacher_schedule": "cosine",
    "teacher_momentum": 0.8,
    "teacher_weight_decay": 1e-4,
    "teacher_dropout": 0.1,
    "teacher_class_weights": "balanced",
    "teacher_seed": 1,
}
WITHOUT_A_TEACHER = {name for name in CHANGES if name.startswith("teacher_")} | {
    "method",
    "reduction",
    "projector",
    "teachers",
}
OF_ANOTHER_TRIAL = {name for name in settings_of(TrialConfig) if name.startswith("frontend_")} | {
    "temperature",
    "hint_layer",
    "start_rate_factor",
    "evaluate_every",
}
"""What dfd from scratch without a front end never looks at: tests/test_config.py."""


def test_every_setting_is_tried_below():
    assert CHANGES.keys() == settings_of(TrialConfig).keys() - OF_ANOTHER_TRIAL


def test_every_setting_of_a_distilling_trial_is_in_its_key():
    keys = {trial(**{name: value}).key(DIGEST) for name, value in CHANGES.items()}
    assert len(keys | {trial().key(DIGEST)}) == len(CHANGES) + 1
    assert trial().key(DIGEST) != trial().key("e" * 16)
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in keys)


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - {"lambda_"}))
def test_the_key_of_plain_training_leaves_out_what_is_never_looked_at(name):
    plain = trial(lambda_=0.0)
    changed = dataclasses.replace(plain, **{name: CHANGES[name]})
    assert (changed.key(DIGEST) == plain.key(DIGEST)) == (name in WITHOUT_A_TEACHER)


def test_the_result_of_plain_training_does_not_depend_on_what_its_key_leaves_out(store):
    changes = {name: CHANGES[name] for name in WITHOUT_A_TEACHER}
    plain, changed = trial(lambda_=0.0), trial(lambda_=0.0, **changes)
    (first, first_result), (second, second_result) = run(plain, workbench(store)), run(changed, workbench(store))
    assert first_result.key == second_result.key
    assert without_times(first_result.history) == without_times(second_result.history)
    assert bits(first) == bits(second)


@pytest.mark.parametrize("start", ["teacher", "base"])
def test_plain_training_from_another_network_keeps_that_network_in_its_key(start):
    ours, theirs = (trial(lambda_=0.0, student_start=start, teacher_epochs=epochs) for epochs in (1, 2))
    assert ours.key(DIGEST) != theirs.key(DIGEST)
    ours, theirs = (trial(lambda_=0.0, student_start=start, reduction=name) for name in ("mean", "sum"))
    assert ours.key(DIGEST) == theirs.key(DIGEST)


def test_whole_numbers_and_fractions_of_equal_value_give_one_key():
    assert trial(lambda_=2).key(DIGEST) == trial(lambda_=2.0).key(DIGEST)
    assert trial(learning_rate=1, width=1).key(DIGEST) == trial(learning_rate=1.0, width=1.0).key(DIGEST)
    assert trial(lambda_=0).key(DIGEST) == trial(lambda_=0.0).key(DIGEST)
    assert trial(weight_decay=0, teacher_dropout=0) == trial(weight_decay=0.0, teacher_dropout=0.0)


def test_a_result_of_an_older_version_is_measured_anew_by_its_student(bench, config):
    student, result = run(config, bench)
    save_result(student, result, config, bench)
    new = ("val_balanced_accuracy", "val_macro_f1")

    def without(metrics):
        return {name: value for name, value in metrics.items() if name not in new}

    old = dataclasses.replace(
        result, metrics=without(result.metrics), history=[without(epoch) for epoch in result.history]
    )
    found = measured_anew(old, config, bench)
    assert found.metrics == pytest.approx(result.metrics, abs=1e-12)
    assert {name: found.metrics[name] for name in old.metrics} == old.metrics
    assert found.history[-1].keys() == result.history[-1].keys()
    assert found.history[:-1] == old.history[:-1]


# Equal trials are equal.

EAGER = trial(dropout=0.5, epochs=2, schedule="one_cycle")


def outcome(config, bench):
    model, result = run(config, bench)
    return without_times(result.history), bits(model)


def test_equal_trials_are_equal_bit_by_bit_and_other_seeds_are_not(bench):
    first = outcome(EAGER, bench)
    assert outcome(EAGER, bench) == first
    other = outcome(dataclasses.replace(EAGER, seed=1), bench)
    assert other[0] != first[0]
    assert other[1] != first[1]


def test_a_reused_workbench_gives_what_a_fresh_one_gives(store):
    config = EAGER
    key = config.teacher().key(workbench(store).dataset.digest)
    banks = {key: BankPlan("views", config.epochs)}
    workbench(store, banks).prepare(config.teacher(), SingleProcess())
    fresh = outcome(config, workbench(store, banks))
    reused = workbench(store, banks)
    others = [
        trial(backbone="resnet18", dropout=0.3, resolution=2, seed=4),
        trial(lambda_=0.0, augment_seed=2),
        trial(student_start="teacher", batch_size=7),
        dataclasses.replace(EAGER, seed=8),
    ]
    for other in others:
        if other.needs_teacher:
            reused.prepare(other.teacher(), SingleProcess())
        run(other, reused)
        torch.rand(7)
        np.random.rand(7)
        assert outcome(config, reused) == fresh


def test_a_workbench_keeps_a_bounded_number_of_things(store):
    bench = workbench(store)
    for seed in range(KEPT + 3):
        images = bench.images_for(trial(augment_seed=seed))
        assert bench.images_for(trial(augment_seed=seed, lambda_=9.0)) is images
    assert bench.training_images.cache_info().currsize == KEPT


# Its result.


def trained(bench, config):
    student, result = run(config, bench)
    save_result(student, result, config, bench)
    return student, result


def test_a_result_says_what_was_run(bench, config):
    ticks = itertools.chain([10.0], itertools.repeat(25.0))
    _, result = train_student(config, bench, SingleProcess(), clock=lambda: next(ticks))
    assert result.key == config.key(bench.dataset.digest)
    assert TrialConfig(**result.config) == config
    assert result.dataset == bench.dataset.digest
    assert result.teacher == config.teacher().key(bench.dataset.digest)
    assert len(result.history) == 2
    last = {name: value for name, value in result.history[-1].items() if name != "epoch"}
    assert result.metrics == last | {"seconds": 15.0}
    # λ = 1.
    assert last["loss"] == pytest.approx(last["cross_entropy"] + last["distillation"], rel=1e-5)


@pytest.mark.parametrize("start", ["scratch", "base", "teacher"])
def test_a_result_names_the_low_resolution_teacher_that_it_learned_from(start, store):
    config = trial(student_start=start, teacher_sees="low_res", epochs=1)
    bench = prepared(store, config)
    assert run(config, bench)[1].teacher == config.base().key(bench.dataset.digest)


@pytest.mark.parametrize(
    ("start", "lambda_", "named"), [("scratch", 0.0, False), ("teacher", 0.0, True), ("scratch", 1.0, True)]
)
def test_a_result_names_its_teacher_if_it_has_one(start, lambda_, named, bench):
    config = trial(student_start=start, lambda_=lambda_, epochs=1)
    assert run(config, bench)[1].teacher == (config.teacher().key(bench.dataset.digest) if named else None)


def test_a_stored_result_is_found_as_it_was(bench, config):
    key = config.key(bench.dataset.digest)
    assert find_result(bench.store, key) is None
    _, result = trained(bench, config)
    assert find_result(bench.store, key) == result
    assert find_result(bench.store, "0" * 16) is None


def test_a_result_survives_json(bench, config):
    _, result = run(config, bench)
    told = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert TrialResult.from_json(told) == result
    for name in told:
        with pytest.raises(ValueError, match=name):
            TrialResult.from_json({other: value for other, value in told.items() if other != name})
    for broken in (told | {"more": 1}, told | {"metrics": []}, told | {"history": None}, {}):
        with pytest.raises(ValueError, match="a result has"):
            TrialResult.from_json(broken)


def result_emptied(folder):
    (folder / RESULT_FILE).write_text("")


def result_cut_short(folder):
    text = (folder / RESULT_FILE).read_text()
    (folder / RESULT_FILE).write_text(text[: len(text) // 2])


def result_of_other_bytes(folder):
    (folder / RESULT_FILE).write_bytes(b"\xff" * (folder / RESULT_FILE).stat().st_size)


def result_changed(folder):
    value = json.loads((folder / RESULT_FILE).read_text())
    (folder / RESULT_FILE).write_text(json.dumps(value | {"dataset": "e" * 16}))


def result_missing(folder):
    (folder / RESULT_FILE).unlink()


def manifest_missing(folder):
    (folder / MANIFEST_FILE).unlink()


def sealed_result_of_something_else(folder):
    (folder / RESULT_FILE).write_text('{"key": "k"}')
    write_manifest(folder)


def sealed_result_that_is_a_list(folder):
    (folder / RESULT_FILE).write_text("[]")
    write_manifest(folder)


DAMAGES = (
    result_emptied,
    result_cut_short,
    result_of_other_bytes,
    result_changed,
    result_missing,
    manifest_missing,
    sealed_result_of_something_else,
    sealed_result_that_is_a_list,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_result_counts_as_absent_in_one_line_and_is_trained_again(damage, store):
    bench, config, said = workbench(store), trial(lambda_=0.0, epochs=1), []
    student, result = trained(bench, config)
    damage(store.path("trials", result.key))
    assert find_result(store, result.key) is None
    assert find_result(store, result.key, said.append) is None
    assert len(said) == 1
    assert result.key in said[0]
    save_result(student, result, config, bench)
    assert find_result(store, result.key, said.append) == result
    assert find_result(store, "0" * 16, said.append) is None
    assert len(said) == 1
    assert student_there(store, result.key)
    assert [entry.name for entry in store.path("trials").iterdir()] == [result.key]


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-1])])
def test_a_result_whose_student_is_gone_counts_and_its_student_can_be_trained_again(damage, store):
    bench, config = workbench(store), trial(lambda_=0.0, epochs=1)
    student, result = trained(bench, config)
    assert student_there(store, result.key)
    assert not student_there(store, "0" * 16)
    damage(student_file(store, result.key))
    assert find_result(store, result.key) == result
    assert not student_there(store, result.key)
    save_result(student, result, config, bench)
    assert student_there(store, result.key)
    assert bits(load_deployed(student_file(store, result.key))[0].network) == bits(student)


def test_a_student_that_was_let_go_of_leaves_a_whole_entry_and_can_be_trained_again(store):
    bench, config = workbench(store), trial(lambda_=0.0, epochs=1)
    student, result = trained(bench, config)
    size = student_file(store, result.key).stat().st_size
    assert store.let_go("trials", result.key, STUDENT_FILE) == size
    assert find_result(store, result.key) == result
    assert not student_there(store, result.key)
    assert store.whole("trials", result.key)
    assert store.let_go("trials", result.key, STUDENT_FILE) == 0
    save_result(student, result, config, bench)
    assert student_there(store, result.key)
    assert find_result(store, result.key) == result
    assert [entry.name for entry in store.path("trials").iterdir()] == [result.key]


def test_a_result_that_can_not_be_read_just_now_is_not_absent(store, monkeypatch):
    _, result = trained(workbench(store), trial(lambda_=0.0, epochs=1))

    def stale(self):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", stale)
        with pytest.raises(OSError, match="Stale"):
            find_result(store, result.key)
    assert find_result(store, result.key) == result


def test_a_result_that_can_not_be_stored_leaves_nothing_behind(bench, config):
    student, result = run(config, bench)
    broken = dataclasses.replace(result, metrics=result.metrics | {"val_accuracy": float("nan")})
    with pytest.raises(ValueError, match="Out of range float"):
        save_result(student, broken, config, bench)
    assert find_result(bench.store, result.key) is None
    assert list(bench.store.path("trials").iterdir()) == []


def test_the_test_accuracy_of_a_stored_student_is_that_of_the_student_on_low_resolution_test_images(bench):
    config = trial(resolution=2, epochs=1)
    student, result = run(config, bench)
    sides = [bench.test_images(config.low_res), bench.test_images(None), bench.validation_images(config.low_res)]
    expected, found = [], []
    for seed in range(5):
        student = network(seed=seed)  # untrained, so that the accuracies differ
        expected.append([evaluate(student, side)[0] for side in sides])
        renamed = dataclasses.replace(result, key=f"{seed:016}")
        save_result(student, renamed, config, bench)
        found.append(accuracy_on_test_images(student_file(bench.store, renamed.key), config, bench))
    tested, in_high_resolution, validated = map(list, zip(*expected, strict=True))
    assert found == tested
    assert found != in_high_resolution
    assert found != validated


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16", "resnet18"])
def test_a_stored_student_takes_raw_images_and_says_what_the_trained_one_says(backbone, store):
    bench = workbench(store)
    config = trial(backbone=backbone, lambda_=0.0, downsample="bilinear", upsample="nearest", epochs=8, batch_size=8)
    student, result = trained(bench, config)
    model, card = load_deployed(student_file(store, result.key))
    assert bits(model.network) == bits(student)
    assert card.classes == bench.dataset.classes
    assert card.extras["trial_key"] == result.key
    assert card.extras["val_accuracy"] == result.metrics["val_accuracy"]
    assert TrialConfig(**card.extras["config"]) == config

    raw = torch.tensor(bench.dataset.test.images).permute(0, 2, 3, 1)
    probabilities = model(raw)
    ((inputs, _),) = bench.test_images(config.low_res).batches()
    with torch.no_grad():
        expected = torch.softmax(student.eval()(inputs), 1)
    torch.testing.assert_close(probabilities.detach(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(probabilities.argmax(1), expected.argmax(1))
    assert len(set(probabilities.argmax(1).tolist())) > 1
