"""What a launch forecasts from its own first epochs, and what it takes down of how they ended."""

import pytest

from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.forecast import FIRST_PROCESS_SECONDS, JOB_SECONDS, Forecast
from dfd_tune.plan import make_plan
from dfd_tune.record import load_search
from dfd_tune.search.capacity import Node, Resources
from dfd_tune.search.estimate import Site
from dfd_tune.search.jobs import prerequisite_jobs, trial_job
from dfd_tune.search.launch import search_record
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.measured import OWN, Measured
from dfd_tune.search.options import LaunchOptions
from dfd_tune.store import open_store
from tests.report.conftest import NobodyWatches, SilentTracker
from tests.samples import request_for

SMALL = ("train_images=100", "test_images=60", "width=0.125", "backbone=[resnet18]", "lambda_=[0, 1, 2]")
LONG = ("epochs=2000", "teacher_epochs=1000")


class Launch:
    """One that runs on a machine with one core, by a clock that is set by hand."""

    def __init__(self, folder, *assignments, cpus=1.0, network_cpus=1.0):
        self.store = open_store(folder)
        request = request_for("lambda_grid", *SMALL, *assignments, confirm={"seeds": 0})
        dataset = prepare_dataset(request.dataset, self.store, lambda line: None)
        self.plan = make_plan(request, dataset, bank_budget=8_000_000_000)
        options = LaunchOptions(name="new")
        self.ledger = Ledger(
            self.store, search_record(self.plan, options, None), [], SilentTracker(), dataset.digest, NobodyWatches()
        )
        self.now, self.said = 0.0, []
        site = Site(Resources("cpu", cpus, 0.0, network_cpus), (Node("", "", cpus, 0.0, float("inf")),), "here")
        self.measured = Measured(self.plan, self.ledger, site, self.said.append, lambda: self.now)
        (self.teacher,) = prerequisite_jobs(self.plan.networks, (), dataset.digest)
        self.trials = [trial_job(config, key, dataset.digest) for key, config in self.plan.trials.items()]

    def epoch(self, job, number, seconds, training):
        """An epoch that took so long, so much of it for training."""
        self.now += seconds
        images = len(self.plan.dataset.train.labels)
        metrics = {"epoch": float(number), "images_per_second": images / training, "val_loss": 1.0}
        self.measured.epoch(job, metrics)

    @property
    def recorded(self):
        return Forecast.from_json(load_search(self.store, "new").forecast)


def test_a_teachers_first_seconds_tell_what_the_search_will_take(tmp_path):
    launch = Launch(tmp_path, *LONG)
    assert launch.said == []
    assert launch.recorded.wall_seconds is None
    launch.epoch(launch.teacher, 1, 30.0, 20.0)  # it warms up
    assert launch.said == []
    launch.epoch(launch.teacher, 2, 3.0, 2.0)
    launch.epoch(launch.teacher, 3, 4.5, 3.5)  # the driver was busy just then
    assert launch.said == [], "not long enough"
    launch.epoch(launch.teacher, 4, 3.0, 2.0)
    looked_at = len(launch.plan.dataset.test.labels) / len(launch.plan.dataset.validation.labels)
    found = launch.recorded
    teacher, *trials = found.parts
    assert all(part.source == OWN for part in found.parts)
    assert teacher.seconds > 1000 * 3.0 + looked_at + JOB_SECONDS, "its bank comes on top"
    assert [part.seconds for part in trials] == [pytest.approx(2000 * 3.0 + JOB_SECONDS)] * len(trials)
    assert found.wall_seconds == pytest.approx(teacher.seconds + 3 * (2000 * 3.0 + JOB_SECONDS) + FIRST_PROCESS_SECONDS)
    (line,) = launch.said
    launch.epoch(launch.teacher, 5, 3.0, 2.0)
    launch.epoch(launch.trials[0], 1, 9.0, 8.0)
    launch.epoch(launch.trials[0], 2, 9.0, 8.0)
    assert launch.said == [line], "it is told once"
    assert launch.recorded == found


def test_a_teacher_with_more_threads_tells_nothing_of_trials_which_then_tell_it_themselves(tmp_path):
    launch = Launch(tmp_path, *LONG, cpus=1.0, network_cpus=2.0)
    for number in (1, 2, 3, 4):
        launch.epoch(launch.teacher, number, 3.0, 2.0)
    assert launch.said == []
    for number in (1, 2, 3):
        launch.epoch(launch.trials[0], number, 5.0, 4.0)
    assert len(launch.said) == 1
    assert launch.recorded.parts[-1].seconds == pytest.approx(2000 * 5.0 + JOB_SECONDS)


def test_a_search_that_is_over_at_once_is_not_forecast_but_its_outcome_is_kept(tmp_path):
    launch = Launch(tmp_path, "epochs=3", "teacher_epochs=3")
    for job in (launch.teacher, *launch.trials):
        for number in (1, 2, 3):
            launch.epoch(job, number, 3.0, 2.0)
    launch.measured.network_made(9.0)
    launch.measured.ended()
    assert launch.said == []
    found = launch.recorded
    assert found.wall_seconds is None
    assert found.outcome == {"jobs": 1, "wall_seconds": 36.0, "device_hours": pytest.approx(9.0 / 3600)}
