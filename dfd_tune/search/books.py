"""What the driver hears of jobs, put into the ledger, the search's record and lines for a person.

Not for: how trials' records are made (ledger.py), or what is shown of them (progress.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dfd_tune.axes import explored_at
from dfd_tune.config import TrialConfig
from dfd_tune.liveness import stop_asked, who_asked
from dfd_tune.objectives import values_of
from dfd_tune.parts import FrontendConfig, Guide, ImportedConfig
from dfd_tune.record import FrontendRecord, TeacherRecord, TestRecord, describe_point
from dfd_tune.search.agenda import Agenda
from dfd_tune.search.capacity import Cluster, Node
from dfd_tune.search.early_stopping import EarlyStopping
from dfd_tune.search.faults import Failure
from dfd_tune.search.jobs import Attempt
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.measured import Measured
from dfd_tune.search.progress import Progress
from dfd_tune.search.tasks import Prepared, result_from

GRACE_SECONDS = 60.0
"""How long a search that was asked to stop waits for the running jobs' checkpoints."""


class SearchBooks:
    """One search's books; see `driver.Books`.

    Args:
        ledger: of the trials.
        agenda: told to stop when somebody asks for that.
        order: keys of the networks and front ends in the plan's order.
        cluster: to tell of nodes that come and go.
        progress: shows what runs.
        measured: told how long all of it takes.
        early: told of every epoch of a trial.
        prepare: called once, when the first job runs.
        say: takes lines for a person.
        clock: seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        agenda: Agenda,
        order: list[str],
        cluster: Cluster,
        progress: Progress,
        measured: Measured,
        early: EarlyStopping,
        prepare: Callable[[], None],
        say: Callable[[str], None],
        clock: Callable[[], float],
    ):
        self._ledger = ledger
        self._order = order
        self._cluster = cluster
        self._progress = progress
        self._say = say
        self._clock = clock
        self._nodes: dict[str, Node] = {node.id: node for node in cluster.nodes()}
        self._waited: str | None = None
        self._stop_at: float | None = None
        self._agenda = agenda
        self._measured = measured
        self._early = early
        self._prepare: Callable[[], None] | None = prepare

    def started(self, attempt: Attempt, where: Mapping[str, Any]) -> None:
        """An attempt runs; at the first one, the driver has time to prepare the end."""
        if self._prepare is not None:
            self._prepare()
            self._prepare = None
        job = attempt.job
        if isinstance(job.config, TrialConfig):
            if job.kind == "trial":
                self._ledger.started(
                    job.config,
                    job.key,
                    host=where["host"],
                    device=where["device"],
                    gpus=job.gpus,
                    stage=job.stage,
                )
        else:
            self._progress.network_started(job.key, title(job.config), job.config)

    def told(self, attempt: Attempt, what: Mapping[str, Any]) -> None:
        """An epoch is done, a job goes on from a checkpoint, or its process warns of something."""
        job = attempt.job
        if "warning" in what:
            self._say(f"{self._name(attempt)}: {what['warning']}")
            return
        if "epoch" in what:
            self._measured.epoch(job, what["epoch"])
        if job.kind != "trial":
            epochs = what["resumed"] if "resumed" in what else [what["epoch"]]
            self._progress.network_epoch(job.key, epochs[-1])
            return
        assert isinstance(job.config, TrialConfig)
        if "resumed" in what:
            self._ledger.resumed(job.key, what["resumed"])
            self._early.behind(job.key, job.config, job.stage, what["resumed"])
        elif "epoch" in what:
            self._ledger.epoch_done(job.key, what["epoch"])
            self._early.epoch(job.key, job.config, job.stage, what["epoch"])

    def done(self, attempt: Attempt, what: Mapping[str, Any]) -> tuple[float, ...] | None:
        """A job is done; returns what a trial reached, a value for each objective."""
        job = attempt.job
        if job.kind == "trial":
            assert isinstance(job.config, TrialConfig)
            result = result_from(what)
            self._early.behind(job.key, job.config, job.stage, result.history)
            peak = what.get("peak_memory_bytes")
            done = self._ledger.finished(job.config, result, peak_memory_bytes=peak, stage=job.stage)
            search = self._ledger.search
            return values_of(done.metrics, search.objectives, search.criterion)
        self._progress.network_ended(job.key)
        if job.kind == "test":
            self._ledger.tested(job.key, TestRecord(**what["test"]))
        elif job.kind == "reference":
            self._ledger.tested_network(job.key, TestRecord(**what["test"]))
        else:
            assert not isinstance(job.config, TrialConfig)
            of = Prepared.of_frontend if isinstance(job.config, FrontendConfig) else Prepared.of_network
            self._prepared(job.config, of(what))
        return None

    def stopped_early(self, attempt: Attempt) -> dict[int, float]:
        """A trial's scheduler has ended it; returns its values of what the search chooses by, by epoch."""
        job = attempt.job
        assert isinstance(job.config, TrialConfig)
        record = self._ledger.stopped_early(job.config, job.key, stage=job.stage)
        return self._ledger.search.criterion.by_epoch(record.history)

    def failed(self, attempt: Attempt, failure: Failure, *, again: bool, gpus: float | None) -> None:
        """An attempt ended without a result; if another follows with a larger share of a GPU, with which."""
        job = attempt.job
        if job.kind == "trial":
            assert isinstance(job.config, TrialConfig)
            if again:
                self._ledger.interrupted(job.config, job.key, stage=job.stage)
            else:
                self._ledger.failed(job.config, job.key, failure, stage=job.stage)
        self._progress.network_ended(job.key)
        if gpus is not None:
            had = self._cluster.bundle(job)["GPU"]
            self._say(
                f"{self._name(attempt)}: attempt {attempt.number} ran out of memory on {had:g} of a GPU; it goes on "
                f"with {gpus:g}, and those like it begin so."
            )
        elif failure.store_full:
            self._say(f"{self._name(attempt)}: attempt {attempt.number} had no room in the store; the search stops.")
        elif again:
            what = "exception" if failure.fault == "unknown" else "lost"
            self._say(f"{self._name(attempt)}: attempt {attempt.number} {what} ({failure.cause}); it is tried again.")

    def left_out(self, node: str) -> None:
        """A node gets no more work."""
        known = self._nodes.get(node)
        host = known.host if known is not None else node
        self._say(f"Node {host} ({node[:8]}) is left out from now on: attempt after attempt failed there.")

    def tick(self) -> None:
        """Look at the cluster, and whether the search is to stop.

        Raises:
            UserError: MLflow's database can't be opened.
        """
        self._ledger.tracker.raise_if_refused()
        self._tell_of_nodes()
        self._maybe_stop()

    def _tell_of_nodes(self) -> None:
        now = {node.id: node for node in self._cluster.nodes()}
        for lost in self._nodes.keys() - now.keys():
            self._say(f"Node {self._nodes[lost].host} ({lost[:8]}) was lost; its jobs go on elsewhere.")
        for joined in now.keys() - self._nodes.keys():
            node = now[joined]
            self._say(f"Node {node.host} ({joined[:8]}) joined: {node.cpus:g} CPUs, {node.gpus:g} GPUs.")
        self._nodes = now
        needs_gpu = self._cluster.resources.gpus > 0
        if needs_gpu and all(node.gpus == 0 for node in now.values()):
            self._wait_for("a GPU: the search is for device cuda, and no node has one yet")
        else:
            self._waited = None

    def _wait_for(self, what: str) -> None:
        if self._waited != what:
            self._waited = what
            self._say(f"Waiting for {what}.")

    def _maybe_stop(self) -> None:
        """End as on Ctrl-C, but for the running jobs, which have time to write a checkpoint."""
        if not stop_asked(self._ledger.store, self._ledger.search.search):
            return
        if self._stop_at is None:
            who = who_asked(self._ledger.store, self._ledger.search.search)
            self._say(f"Asked to stop by {who}; waiting for what runs to keep where it is.")
            self._stop_at = self._clock() + GRACE_SECONDS
            self._agenda.stopping = True
        if not self._agenda.running or self._clock() > self._stop_at:
            raise KeyboardInterrupt

    def _prepared(self, config: Guide | FrontendConfig, made: Prepared) -> None:
        record, search = made.record, self._ledger.search
        name = "frontends" if isinstance(record, FrontendRecord) else "teachers"
        known = {found.key: found for found in getattr(search, name)}
        if isinstance(record, TeacherRecord) and record.key in known:
            record = dataclasses.replace(record, test_accuracy=known[record.key].test_accuracy)
        known[record.key] = record
        # What an earlier launch made comes first where the plan does not name it any more.
        ordered = sorted(
            known.values(), key=lambda found: self._order.index(found.key) if found.key in self._order else -1
        )
        self._ledger.update_search(**{name: ordered})
        if (made.trained or made.filled) and not isinstance(config, ImportedConfig):  # which are not forecast
            self._measured.network_made(made.seconds)
        self._say(_line(config, made))

    def _name(self, attempt: Attempt) -> str:
        config = attempt.job.config
        if isinstance(config, TrialConfig):
            settings = dataclasses.asdict(config)
            what = describe_point(settings, explored_at(settings, self._ledger.search.explored))
            return what if attempt.job.kind == "trial" else f"Test of {what}"
        return title(config) if attempt.job.kind != "reference" else f"Test of {title(config)}"


def title(config: Guide | FrontendConfig) -> str:
    """A network's name for a person."""
    if isinstance(config, FrontendConfig):
        return f"Front end {config.kind}"
    if isinstance(config, ImportedConfig):
        return f"Teacher {config.file}"
    return f"{'Teacher' if config.role == 'teacher' else 'Base network'} {config.network.backbone}"


def _line(config: Guide | FrontendConfig, made: Prepared) -> str:
    record = made.record
    file = record.file if isinstance(record, TeacherRecord) else None
    verb = "trained" if file is None else f"file '{file}', measured"
    how = f"{verb} in {made.seconds:.0f} s" if made.trained else "from the store"
    if isinstance(record, FrontendRecord):
        content = f", content loss on features of {record.content}" if record.content else ""
        return (
            f"{title(config)}: {how}{content}, PSNR {record.psnr:.2f} dB (bicubic {record.bicubic_psnr:.2f}), "
            f"SSIM {record.ssim:.3f} (bicubic {record.bicubic_ssim:.3f})"
        )
    bank = ", feature bank filled" if made.filled else ""
    return f"{title(config)}: {how}{bank}, validation accuracy {record.val_accuracy:.1%}"
