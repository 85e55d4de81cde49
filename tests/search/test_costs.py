"""What a student costs before it is trained is what its file costs afterwards."""

import dataclasses

from dfd_tune.distill.networks import network_for
from dfd_tune.models.cost import parameters_of
from dfd_tune.objectives import MOST_ACCURATE, Choose
from dfd_tune.search.costs import StudentCosts, wanted_costs
from tests.report.searches import trial_of
from tests.samples import digits_trial, tiny_dataset

DATASET = tiny_dataset()


def costs(objectives=("accuracy",), choose=MOST_ACCURATE, known=()):
    return StudentCosts(DATASET, objectives, choose, known)


def test_parameters_and_multiply_adds_are_those_of_the_network():
    config = digits_trial()
    found = costs().of(config)
    assert found.keys() == {"parameters", "multiply_adds"}
    assert found["parameters"] == parameters_of(network_for(DATASET, config.network, seed=0))
    assert found["multiply_adds"] > 0
    assert costs().of(dataclasses.replace(config, lambda_=3.0, seed=9, learning_rate=0.5)) == found
    wider = costs().of(dataclasses.replace(config, width=2 * config.width))
    assert wider["parameters"] > 3 * found["parameters"]


def test_a_front_end_counts():
    config = digits_trial(frontend="espcn", frontend_size=0.5)
    assert costs().of(config)["parameters"] > costs().of(digits_trial())["parameters"]


def test_latency_is_measured_where_it_is_asked_for_and_once():
    config = digits_trial()
    for found in (costs(("accuracy", "latency")), costs(choose=Choose("latency", 1.0))):
        first = found.of(config)
        assert first["image_seconds"] > 0
        assert set(first) == set(wanted_costs(("accuracy", "latency"), MOST_ACCURATE))
        assert found.of(config) == first
    known = trial_of(config, 0.9)
    known = dataclasses.replace(known, metrics=known.metrics | {"image_seconds": 0.125})
    again = costs(("accuracy", "latency"), known=[known])
    assert again.of(dataclasses.replace(config, seed=5))["image_seconds"] == 0.125
    assert again.of(dataclasses.replace(config, width=2 * config.width))["image_seconds"] != 0.125
