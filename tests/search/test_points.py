"""Which points are proposed: each once, known ones never again, unfinished ones first, and resumed as uninterrupted."""

import dataclasses
import itertools
import math

import pytest

from dfd_tune.analysis.importances import distributions
from dfd_tune.axes import Choice, Range, point_at
from dfd_tune.plan import make_plan
from dfd_tune.samplers import NUMBER, POPULATION, SAMPLERS, Sampler, drawing
from dfd_tune.search.points import points_for
from dfd_tune.space import trials_problem
from tests.report.searches import make_request, make_trial
from tests.samples import tiny_dataset

RANGES = {
    "lambda_": {"low": 0.05, "high": 20, "log": True},
    "batch_size": {"low": 16, "high": 64, "step": 16},
    "momentum": {"low": 0.5, "high": 0.9},
    "backbone": ["resnet18", "alexnet"],
}
EIGHT = {"lambda_": [1, 2, 4, 8], "backbone": ["resnet18", "alexnet"]}
DIGEST = tiny_dataset().digest
METRIC = "val_accuracy"


DRAWING = drawing()


def few(sampler, trials):
    """So many, or so few that a Gaussian process, which takes a second a draw once it knows ten, is asked thrice."""
    return min(trials, 13) if sampler == "gp" else trials


def plan_of(sampler, explore=None, trials=30, objectives=("accuracy",)):
    request = make_request(explore or RANGES, sampler, trials=None if sampler == "grid" else trials)
    space = dataclasses.replace(request.space, objectives=objectives)
    return make_plan(dataclasses.replace(request, space=space), tiny_dataset(), bank_budget=0, device="cpu")


def source(plan, records=()):
    return points_for(plan, DIGEST, {record.key: record for record in records})


def score(config):
    """A made-up accuracy that depends on the point."""
    return 0.5 + config.lambda_ / 100 + (config.backbone == "resnet18") / 10


def told(config, objectives=1):
    """What a trial of `config` reached: an accuracy and perhaps a cost."""
    return (score(config), 1000.0 * (config.backbone == "resnet18") + config.batch_size)[:objectives]


def record_of(plan, config, status="FINISHED", number=None):
    record = make_trial(plan.request, point_at(vars(config), plan.request.explore), score(config), status=status)
    metrics = record.metrics | ({"parameters": told(config, 2)[1]} if record.metrics else {})
    return dataclasses.replace(record, key=config.key(DIGEST), number=number, metrics=metrics)


def run(points, most=1000, values=True):
    """Ask and tell until nothing is left; returns the trials in order."""
    given = []
    for key, config in itertools.islice(iter(points.ask, None), most):
        given.append(config)
        points.tell(key, told(config) if values else None)
    return given


@pytest.mark.parametrize("sampler", DRAWING)
def test_a_sampled_search_proposes_as_many_points_as_asked_for_all_different_and_on_the_axes(sampler):
    plan = plan_of(sampler, trials=few(sampler, 30))
    given = run(source(plan))
    assert len({config.key(DIGEST) for config in given}) == len(given) == few(sampler, 30)
    for config in given:
        assert 0.05 <= config.lambda_ <= 20
        assert config.batch_size in (16, 32, 48, 64)
        assert 0.5 <= config.momentum <= 0.9


@pytest.mark.parametrize("sampler", DRAWING)
@pytest.mark.parametrize("values", [True, False])
def test_a_space_of_eight_points_ends_after_eight(sampler, values):
    points = source(plan_of(sampler, EIGHT))
    assert points.left()
    given = run(points, values=values)
    assert len({config.key(DIGEST) for config in given}) == len(given) == 8
    assert not points.left()
    assert points.ask() is None


def test_points_that_are_one_trial_are_proposed_once():
    # Where λ = 0 the reduction cannot matter, so these four points are three trials.
    given = run(source(plan_of("random", {"lambda_": [0, 1], "reduction": ["mean", "sum"]})))
    assert len(given) == len({config.key(DIGEST) for config in given}) == 3


