"""The search itself: Ray Tune runs the agenda's jobs, each as one of its trials, in processes that are reused.

Tune asks our `Searcher` for work, which is bounded by the cluster as it is at that moment; our callback hears what
came of it. Tune itself retries nothing and keeps nothing: failures are counted in one place (agenda.py), and the store
is what a search resumes from. What Tune would do for each trial at a cost that grows with their number is left out (see
docs/performance.md). Not for: what a job does (worker.py), or which one is next (agenda.py).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ray import cloudpickle, tune
from ray.tune import Callback, PlacementGroupFactory, Stopper
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from dfd_tune.search.agenda import Agenda
from dfd_tune.search.capacity import Cluster
from dfd_tune.search.context import SearchContext, scratch
from dfd_tune.search.faults import Failure, lost_process
from dfd_tune.search.jobs import Attempt
from dfd_tune.search.process import REPORT
from dfd_tune.search.tasks import TUNE_DRIVER_CPUS, elsewhere
from dfd_tune.search.worker import run_job

TICK_SECONDS = 1.0
"""How often the driver looks whether it is to stop, and tells an autoscaler what is to come."""


class Books(Protocol):
    """What the driver tells of jobs."""

    def started(self, attempt: Attempt, where: Mapping[str, Any]) -> None:
        """An attempt runs."""

    def told(self, attempt: Attempt, what: Mapping[str, Any]) -> None:
        """An attempt reports an epoch, that it goes on from a checkpoint, or a warning."""

    def done(self, attempt: Attempt, what: Mapping[str, Any]) -> tuple[float, ...] | None:
        """A job is done; returns what its point is worth to a sampler."""

    def stopped_early(self, attempt: Attempt) -> dict[int, float]:
        """A trial's scheduler has ended it; returns its values of what the search chooses by, by epoch."""

    def failed(self, attempt: Attempt, failure: Failure, *, again: bool, gpus: float | None) -> None:
        """An attempt ended without a result; if another follows with a larger share of a GPU, with which."""

    def left_out(self, node: str) -> None:
        """A node gets no more work."""

    def tick(self) -> None:
        """Called about every second."""


def run(
    agenda: Agenda,
    cluster: Cluster,
    context: SearchContext,
    books: Books,
    trainable: Callable[[dict[str, Any], SearchContext], None] = run_job,
) -> None:
    """Do all that is on the agenda.

    Args:
        agenda: what is to be done.
        cluster: what it is done on.
        context: what all jobs share.
        books: told what comes of them.
        trainable: does a job, in a process of Tune's, and reports as `run_job` does.

    Raises:
        OSError: the books can't be written.
    """
    parts = scratch(context.search)
    searcher = AgendaSearcher(agenda, cluster, books)
    callback = AgendaCallback(agenda, cluster, books, searcher)
    try:
        with contextlib.suppress(_AllDoneError):
            _tuner(searcher, callback, trainable, context, context.store.path(*parts)).fit()
    except _BrokenOffError as end:
        raise end.cause from None
    finally:
        cluster.ask_for([])
        context.store.discard(*parts)


def _tuner(
    searcher: AgendaSearcher,
    callback: AgendaCallback,
    trainable: Callable[[dict[str, Any], SearchContext], None],
    context: SearchContext,
    folder: Path,
) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, context=context), _placement),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=AsAsked(),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: str(trial.config["attempt"]),
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="jobs",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            stop=OutcomeStopper(),
            callbacks=[callback, _Silent()],
        ),
    )


class _Silent(TrialProgressCallback):
    """In the place of Tune's own, which prints the last results of trials that end on a stop, however quiet it is."""

    def _print(self, msg: str) -> None:
        pass


class _AllDoneError(BaseException):
    """Ends Tune's loop. At an end of its own it would write down all trials, and look for their results' files.

    No `Exception`: after one of these Tune waits for its processes to end, which Ray does as well when it is stopped.
    """


class _BrokenOffError(BaseException):
    """Ends Tune's loop where the books can't be kept: of an `Exception`, Tune would hand on the traceback's text."""

    def __init__(self, cause: Exception):
        super().__init__(cause)
        self.cause = cause


class AsAsked(FIFOScheduler):
    """Runs trials in the order in which Tune was given them, without a look through all of them at every step.

    FIFOScheduler's look would also hand the process of a trial that has ended to one whose own is still starting, and
    end that: trials shorter than such a start would never get a second process.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: Tune goes on with those that wait, the first one first."""


class OutcomeStopper(Stopper):
    """A job that is done has nothing more to say, so that its process is not asked again."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this report is a job's last."""
        return REPORT in result and json.loads(result[REPORT]).get("outcome") in ("done", "early")

    def stop_all(self) -> bool:
        """Never: the searcher says when the search is finished."""
        return False


