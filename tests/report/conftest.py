"""One real search, trained in this process and concluded, whose store tests may copy and damage; and a made-up one."""

import shutil

import pytest
import torch

from dfd_tune.axes import parse_axis
from dfd_tune.confirm import Confirm
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.data.recipes import DIGITS
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import save_result, train_student
from dfd_tune.distill.workbench import Workbench
from dfd_tune.plan import make_plan
from dfd_tune.record import SearchRecord, TestRecord, TrialRecord
from dfd_tune.search.capacity import Resources
from dfd_tune.search.conclude import conclude, follow_up
from dfd_tune.search.context import SearchContext
from dfd_tune.search.jobs import Attempt
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.tasks import RUN, frontend_record, network_record
from dfd_tune.settings import resolve
from dfd_tune.space import SearchSpace
from dfd_tune.store import FolderStore, Store, open_store
from tests.report.searches import ACCURACIES, REQUEST, TEACHERS, grid_trials, make_best, make_search

NAME = "real"
EXPLORE = {"frontend": ["none", "espcn"], "lambda_": [0, 2]}
CONFIRM = Confirm(seeds=2, cells="all", controls=("half_longer",))
ONLY = ({"lambda_": (0.0,)}, {"frontend": ("none",)})
SETTINGS = (
    "train_images=100",
    "test_images=60",
    "width=0.125",
    "backbone=alexnet",
    "reduction=mean",  # AlexNet without batch norm cannot bear sum
    "epochs=2",
    "frontend_epochs=1",
    "frontend_size=0.125",
)


class SilentTracker:
    """Takes everything, as MLflow's outbox does."""

    def log_trial(self, search, trial):
        pass

    def raise_if_refused(self):
        pass


class NobodyWatches:
    def changed(self, ledger, trial):
        pass

    def planned(self, count):
        pass


@pytest.fixture(scope="session")
def concluded(tmp_path_factory) -> Store:
    """A store with a search of three tiny students: plain and distilled, and plain behind a front end.

    Each cell is confirmed with two fresh seeds, and the first one has a control. Its report, too, is there. Not to be
    changed.
    """
    store = open_store(tmp_path_factory.mktemp("report") / "store")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small are slower on several
    axes = {name: parse_axis(name, values, "grid")[0] for name, values in EXPLORE.items()}
    space = SearchSpace("tiny", "", "grid", axes, {}, None, ONLY, confirm=CONFIRM)
    request = resolve(space, dataset="digits", data=None, recipe=DIGITS, assignments=SETTINGS)
    plan = make_plan(request, prepare_dataset(request.dataset, store, lambda line: None), bank_budget=0)
    bench = Workbench(store, plan.dataset.folder.name, {}, torch.device("cpu"))
    ledger = Ledger(store, search_record(plan), [], SilentTracker(), plan.dataset.digest, NobodyWatches())
    ledger.update_search(**networks(plan, bench))
    for config in plan.trials.values():
        train(config, bench, ledger, "search")
    follow_to_the_end(ledger, plan, bench)
    conclude(ledger, plan)
    torch.set_num_threads(threads)
    return store


@pytest.fixture
def store(concluded, tmp_path) -> Store:
    """A copy of that store without its report, to be changed."""
    shutil.copytree(concluded.root, tmp_path / "store", ignore=shutil.ignore_patterns("report"))
    return FolderStore(tmp_path / "store")


@pytest.fixture
def trials() -> list[TrialRecord]:
    """Four made-up trials, by backbone and λ, the best the last."""
    return grid_trials(REQUEST, lambda point: ACCURACIES[point["backbone"], point["lambda_"]])


@pytest.fixture
def search(trials) -> SearchRecord:
    """The made-up search of `trials`."""
    return make_search(REQUEST, TEACHERS, best=make_best(trials[-1]))


def train(config, bench, ledger, stage):
    student, result = train_student(config, bench, SingleProcess())
    save_result(student, result, config, bench)
    ledger.finished(config, result, stage=stage)


def follow_to_the_end(ledger, plan, bench):
    """What a launch has Ray's processes do once the search's own trials have ended, done in this one."""
    resources = Resources("cpu", 1.0, 0.0, 1.0)
    context = SearchContext(str(ledger.store.root), NAME, plan.dataset.folder.name, (), resources, 60.0)
    trained = [job for job in follow_up(ledger, plan) if job.kind == "trial"]  # what they need is there
    for job in trained:
        train(job.config, bench, ledger, job.stage)
    assert {job.stage for job in trained} == {"confirm"}
    for job in follow_up(ledger, plan):
        told = RUN[job.kind](job, context, SingleProcess(), Attempt(job=job, number=1))
        if job.kind == "test":
            ledger.tested(job.key, TestRecord(**told["test"]))
        else:
            ledger.tested_network(job.key, TestRecord(**told["test"]))
    assert follow_up(ledger, plan) == []


def search_record(plan) -> SearchRecord:
    request = plan.request
    return SearchRecord(
        search=NAME,
        space="tiny",
        explored={name: axis.as_json() for name, axis in request.explore.items()},
        dataset=plan.dataset_facts(),
        settings=dict(request.settings),
        sampler="grid",
        num_trials=plan.num_trials,
        seed=0,
        planned=list(plan.trials),
        confirm=request.confirm,
    )


def networks(plan, bench):
    """Have what the trials need made; records of teachers and front ends."""
    pretrained = [bench.prepare(planned.config, SingleProcess())[0] for planned in plan.networks]
    frontends = [bench.prepare_frontend(planned.config, SingleProcess())[0] for planned in plan.frontends]
    return {"teachers": list(map(network_record, pretrained)), "frontends": list(map(frontend_record, frontends))}