@pytest.mark.parametrize("sampler", DRAWING)
@pytest.mark.parametrize("cut", [1, 5, 14])
def test_a_continued_search_proposes_what_an_uninterrupted_one_does(sampler, cut):
    plan, cut = plan_of(sampler, trials=few(sampler, 20)), few(sampler, cut) - (sampler == "gp" and cut > 12)
    whole = run(source(plan))
    first = run(source(plan), most=cut)
    assert first == whole[:cut]
    records = [record_of(plan, config, number=number) for number, config in enumerate(first)]
    assert run(source(plan, records[::-1])) == whole[cut:]  # whatever order they are found in


@pytest.mark.parametrize("sampler", DRAWING)
def test_unfinished_points_come_first_and_count(sampler):
    plan = plan_of(sampler, trials=6)
    first = run(source(plan), most=4)
    records = [
        record_of(plan, config, status)
        for config, status in zip(first, ("FINISHED", "KILLED", "FAILED", "PENDING"), strict=True)
    ]
    rest = run(source(plan, records))
    assert {config.key(DIGEST) for config in rest[:2]} == {records[1].key, records[3].key}
    assert len(rest) == 4
    assert {config.key(DIGEST) for config in rest[2:]}.isdisjoint(record.key for record in records)


def fate(number, config):
    """What comes of the n-th trial: an accuracy, those by epoch of one that was stopped early, or a failure."""
    value = score(config)
    return (value, {1: value / 2, 3: value}, None)[number % 3]


def tell(points, key, what):
    if isinstance(what, dict):
        points.stopped_early(key, what)
    else:
        points.tell(key, None if what is None else (what,))


def record_with(plan, config, what):
    if isinstance(what, dict):
        history = [{"epoch": float(epoch), METRIC: value} for epoch, value in what.items()]
        return dataclasses.replace(record_of(plan, config, "STOPPED"), history=history, metrics={})
    return record_of(plan, config, "FAILED" if what is None else "FINISHED")


def known_to(points):
    """What a sampler knows of the points that were given, in their order."""
    return [trial for trial in points._known.study.trials if NUMBER in trial.user_attrs]


@pytest.mark.parametrize("sampler", DRAWING)
def test_failed_and_stopped_trials_are_told_as_what_they_are(sampler):
    """And the same is told of them by their records."""
    from optuna.trial import TrialState

    plan = plan_of(sampler, trials=12)
    points, records = source(plan), []
    for number, (key, config) in enumerate(itertools.islice(iter(points.ask, None), 6)):
        what = fate(number, config)
        tell(points, key, what)
        records.append(dataclasses.replace(record_with(plan, config, what), number=number))
    there, back = known_to(points), known_to(source(plan, records))
    assert [trial.state for trial in there] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL] * 2
    assert [(trial.state, trial.value, trial.intermediate_values, trial.params) for trial in back] == [
        (trial.state, trial.value, trial.intermediate_values, trial.params) for trial in there
    ]
    stopped = [trial for trial in there if trial.state == TrialState.PRUNED]
    assert all(
        list(trial.intermediate_values) == [1, 3] and trial.value == trial.intermediate_values[3] for trial in stopped
    )


@pytest.mark.parametrize("sampler", DRAWING)
def test_what_has_ended_is_not_proposed_again_and_counts(sampler):
    plan = plan_of(sampler, trials=9)
    points, records = source(plan), []
    for number, (key, config) in enumerate(itertools.islice(iter(points.ask, None), 5)):
        tell(points, key, fate(number, config))
        records.append(record_with(plan, config, fate(number, config)))
    rest = run(source(plan, records))
    assert len(rest) == 4
    assert {config.key(DIGEST) for config in rest}.isdisjoint(record.key for record in records)


def test_a_sampler_learns_from_what_it_is_told():
    """TPE, told that a large λ is better, proposes larger ones than one told the opposite."""
    plan = plan_of("tpe", {"lambda_": {"low": 0.05, "high": 20, "log": True}}, trials=60)

    def mean_of_last(sign):
        points, given = source(plan), []
        for key, config in iter(points.ask, None):
            given.append(config.lambda_)
            points.tell(key, (0.5 + sign * config.lambda_ / 100,))
        return sum(given[-20:]) / 20

    assert mean_of_last(+1) > 2 * mean_of_last(-1)


