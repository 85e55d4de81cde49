"""The entry point of the command `dfd-tune`: the commands gathered, and how errors end the process.

Not for: any command.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn

import click

from dfd_tune.cli import cluster, datasets, launch, models, running, searches, store
from dfd_tune.cli.group import cli
from dfd_tune.disk import in_words
from dfd_tune.errors import UserError
from dfd_tune.signals import STOPPED

for _module in (launch, running, searches, cluster, models, datasets, store):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def process() -> NoReturn:
    """The process of a command: `main`, and its end.

    That is Python's own, but for taking every imported module apart, which torch, Ray and MLflow take seconds for.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed, or nobody reads it any more
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    """Run the command that the process's arguments name, and raise SystemExit with its exit code."""
    try:
        code = cli(standalone_mode=False)
    except UserError as error:
        for problem in error.problems:
            click.echo(f"dfd-tune: {problem}", err=True)
        sys.exit(2)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        sys.exit(2)
    except click.NoSuchOption as error:
        click.echo(f"dfd-tune: {_of_unknown_option(error)} See `dfd-tune --help`.", err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"dfd-tune: {error.format_message()} See `dfd-tune --help`.", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("dfd-tune: stopped.", err=True)
        sys.exit(STOPPED)
    except BrokenPipeError:
        # Whoever read the output has gone, as in `| head`.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        sentence = _of_the_store(error)
        if sentence is None:
            raise
        click.echo(f"dfd-tune: {sentence}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _of_the_store(error: Exception) -> str | None:
    """What an error says that is the store's and not this program's; None of any other.

    Ray Tune raises errors of its own where a bucket's led to them.
    """
    from dfd_tune.store import BucketError

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, BucketError):
            return (
                f"The store's bucket does not do its part: {link.strerror}. What is there is kept; once it answers, "
                "the same command goes on, or `dfd-tune resume NAME` with a search."
            )
        link = link.__cause__ or link.__context__
    return in_words(error)


def _of_unknown_option(error: click.NoSuchOption) -> str:
    """What is wrong; of a setting that was given as an option, how it is given."""
    from dfd_tune.config import DatasetConfig, TrialConfig
    from dfd_tune.rules import settings_of

    name = error.option_name.lstrip("-").replace("-", "_")
    if name in (*settings_of(TrialConfig), *settings_of(DatasetConfig)):
        return f"No such option '{error.option_name}'. It is a setting: --set {name}=VALUE."
    return error.format_message()
