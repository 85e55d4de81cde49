"""The command line: commands, options, exit codes; nothing else.

Exit codes: 0 done; 1 some trials failed, or an internal error; 2 bad input; 130 interrupted.
Heavy modules are imported inside commands, so that `--help` is quick.
"""

from __future__ import annotations

import datetime
import json
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dfd_tune.errors import UserError, raise_all

STORE_OPTION = click.option(
    "--store",
    "store_path",
    default="./dfd_runs",
    envvar="DFD_TUNE_STORE",
    show_default=True,
    show_envvar=True,
    help="Folder of datasets, teachers, trials and searches.",
)


class _Group(click.Group):
    """A group whose unknown commands come with the nearest name."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from dfd_tune.errors import unknown_name

        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise UserError(unknown_name("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="dfd-tune")
def cli() -> None:
    """Search for the best student network for a resolution that you cannot change.

    A teacher trained on high-resolution images teaches a student that sees only the low-resolution ones
    (deep feature distillation); Ray and Optuna explore how, MLflow keeps what came of it.
    """


@cli.command()
@click.option(
    "--space", "space_name", required=True, help="A shipped space (see `spaces`) or the path of a .yaml file."
)
@click.option("--dataset", default=None, help="See `datasets`.  [default: digits]")
@click.option("--data", default=None, help="Where the dataset's files are.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a setting; repeatable.")
@click.option("--trials", type=int, default=None, help="How many trials to sample, for samplers random and tpe.")
@click.option(
    "--protocol",
    type=click.Choice(["validation", "paper"]),
    default=None,
    help="By which images λ is chosen; paper: by test images, all trials tested.  [default: validation]",
)
@click.option("--name", default=None, help="Name of the search.  [default: SPACE-DATASET-DATE]")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Seed of everything.")
@STORE_OPTION
@click.option("--mlflow-uri", default=None, help="MLflow server or database.  [default: mlflow.db in the store]")
@click.option(
    "--workers-per-trial", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes of a trial."
)
@click.option("--cpus-per-worker", type=click.FloatRange(0, min_open=True), default=None, help="[default: 1]")
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(0),
    default=None,
    help="A fraction packs several trials on a GPU.  [default: 1 where there is one]",
)
@click.option(
    "--bank-gb",
    type=click.FloatRange(0),
    default=8.0,
    show_default=True,
    help="Disk space for teachers' features; a teacher over it runs live.",
)
@click.option("--show-config", is_flag=True, help="Show every setting and where it comes from; run nothing.")
def launch(
    space_name: str,
    dataset: str | None,
    data: str | None,
    assignments: tuple[str, ...],
    trials: int | None,
    protocol: str | None,
    name: str | None,
    seed: int,
    store_path: str,
    mlflow_uri: str | None,
    workers_per_trial: int,
    cpus_per_worker: float | None,
    gpus_per_worker: float | None,
    bank_gb: float,
    show_config: bool,
) -> None:
    """Run a search, or what is left of it.

    Teachers come first, then every trial; then the best student is tested, kept and registered. Launching the same
    search again continues it: what is finished is not run again. Settings, lowest first: defaults, the dataset's
    recipe, the space, --set.
    """
    request = _request(
        space_name,
        dataset,
        data,
        assignments,
        name,
        seed=seed,
        workers=workers_per_trial,
        trials=trials,
        protocol=protocol,
    )
    if show_config:
        _show_config(request)
        return
    from dfd_tune.store import open_store

    store = open_store(store_path)
    if dataset is None:
        click.echo("Using the embedded dataset digits; --dataset names another (see `dfd-tune datasets`).")
    from rich.console import Console

    from dfd_tune.search.launch import LaunchOptions
    from dfd_tune.search.launch import launch as run

    search_name = name or f"{request.space.name}-{request.dataset.dataset}-{datetime.date.today().isoformat()}"
    options = LaunchOptions(
        name=search_name,
        mlflow_uri=mlflow_uri,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        bank_budget=int(bank_gb * 1e9),
    )
    outcome = _until_stopped(lambda: run(request, store, options, Console()))
    _show_outcome(outcome, store_path, store.path("searches", search_name))
    if outcome.failed:
        sys.exit(1)


@cli.command()
@click.argument("name", required=False)
def spaces(name: str | None) -> None:
    """List the shipped search spaces, or describe one."""
    from dfd_tune.space import read_space, shipped_spaces

    if name is not None:
        space = read_space(name)
        file = shipped_spaces().get(name, Path(name))
        click.echo(f"# {file}\n{file.read_text(encoding='utf-8')}", nl=False)
        return
    found = [read_space(shipped) for shipped in shipped_spaces()]
    width = max(len(space.name) for space in found)
    for space in found:
        size = f"{space.sampler}, {space.trials} trials" if space.trials else space.sampler
        click.echo(f"{space.name:<{width}}  {space.description} ({size}: {', '.join(space.explore)})")


@cli.command()
@click.argument("name")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@STORE_OPTION
def results(name: str, form: str, store_path: str) -> None:
    """Show what the search NAME found, also while it runs."""
    from dfd_tune.record import load_search, load_trials
    from dfd_tune.report.conclusion import conclusion
    from dfd_tune.report.formats import plain
    from dfd_tune.report.tables import ranking, results_object, trials_csv
    from dfd_tune.store import existing_store

    store = existing_store(store_path)
    search = load_search(store, name)
    trials = load_trials(store, search)
    if form == "json":
        click.echo(json.dumps(results_object(search, trials), indent=2, ensure_ascii=False))
    elif form == "csv":
        click.echo(trials_csv(trials), nl=False)
    else:
        click.echo(plain(*ranking(search, trials)))
        click.echo("\n".join(conclusion(search, trials)))


@cli.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--output", default=None, help="Folder to write to.  [default: report in the first search's folder]")
@click.option("--mlflow-uri", default=None, help="MLflow server or database.  [default: mlflow.db in the store]")
@STORE_OPTION
def report(names: tuple[str, ...], output: str | None, mlflow_uri: str | None, store_path: str) -> None:
    """Write the report of one or several searches: a page, figures, and tables as Markdown, CSV and LaTeX.

    Several searches share one report: Table 1 of `table1` on two datasets, say. A search that is not finished is
    reported as far as it goes. Nothing is trained, and no test image is looked at anew.
    """
    from dfd_tune.record import REPORT_FOLDER, load_search
    from dfd_tune.report.write import write_report
    from dfd_tune.store import existing_store
    from dfd_tune.tracking import upload_report

    store = existing_store(store_path)
    names = tuple(dict.fromkeys(names))
    searches = _all_of(lambda name: load_search(store, name), names)
    several = f"{REPORT_FOLDER}-{'+'.join(names)}"[:100] if len(names) > 1 else REPORT_FOLDER
    folder = Path(output).expanduser().absolute() if output else store.path("searches", names[0], several)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output '{folder}' is a file; name a folder.")
    files = write_report(store, searches, folder)
    click.echo(f"Report: {files[0]}")
    for search in searches:
        complaint = upload_report(store, mlflow_uri, search, folder, files)
        if complaint:
            click.echo(complaint, err=True)


@cli.command()
@click.argument("name", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@STORE_OPTION
def ui(name: str | None, port: int, store_path: str) -> None:
    """Serve MLflow's pages on the store.

    With NAME, also the address of the page that compares that search's runs.
    """
    from dfd_tune.record import load_search
    from dfd_tune.store import existing_store
    from dfd_tune.tracking import serve_ui

    store = existing_store(store_path)
    if name is not None:
        load_search(store, name)
    serve_ui(store, port, click.echo, search=name)


@cli.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", required=True, help="Name of a search, or the path of a student.safetensors file.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@STORE_OPTION
def predict(images: tuple[str, ...], model: str, form: str, store_path: str) -> None:
    """Classify image files with a search's best student."""
    from dfd_tune.predict import find_model, predict_files
    from dfd_tune.store import existing_store

    file = find_model(model, lambda: existing_store(store_path))
    predictions = predict_files(file, [Path(image) for image in images])
    if form == "json":
        click.echo(json.dumps([prediction.as_json() for prediction in predictions], indent=2, ensure_ascii=False))
        return
    for prediction in predictions:
        top = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.top(3))
        click.echo(f"{prediction.file}: {top}")


