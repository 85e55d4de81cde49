"""What share of a GPU a job gets: the one that was planned or, where a GPU's memory ran out, what was found to do.

A job whose share did not do gets twice as much, up to a whole GPU; those like it begin there, so that not each finds it
out anew. Shares only grow. Ray keeps no process to its share of the memory: a job may also run out because of what runs
beside it, and is then given more room than it needs alone. Not for: whether a share is free now (capacity.py), or
what other failures lead to (agenda.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable

from dfd_tune.config import TrialConfig
from dfd_tune.parts import FrontendConfig, Guide, ImportedConfig, PretrainedConfig
from dfd_tune.record import TrialRecord
from dfd_tune.search.jobs import Job

WHOLE = 1.0
"""A worker computes on one GPU, so that more than a whole one gives it nothing."""
DOES_NOT_FIT = "It does not fit a whole GPU's memory; take a smaller batch_size or width, or a GPU with more memory."


class Shares:
    """The shares of a GPU that the workers of a search's jobs get.

    Args:
        planned: share of each worker, as the search was launched; 0 where Ray is to count no GPUs, and all stays so.
        trials: records of an earlier launch, which tell what was found then.
    """

    def __init__(self, planned: float, trials: Iterable[TrialRecord] = ()):
        self.planned = planned
        self._found: dict[Hashable, float] = {}
        """What jobs are like -> the share that they get, above the planned one."""
        for trial in trials:
            if trial.gpus is not None and planned:
                job = Job(kind="trial", key=trial.key, config=TrialConfig(**trial.config))
                self._raise(job, min(WHOLE, trial.gpus))

    def given(self, job: Job) -> Job:
        """The job with the share that it is to get; its `gpus` is None where that is the planned one."""
        found = self._found.get(_alike(job)) if self._found else None
        return job if found == job.gpus else dataclasses.replace(job, gpus=found)

    def enlarged(self, job: Job) -> float | None:
        """Take note that a GPU's memory ran out at the job's share.

        Args:
            job: as `given` gave it.

        Returns:
            The larger share that it gets next; None if it had a whole GPU, or none is counted.
        """
        had = self.planned if job.gpus is None else job.gpus
        if not 0 < had < WHOLE:
            return None
        # What ran beside it with the same share may have told so before, and has been doubled already.
        self._raise(job, min(WHOLE, 2 * had))
        return self._found[_alike(job)]

    def _raise(self, job: Job, share: float) -> None:
        kind = _alike(job)
        if share > self._found.get(kind, self.planned):
            self._found[kind] = share


def _alike(job: Job) -> Hashable:
    """What a job needs of a GPU's memory depends on this, beside the images, which a search's jobs share."""
    config = job.config
    if isinstance(config, FrontendConfig):
        return (job.kind, config.kind, config.size, config.camera.resolution, config.batch_size)
    if isinstance(config, ImportedConfig):
        return (job.kind, str(config.file))
    network = (job.kind, config.network.backbone, config.network.width, config.network.batch_norm)
    if job.kind in ("test", "reference"):
        return network
    trained = (*network, config.recipe.batch_size, config.recipe.precision)
    if isinstance(config, PretrainedConfig):
        return trained
    teachers = tuple(_of_teacher(guide) for guide in config.guides())
    return (*trained, config.workers, config.method if config.distills else "", teachers)


def _of_teacher(guide: Guide) -> tuple[str, float]:
    if isinstance(guide, ImportedConfig):
        return str(guide.file), 0.0
    return guide.network.backbone, guide.network.width
