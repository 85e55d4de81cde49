"""Which job is next, what a failure leads to, and when a search has ended: all without Ray."""

import dataclasses

import pytest

from dfd_tune.search.agenda import Agenda
from dfd_tune.search.capacity import TRIAL_MEMORY_BYTES, Cluster, Node, Resources
from dfd_tune.search.faults import Failure
from dfd_tune.search.jobs import Job, Placed
from dfd_tune.search.limits import Limits
from tests.samples import digits_trial

CONFIG = digits_trial()
LOST = Failure("machine", "its process was lost", "")
ODD = Failure("unknown", "ValueError: odd", "Traceback …", epoch=3)
DIVERGED = Failure("trial", "The loss is not finite.", "Traceback …", epoch=1, plain=True)


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 10
        return self.now


def cluster(*cpus, gpus=0.0, resources=None):
    nodes = [Node(f"node{number}", f"host{number}", each, gpus, 1e12) for number, each in enumerate(cpus)]
    return Cluster(resources or Resources("cpu", 1.0, 0.0, 1.0), lambda: nodes, Clock()), nodes


class ListedPoints:
    def __init__(self, keys, at_once=True):
        self.keys, self.at_once, self.told = list(keys), at_once, []

    def ask(self):
        return (self.keys.pop(0), CONFIG) if self.keys else None

    def left(self):
        return bool(self.keys)

    def tell(self, key, value):
        self.told.append((key, value))

    def stopped_early(self, key, values):
        self.told.append((key, values))


def trial(key, *needs, workers=1):
    config = CONFIG if workers == 1 else digits_trial(workers=workers)
    return Job(kind="trial", key=key, config=config, needs=frozenset(needs))


def network(key):
    return Job(kind="network", key=key, config=CONFIG.teacher())


def agenda_of(jobs=(), keys=(), *, needs=(), at_once=True, follow_up=list, max_failures=3, limits=None):
    points = ListedPoints(keys, at_once)
    return Agenda(jobs, points, lambda key, _: trial(key, *needs), follow_up, max_failures, None, limits), points


def drain(agenda, room):
    """Start all that fits."""
    return [attempt.job.key for attempt in iter(lambda: agenda.next(room), None)]


def test_trials_that_need_no_teacher_run_beside_it_and_the_others_after():
    room, _ = cluster(2)
    waiting = trial("distilled", ("network", "teacher"))
    agenda, _ = agenda_of([network("teacher"), waiting, trial("plain")])
    assert drain(agenda, room) == ["teacher", "plain"]
    agenda.succeeded(trial("plain"), 0.5)
    assert drain(agenda, room) == []
    assert not agenda.finished()
    agenda.succeeded(network("teacher"))
    assert drain(agenda, room) == ["distilled"]
    agenda.succeeded(waiting, 0.7)
    assert agenda.finished()


def test_a_sampler_is_asked_only_when_a_trial_could_begin():
    room, _ = cluster(1)
    agenda, points = agenda_of([network("teacher")], ["a", "b"], needs=[("network", "teacher")], at_once=False)
    assert drain(agenda, room) == ["teacher"]
    assert points.keys == ["a", "b"]
    agenda.succeeded(network("teacher"))
    assert drain(agenda, room) == ["a"]
    assert points.keys == ["b"]
    agenda.succeeded(trial("a"), 0.25)
    assert points.told == [("a", 0.25)]
    assert drain(agenda, room) == ["b"]


def test_what_follows_is_asked_for_once_all_else_is_done_until_it_has_nothing():
    room, _ = cluster(4)
    rounds = [[trial("twin")], [Job(kind="test", key="twin", config=digits_trial())], []]
    agenda, _ = agenda_of([trial("a")], follow_up=lambda: rounds.pop(0))
    assert drain(agenda, room) == ["a"]
    assert not agenda.finished()
    agenda.succeeded(trial("a"), 0.5)
    for _ in range(2):
        assert not agenda.finished()
        (attempt,) = [agenda.next(room)]
        agenda.succeeded(attempt.job, 0.5)
    assert agenda.finished()
    assert rounds == []


