"""Which share of a GPU a job gets where its memory runs out, by the real agenda and capacity on made-up nodes."""

import dataclasses
import itertools
import re
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_tune.errors import UserError
from dfd_tune.record import TrialRecord
from dfd_tune.search.agenda import Agenda
from dfd_tune.search.capacity import Cluster, Node, Resources
from dfd_tune.search.faults import Failure
from dfd_tune.search.jobs import Job, Placed
from dfd_tune.search.launch import _raise_what_broke
from dfd_tune.search.shares import Shares
from tests.samples import digits_trial

SHORT = Failure("machine", "OutOfMemoryError: CUDA out of memory.", "Traceback …", epoch=2, gpu_memory=True)
LOST = Failure("machine", "its process was lost", "")
WIDE, NARROW = 1.0, 0.25


class NoPoints:
    at_once = True

    def __init__(self):
        self.told = {}

    def ask(self):
        return None

    def left(self):
        return False

    def tell(self, key, value):
        self.told[key] = value


def trial(key, width=WIDE, **settings):
    return Job(kind="trial", key=key, config=digits_trial(width=width, **settings))


def exam(key):
    return Job(kind="test", key=key, config=digits_trial(width=WIDE))


def reference(key):
    return dataclasses.replace(teacher(key), kind="reference")


def teacher(key, width=WIDE):
    return Job(kind="network", key=key, config=digits_trial(width=width).teacher())


def cluster(*gpus, planned=0.25, ask=None):
    nodes = [Node(f"node{number}", f"host{number}", 64, each, 1e12) for number, each in enumerate(gpus)]
    ticks = itertools.count()
    return Cluster(Resources("cuda", 1.0, planned, 1.0), lambda: nodes, lambda: next(ticks) * 10.0, ask)


def agenda_of(*jobs, planned=0.25, max_failures=3, records=()):
    points = NoPoints()
    return Agenda(jobs, points, lambda *_: None, list, max_failures, Shares(planned, records)), points


def drain(agenda, room):
    """Start all that fits; each job's key and bundle's share."""
    return {attempt.job.key: attempt for attempt in iter(lambda: agenda.next(room), None)}


def shares(attempts, room):
    return {key: room.bundle(attempt.job).get("GPU", 0.0) for key, attempt in attempts.items()}


@pytest.mark.parametrize("job", [trial("a"), teacher("a"), exam("a"), reference("a")])
def test_a_job_runs_again_with_twice_the_share_up_to_a_whole_gpu_and_then_fails(job):
    room = cluster(1)
    agenda, _ = agenda_of(job, max_failures=0)
    for number, (share, larger) in enumerate([(0.25, 0.5), (0.5, 1.0), (1.0, None)], 1):
        attempt = agenda.next(room)
        assert (attempt.number, room.bundle(attempt.job)["GPU"]) == (number, share)
        verdict = agenda.failed(attempt.job, SHORT, room)
        assert (verdict.gpus, verdict.again, verdict.left_out) == (larger, larger is not None, None)
    assert verdict.failure.fault == "trial", "it would come again"
    assert verdict.failure.plain
    assert {"batch_size", "width"} <= set(re.findall(r"\w+", verdict.failure.cause))
    assert verdict.failure.error == SHORT.error, "the traceback is kept"
    assert agenda.next(room) is None
    assert agenda.finished()
    assert job.kind == "trial" or agenda.broken == {job.id: verdict.failure}


def test_a_planned_share_that_does_not_double_into_a_whole_gpu_ends_at_one():
    room = cluster(1, planned=0.3)
    agenda, _ = agenda_of(trial("a"), planned=0.3)
    seen = []
    while (attempt := agenda.next(room)) is not None:
        seen.append(room.bundle(attempt.job)["GPU"])
        agenda.failed(attempt.job, SHORT, room)
    assert seen == [0.3, 0.6, 1.0]


