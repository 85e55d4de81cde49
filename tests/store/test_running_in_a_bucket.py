"""Who runs a search whose store is in a bucket, as this node and others see it."""

import pytest

from dfd_tune.errors import UserError
from dfd_tune.liveness import ask_to_stop, running, runs_on_another_node, state_of, stop_asked
from dfd_tune.machine import this_process
from dfd_tune.record import load_search, load_trials, save_search, save_trial, search_names
from dfd_tune.search.context import SearchContext, end_early
from dfd_tune.store import BucketError, read_json
from dfd_tune.store.bucket import Bucket
from dfd_tune.store.files import as_json
from dfd_tune.store.seals import sealed
from tests.report.searches import make_request, make_search, make_trial

REQUEST = make_request({"lambda_": [0, 1]})


def written(store):
    save_search(store, make_search(REQUEST, {}, search="mine"))
    save_trial(store, "mine", make_trial(REQUEST, {"lambda_": 0.0}, 0.5, status="RUNNING"))


def test_both_nodes_see_who_runs_it_and_how_it_ended(in_bucket, opened_anew):
    other = opened_anew(in_bucket)
    assert state_of(other, "mine").kind == "never"
    with running(in_bucket, "mine", print):
        written(in_bucket)
        for store, elsewhere in ((in_bucket, False), (other, True)):
            state = state_of(store, "mine")
            assert (state.kind, state.process.pid) == ("running", this_process().pid)
            assert runs_on_another_node(store, "mine", state) == elsewhere
        with pytest.raises(UserError, match=f"process {this_process().pid} "), running(other, "mine", print):
            pass
        with pytest.raises(UserError, match=f"process {this_process().pid} "), running(in_bucket, "mine", print):
            pass
        ask_to_stop(other, "mine")
        assert stop_asked(in_bucket, "mine")
    assert not stop_asked(other, "mine")
    for store in (in_bucket, other):
        assert (state_of(store, "mine").kind, state_of(store, "mine").how) == ("ended", "finished")
        assert len(load_trials(store, load_search(store, "mine"))) == 1


def test_a_reader_on_the_writers_node_takes_nothing_away_from_it(in_bucket):
    """The writer's files are newer than the bucket's for a moment at each change."""
    with running(in_bucket, "mine", print):
        written(in_bucket)
        file = in_bucket.path("searches", "mine", "search.json")
        text = sealed(as_json(read_json(file) | {"seed": 77}))
        file.write_text(text)
        assert load_search(in_bucket, "mine").seed == 77
        assert file.read_text() == text


def test_a_launch_that_is_refused_leaves_no_trace(in_bucket):
    with pytest.raises(UserError), running(in_bucket, "mine", print):
        raise UserError("no")
    assert search_names(in_bucket) == []
    assert in_bucket.bucket.files("searches") == {}
    assert in_bucket.bucket.files("leases") == {}


def test_who_trains_asks_whether_to_stop_no_more_often_than_is_said(in_bucket, monkeypatch):
    now, asked = [1000.0], []
    has = Bucket.has

    def watching(self, *parts):
        asked.append(parts)
        return has(self, *parts)

    monkeypatch.setattr(Bucket, "has", watching)
    monkeypatch.setattr("dfd_tune.search.context.time.monotonic", lambda: now[0])
    context = SearchContext(in_bucket.location, "mine", "k", (), None, 60.0)
    checkpoints = context.checkpoints("trials", "k")
    assert not any(checkpoints.stop_asked() for _ in range(100))
    assert len(asked) == 2
    end_early(in_bucket, "mine", checkpoints.key)
    assert not checkpoints.stop_asked()
    now[0] += 10
    assert checkpoints.stop_asked()
    assert context.ends_early(checkpoints.key)
    assert not context.stopping()
    assert len(asked) == 4


def test_a_bucket_that_is_away_stops_no_training(in_bucket, monkeypatch):
    def away(self, *parts):
        raise BucketError("away")

    monkeypatch.setattr(Bucket, "has", away)
    context = SearchContext(in_bucket.location, "other", "k", (), None, 60.0)
    assert not context.stopping()
    assert not context.ends_early("trials-k")
