"""Whose fault a failure is."""

import errno
import json
from dataclasses import asdict

import pytest
import torch
from ray.exceptions import ActorDiedError, OutOfMemoryError

from dfd_tune.data.arrow import DamagedFileError
from dfd_tune.distill.features import BankMismatchError
from dfd_tune.distill.training import DivergedError
from dfd_tune.distill.workbench import NotInStoreError
from dfd_tune.errors import UserError
from dfd_tune.search.faults import Failure, failure_of, lost_process
from dfd_tune.search.tasks import RankFailedError, failure_in


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
        PermissionError(errno.EACCES, "Permission denied", "/store/trials"),
        NotInStoreError("the teacher is not in the store"),
        DamagedFileError("train.arrow is cut short"),
        BankMismatchError("the bank is not whole"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
    ],
)
def test_the_machines(error):
    assert failure_of(raised(error), 3).fault == "machine"


def test_a_full_disk_is_told_apart_where_it_is_the_stores(tmp_path):
    here, there = (OSError(errno.ENOSPC, "No space left on device", str(tmp_path / name)) for name in ("store/k", "x"))
    found = failure_of(raised(here), store=tmp_path / "store")
    assert (found.store_full, found.fault) == (True, "machine")
    assert found.cause.startswith(f"The disk of '{tmp_path}/store/k' is full (")
    assert not failure_of(raised(there), store=tmp_path / "store").store_full
    assert not failure_of(raised(here)).store_full, "in a bucket, each node has a folder of its own"
    assert not failure_of(raised(OSError(errno.EIO, "", str(tmp_path / "store"))), store=tmp_path).store_full


@pytest.mark.parametrize("error", [ValueError("odd"), FileNotFoundError(errno.ENOENT, "gone"), RuntimeError("shapes")])
def test_other_exceptions_may_be_the_trials_own(error):
    failure = failure_of(raised(error), 3)
    assert (failure.fault, failure.epoch, failure.plain) == ("unknown", 3, False)
    assert failure.cause.startswith(type(error).__name__)
    assert "in raised" in failure.error, "the traceback tells where"


@pytest.mark.parametrize(
    "error", [DivergedError("The loss is not finite.", epoch=2), UserError("The file is damaged.")]
)
def test_divergence_and_what_the_user_can_mend_are_the_trials_own_in_plain_words(error):
    failure = failure_of(raised(error))
    assert (failure.fault, failure.plain, failure.cause) == ("trial", True, str(error))


def test_a_lost_process_is_the_machines_and_counts_unless_its_end_was_announced():
    killed, preempted = ActorDiedError(), ActorDiedError()
    preempted._preempted = True
    assert lost_process(killed).fault == lost_process(None).fault == "machine"
    assert lost_process(killed).counts
    assert not lost_process(preempted).counts
    assert "memory" in lost_process(OutOfMemoryError("killed")).cause


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"), False),
        (MemoryError(), False),
        (ValueError("CUDA out of memory."), False),
    ],
)
def test_want_of_a_gpus_memory_is_told_apart_from_want_of_the_machines(error, lacks):
    assert failure_of(raised(error)).gpu_memory == lacks


def test_a_process_killed_for_want_of_the_machines_memory_lacks_none_of_a_gpus():
    assert not lost_process(OutOfMemoryError("killed")).gpu_memory


class GroupError(Exception):
    """As Ray Train tells of a worker group."""

    def __init__(self, worker_failures):
        super().__init__("workers failed")
        self.worker_failures = worker_failures


def told_by_rank(failure):
    return RankFailedError(json.dumps(asdict(failure)))


def test_of_a_group_the_trials_own_fault_comes_before_what_it_did_to_the_other_ranks():
    peer = failure_of(RuntimeError("Connection closed by peer"))
    own = Failure("unknown", "ValueError: odd", "Traceback …", epoch=4)
    assert failure_in(GroupError({0: told_by_rank(peer), 1: told_by_rank(own)}), 0) == own
    diverged = Failure("trial", "The loss is not finite.", "Traceback …", epoch=1, plain=True)
    assert failure_in(GroupError({0: told_by_rank(own), 1: told_by_rank(diverged)}), 0) == diverged


def test_of_a_group_a_ranks_want_of_a_gpus_memory_comes_before_what_it_did_to_the_other_ranks():
    peer, short = failure_of(RuntimeError("NCCL error")), failure_of(torch.OutOfMemoryError("CUDA out of memory."))
    for first, second in ((peer, short), (short, peer)):
        assert failure_in(GroupError({0: told_by_rank(first), 1: told_by_rank(second)}), 0) == short


def test_of_a_group_a_lost_rank_is_the_machines():
    assert (
        failure_in(GroupError({0: told_by_rank(failure_of(RuntimeError("gloo"))), 1: ActorDiedError()}), 0).fault
        == "machine"
    )
