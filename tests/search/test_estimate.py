"""What a plan costs: what the store has of it already, and what earlier searches tell of its speed."""

import dataclasses

import pytest

from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.distill.probe import Timing
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import save_result, train_student
from dfd_tune.distill.workbench import Workbench
from dfd_tune.forecast import JOB_SECONDS, Speed
from dfd_tune.plan import make_plan
from dfd_tune.record import TrialRecord, save_search, save_trial
from dfd_tune.search.capacity import Node, Resources
from dfd_tune.search.estimate import EARLIER, Site, earlier_speeds, estimate, gain_of_bf16, with_those_alike
from dfd_tune.search.launch import search_record
from dfd_tune.search.options import LaunchOptions
from dfd_tune.search.works import works_of
from dfd_tune.store import open_store
from tests.samples import request_for

RESOURCES = Resources("cpu", 1.0, 0.0, 1.0)
HERE = Site(RESOURCES, (Node("", "", 2.0, 0.0, float("inf")),), "here")
SMALL = ("train_images=100", "test_images=60", "width=0.125", "epochs=10", "backbone=[resnet18]", "lambda_=[0, 1, 2]")
OPTIONS = LaunchOptions(name="new")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(tmp_path_factory.mktemp("estimate"))


def plan_of(store, *assignments, space="lambda_grid", **options):
    request = request_for(space, *SMALL, *assignments, **options)
    dataset = prepare_dataset(request.dataset, store, lambda line: None)
    return make_plan(request, dataset, bank_budget=OPTIONS.bank_budget)


def counts(plan, store, trials=None):
    works = works_of(plan, store, trials or {}, RESOURCES)
    return {work.what: (work.count, work.reused) for work in works if work.stage == "search"}


def record(key, config, seconds=20.0, rate=100.0, **changes):
    history = [{"epoch": float(epoch + 1), "images_per_second": rate} for epoch in range(config.epochs)]
    for epoch in history:
        if epoch["epoch"] % config.evaluate_every == 0 or epoch is history[-1]:
            epoch["val_loss"] = 1.0
    made = TrialRecord(
        key=key,
        status="FINISHED",
        config=vars(config),
        metrics={"seconds": seconds},
        history=history,
        host="here",
        device="cpu",
    )
    return dataclasses.replace(made, **changes)


def recorded(store, plan, name, *, device="cpu", cpus=1.0, **changes):
    """A search of that plan as it leaves its records, its plain trial alone finished."""
    search = search_record(plan, OPTIONS, None)
    resources = dataclasses.asdict(dataclasses.replace(RESOURCES, device=device, cpus=cpus))
    save_search(store, dataclasses.replace(search, search=name, resources=resources))
    key, config = next(item for item in plan.trials.items() if not item[1].distills)
    save_trial(store, name, record(key, config, **changes))


def plain_kind(plan, store):
    return next(work.kind for work in works_of(plan, store, {}, RESOURCES) if work.what.startswith("trials"))


def test_what_the_store_has_is_reused(tmp_path):
    store = open_store(tmp_path)
    plan = plan_of(store, "epochs=1", "teacher_epochs=1")
    assert counts(plan, store) == {
        "teacher resnet18": (1, 0),
        "trials resnet18, plain, 1 epochs": (1, 0),
        "trials resnet18, distilled, 1 epochs": (2, 0),
    }
    bench = Workbench(store, plan.dataset.folder.name, plan.banks, SingleProcess().device)
    (network,) = plan.networks
    assert network.bank is not None
    bench.prepare(network.config, SingleProcess())
    config = list(plan.trials.values())[1]
    student, result = train_student(config, bench, SingleProcess())
    save_result(student, result, config, bench)
    assert counts(plan, store) == {
        "teacher resnet18": (0, 1),
        "trials resnet18, plain, 1 epochs": (1, 0),
        "trials resnet18, distilled, 1 epochs": (1, 1),
    }
    store.discard("banks")
    (filling, *_) = works_of(plan, store, {}, RESOURCES)
    assert (filling.count, filling.epochs, filling.bytes_each) == (1, 0, network.bank_bytes)