@pytest.mark.parametrize("at_once", [True, False])
def test_so_many_trials_are_begun_and_what_follows_comes(at_once):
    room, _ = cluster(2)
    rounds, lines = [[trial("c"), dataclasses.replace(trial("anew"), stage="confirm")], []], []
    limits = Limits(max_trials=2, say=lines.append)
    agenda, points = agenda_of([], "abcd", at_once=at_once, follow_up=lambda: rounds.pop(0), limits=limits)
    assert drain(agenda, room) == ["a", "b"]
    agenda.failed(trial("a"), LOST, room)
    assert drain(agenda, room) == ["a"], "another attempt is no other trial"
    for key in "ab":
        agenda.succeeded(trial(key), 0.5)
    assert drain(agenda, room) == []
    assert not agenda.finished()
    # What follows may need a trial that was not begun, as the λ = 0 twin of the best.
    assert drain(agenda, room) == ["c", "anew"]
    for key in ("c", "anew"):
        agenda.succeeded(trial(key), 0.5)
    assert agenda.finished()
    assert len(lines) == 1
    assert "--max-trials 2" in lines[0]
    assert agenda.cut_short
    assert points.keys == ([] if at_once else ["c", "d"])


def test_where_the_store_is_full_the_search_stops_and_its_trial_is_not_given_up():
    room, _ = cluster(2)
    agenda, points = agenda_of([], "abc")
    assert drain(agenda, room) == ["a", "b"]
    full = Failure("machine", "The disk is full.", "", store_full=True)
    verdict = agenda.failed(trial("a"), full, room)
    assert (verdict.again, verdict.left_out, agenda.full) == (True, None, full)
    assert drain(agenda, room) == []
    assert not agenda.finished(), "what runs is waited for"
    agenda.succeeded(trial("b"), 0.5)
    assert agenda.finished()
    assert points.told == [("b", 0.5)]


def test_after_the_time_that_a_launch_has_no_trial_is_begun():
    room, _ = cluster(1)
    clock, lines = Clock(), []
    limits = Limits(max_seconds=45.0, say=lines.append, clock=clock)
    blocked = trial("late", ("network", "teacher"))
    agenda, _ = agenda_of([network("teacher"), blocked, trial("first"), trial("second")], limits=limits)
    assert drain(agenda, room) == ["teacher"]
    clock.now = 100.0
    agenda.succeeded(network("teacher"))
    assert drain(agenda, room) == []
    assert agenda.finished()
    assert len(lines) == 1
    assert "--max-time" in lines[0]


def test_a_limit_that_is_not_reached_is_not_told():
    room, _ = cluster(2)
    lines = []
    limits = Limits(max_seconds=1e6, max_trials=2, say=lines.append)
    agenda, _ = agenda_of(keys="ab", limits=limits)
    assert drain(agenda, room) == ["a", "b"]
    for key in "ab":
        agenda.succeeded(trial(key), 0.5)
    assert agenda.finished()
    assert lines == []
    assert not agenda.cut_short


def test_a_trial_that_is_stopped_early_is_over_and_told_with_its_epochs():
    room, _ = cluster(1)
    agenda, points = agenda_of(keys="ab")
    assert drain(agenda, room) == ["a"]
    agenda.stopped_early(trial("a"), {1: 0.25})
    assert points.told == [("a", {1: 0.25})]
    assert drain(agenda, room) == ["b"]
    agenda.succeeded(trial("b"), 0.5)
    assert agenda.finished()


def test_a_machines_failures_are_tried_again_as_often_as_is_allowed():
    room, _ = cluster(1)
    agenda, points = agenda_of(keys=["a"], max_failures=2)
    verdicts = []
    for number in range(1, 4):
        attempt = agenda.next(room)
        assert (attempt.job.key, attempt.number) == ("a", number)
        verdicts.append(agenda.failed(attempt.job, LOST, room).again)
    assert verdicts == [True, True, False]
    assert points.told == [("a", None)]
    assert agenda.finished()


