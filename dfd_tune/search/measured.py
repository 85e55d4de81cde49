"""What a launch costs, held against what it was forecast to cost, and both kept with its search.

The forecast rests on earlier trials or, where these tell nothing, on the launch's own first epochs: it does not wait
for a probe. Not for: the arithmetic (forecast.py), or a plan that is not carried out (dry_run.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from statistics import median

from dfd_tune.config import TrialConfig
from dfd_tune.distill.probe import kind_of_frontend, kind_of_network, kind_of_trial
from dfd_tune.forecast import Forecast, Speed, in_words
from dfd_tune.parts import FrontendConfig, PretrainedConfig
from dfd_tune.plan import Plan
from dfd_tune.search.estimate import Site, earlier_speeds, forecast_on, with_those_alike
from dfd_tune.search.jobs import Job, JobId
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.students import trained_again
from dfd_tune.search.works import works_of

WORTH_A_FORECAST = 200_000
"""Images times epochs; a launch of less is over before anybody asks how long it takes."""
WATCHED_SECONDS, WATCHED_EPOCHS = 8.0, 20
"""So long, or so many, epochs of a kind are watched, the first one apart: the driver itself is busy when the first ones
run."""
LOOK_OF_A_TRAINING = 1 / 3
"""What a look at an image takes of a training on it, where no epoch has ended with a look at validation images."""
OWN = "the first epochs"


class Measured:
    """Made before a launch's jobs run, told what they do, and asked at their end.

    Args:
        plan: of the search.
        ledger: takes forecast and outcome down in the search's record.
        site: where it runs.
        say: takes a line for a person.
        clock: seconds.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        site: Site,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._plan, self._ledger, self._site, self._say, self._clock = plan, ledger, site, say, clock
        again = trained_again(ledger.store, ledger.search, ledger.in_order())
        self._works = works_of(plan, ledger.store, ledger.trials, site.resources, again.values())
        self._wanted = list(dict.fromkeys(work.kind for work in self._works if work.count))
        self._worth = sum(work.count * work.epochs * work.images for work in self._works) >= WORTH_A_FORECAST
        self._speeds = earlier_speeds(plan, ledger.store, site, self._wanted)
        self._last_epoch: dict[JobId, float] = {}
        self._watched: dict[Hashable, _Watched] = {}
        self._told = False
        self._forecast = self._made()
        self._network_seconds: list[float] = []
        self._began, self._hours_before = clock(), self._trial_hours()
        self._ended_before = self._trials_ended() - len(again)

    def epoch(self, job: Job, metrics: Mapping[str, float]) -> None:
        """A job has reported an epoch. An attempt's first one tells nothing: it warms up in it."""
        now = self._clock()
        before = self._last_epoch.get(job.id)
        self._last_epoch[job.id] = now
        if before is None or metrics["epoch"] < 2 or self._told or not self._worth:
            return
        kind = self._kind_of(job)
        if kind in self._speeds:
            return
        watched = self._watched.setdefault(kind, _Watched())
        watched.add(metrics, now - before, self._plan)
        if watched.seconds >= WATCHED_SECONDS or len(watched.training) >= WATCHED_EPOCHS:
            self._speeds[kind] = watched.speed()
            self._forecast = self._made()

    def network_made(self, seconds: float) -> None:
        """A network or front end was made, which took so long."""
        self._network_seconds.append(seconds)

    def ended(self) -> None:
        """All jobs have ended."""
        if not self._forecast.jobs:
            return  # a conclusion alone, whose cost nobody asks for
        resources = self._site.resources
        cuda = resources.device == "cuda"
        trial, network = (resources.gpus,) * 2 if cuda else (resources.cpus, resources.network_cpus)
        hours = trial * (self._trial_hours() - self._hours_before) + network * sum(self._network_seconds) / 3600
        outcome = {
            "jobs": self._trials_ended() - self._ended_before + len(self._network_seconds),
            "wall_seconds": self._clock() - self._began,
            "device_hours": hours,
        }
        self._ledger.update_search(forecast=dataclasses.replace(self._forecast, outcome=outcome).to_json())

    def _made(self) -> Forecast:
        """The forecast by what is known now; told and recorded once it can be told."""
        known = with_those_alike(self._speeds, self._wanted)
        complete = self._worth and all(kind in known for kind in self._wanted)
        found = forecast_on(self._site, self._works, known if complete else {}, self._plan, self._ledger.store)
        if found.jobs:
            self._ledger.update_search(forecast=found.to_json())
        if complete and found.wall_seconds:
            self._told = True
            self._say(in_words(found)[-1])
        return found

    def _kind_of(self, job: Job) -> Hashable:
        config, threads = job.config, self._site.resources.threads(job.kind)
        if isinstance(config, TrialConfig):
            return kind_of_trial(config, self._plan.banks, self._plan.dataset.digest, threads)
        if isinstance(config, PretrainedConfig):
            return kind_of_network(config, threads)
        assert isinstance(config, FrontendConfig)
        return kind_of_frontend(config, threads)

    def _trial_hours(self) -> float:
        return sum(trial.metrics.get("device_hours", 0.0) for trial in self._ledger.trials.values())

    def _trials_ended(self) -> int:
        counts = self._ledger.counts
        return counts["FINISHED"] + counts["STOPPED"] + counts["FAILED"]


@dataclass
class _Watched:
    """Epochs of one kind of training."""

    seconds: float = 0.0
    training: list[float] = field(default_factory=list)
    """Seconds an image, by epoch; likewise `evaluation`, of those epochs that looked at validation images."""
    evaluation: list[float] = field(default_factory=list)

    def add(self, metrics: Mapping[str, float], seconds: float, plan: Plan) -> None:
        """An epoch, and how long it took from the report before to its own."""
        images, looked_at = len(plan.dataset.train.labels), len(plan.dataset.validation.labels)
        self.seconds += seconds
        if "images_per_second" not in metrics:  # of a front end
            self.training.append(seconds / images)
            self.evaluation.append(0.0)
            return
        self.training.append(1 / metrics["images_per_second"])
        if "val_loss" in metrics:
            self.evaluation.append(max(0.0, seconds - self.training[-1] * images) / looked_at)

    def speed(self) -> Speed:
        """The middle of them."""
        training = median(self.training)
        return Speed(training, median(self.evaluation) if self.evaluation else LOOK_OF_A_TRAINING * training, OWN)