def test_jobs_alike_begin_at_the_share_that_was_found_and_others_as_planned():
    room = cluster(1)
    jobs = [trial("first"), trial("alike", seed=1, learning_rate=0.5), trial("narrow", NARROW), teacher("teacher")]
    jobs += [trial("smaller batches", batch_size=8), trial("plain", lambda_=0.0), exam("first")]
    agenda, _ = agenda_of(*jobs)
    first = agenda.next(room)
    agenda.failed(first.job, SHORT, room)
    expected = {(job.kind, job.key): None if job.key not in ("first", "alike") else 0.5 for job in jobs}
    expected["test", "first"] = None
    assert {job.id: job.gpus for job in agenda.open_jobs()} == expected


def test_what_ran_beside_it_with_the_same_share_does_not_double_it_twice():
    room = cluster(1)
    agenda, points = agenda_of(*(trial(key, seed=number) for number, key in enumerate("abcd")))
    running = drain(agenda, room)
    assert shares(running, room) == dict.fromkeys("abcd", 0.25)
    assert [agenda.failed(attempt.job, SHORT, room).gpus for attempt in running.values()] == [0.5] * 4
    again = drain(agenda, room)
    assert sorted(shares(again, room).values()) == [0.5, 0.5], "two fit on the GPU now"
    for attempt in again.values():
        agenda.succeeded(attempt.job, 0.5)
    assert len(drain(agenda, room)) == 2
    assert set(points.told.values()) == {0.5}


def test_it_counts_neither_among_the_failures_that_are_allowed_nor_against_the_node():
    room = cluster(1, 1, planned=0.125)
    agenda, _ = agenda_of(trial("a"), planned=0.125, max_failures=1)
    for _ in range(3):
        attempt = agenda.next(room)
        agenda.started(attempt.job.id, "node0")
        agenda.failed(attempt.job, SHORT, room)
    assert agenda.left_out == set()
    assert agenda.failed(agenda.next(room).job, LOST, room).again, "the machine's first failure"
    attempt = agenda.next(room)
    assert room.bundle(attempt.job)["GPU"] == 1.0, "a lost process keeps the share"
    assert not agenda.failed(attempt.job, LOST, room).again


def test_a_job_that_waits_for_more_of_a_gpu_holds_up_no_smaller_one():
    room = cluster(1)
    agenda, _ = agenda_of(trial("wide"), *(trial(f"narrow{number}", NARROW, seed=number) for number in range(4)))
    running = drain(agenda, room)
    assert len(running) == 4
    agenda.failed(running["wide"].job, SHORT, room)
    (small,) = drain(agenda, room)
    assert small == "narrow3"
    for key in ("narrow0", "narrow1"):
        agenda.succeeded(running[key].job, 0.5)
    assert shares(drain(agenda, room), room) == {"wide": 0.5}


def test_a_search_that_goes_on_begins_with_what_it_found_before():
    known = trial("known")
    record = TrialRecord(key="known", status="FINISHED", config=dict(vars(known.config)), gpus=0.5)
    for planned, expected in ((0.25, 0.5), (0.5, 0.5), (1.0, 1.0), (0.0, 0.0)):
        room = cluster(1, planned=planned)
        agenda, _ = agenda_of(trial("next", seed=1), planned=planned, records=[record])
        assert shares(drain(agenda, room), room) == {"next": expected}


def test_where_ray_counts_no_gpus_want_of_memory_is_a_fault_of_the_machines():
    room = cluster(0, planned=0.0)
    agenda, _ = agenda_of(trial("a"), planned=0.0, max_failures=1)
    verdicts = [agenda.failed(agenda.next(room).job, SHORT, room) for _ in range(2)]
    assert [(verdict.again, verdict.gpus, verdict.failure.fault) for verdict in verdicts] == [
        (True, None, "machine"),
        (False, None, "machine"),
    ]


def test_a_search_that_is_stopping_begins_no_further_attempt():
    room = cluster(1)
    agenda, _ = agenda_of(trial("a"))
    attempt = agenda.next(room)
    agenda.stopping = True
    agenda.failed(attempt.job, SHORT, room)
    assert agenda.next(room) is None
    assert agenda.finished()


