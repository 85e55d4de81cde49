"""What the commands `launch`, `results` and `predict` do, as calls: `dfd_tune.launch(…)`, `dfd_tune.load(NAME)`.

The commands go through here too. Imports no torch until a search is launched or a student loaded. Not for: exit codes,
or what is printed at the end (cli/).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dfd_tune.data.sources import SOURCES
from dfd_tune.defaults import DEFAULT_STORE, EMBEDDED
from dfd_tune.errors import UserError, raise_all, unknown_name
from dfd_tune.record import REPORT_FOLDER, SearchRecord, TrialRecord, load_search, load_trials
from dfd_tune.search.options import LaunchOptions
from dfd_tune.settings import Request, read_backbones, resolve
from dfd_tune.signals import Signals
from dfd_tune.space import read_space
from dfd_tune.store import Store, existing_store, open_store, problem_with_name
from dfd_tune.teacher_file import parse

if TYPE_CHECKING:
    from dfd_tune.models.deployed import Deployed
    from dfd_tune.search.launch import Outcome
    from dfd_tune.search.screen import Screen


@dataclass(frozen=True)
class Search:
    """A search in a store; everything is read anew whenever it is asked for, so that a running one can be watched."""

    name: str
    store: Store

    @property
    def record(self) -> SearchRecord:
        """All that is known of it but for its trials."""
        return load_search(self.store, self.name)

    def trial_records(self) -> list[TrialRecord]:
        """Its trials, the planned ones in their order."""
        return load_trials(self.store, self.record)

    def trials(self) -> list[dict[str, Any]]:
        """Its trials as rows of one table: key, status, stage, then every setting, then every metric.

        `pandas.DataFrame(search.trials())` makes a frame of it. Accuracies are fractions of 1, `seconds` is training
        alone.
        """
        return [
            {"key": trial.key, "status": trial.status, "stage": trial.stage, **trial.config, **trial.metrics}
            for trial in self.trial_records()
        ]

    @property
    def best(self) -> dict[str, Any] | None:
        """The best student: key, settings, validation and test accuracy, cost; None while nothing is chosen."""
        best = self.record.best
        return None if best is None else asdict(best)

    @property
    def report(self) -> Path:
        """The report's page, written when a search ends."""
        return self.folder / REPORT_FOLDER / "report.html"

    @property
    def folder(self) -> Path:
        """Where its records, tables and best student lie."""
        return self.store.path("searches", self.name)

    def student(self, *, run_code: bool = False) -> Deployed:
        """The best student as a module in evaluation mode, on the CPU: uint8 (N, H, W, C) of any size to class
        probabilities, float32 (N, K).

        Args:
            run_code: whether the text of a backbone from a user's own file may be run, where this process has not
                launched it.

        Raises:
            UserError: there is none yet, or its text may not be run.
        """
        from dfd_tune.models.deployed import load_deployed
        from dfd_tune.predict import best_student

        if self.record.best is None:
            raise UserError(f"The search '{self.name}' has no best student yet; launch it to its end.")
        return load_deployed(best_student(self.store, self.name), run_code=run_code)[0]


def load(name: str, *, store: str | Path = DEFAULT_STORE) -> Search:
    """A search by its name.

    Raises:
        UserError: there is no such store, or no search of that name in it.
    """
    opened = existing_store(str(store))
    load_search(opened, name)
    return Search(name, opened)


def launch(
    space: str | Path,
    *,
    dataset: str = EMBEDDED,
    data: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    store: str | Path = DEFAULT_STORE,
    name: str | None = None,
    seed: int = 0,
    workers_per_trial: int = 1,
    trials: int | None = None,
    protocol: Any = None,
    scheduler: str | None = None,
    choose: str | None = None,
    choose_by: str | None = None,
    teacher: str | Path | None = None,
    confirm: Mapping[str, Any] | None = None,
    screen: Screen | None = None,
    **options: Any,
) -> Search:
    """Run a search, or what is left of it, as `dfd-tune launch` does; returns once it is concluded.

    Args:
        space: a shipped space's name, or the path of a .yaml file.
        dataset: see `dfd-tune datasets`.
        data: where its files are.
        settings: as `--set` takes them: a value fixes a setting, a list explores it.
        store: folder of datasets, teachers, trials and searches, or a bucket's address.
        name: of the search; SPACE-DATASET-DATE if None.
        seed: of everything.
        workers_per_trial: processes that share a trial.
        trials: how many to draw, in the place of the space's number; likewise `protocol`, `scheduler`, `choose_by`.
        protocol: `validation` or `paper`.
        scheduler: `none`, `asha` or `median`.
        choose: which students may be chosen: `accuracy`, or as `front:parameters<=200000`.
        choose_by: `accuracy`, `balanced_accuracy`, `macro_f1` or `loss`, of validation images.
        teacher: a file of a teacher that was trained elsewhere, as docs/teacher.md says.
        confirm: settings of `confirm` and `controls`, in the place of the space's: seeds, cells, replicate, controls.
        screen: shows how it goes; None prints lines to standard output.
        options: those of `search.options.LaunchOptions`: device, cpus_per_worker, max_seconds, mlflow_uri and so on.

    Raises:
        UserError: something that was given can't be meant; all problems are named.
        store.BucketError: the store's bucket went away; the same call goes on once it answers.
        KeyboardInterrupt: it was stopped; what is finished is kept, and the same call goes on.
        TypeError: there is no such option.
    """
    request = request_for(
        str(space),
        dataset=dataset,
        data=None if data is None else str(data),
        assignments=[f"{key}={_as_typed(value)}" for key, value in (settings or {}).items()],
        name=name,
        seed=seed,
        workers=workers_per_trial,
        trials=trials,
        protocol=protocol,
        scheduler=scheduler,
        choose=choose,
        choose_by=choose_by,
        teacher=None if teacher is None else str(teacher),
        confirm=confirm,
    )
    opened = open_store(store)
    found = LaunchOptions(name=name or default_name(request), **options)
    carry_out(request, opened, found, screen)
    return Search(found.name, opened)