@cli.command()
@click.argument("name", required=False)
@click.option("--data", default=None, help="Where the dataset's files are.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="image_size, train_images, …; repeatable."
)
@STORE_OPTION
def datasets(name: str | None, data: str | None, assignments: tuple[str, ...], store_path: str) -> None:
    """List the datasets, or prepare one ahead.

    Without NAME, the datasets are listed. With it, that dataset is put into the store as a launch would do it.
    """
    from dfd_tune.data.sources import SOURCES

    if name is None:
        width = max(map(len, SOURCES))
        for source in SOURCES.values():
            click.echo(f"{source.name:<{width}}  {source.summary}")
            if source.data_holds:
                click.echo(f"{'':<{width}}  --data PATH holds {source.data_holds}")
        return
    from dfd_tune.settings import resolve_dataset

    config = resolve_dataset(name, data, assignments)
    from dfd_tune.data.prepared import prepare_dataset
    from dfd_tune.store import open_store

    prepared = prepare_dataset(config, open_store(store_path), click.echo)
    counts = " / ".join(f"{len(split.labels):,}" for split in (prepared.train, prepared.validation, prepared.test))
    click.echo(
        f"{name} is ready in {prepared.folder}: {counts} training / validation / test images, "
        f"{prepared.image_size}×{prepared.image_size}×{prepared.channels}, {len(prepared.classes)} classes"
    )


