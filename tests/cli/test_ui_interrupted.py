"""What MLflow's pages are told of trials that nobody runs any more."""

from dfd_tune.cli.searches import _mark_interrupted
from dfd_tune.liveness import State
from dfd_tune.record import save_search, save_trial
from dfd_tune.store import open_store
from dfd_tune.tracking import open_tracker
from tests.report.searches import make_request, make_search, make_trial


def test_runs_of_an_interrupted_search_are_no_longer_running_in_mlflow(tmp_path):
    store, request = open_store(tmp_path / "store"), make_request({"lambda_": [0, 1]})
    search = make_search(request, {}, search="mine")
    trials = [
        make_trial(request, {"lambda_": 0.0}, 0.9),
        make_trial(request, {"lambda_": 1.0}, 0.9, status="RUNNING"),
    ]
    _mark_interrupted(store, search, State("interrupted"))
    assert not store.path("mlflow.db").exists()
    save_search(store, search)
    for trial in trials:
        save_trial(store, "mine", trial)
    tracker = open_tracker(store, None)
    assert tracker.sync(search, trials) == []

    def statuses():
        runs = tracker.runs("mine")
        return [tracker._client.get_run(runs[trial.key]).info.status for trial in trials]

    _mark_interrupted(store, search, State("running"))
    assert statuses() == ["FINISHED", "RUNNING"]
    _mark_interrupted(store, search, State("interrupted"))
    assert statuses() == ["FINISHED", "KILLED"]
    tracker.close()
