"""Which points are proposed: the grid in order, finished points never again, unfinished ones first."""

import warnings

import pytest

from dfd_tune.plan import make_plan
from dfd_tune.search.driver import _sampler, distributions
from dfd_tune.space import Choice, Range
from tests.report.searches import make_request, make_trial
from tests.samples import tiny_dataset

RANGES = {
    "lambda_": {"low": 0.05, "high": 20, "log": True},
    "batch_size": {"low": 16, "high": 64, "step": 16},
    "momentum": {"low": 0.5, "high": 0.9},
    "backbone": ["resnet18", "alexnet"],
}


def plan_of(sampler):
    request = make_request(RANGES, sampler, trials=30)
    return make_plan(request, tiny_dataset(), bank_budget=0)


def trial_at(plan, lambda_, accuracy=0.5, status="FINISHED"):
    point = {"lambda_": lambda_, "batch_size": 32, "momentum": 0.9, "backbone": "resnet18"}
    return make_trial(plan.request, point, accuracy, status=status)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_sampler_continues_where_an_earlier_launch_ended(sampler):
    plan = plan_of(sampler)
    finished = [trial_at(plan, 0.1 * number, 0.5 + 0.01 * number) for number in range(1, 15)]
    killed = [trial_at(plan, 7.0, status="KILLED")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searcher = _sampler(plan, finished, killed)
        proposed = [searcher.suggest(f"trial {number}") for number in range(6)]
    assert proposed[0]["lambda_"] == 7.0
    for point in proposed:
        assert 0.05 <= point["lambda_"] <= 20
        assert point["batch_size"] in (16, 32, 48, 64)
        assert 0.5 <= point["momentum"] <= 0.9
        assert point["backbone"] in ("resnet18", "alexnet")
    known = {trial.config["lambda_"] for trial in finished}
    values = [point["lambda_"] for point in proposed]
    assert len(set(values)) == len(values)
    assert not known & set(values)


def test_the_same_seed_proposes_the_same_points_and_more_trials_propose_others():
    plan = plan_of("random")

    def first_proposal(finished):
        return _sampler(plan, finished, []).suggest("a trial")

    assert first_proposal([]) == first_proposal([])
    assert first_proposal([]) != first_proposal([trial_at(plan, 1.0)])


def testdistributions_are_those_of_the_axes():
    explore = {
        "epochs": Range(1, 9, step=2),
        "learning_rate": Range(0.01, 1.0, log=True),
        "backbone": Choice(("vgg16",)),
    }
    whole, real, listed = distributions(explore, []).values()
    assert (whole.low, whole.high, whole.step, whole.log) == (1, 9, 2, False)
    assert (real.low, real.high, real.step, real.log) == (0.01, 1.0, None, True)
    assert listed.choices == ("vgg16",)
    # Given points, exactly their values: also a λ of 0, which lies outside a log range.
    points = [{"epochs": 3, "learning_rate": 0.0, "backbone": "vgg16"}]
    assert [distribution.choices for distribution in distributions(explore, points).values()] == [
        (3,),
        (0.0,),
        ("vgg16",),
    ]
