"""What a search's processes get: fixed when it is planned, and by a schedule of its jobs."""

import dataclasses

import pytest

from dfd_tune.plan import make_plan
from dfd_tune.search.capacity import Node, Resources
from dfd_tune.search.options import LaunchOptions
from dfd_tune.search.sizing import MOST_NETWORK_CPUS, resources_for
from dfd_tune.store import open_store
from tests.report.searches import make_request
from tests.samples import tiny_dataset

LONG = {"epochs": 3000, "teacher_epochs": 3000}
"""So long that a process's start is nothing beside it."""


def plan_of(explore, **settings):
    request = make_request(explore)
    changed = dataclasses.replace(request, settings={**request.settings, **LONG, **settings})
    return make_plan(changed, tiny_dataset(), bank_budget=10**9, device="cpu")


def sized(tmp_path, plan, cores=2.0, frozen=None, device="cpu", **options):
    nodes = [Node("", "", cores, 1.0, float("inf"))] if cores else []
    options = LaunchOptions(name="sized", bank_budget=0, **options)
    return resources_for(plan, device, frozen or {}, options, nodes, open_store(tmp_path))


def test_a_teacher_that_all_wait_for_gets_all_cores(tmp_path):
    plan = plan_of({"lambda_": [1, 2]})
    assert sized(tmp_path, plan) == Resources("cpu", 1.0, 0.0, 2.0)
    assert sized(tmp_path, plan, cores=64.0).network_cpus == MOST_NETWORK_CPUS
    assert sized(tmp_path, plan, cpus_per_worker=2.0, cores=4.0) == Resources("cpu", 2.0, 0.0, 4.0)


def test_teachers_that_fill_the_cores_get_one_each(tmp_path):
    plan = plan_of({"backbone": ["alexnet", "resnet18"], "lambda_": [0.5, 1, 2, 4]})
    assert sized(tmp_path, plan).network_cpus == 1.0


def test_plain_training_beside_the_teacher_uses_the_other_core(tmp_path):
    """There is enough of it to fill that core while the teacher trains, and then to end together."""
    plan = plan_of({"lambda_": [0, 1], "seed": list(range(10))})
    assert sized(tmp_path, plan).network_cpus == 1.0


def test_what_takes_seconds_is_not_worth_new_processes(tmp_path):
    assert sized(tmp_path, plan_of({"lambda_": [1, 2]}, epochs=2, teacher_epochs=2)).network_cpus == 1.0


def test_a_gpu_does_not_care_for_threads(tmp_path):
    plan = plan_of({"lambda_": [1, 2]})
    assert sized(tmp_path, plan, device="cuda", cores=16.0) == Resources("cuda", 1.0, 1.0, 1.0)
    assert sized(tmp_path, plan, device="cuda", gpus_per_worker=0.25).gpus == 0.25


def test_without_a_node_nothing_is_guessed(tmp_path):
    assert sized(tmp_path, plan_of({"lambda_": [1, 2]}), cores=0).network_cpus == 1.0


@pytest.mark.parametrize("cores", [1.0, 32.0])
def test_what_was_decided_once_stays(tmp_path, cores):
    frozen = dataclasses.asdict(Resources("cpu", 1.0, 0.0, 3.0))
    assert sized(tmp_path, plan_of({"lambda_": [1, 2]}), cores=cores, frozen=frozen) == Resources(**frozen)