def test_what_another_search_trained_anew_is_reused(tmp_path):
    store = open_store(tmp_path)
    plan = plan_of(store, "epochs=1", "teacher_epochs=1")
    plain = next(config for config in plan.confirming.with_fresh_seeds() if not config.distills)
    bench = Workbench(store, plan.dataset.folder.name, {}, SingleProcess().device)
    student, result = train_student(plain, bench, SingleProcess())
    save_result(student, result, plain, bench)
    works = [work for work in works_of(plan, store, {}, RESOURCES) if work.what.startswith("trained anew")]
    assert (sum(work.count for work in works), sum(work.reused for work in works)) == (plan.num_anew - 1, 1)


def test_trials_of_a_sampled_space_add_up_whatever_they_stand_for(store):
    plan = plan_of(store, "backbone=[resnet18, vgg16, alexnet]", "lambda_=[1, 2]", space="tpe_all", trials=10)
    own = [work for work in works_of(plan, store, {}, RESOURCES) if work.what.startswith("trials")]
    assert sum(work.count for work in own) == 10
    done = {
        key: record(key, config)
        for key, config in zip(
            "abc", [plan_of(store).request.trial({"lambda_": 1, "backbone": "vgg16"})] * 3, strict=True
        )
    }
    left = [work for work in works_of(plan, store, done, RESOURCES) if work.what.startswith("trials")]
    assert sum(work.count for work in left) == 7


def test_confirmations_are_counted_with_the_networks_that_they_alone_need(store):
    plan = plan_of(store)
    assert plan.num_anew
    works = [work for work in works_of(plan, store, {}, RESOURCES) if work.stage == "confirm"]
    trials = [work for work in works if work.what.startswith("trained anew")]
    assert sum(work.count for work in trials) == plan.num_anew
    assert all(work.looked_at == len(plan.dataset.test.labels) for work in trials)
    config = plan.confirming.arms[0]
    ended = {"x": record("x", config, stage="confirm"), "y": record("y", config, stage="confirm", status="FAILED")}
    left = [work for work in works_of(plan, store, ended, RESOURCES) if work.what.startswith("trained anew")]
    assert sum(work.count for work in left) == plan.num_anew - 2
    other = dataclasses.replace(config, backbone="vgg16")  # what was chosen is not what stands for it
    ended = {str(number): record("x", other, stage="confirm") for number in range(plan.num_anew)}
    left = [work for work in works_of(plan, store, ended, RESOURCES) if work.what.startswith("trained anew")]
    assert sum(work.count for work in left) == 0


def test_an_earlier_trial_tells_how_fast_training_and_evaluation_are(tmp_path):
    store = open_store(tmp_path)
    plan = plan_of(store)
    kind = plain_kind(plan, store)
    recorded(store, plan, "before", seconds=20.0, rate=100.0)
    (speed,) = earlier_speeds(plan, store, HERE, [kind]).values()
    train, validation = len(plan.dataset.train.labels), len(plan.dataset.validation.labels)
    # An epoch of 2 s, of which training takes a hundredth an image.
    assert speed.training == pytest.approx(0.01)
    assert speed.evaluation == pytest.approx((2.0 - 0.01 * train) / validation)
    # Half the epochs cost half as much; and the teacher is trained like a plain student.
    shorter = plan_of(store, "epochs=5", "teacher_epochs=7")
    found = estimate(shorter, store, {}, Site(RESOURCES, HERE.nodes, None), lambda line: None)
    seconds = {part.what: part.seconds for part in found.parts}
    assert seconds["trials resnet18, plain, 5 epochs"] == pytest.approx(5 * 2.0 + JOB_SECONDS)
    assert found.parts[1].source == EARLIER
    # A student on a bank is trained at the same speed.
    assert seconds["trials resnet18, distilled, 5 epochs"] == seconds["trials resnet18, plain, 5 epochs"]
    assert found.wall_seconds is not None


