"""Teachers and base networks: trained once, found again, frozen, and never taken from damaged files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny import bits, network, trial, without_times, workbench, write_dataset
from two_processes import prepare_teacher

from dfd_tune.digest import digest_arrays
from dfd_tune.distill.kept import FACTS_FILE, WEIGHTS_FILE
from dfd_tune.distill.networks import arrays_of, load_weights
from dfd_tune.distill.pretrained import (
    ensure_pretrained,
    find_pretrained,
    fresh_network,
)
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.training import evaluate, train_network
from dfd_tune.distill.workbench import Workbench
from dfd_tune.parts import Camera, LowRes
from dfd_tune.store import MANIFEST_FILE, write_manifest

CONFIG = trial().teacher()


def ensure(bench, config=CONFIG):
    return ensure_pretrained(
        bench.store,
        config,
        bench.dataset,
        bench.images_for(config),
        bench.validation_images(config.low_res),
        SingleProcess(),
    )


def folder_of(bench, config=CONFIG):
    return bench.store.path("pretrained", config.key(bench.dataset.digest))


def test_a_network_is_trained_once_and_then_found(store):
    bench = workbench(store)
    assert find_pretrained(store, CONFIG, bench.dataset) is None
    first, trained = ensure(bench)
    assert trained
    files = {file: file.stat().st_mtime_ns for file in folder_of(bench).iterdir()}
    assert {file.name for file in files} == {WEIGHTS_FILE, FACTS_FILE, MANIFEST_FILE}
    second, trained = ensure(bench)
    assert not trained
    assert {file: file.stat().st_mtime_ns for file in folder_of(bench).iterdir()} == files
    assert bits(second.network) == bits(first.network)
    assert (second.key, second.weights_digest, second.val_accuracy, second.history) == (
        first.key,
        first.weights_digest,
        first.val_accuracy,
        first.history,
    )


def test_a_network_is_found_however_often_its_training_looked_at_validation_images(store):
    bench = workbench(store)
    seldom = trial(evaluate_every=2).teacher()
    assert ensure(bench, seldom)[1]
    found, trained = ensure(bench)
    assert not trained
    assert found.key == seldom.key(bench.dataset.digest)


@pytest.mark.parametrize("config", [CONFIG, trial().base()], ids=["teacher", "base"])
def test_a_network_is_what_training_gives_on_the_images_of_its_side(config, store):
    bench = workbench(store)
    found, _ = ensure(bench, config)
    expected = fresh_network(config, bench.dataset)
    validation = bench.validation_images(config.low_res)
    history = train_network(
        expected, bench.images_for(config), validation, recipe=config.recipe, process=SingleProcess()
    )
    assert bits(found.network) == bits(expected)
    assert without_times(found.history) == without_times(history)
    assert found.val_accuracy == evaluate(found.network, validation)[0]
    assert found.weights_digest == digest_arrays(arrays_of(expected))


def test_teacher_and_base_network_see_different_images(store):
    bench = workbench(store)
    assert CONFIG.low_res is None
    assert trial().base().low_res == LowRes(Camera(4))
    assert ensure(bench)[0].weights_digest != ensure(bench, trial().base())[0].weights_digest


def test_a_network_is_frozen_and_in_evaluation_mode_trained_or_found(store):
    bench = workbench(store)
    for found in (ensure(bench)[0], ensure(bench)[0]):
        assert not any(module.training for module in found.network.modules())
        assert not any(weight.requires_grad for weight in found.network.parameters())


def test_the_arrays_share_nothing_with_the_network(store):
    found, _ = ensure(workbench(store))
    for array in found.weights.values():
        array.fill(0)
    assert all(weight.any() for name, weight in found.network.named_parameters() if name.endswith("weight"))
    model = network()
    arrays = arrays_of(model)
    load_weights(model, arrays)
    arrays["classifier.1.weight"].fill(0)
    assert model.classifier[1].weight.any()


def test_weights_survive_in_every_memory_format():
    for backbone in ("alexnet", "resnet18"):
        source = network(seed=1, backbone=backbone).to(memory_format=torch.channels_last)
        target = network(seed=2, backbone=backbone)
        load_weights(target, arrays_of(source))
        assert bits(target) == bits(source)


def a_weight_changed(folder):
    weights = load_file(folder / WEIGHTS_FILE)
    weights["classifier.1.weight"][0, 0] += 0.25
    save_file(weights, folder / WEIGHTS_FILE)


def a_weight_missing(folder):
    """With a digest that is right of what is left."""
    weights = load_file(folder / WEIGHTS_FILE)
    del weights["classifier.1.weight"]
    save_file(weights, folder / WEIGHTS_FILE)
    facts = json.loads((folder / FACTS_FILE).read_text())
    (folder / FACTS_FILE).write_text(json.dumps(facts | {"weights_digest": digest_arrays(weights)}))


def facts_without_a_history(folder):
    facts = json.loads((folder / FACTS_FILE).read_text())
    del facts["history"]
    (folder / FACTS_FILE).write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "damage", [a_weight_changed, a_weight_missing, facts_without_a_history], ids=lambda damage: damage.__name__
)
def test_a_damaged_entry_is_never_used_and_trained_anew(damage, store):
    bench = workbench(store)
    first, _ = ensure(bench)
    damage(folder_of(bench))
    write_manifest(folder_of(bench))
    assert find_pretrained(store, CONFIG, bench.dataset) is None
    again, trained = ensure(bench)
    assert trained
    assert again.weights_digest == first.weights_digest
    found, trained = ensure(bench)
    assert not trained
    assert found.weights_digest == first.weights_digest


def test_every_change_of_the_recipe_or_the_views_is_another_network(store):
    changes = [
        trial(**{name: value}).teacher()
        for name, value in {
            "teacher_epochs": 2,
            "teacher_batch_size": 8,
            "teacher_learning_rate": 0.03,
            "teacher_schedule": "step",
            "teacher_momentum": 0.8,
            "teacher_weight_decay": 1e-4,
            "teacher_dropout": 0.1,
            "teacher_seed": 1,
            "crop_padding": 2,
            "flip": False,
            "augment_seed": 1,
            "width": 0.25,
            "backbone": "vgg16",
        }.items()
    ]
    keys = {config.key("d" * 16) for config in (CONFIG, trial().base(), *changes)}
    assert len(keys) == 2 + len(changes)
    assert CONFIG.key("d" * 16) != CONFIG.key("e" * 16)
    # What only concerns the student leaves its teacher alone.
    for name, value in {"epochs": 9, "learning_rate": 0.5, "seed": 5, "lambda_": 7.0, "resolution": 2}.items():
        assert trial(**{name: value}).teacher() == CONFIG


def test_another_dataset_has_a_teacher_of_its_own(store):
    first, _ = ensure(workbench(store))
    write_dataset(store, "other", first_seed=10)
    second, trained = ensure(Workbench(store, "other", {}, torch.device("cpu")))
    assert trained
    assert first.key != second.key
    assert first.weights_digest != second.weights_digest


def test_a_teacher_does_not_begin_with_the_weights_of_a_student_of_its_seed(store):
    bench = workbench(store)
    ours = arrays_of(network(seed=CONFIG.recipe.seed))
    theirs = arrays_of(fresh_network(CONFIG, bench.dataset))
    assert ours.keys() == theirs.keys()
    assert not any(np.array_equal(ours[name], theirs[name]) for name in ours if name.endswith("weight"))


def test_a_training_that_fails_leaves_nothing_behind(store):
    bench = workbench(store)
    config = dataclasses.replace(CONFIG, recipe=dataclasses.replace(CONFIG.recipe, learning_rate=1e6))
    with pytest.raises(RuntimeError, match="not finite"):
        ensure(bench, config)
    assert not folder_of(bench, config).exists()


def test_two_processes_at_once_train_it_once(two_processes, store):
    outcomes = two_processes(prepare_teacher, store.root)
    assert sorted(trained for trained, _ in outcomes) == [False, True]
    assert outcomes[0][1] == outcomes[1][1]