def test_of_a_loss_less_is_better():
    plan = plan_of("tpe", {"lambda_": {"low": 0.05, "high": 20, "log": True}}, trials=60)
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, choose_by="loss"))

    def mean_of_last(sign):
        points, given, records = source(plan), [], []
        for key, config in iter(points.ask, None):
            given.append(config.lambda_)
            value = 0.5 + sign * config.lambda_ / 100
            points.tell(key, (value,))
            made = make_trial(plan.request, {"lambda_": config.lambda_}, 0.5, val_loss=value)
            records.append(dataclasses.replace(made, key=key, number=len(records)))
        # What is read from the records is what was told.
        assert [trial.value for trial in known_to(source(plan, records))] == [trial.value for trial in known_to(points)]
        return sum(given[-20:]) / 20

    assert mean_of_last(-1) > 2 * mean_of_last(+1)


@pytest.mark.parametrize("sampler", DRAWING)
def test_another_seed_proposes_other_points(sampler):
    plan = plan_of(sampler, trials=5)
    plans = [dataclasses.replace(plan, request=dataclasses.replace(plan.request, seed=seed)) for seed in (0, 1)]
    first, second = (run(source(plan)) for plan in plans)
    assert not {config.lambda_ for config in first} & {config.lambda_ for config in second}


def test_quasi_random_points_fill_every_part_of_the_space():
    """Of 64 points of a Sobol' sequence in two dimensions, each of 8 × 8 equal squares holds one; at random, 37 % would
    be empty."""
    explore = {"lambda_": {"low": 0.05, "high": 20, "log": True}, "momentum": {"low": 0.5, "high": 0.9}}
    given = run(source(plan_of("quasi_random", explore, trials=64)))
    squares = {
        (int(8 * math.log(config.lambda_ / 0.05, 400)), int(8 * (config.momentum - 0.5) / 0.4)) for config in given
    }
    assert len(squares) == 64


@pytest.mark.parametrize("sampler", DRAWING)
def test_a_draw_that_was_lost_is_drawn_again(sampler):
    """A point that was given, and of which a killed launch has left no record, comes again in its place."""
    plan = plan_of(sampler, trials=5)
    first = run(source(plan), most=3)
    records = [record_of(plan, config, number=number) for number, config in enumerate(first) if number != 1]
    points = source(plan, records)
    key, config = points.ask()
    assert points.number_of(key) == 1
    if sampler in ("random", "quasi_random", "nsga2"):  # which do not look at the point that came after it
        assert config == first[1]


CONDITIONAL = {
    "method": ["dfd", "kd"],
    "temperature": {"low": 1, "high": 10, "when": {"method": "kd"}},
    "lambda_": {"low": 0.05, "high": 20, "log": True},
}


@pytest.mark.parametrize("sampler", DRAWING)
def test_a_setting_under_a_condition_is_drawn_where_that_is_met_and_resumes_alike(sampler):
    plan = plan_of(sampler, CONDITIONAL, trials=few(sampler, 24))
    whole = run(source(plan))
    unset = plan.request.settings["temperature"]
    assert {config.temperature for config in whole if config.method == "dfd"} == {unset}
    drawn = [config.temperature for config in whole if config.method == "kd"]
    assert len(set(drawn)) == len(drawn) > 1
    assert all(1 <= temperature <= 10 for temperature in drawn)
    records = [record_of(plan, config, number=number) for number, config in enumerate(whole[:9])]
    assert run(source(plan, records)) == whole[9:]


def test_a_small_space_with_conditions_is_gone_through():
    explore = {"method": ["dfd", "kd"], "temperature": {"values": [1, 2, 3], "when": {"method": ["kd"]}}}
    given = run(source(plan_of("random", explore)))
    assert sorted((config.method, config.temperature) for config in given) == [
        ("dfd", 4.0),
        ("kd", 1.0),
        ("kd", 2.0),
        ("kd", 3.0),
    ]