def test_an_announced_pre_emption_does_not_count():
    room, _ = cluster(1)
    agenda, _ = agenda_of(keys=["a"], max_failures=0)
    for _ in range(5):
        assert agenda.failed(agenda.next(room).job, dataclasses.replace(LOST, counts=False), room).again
    assert not agenda.failed(agenda.next(room).job, LOST, room).again


def test_divergence_is_the_trials_own_at_once():
    room, _ = cluster(1)
    agenda, _ = agenda_of(keys=["a", "b"])
    verdict = agenda.failed(agenda.next(room).job, DIVERGED, room)
    assert (verdict.again, verdict.failure.fault) == (False, "trial")
    assert drain(agenda, room) == ["b"], "the rest goes on"


def test_an_exception_that_comes_again_at_the_same_epoch_is_the_trials_own_and_is_tried_on_another_node():
    room, _ = cluster(1, 1)
    agenda, _ = agenda_of(keys=["a"])
    first = agenda.next(room)
    agenda.started(first.job.id, "node0")
    assert agenda.failed(first.job, ODD, room).again
    second = agenda.next(room)
    assert second.avoid == ("node0",)
    verdict = agenda.failed(second.job, ODD, room)
    assert (verdict.again, verdict.failure.fault) == (False, "trial")


def test_an_exception_at_another_epoch_is_not_the_same_one():
    room, _ = cluster(1)
    agenda, _ = agenda_of(keys=["a"])
    for epoch in (1, 2):
        assert agenda.failed(agenda.next(room).job, dataclasses.replace(ODD, epoch=epoch), room).again
    assert not agenda.failed(agenda.next(room).job, dataclasses.replace(ODD, epoch=2), room).again


def test_on_the_only_node_a_second_attempt_runs_there_all_the_same():
    room, _ = cluster(1)
    agenda, _ = agenda_of(keys=["a"])
    first = agenda.next(room)
    agenda.started(first.job.id, "node0")
    agenda.failed(first.job, ODD, room)
    assert agenda.next(room).avoid == ()


def fail_on(agenda, room, node, failure=LOST):
    attempt = agenda.next(room)
    agenda.started(attempt.job.id, node)
    return agenda.failed(attempt.job, failure, room).left_out


def test_a_node_on_which_attempt_after_attempt_fails_is_left_out():
    room, _ = cluster(1, 1)
    agenda, _ = agenda_of(keys="abcdef", max_failures=1)
    assert [fail_on(agenda, room, "node0") for _ in range(3)] == [None, None, "node0"]
    assert agenda.next(room).avoid == ("node0",)
    assert agenda.next(room) is None, "the other node is full"


def test_a_success_in_between_clears_a_node_and_the_last_node_is_never_left_out():
    room, _ = cluster(1, 1)
    agenda, _ = agenda_of(keys="abcdefgh", max_failures=9)
    for _ in range(2):
        fail_on(agenda, room, "node0")
    well = agenda.next(room)
    agenda.started(well.job.id, "node0")
    agenda.succeeded(well.job, 0.5)
    assert [fail_on(agenda, room, "node0") for _ in range(2)] == [None, None]
    alone, _ = cluster(1)
    assert [fail_on(agenda, alone, "node1") for _ in range(5)] == [None] * 5


def test_what_waits_for_a_network_that_broke_is_not_run_and_the_rest_is():
    room, _ = cluster(3)
    asked = []
    lost = trial("distilled", ("network", "teacher"))
    agenda, _ = agenda_of([network("teacher"), lost, trial("plain")], follow_up=lambda: asked.append(1) or [])
    assert drain(agenda, room) == ["teacher", "plain"]
    agenda.failed(network("teacher"), DIVERGED, room)
    assert drain(agenda, room) == []
    assert not agenda.finished(), "the plain trial still runs"
    agenda.succeeded(trial("plain"), 0.5)
    assert agenda.finished()
    assert list(agenda.broken) == [("network", "teacher")]
    assert not asked, "nothing is concluded from half a search"


def test_a_search_that_stops_waits_for_what_runs_and_begins_nothing():
    room, _ = cluster(4)
    agenda, _ = agenda_of(keys="ab")
    first = agenda.next(room)
    agenda.stopping = True
    assert agenda.next(room) is None
    assert not agenda.finished()
    agenda.stopped(first.job)
    assert agenda.finished()