def test_what_is_distilled_from_a_live_teacher_costs_its_looks(store):
    plan = plan_of(store)
    kinds = {bool(work.kind.method): work.kind for work in works_of(plan, store, {}, RESOURCES)}
    plain, banked = kinds[False], kinds[True]
    assert banked.looks == (("resnet18", "bank"),)
    live = dataclasses.replace(banked, looks=(("resnet18", "live"),))
    speed = Speed(0.010, 0.004, "a watch")
    from_plain = with_those_alike({plain: speed}, [banked, live])
    assert (from_plain[banked].training, from_plain[live].training) == (pytest.approx(0.010), pytest.approx(0.014))
    assert with_those_alike({live: speed}, [plain])[plain].training == pytest.approx(0.006)
    more_threads = dataclasses.replace(plain, threads=2)
    assert with_those_alike({plain: speed}, [more_threads])[more_threads] == speed
    assert with_those_alike({more_threads: speed}, [plain]).keys() == {more_threads}
    by_vgg = dataclasses.replace(live, looks=(("vgg16", "live"),))
    assert with_those_alike({plain: speed}, [by_vgg]).keys() == {plain}, "nobody has seen a VGG-16"


def test_looking_at_validation_images_less_often_costs_less(tmp_path):
    store = open_store(tmp_path)
    plan = plan_of(store, "evaluate_every=4")  # after epochs 4, 8, 10
    train, validation = len(plan.dataset.train.labels), len(plan.dataset.validation.labels)
    recorded(store, plan, "before", seconds=0.1 * train + 3 * 2.0, rate=100.0)
    (speed,) = earlier_speeds(plan, store, HERE, [plain_kind(plan, store)]).values()
    assert speed.evaluation == pytest.approx(2.0 / validation)
    always = plan_of(store, "evaluate_every=1")
    found = estimate(always, store, {}, Site(RESOURCES, HERE.nodes, None), lambda line: None)
    seconds = {part.what: part.seconds for part in found.parts}
    assert seconds["trials resnet18, plain, 10 epochs"] == pytest.approx(0.1 * train + 10 * 2.0 + JOB_SECONDS)


def test_bf16_is_probed_where_trials_run_in_float32_on_this_machine(tmp_path, monkeypatch):
    probed = []

    def probe(store, dataset, kinds, device, seconds):
        probed.extend((kind.precision, at_once, device) for kind, at_once in kinds)
        return [Timing(training=3.0, evaluation=1.0), Timing(training=2.0, evaluation=1.0)]

    monkeypatch.setattr("dfd_tune.search.estimate.probe", probe)  # what it is: tests/distill/test_speed_probe.py
    store = open_store(tmp_path)
    assert gain_of_bf16(plan_of(store, "precision=float32"), store, HERE) == 1.5
    assert probed == [("float32", 2, "cpu"), ("bf16", 2, "cpu")]
    assert gain_of_bf16(plan_of(store, "precision=bf16"), store, HERE) is None
    assert gain_of_bf16(plan_of(store), store, dataclasses.replace(HERE, host=None)) is None


@pytest.mark.parametrize(
    "changes",
    [{"host": "elsewhere"}, {"status": "FAILED"}, {"host": None}, {"device": "cuda"}, {"cpus": 2.0}, {"history": []}],
    ids=str,
)
def test_trials_that_are_not_alike_tell_nothing(tmp_path, changes):
    store = open_store(tmp_path)
    plan = plan_of(store)
    recorded(store, plan, "before", **changes)
    assert earlier_speeds(plan, store, HERE, [plain_kind(plan, store)]) == {}


@pytest.mark.parametrize("other", ["train_images=200", "batch_size=32", "width=0.25"])
def test_other_images_or_settings_tell_nothing(tmp_path, other):
    store = open_store(tmp_path)
    recorded(store, plan_of(store), "before")
    plan = plan_of(store, other)
    assert earlier_speeds(plan, store, HERE, [plain_kind(plan, store)]) == {}


def test_the_newest_search_speaks_and_one_that_cannot_be_read_is_passed_over(tmp_path):
    store = open_store(tmp_path)
    plan = plan_of(store)
    recorded(store, plan, "first", rate=100.0)
    recorded(store, plan, "second", rate=50.0)
    recorded(store, plan, "foreign", rate=25.0)
    search = search_record(plan, OPTIONS, None)
    save_search(store, dataclasses.replace(search, search="foreign", request={"of": "another version"}))
    kind = plain_kind(plan, store)
    assert earlier_speeds(plan, store, HERE, [kind])[kind].training == pytest.approx(1 / 50)


def test_memory_bounds_how_many_run_at_once():
    node = Node("", "", 64.0, 0.0, 6_000_000_000.0)  # room for four processes
    assert Site(RESOURCES, (node, node), "here").pool.at_once(1.0, 0.0) == 8