@pytest.mark.parametrize("sampler", DRAWING)
def test_two_objectives_are_told_and_resume_alike(sampler):
    plan = plan_of(sampler, trials=few(sampler, 24), objectives=("accuracy", "parameters"))

    def go_on(points):
        return [config for key, config in iter(points.ask, None) if points.tell(key, told(config, 2)) is None]

    whole = go_on(source(plan))
    records = [record_of(plan, config, number=number) for number, config in enumerate(whole[:9])]
    points = source(plan, records)
    assert [trial.values for trial in known_to(points)] == [list(told(config, 2)) for config in whole[:9]]
    assert go_on(points) == whole[9:]


def test_nsga2_breeds_from_the_generation_before():
    """Told that small batches are better in both objectives, it goes where these are: of batches drawn at random a
    seventh has at most 22 images; half of what is bred is a mutation, which is drawn at random too."""
    explore = {"batch_size": {"low": 16, "high": 64, "step": 1}, "momentum": {"low": 0.5, "high": 0.9}}
    plan = plan_of("nsga2", explore, trials=8 * POPULATION, objectives=("accuracy", "parameters"))
    points, given = source(plan), []
    for key, config in iter(points.ask, None):
        given.append(config.batch_size)
        points.tell(key, (1 - config.batch_size / 100, float(config.batch_size)))
    bred = given[4 * POPULATION :]
    assert sum(size <= 22 for size in bred) > 2 * len(bred) / 7


def test_a_sampler_is_a_row(monkeypatch):
    """A made-up one; used with nothing else changed."""
    from optuna.samplers import BaseSampler

    drawn = []

    class Parts(BaseSampler):
        def infer_relative_search_space(self, study, trial):
            return {}

        def sample_relative(self, study, trial, search_space):
            return {}

        def sample_independent(self, study, trial, name, distribution):
            return distribution.low + (distribution.high - distribution.low) / (2 + len(drawn))

    def make(draw):
        drawn.append(draw)
        return Parts()

    monkeypatch.setitem(SAMPLERS, "parts", Sampler(make=make, drawn="of parts", most_trials=4))
    plan = plan_of("parts", {"momentum": {"low": 0.5, "high": 0.9}}, trials=3)
    assert [config.momentum for config in run(source(plan))] == pytest.approx([0.5 + 0.4 / d for d in (3, 4, 5)])
    assert [(draw.search_seed, draw.number) for draw in drawn] == [(plan.request.seed, number) for number in range(3)]
    assert trials_problem(4, "parts") is None
    assert "1 to 4" in trials_problem(5, "parts")


def test_a_sampler_that_repeats_itself_is_left_for_chance(monkeypatch):
    """In a space too large to be gone through, points are drawn at random after some attempts."""
    from optuna.samplers import PartialFixedSampler, RandomSampler

    def make(draw):
        return PartialFixedSampler({"momentum": 0.7}, RandomSampler(seed=1))

    monkeypatch.setitem(SAMPLERS, "stubborn", Sampler(make=make, attempts=2))
    given = run(source(plan_of("stubborn", {"momentum": {"low": 0.5, "high": 0.9}}, trials=5)))
    assert [config.momentum for config in given].count(0.7) == 1
    assert len(given) == 5


def test_a_grid_gives_its_points_in_order_but_for_the_known_ones():
    plan = plan_of("grid", EIGHT)
    keys = list(plan.trials)
    done = [
        record_of(plan, plan.trials[key], status)
        for key, status in zip(keys, ("FINISHED", "FAILED", "PENDING"), strict=False)
    ]
    points = source(plan, done)
    assert points.at_once
    assert [key for key, _ in iter(points.ask, None)] == keys[2:]
    assert not points.left()


def test_distributions_are_those_of_the_axes():
    explore = {
        "epochs": Range(1, 9, step=2),
        "learning_rate": Range(0.01, 1.0, log=True),
        "backbone": Choice(("vgg16",)),
    }
    whole, real, listed = distributions(explore).values()
    assert (whole.low, whole.high, whole.step, whole.log) == (1, 9, 2, False)
    assert (real.low, real.high, real.step, real.log) == (0.01, 1.0, None, True)
    assert listed.choices == ("vgg16",)


def test_the_metric_is_what_records_call_it():
    plan = plan_of("grid", EIGHT)
    record = record_of(plan, next(iter(plan.trials.values())))
    assert record.metrics[METRIC] == score(next(iter(plan.trials.values())))