def request_for(
    space_name: str,
    *,
    dataset: str,
    data: str | None,
    assignments: Iterable[str],
    name: str | None,
    **asked: Any,
) -> Request:
    """The checked request; problems of independent arguments are reported together.

    Args:
        space_name: a shipped space's, or a file's path.
        dataset: name of the source.
        data: where its files are.
        assignments: as `--set` takes them.
        name: of the search, if it was given one.
        asked: what else `settings.resolve` takes.

    Raises:
        UserError: naming all that is wrong.
    """
    problems: list[str] = []
    space = None
    try:
        space = read_space(space_name)
    except UserError as error:
        problems += error.problems
    source = SOURCES.get(dataset)
    if source is None:
        problems.append(unknown_name("dataset", dataset, SOURCES))
    if name is not None and (problem := problem_with_name(name)):
        problems.append(problem)
    if space is not None:
        try:
            request = resolve(
                space,
                dataset=dataset,
                data=None if data is None else str(Path(data).expanduser().absolute()),
                recipe=source.recipe if source else SOURCES[EMBEDDED].recipe,
                assignments=list(assignments),
                **asked | {"teacher": _whole_path(asked.get("teacher"))},
            )
            request = read_backbones(request)
        except UserError as error:
            problems += error.problems
    raise_all(problems)
    return request


@dataclass(frozen=True)
class Asked:
    """The search of one dataset, of a launch that may have several."""

    request: Request
    name: str
    experiment: str
    """Of MLflow, that all of them share; empty for a single one, whose experiment has its name."""
    named: bool
    """Whether the launch named the dataset."""


def searches_for(
    space_name: str, *, dataset: str | None, data: Iterable[str], name: str | None, **asked: Any
) -> list[Asked]:
    """What a launch asks for: a search, or one of each dataset.

    Args:
        space_name: a shipped space's, or a file's path.
        dataset: names, joined with commas; None for the space's own, and the embedded one where it has none.
        data: where files are: a path or, of several datasets, NAME=PATH each.
        name: of the search; of several, what their names begin with.
        asked: what else `request_for` takes.

    Raises:
        UserError: naming all that is wrong.
    """
    given = () if dataset is None else tuple(part.strip() for part in dataset.split(","))
    datasets = tuple(dict.fromkeys(given or _datasets_of(space_name))) or (EMBEDDED,)
    places, problems = _places(datasets, data)
    several = len(datasets) > 1
    found: list[tuple[Request, str]] = []
    for one in datasets:
        own = f"{name}-{one}" if name is not None and several else name
        try:
            request = request_for(space_name, dataset=one, data=places.get(one), name=own, **asked)
            found.append((request, own or default_name(request)))
        except UserError as error:
            problems += error.problems
    raise_all(list(dict.fromkeys(problems)))
    experiment = (name or default_name(found[0][0], "-".join(datasets))) if several else ""
    return [Asked(request, own, experiment, dataset is not None) for request, own in found]


def _datasets_of(space_name: str) -> tuple[str, ...]:
    """Those that a space names; none of one that can't be read, which is said later."""
    try:
        return read_space(space_name).datasets
    except UserError:
        return ()


def _places(datasets: tuple[str, ...], data: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Where each dataset's files are, and what is wrong with that."""
    places: dict[str, str] = {}
    problems = []
    for text in data:
        name, equals, path = text.partition("=")
        if equals and name in datasets:
            places[name] = path
        elif len(datasets) == 1:
            places[datasets[0]] = text
        else:
            problems.append(f"--data '{text}' must say of which dataset, as in --data {datasets[0]}=PATH.")
    return places, problems


def carry_out(request: Request, store: Store, options: LaunchOptions, screen: Screen | None = None) -> Outcome:
    """Run a search on this machine, or on the Ray that RAY_ADDRESS names.

    Raises:
        UserError: it can't be carried out as it stands.
        KeyboardInterrupt: it was stopped.
    """
    from rich.console import Console

    from dfd_tune.search.begin import launch as begin
    from dfd_tune.search.screen import Terminal

    with Signals() as signals:
        return begin(request, store, options, Terminal(Console()) if screen is None else screen, signals)


def default_name(request: Request, dataset: str | None = None) -> str:
    """SPACE-DATASET-DATE, with what a name may not have, as blanks of a file's name, left out.

    Args:
        request: whose space and dataset it names.
        dataset: in the place of the request's.
    """
    today = datetime.date.today().isoformat()
    tail = f"-{dataset or request.dataset.dataset}-{today}"
    space = re.sub(r"[^A-Za-z0-9_-]+", "-", request.space.name).strip("-_")
    return (space or "space")[: 100 - len(tail)] + tail


def _whole_path(teacher: str | None) -> str | None:
    """A teacher file's path as it is from everywhere; the name of one that is in the store stays as it is."""
    if teacher is None or parse(teacher) is not None:
        return teacher
    return str(Path(teacher).expanduser().absolute())


def _as_typed(value: Any) -> str:
    """A value as a person would type it after `--set KEY=`."""
    if value is None:
        return "none"
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.strip().removesuffix("...").strip()
