"""The group that all commands join, and the options that several of them share.

Not for: commands (launch.py, searches.py, models.py, datasets.py), nor for the entry point (entry.py).
"""

from __future__ import annotations

import math
import re
import shlex
from typing import Any

import click

from dfd_tune.defaults import DEFAULT_STORE
from dfd_tune.errors import UserError

STORE_OPTION = click.option(
    "--store",
    "store_path",
    default=DEFAULT_STORE,
    envvar="DFD_TUNE_STORE",
    show_default=True,
    show_envvar=True,
    help="Folder of datasets, teachers, trials and searches, or a bucket's address: s3://BUCKET/PREFIX.",
)


class FiniteRange(click.FloatRange):
    """Numbers of a range; infinity and NaN, which click lets pass, are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a refusal."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Duration(click.ParamType):
    """Seconds, from a number with a unit: 90s, 30m, 1.5h, 2d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds, or a refusal."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", str(value).strip())
        seconds = 0.0 if found is None else float(found[1]) * UNITS[found[2]]
        if not 0 < seconds < 1e9:
            self.fail(f"{value!r} must be a number above 0 with a unit (s, m, h, d), as in 90m or 1.5h.", param, ctx)
        return seconds


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


def in_store(command: str, store_path: str) -> str:
    """A command to type, with the store that it needs unless that is the default."""
    import os

    if store_path == os.environ.get("DFD_TUNE_STORE", DEFAULT_STORE):
        return command
    return f"{command} --store {shlex.quote(store_path)}"
