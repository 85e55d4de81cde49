"""A job inside a process that is reused: the state it begins in, and what it reports."""

import json

import pytest
import torch
from ray import tune

from dfd_tune.distill.arithmetic import CUBLAS_VARIABLE, compute
from dfd_tune.search import worker
from dfd_tune.search.capacity import Resources
from dfd_tune.search.context import SearchContext
from dfd_tune.search.jobs import Attempt, Job
from dfd_tune.search.process import REPORT
from tests.samples import digits_trial


@pytest.fixture
def run_here(monkeypatch, tmp_path):
    """Run a job in this process, in which `work` stands for what is done; returns what it reports last."""
    monkeypatch.setenv(CUBLAS_VARIABLE, "")
    monkeypatch.setattr(worker, "_whereabouts", lambda context: {"node": "here"})
    reports = []
    monkeypatch.setattr(tune, "report", reports.append)

    def run(work, *, deterministic):
        monkeypatch.setitem(worker.RUN, "trial", work)
        resources = Resources("cpu", 1.0, 0.0, 1.0)
        context = SearchContext(str(tmp_path), "mine", "data", (), resources, 60.0, deterministic=deterministic)
        worker.run_job({"attempt": Attempt(job=Job(kind="trial", key="a", config=digits_trial()), number=1)}, context)
        return json.loads(reports[-1][REPORT])

    yield run
    compute(deterministic=False)
    torch.backends.cudnn.benchmark = False


def test_each_job_begins_in_the_state_that_its_search_asks_for(run_here):
    def state(*_):
        enabled = torch.are_deterministic_algorithms_enabled()
        return {"deterministic": enabled, "tried_out": torch.backends.cudnn.benchmark}

    for asked in (True, False, True):
        torch.use_deterministic_algorithms(not asked)
        done = run_here(state, deterministic=asked)
        assert (done["outcome"], done["deterministic"], done["tried_out"]) == ("done", asked, not asked)


def test_an_operation_without_a_deterministic_version_is_a_plain_error_of_the_trials_own(run_here):
    def work(*_):
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
        return {}

    assert run_here(work, deterministic=False)["outcome"] == "done"
    done = run_here(work, deterministic=True)
    assert done["outcome"] == "failed"
    failure = done["failure"]
    assert (failure["fault"], failure["plain"]) == ("trial", True)
    assert "put_" in failure["cause"]
    assert "--deterministic" in failure["cause"]
    assert "put_(torch.tensor" in failure["error"], "the traceback tells where"
