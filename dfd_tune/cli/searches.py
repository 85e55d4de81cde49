"""The commands about what came of a search: results, report, ui.

Not for: running one (launch.py) or watching it (running.py), nor for classifying with its best student (models.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfd_tune.cli.group import STORE_OPTION
from dfd_tune.cli.running import how_it_stands
from dfd_tune.errors import UserError, raise_all

if TYPE_CHECKING:
    from dfd_tune.store import Store


@click.command()
@click.argument("name")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@STORE_OPTION
def results(name: str, form: str, store_path: str) -> None:
    """Show what the search NAME found, also while it runs."""
    from dfd_tune.liveness import as_they_are, state_of
    from dfd_tune.record import load_search, load_trials
    from dfd_tune.report.conclusion import conclusion
    from dfd_tune.report.formats import plain
    from dfd_tune.report.tables import ranking, results_object, trials_csv
    from dfd_tune.store import existing_store

    store = existing_store(store_path)
    search = load_search(store, name)
    state = state_of(store, name)
    trials = as_they_are(load_trials(store, search), state)
    if form == "json":
        told = results_object(search, trials) | {"state": state.as_json()}
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    elif form == "csv":
        click.echo(trials_csv(trials, search.choose_by), nl=False)
    else:
        click.echo(plain(*ranking(search, trials)))
        click.echo("\n".join(conclusion(search, trials)))
        if state.kind != "ended" or state.how != "finished":
            click.echo(how_it_stands(state, name, store_path))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--output", default=None, help="Folder to write to.  [default: report in the first search's folder]")
@click.option("--mlflow-uri", default=None, help="MLflow server or database.  [default: mlflow.db in the store]")
@STORE_OPTION
def report(names: tuple[str, ...], output: str | None, mlflow_uri: str | None, store_path: str) -> None:
    """Write the report of one or several searches: a page, figures, and tables as Markdown, CSV and LaTeX.

    Several searches share one report: Table 1 of `table1` on two datasets, say. A search that is not finished is
    reported as far as it goes. Nothing is trained, and no test image is looked at anew.
    """
    from dfd_tune.store import existing_store

    write_reports(existing_store(store_path), names, output, mlflow_uri)


def write_reports(store: Store, names: Sequence[str], output: str | None, mlflow_uri: str | None) -> None:
    """Write the report of these searches, also to MLflow, and say where."""
    from dfd_tune.record import REPORT_FOLDER, load_search
    from dfd_tune.report.write import write_report
    from dfd_tune.tracking import upload_report

    names = tuple(dict.fromkeys(names))
    searches = _all_of(lambda name: load_search(store, name), names)
    several = f"{REPORT_FOLDER}-{'+'.join(names)}"[:100] if len(names) > 1 else REPORT_FOLDER
    folder = Path(output).expanduser().absolute() if output else store.path("searches", names[0], several)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output '{folder}' is a file; name a folder.")
    files = write_report(store, searches, folder)
    if not output:
        store.push("searches", names[0], several)
    click.echo(f"Report: {files[0]}")
    for search in searches:
        complaint = upload_report(store, mlflow_uri, search, folder, files)
        if complaint:
            click.echo(complaint, err=True)


@click.command()
@click.argument("name", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--mlflow-uri", default=None, help="MLflow's address, where it needs a password, which is not kept.")
@STORE_OPTION
def ui(name: str | None, port: int, mlflow_uri: str | None, store_path: str) -> None:
    """Serve MLflow's pages on the store.

    With NAME, also the addresses of that search's pages: its runs, their comparison, its summary. What the store's
    MLflow database lacks of it, as of a search that ran elsewhere, is written there from its records. Where it was
    recorded at a server, that server's pages.
    """
    from dfd_tune.liveness import runs_on_another_node, state_of
    from dfd_tune.record import load_search, load_trials
    from dfd_tune.report.summary import summary_of
    from dfd_tune.signals import Signals
    from dfd_tune.store import existing_store
    from dfd_tune.tracking import mirror, serve_ui

    store = existing_store(store_path)
    interrupted_since, fill = None, None
    if name is not None:
        search, state = load_search(store, name), state_of(store, name)
        click.echo(how_it_stands(state, name, store_path))
        interrupted_since = state.since if state.kind == "interrupted" else None
        elsewhere = state.kind == "elsewhere" or runs_on_another_node(store, name, state)

        def fill() -> None:
            if state.kind == "running" and not elsewhere:
                return  # its launch writes
            trials = load_trials(store, search)
            for line in mirror(
                store,
                search,
                trials,
                summary_of(store, search, trials),
                uri=mlflow_uri,
                interrupted_since=interrupted_since,
                runs_elsewhere=elsewhere,
                say=click.echo,
            ):
                click.echo(line, err=True)

    with Signals():  # the server is a process of its own, which a closed terminal would leave behind
        serve_ui(store, port, click.echo, search=name, uri=mlflow_uri, interrupted_since=interrupted_since, fill=fill)


def _all_of(find: Callable[[str], Any], names: tuple[str, ...]) -> list[Any]:
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


COMMANDS = (results, report, ui)
