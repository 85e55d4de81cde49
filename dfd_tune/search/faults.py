"""Whose fault a failure is: the machine's, which another attempt may mend, or the trial's own, which is a result.

The machine's: a lost process, worker or node, no memory, a full or failing disk, a file that may not be used, what
the store has lost, CUDA errors, a broken connection between workers. The trial's own: a loss that is not finite, an
operation that is not deterministic where it has to be, and any other exception once it comes again at the same epoch.
Want of a GPU's memory is told apart, as a larger share of the GPU may mend it. Not for: what is done about it
(agenda.py).
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from dfd_tune import disk
from dfd_tune.data.arrow import DamagedFileError
from dfd_tune.distill.arithmetic import NO_DETERMINISTIC_VERSION
from dfd_tune.distill.features import BankMismatchError
from dfd_tune.distill.training import DivergedError
from dfd_tune.distill.workbench import NotInStoreError
from dfd_tune.errors import UserError
from dfd_tune.record import Fault

MACHINE_ERRNOS = disk.FULL | disk.FAILING | disk.FORBIDDEN
MACHINE_WORDS = (
    "cuda error",
    "cuda out of memory",
    "cudnn error",
    "cublas_status",
    "nccl",
    "can't allocate memory",
    "not enough memory",
    "connection closed by peer",
    "connection reset by peer",
    "gloo",
    "socket timeout",
)
"""What torch says, in lower case, where it has no class of its own for a machine's fault."""
GPU_MEMORY_WORDS = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
"""Likewise for want of a GPU's memory: libraries beside torch's allocator take of it too."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended without a result; survives JSON."""

    fault: Fault
    """`unknown` becomes the trial's own when it comes again at the same epoch."""
    cause: str
    """One line."""
    error: str
    """The traceback, or what there is of one."""
    epoch: int = 0
    """Epochs done before it, counted over all attempts."""
    counts: bool = True
    """Whether it is one of the failures that are allowed; an announced pre-emption is not."""
    plain: bool = False
    """Whether the cause is a sentence for the user, who can mend it by other settings."""
    gpu_memory: bool = False
    """Whether a GPU's memory did not suffice."""
    store_full: bool = False
    """Whether the store's disk had no room: every other job would meet that as well, so the search ends."""


def failure_of(error: BaseException, epoch: int = 0, store: Path | None = None) -> Failure:
    """What an exception inside an attempt, caught where it was raised, says.

    Args:
        error: the exception.
        epoch: epochs done before it.
        store: the folder that all nodes share; None where there is none.
    """
    text = "".join(traceback.format_exception(error))
    operation = _without_deterministic_version(error)
    plain = operation is not None or isinstance(error, DivergedError | UserError)
    cause = " ".join(str(error).split()) if plain else disk.in_words(error) or one_line(error)
    if operation is not None:
        cause = (
            f"torch has no deterministic version of {operation}; launch the search without --deterministic, and with "
            "--retry-failed."
        )
    return Failure(
        _fault_of(error),
        cause,
        text,
        getattr(error, "epoch", epoch),
        plain=plain,
        gpu_memory=_lacks_gpu_memory(error),
        store_full=store is not None and _fills(error, store),
    )


def lost_process(error: BaseException | None) -> Failure:
    """What Ray says of a process that ended without a word: killed, out of memory, or gone with its node."""
    if error is None:
        return Failure("machine", "the process ended without saying why", "")
    announced = bool(getattr(error, "preempted", False))
    return Failure("machine", _loss_in_words(error), str(error), counts=not announced)


def _fault_of(error: BaseException) -> Fault:
    if isinstance(error, DivergedError | UserError) or _without_deterministic_version(error) is not None:
        return "trial"
    if isinstance(error, NotInStoreError | DamagedFileError | BankMismatchError):
        return "machine"  # which has lost what was made before
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in MACHINE_ERRNOS:
        return "machine"
    if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError", "DistBackendError", "DistNetworkError"):
        return "machine"  # torch's, named so that torch's private modules need not be imported
    if isinstance(error, RuntimeError | OSError) and any(word in str(error).lower() for word in MACHINE_WORDS):
        return "machine"
    return "unknown"


def _fills(error: BaseException, store: Path) -> bool:
    """Whether it is for want of room in the store that an error was raised."""
    if not isinstance(error, OSError) or error.errno not in disk.FULL or not isinstance(error.filename, str):
        return False
    return Path(error.filename).is_relative_to(store)


def _without_deterministic_version(error: BaseException) -> str | None:
    """The name of the operation that torch refuses as it is to be deterministic; None if that is not the error."""
    name, found, _ = str(error).partition(f" {NO_DETERMINISTIC_VERSION}")
    return name if found and isinstance(error, RuntimeError) else None


def _lacks_gpu_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in GPU_MEMORY_WORDS)


def _loss_in_words(error: BaseException) -> str:
    """Ray's account of a lost process in a few words; its own runs over many lines of identifiers."""
    text = str(error).lower()
    if getattr(error, "preempted", False):
        return "its node was pre-empted"
    if type(error).__name__ == "OutOfMemoryError":
        return "it was killed for want of memory"
    if "its node has died" in text or "node was terminated" in text or type(error).__name__ == "NodeDiedError":
        return "its node was lost"
    if getattr(error, "actor_init_failed", False):
        return "its process could not start"
    return "its process was killed or crashed"


def one_line(error: BaseException) -> str:
    """The last line of an error as a traceback ends with it."""
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return lines[-1].strip()[:500] if lines else type(error).__name__