def _all_of(find: Any, names: tuple[str, ...]) -> list[Any]:
    """What `find` gives for each name; the problems of all names are reported together."""
    found: list[Any] = []
    problems: list[str] = []
    for name in names:
        try:
            found.append(find(name))
        except UserError as error:
            problems += error.problems
    raise_all(problems)
    return found


def _request(
    space_name: str,
    dataset: str | None,
    data: str | None,
    assignments: tuple[str, ...],
    name: str | None,
    **options: Any,
) -> Any:
    """The checked request; problems of independent options are reported together."""
    from dfd_tune.data.sources import SOURCES
    from dfd_tune.errors import unknown_name
    from dfd_tune.settings import resolve
    from dfd_tune.space import read_space
    from dfd_tune.store import problem_with_name

    problems: list[str] = []
    space = None
    try:
        space = read_space(space_name)
    except UserError as error:
        problems += error.problems
    source = SOURCES.get(dataset or "digits")
    if source is None:
        problems.append(unknown_name("dataset", dataset, SOURCES))
    if name is not None and (problem := problem_with_name(name)):
        problems.append(problem)
    if space is not None:
        try:
            request = resolve(
                space,
                dataset=dataset or "digits",
                data=data,
                recipe=source.recipe if source else SOURCES["digits"].recipe,
                assignments=assignments,
                **options,
            )
        except UserError as error:
            problems += error.problems
    raise_all(problems)
    return request


def _show_config(request: Any) -> None:
    from dfd_tune.report.formats import plain
    from dfd_tune.settings import describe

    rows = [list(row) for row in describe(request)]
    click.echo(plain(["setting", "value", "from"], rows), nl=False)


def _show_outcome(outcome: Any, store_path: str, folder: Path) -> None:
    name = outcome.search.search
    store = "" if store_path == "./dfd_runs" else f" --store {shlex.quote(store_path)}"
    click.echo(f"\nReport: {folder / 'report' / 'report.html'}")
    click.echo(f"Tables and the best student: {folder}")
    click.echo(f"MLflow: {outcome.tracking_uri}" + (f", model {outcome.model}" if outcome.model else ""))
    for complaint in outcome.complaints:
        click.echo(complaint, err=True)
    if outcome.failed:
        click.echo(
            f"{outcome.failed} trial(s) FAILED; `dfd-tune results {name} --format json{store}` has their tracebacks. "
            "Launching again runs just them.",
            err=True,
        )
    click.echo("Next:")
    click.echo(f"  dfd-tune ui {name}{store}                         compare the trials")
    click.echo(f"  dfd-tune predict IMAGE... --model {name}{store}   use the best student")


def _until_stopped(run: Callable[[], Any]) -> Any:
    """What `run` gives; Ctrl-C and SIGTERM end the process with code 130 and say how to go on."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run()
    except KeyboardInterrupt:
        again = "dfd-tune " + shlex.join(sys.argv[1:])
        click.echo(f"\nStopped. What is finished is kept; to go on: {again}", err=True)
        sys.exit(130)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of the command `dfd-tune`."""
    try:
        code = cli(standalone_mode=False)
    except UserError as error:
        for problem in error.problems:
            click.echo(f"dfd-tune: {problem}", err=True)
        sys.exit(2)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"dfd-tune: {error.format_message()} See `dfd-tune --help`.", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("dfd-tune: stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has gone, as in `| head`.
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
