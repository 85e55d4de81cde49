import dataclasses

import pytest
import torch
from tiny import DEVICE, trial, workbench

from dfd_tune.data.arrow import DamagedFileError
from dfd_tune.distill.probe import (
    kind_of_frontend,
    kind_of_network,
    kind_of_trial,
    measure,
    probe,
)

DIGEST = "feedfacefeedface"


def kind(config, banks=()):
    return kind_of_trial(config, dict.fromkeys(banks), DIGEST, threads=1)


def test_what_cannot_change_the_speed_is_one_kind():
    config = trial()
    assert kind(trial(lambda_=5.0, learning_rate=0.01, seed=3, epochs=7)) == kind(config)
    assert kind(trial(lambda_=0.0)) == kind_of_network(config.teacher(), threads=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"lambda_": 0.0},
        {"backbone": "resnet18"},
        {"width": 0.25},
        {"batch_size": 8},
        {"method": "fitnets"},
        {"workers": 2},
        {"mixup": 0.2},
    ],
)
def test_what_changes_the_speed_is_another_kind(changes):
    assert kind(trial(**changes)) != kind(trial())


def test_a_teacher_with_a_bank_is_not_looked_at_live():
    config = trial()
    banked = kind(config, [config.teacher().key(DIGEST)])
    assert (banked.looks, kind(config).looks) == ((("alexnet", "bank"),), (("alexnet", "live"),))
    mixed = kind(trial(mixup=0.2), [config.teacher().key(DIGEST)])
    assert mixed.looks == (("alexnet", "live"),)


@pytest.mark.parametrize(
    "config",
    [
        trial(lambda_=0.0),
        trial(),
        trial(teachers="resnet18+vgg16"),
        trial(method="fitnets"),
        trial(method="kd"),
        trial(method="cqd", teachers="resnet18"),
        trial(method="simkd"),
        trial(mixup=0.2),
        trial(method="norm_direction", teachers="resnet18"),
        trial(method="rdl", teacher_sees="low_res"),
        trial(batch_size=4096),  # more than there are
        trial(precision="bf16"),
    ],
    ids=lambda config: f"{config.method} {config.lambda_:g} {config.teachers} {config.batch_size} {config.precision}",
)
def test_every_kind_of_training_can_be_timed(store, config):
    dataset = workbench(store).dataset
    banks = {guide.key(DIGEST) for guide in config.guides()}
    for banked in (kind(config), kind(config, banks)):
        timing = measure(banked, store, dataset, DEVICE, seconds=0.01)
        assert timing.training > 0
        assert timing.evaluation >= 0


@pytest.mark.parametrize("front", ["vdsr", "espcn", "srgan"])
def test_every_front_end_can_be_timed(store, front):
    config = trial(frontend=front, frontend_content="teacher", frontend_size=0.1).low_res.frontend
    assert measure(kind_of_frontend(config, 1), store, workbench(store).dataset, DEVICE, seconds=0.01).training > 0


def test_a_probe_leaves_no_trace_in_the_store_nor_in_this_process(store):
    before = sorted(store.root.rglob("*"))
    dataset = workbench(store).dataset
    small, large = kind(trial(lambda_=0.0)), kind(trial(lambda_=0.0, backbone="vgg16", width=0.5))
    state = torch.get_rng_state()
    quick, slow = probe(store, dataset, [(small, 2), (large, 1)], "cpu", seconds=0.1)
    assert slow.training > quick.training > 0
    assert sorted(store.root.rglob("*")) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_what_fails_in_a_process_of_the_probe_is_raised_here(store):
    dataset = dataclasses.replace(workbench(store).dataset, folder=store.path("nowhere"))
    with pytest.raises(DamagedFileError):
        probe(store, dataset, [(kind(trial()), 2)], "cpu", seconds=0.1)