class AgendaSearcher(Searcher):
    """Tune's source of trials: the agenda's jobs, as many as the cluster has room for now."""

    def __init__(self, agenda: Agenda, cluster: Cluster, books: Books, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._agenda = agenda
        self._cluster = cluster
        self._books = books
        self._clock = clock
        self._ticked = float("-inf")
        self._no_room: tuple[int, object] | None = None
        """How things stood when there was last nothing to begin."""
        self.finished = False
        """Whether nothing runs any more, nor is anything left."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher into snapshots, which are never restored (the store is)."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job's attempt as a point; None to be asked again, or that the search is finished."""
        self.tick()
        nodes = self._cluster.nodes()  # another object once they were looked at again
        if self._no_room is not None and self._no_room[0] == self._agenda.changes and self._no_room[1] is nodes:
            return None
        attempt = self._agenda.next(self._cluster)
        if attempt is not None:
            return {"attempt": attempt, "bundle": self._bundle(attempt)}
        self._no_room = (self._agenda.changes, nodes) if self._agenda.running else None
        self.finished = self._agenda.finished()
        return Searcher.FINISHED if self.finished else None

    def _bundle(self, attempt: Attempt) -> dict[str, float]:
        """What Tune's process for the attempt holds; that of a worker group only waits for its workers."""
        return self._cluster.bundle(attempt.job) if attempt.job.workers == 1 else {"CPU": TUNE_DRIVER_CPUS}

    def tick(self) -> None:
        """What is done about every second. Called by whatever Tune calls, as it has long waits of its own."""
        now = self._clock()
        if now - self._ticked < TICK_SECONDS:
            return
        self._ticked = now
        self._books.tick()
        self._cluster.ask_for(list(self._agenda.open_jobs()))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback hears more than this, and tells the agenda."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the agenda is made anew from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored from Tune's own snapshots."""


class AgendaCallback(Callback):
    """Tune's events handed on to the agenda and the books."""

    def __init__(self, agenda: Agenda, cluster: Cluster, books: Books, searcher: AgendaSearcher):
        self._agenda = agenda
        self._cluster = cluster
        self._books = books
        self._searcher = searcher
        self._ends: dict[str, Mapping[str, Any]] = {}
        """Tune's trial id -> the outcome that its last report held."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks into snapshots, which are never restored (the store is)."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune's loop goes round."""
        self._searcher.tick()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Once nothing is left, Tune's loop ends.

        Raises:
            _AllDoneError: it is to end.
        """
        if self._searcher.finished:
            raise _AllDoneError

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A job reports.

        Raises:
            _BrokenOffError: that can't be put into the books.
        """
        if REPORT not in result:
            return
        attempt: Attempt = trial.config["attempt"]
        told = json.loads(result[REPORT])
        _forget_all_but(result, "done")
        if "started" in told:
            self._agenda.started(attempt.job.id, told["started"]["node"])
            with _breaking_off():
                self._books.started(attempt, told["started"])
        elif "outcome" in told:
            self._ends[trial.trial_id] = told
        else:
            with _breaking_off():
                self._books.told(attempt, told)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A job's function has returned.

        Raises:
            _BrokenOffError: that can't be put into the books.
        """
        with _breaking_off():
            self._end(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A job's process was lost, or ended itself after it had said why.

        Raises:
            _BrokenOffError: that can't be put into the books.
        """
        with _breaking_off():
            self._end(trial, _error_of(trial))

    def _end(self, trial: Any, error: BaseException | None) -> None:
        attempt: Attempt = trial.config["attempt"]
        told = self._ends.pop(trial.trial_id, None)
        if told is None:
            self._failed(attempt, lost_process(error))
        elif told["outcome"] == "done":
            self._agenda.succeeded(attempt.job, self._books.done(attempt, told))
        elif told["outcome"] == "early":
            self._agenda.stopped_early(attempt.job, self._books.stopped_early(attempt))
        elif told["outcome"] == "failed":
            self._failed(attempt, Failure(**told["failure"]))
        else:
            self._agenda.stopped(attempt.job)

    def _failed(self, attempt: Attempt, failure: Failure) -> None:
        verdict = self._agenda.failed(attempt.job, failure, self._cluster)
        self._books.failed(attempt, verdict.failure, again=verdict.again, gpus=verdict.gpus)
        if verdict.left_out is not None:
            self._books.left_out(verdict.left_out)


@contextlib.contextmanager
def _breaking_off() -> Iterator[None]:
    """An error of the store in the block ends Tune's loop."""
    try:
        yield
    except OSError as error:
        raise _BrokenOffError(error) from None


def _forget_all_but(result: dict[str, Any], *names: str) -> None:
    """Take out of a report what Tune would keep of every trial: its point, and statistics of every number."""
    for name in result.keys() - set(names):
        del result[name]


def _error_of(trial: Any) -> BaseException | None:
    """What Ray raised for a lost process, as Tune has noted it on this machine; None if it has not."""
    file = Path(trial.pickled_error_file or "")
    if not file.is_file():
        return None
    found: BaseException = cloudpickle.loads(file.read_bytes())
    return found


def _placement(point: Mapping[str, Any]) -> PlacementGroupFactory:
    """Where an attempt may run, and what it holds there; Tune asks before it makes a process for it."""
    selector = elsewhere(point["attempt"].avoid)
    if selector is None:
        return PlacementGroupFactory([point["bundle"]])
    return PlacementGroupFactory([point["bundle"]], bundle_label_selector=[selector])