def test_an_autoscaler_is_asked_for_the_larger_share():
    asked = []
    room = cluster(1, ask=asked.append)
    agenda, _ = agenda_of(trial("a"), trial("b", NARROW))
    attempt = agenda.next(room)
    room.ask_for(list(agenda.open_jobs()))
    agenda.failed(attempt.job, SHORT, room)
    room.ask_for(list(agenda.open_jobs()))
    assert [[bundle["GPU"] for bundle in bundles] for bundles in asked] == [[0.25, 0.25], [0.5, 0.25]]


@settings(deadline=None, max_examples=50)
@given(
    planned=st.sampled_from([0.05, 0.1, 0.25, 0.3, 0.5, 0.7, 1.0]),
    needs=st.lists(st.floats(0.01, 1.5), min_size=1, max_size=8),
    gpus=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_shares_never_shrink_nor_exceed_a_whole_gpu_and_every_trial_ends(planned, needs, gpus, order):
    """Each kind of trials needs a share of its own; some fit on no GPU."""
    room = cluster(*gpus, planned=planned)
    jobs = [
        trial(f"{kind}-{seed}", width=0.125 * (kind + 1), seed=seed) for kind in range(len(needs)) for seed in range(3)
    ]
    agenda, points = agenda_of(*jobs, planned=planned, max_failures=0)
    seen = {job.key: [] for job in jobs}
    running = {}
    for _ in range(200):
        running |= drain(agenda, room)
        used = [room.bundle(attempt.job)["GPU"] for attempt in running.values()]
        assert sum(used) <= sum(gpus) + 1e-6
        if not running:
            break
        key = order.choice(sorted(running))
        attempt = running.pop(key)
        share = room.bundle(attempt.job)["GPU"]
        seen[key].append(share)
        if share < needs[int(key.split("-")[0])]:
            agenda.failed(attempt.job, SHORT, room)
        else:
            agenda.succeeded(attempt.job, 0.5)
    assert agenda.finished()
    for key, given_to in seen.items():
        need = needs[int(key.split("-")[0])]
        assert given_to == sorted(set(given_to)), "each attempt had more than the one before"
        assert planned <= given_to[0]
        assert given_to[-1] <= 1.0
        assert points.told[key] == (0.5 if need <= 1.0 else None)
        assert need > 1.0 or given_to[-1] < max(2 * need, planned + 1e-9), "no more than twice what it needs"


def test_a_test_that_fits_on_no_gpu_ends_the_launch_with_a_sentence():
    room = cluster(1, planned=1.0)
    agenda, _ = agenda_of(exam("a"), planned=1.0)
    verdict = agenda.failed(agenda.next(room).job, SHORT, room)
    nothing = SimpleNamespace(networks=(), later_networks=(), frontends=(), later_frontends=())
    with pytest.raises(UserError) as ended:
        _raise_what_broke(agenda, nothing, "digest")
    (problem,) = ended.value.problems
    assert verdict.failure.cause in problem


# Room on GPUs.


def test_a_share_is_of_one_gpu_and_not_put_together_from_two():
    room = cluster(2, planned=0.6)
    first, second = (Placed(trial(key)) for key in "ab")
    assert room.has_room(trial("b"), [first], ())
    assert not room.has_room(trial("c"), [first, second], ()), "0.4 is left of each"
    narrower = dataclasses.replace(trial("c"), gpus=0.4)
    assert room.has_room(narrower, [first, second, Placed(narrower)], ())
    assert not room.has_room(narrower, [first, second, Placed(narrower), Placed(narrower)], ())


def test_a_whole_gpu_has_nothing_else_on_it():
    room = cluster(2)
    whole = dataclasses.replace(trial("whole"), gpus=1.0)
    quarters = [Placed(trial(str(number))) for number in range(5)]
    assert room.has_room(whole, quarters[:4], ()), "four quarters share a GPU"
    assert not room.has_room(whole, quarters, ())
    assert not room.has_room(trial("c"), [Placed(whole), *quarters[:4]], ())


def test_a_worker_with_several_gpus_takes_whole_ones():
    room = cluster(3, planned=2.0)
    assert room.has_room(trial("a"), (), ())
    assert not room.has_room(trial("a"), [Placed(trial("b"))], ())
    assert room.has_room(trial("a"), [Placed(dataclasses.replace(trial("b"), gpus=0.5))], ())