def test_a_job_that_was_quicker_than_the_driver_to_see_that_it_is_to_stop_stops_the_search():
    room, _ = cluster(4)
    agenda, _ = agenda_of(keys="abc")
    first = agenda.next(room)
    agenda.stopped(first.job)
    assert agenda.stopping
    assert agenda.next(room) is None
    assert agenda.finished()


def test_ten_thousand_points_cost_no_more_each_than_a_few():
    """Counts looks at the points, not seconds: each is taken from the list once."""
    room, _ = cluster(1)
    agenda, points = agenda_of(keys=[f"key{number}" for number in range(10_000)])
    for number in range(10_000):
        attempt = agenda.next(room)
        assert attempt.job.key == f"key{number}"
        agenda.succeeded(attempt.job, 0.0)
    assert agenda.finished()
    assert len(points.told) == 10_000


# The cluster as it is now.


def test_a_job_is_held_against_nodes_not_against_their_sum():
    three = Resources("cpu", 3.0, 0.0, 3.0)
    room, _ = cluster(2, 2, 2, 2, resources=three)
    job = trial("a")
    assert room.has_room(job, (), ()) == (3.0 <= 2)
    room, _ = cluster(2, 4, resources=three)
    assert room.has_room(job, (), ())
    assert not room.has_room(job, [Placed(job)], ())
    assert not room.has_room(job, (), {"node1"})


def test_nodes_that_come_and_go_change_what_fits():
    room, nodes = cluster(1)
    running = Placed(trial("a"))
    assert not room.has_room(trial("b"), [running], ())
    nodes.append(Node("new", "host", 1, 0, 1e12))
    assert room.has_room(trial("b"), [running], ())
    del nodes[:]
    assert not room.has_room(trial("b"), (), ())
    assert room.gone("new")


def test_a_worker_group_fits_only_whole_and_may_span_nodes():
    room, _ = cluster(1, 2)
    assert room.has_room(trial("a", workers=3), (), ())
    assert not room.has_room(trial("a", workers=4), (), ())
    assert not room.has_room(trial("a", workers=3), [Placed(trial("b"))], ())


def test_memory_bounds_how_many_run_but_one_always_may():
    nodes = [Node("node0", "host", 64, 0, 2.5 * TRIAL_MEMORY_BYTES)]
    room = Cluster(Resources("cpu", 1.0, 0.0, 1.0), lambda: nodes, Clock())
    assert room.has_room(trial("c"), [Placed(trial("a"))], ())
    assert not room.has_room(trial("c"), [Placed(trial("a")), Placed(trial("b"))], ())
    nodes[0] = dataclasses.replace(nodes[0], memory=1.0)
    assert room.has_room(trial("a"), (), ())


def test_parts_of_a_gpu_add_up():
    room, _ = cluster(64, gpus=1.0, resources=Resources("cuda", 1.0, 0.1, 1.0))
    running = [Placed(trial(str(number))) for number in range(9)]
    assert room.has_room(trial("tenth"), running, ())
    assert not room.has_room(trial("eleventh"), [*running, Placed(trial("tenth"))], ())


def test_an_autoscaler_is_told_of_changes_alone_and_let_go_at_the_end():
    asked = []
    room = Cluster(Resources("cuda", 2.0, 1.0, 2.0), list, Clock(), ask=asked.append)
    jobs = [trial("a"), trial("b", workers=2)]
    for _ in range(3):
        room.ask_for(jobs)
    room.ask_for([])
    assert asked == [[{"CPU": 2.0, "GPU": 1.0}] * 3, []]


@pytest.mark.parametrize("kind", ["trial", "network"])
def test_frozen_threads_go_on_on_a_smaller_machine(kind):
    room, _ = cluster(2, resources=Resources("cpu", 1.0, 0.0, 8.0))
    job = trial("a") if kind == "trial" else network("teacher")
    assert room.has_room(job, (), ())
    assert room.bundle(job) == {"CPU": 1.0 if kind == "trial" else 2.0}
    assert room.resources.threads(kind) == (1 if kind == "trial" else 8)
