"""The commands about what a search can be made of: datasets, spaces.

Not for: running one (launch.py).
"""

from __future__ import annotations

from pathlib import Path

import click

from dfd_tune.cli.group import STORE_OPTION


@click.command()
@click.argument("name", required=False)
@click.option("--data", default=None, help="Where the dataset's files are.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="image_size, train_images, …; repeatable."
)
@click.option("--rescan", is_flag=True, help="Read the files again, though they look as they did.")
@STORE_OPTION
def datasets(name: str | None, data: str | None, assignments: tuple[str, ...], rescan: bool, store_path: str) -> None:
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

    prepared = prepare_dataset(config, open_store(store_path), click.echo, rescan=rescan)
    counts = " / ".join(f"{len(split.labels):,}" for split in (prepared.train, prepared.validation, prepared.test))
    click.echo(
        f"{name} is ready in {prepared.folder}: {counts} training / validation / test images, "
        f"{prepared.image_size}×{prepared.image_size}×{prepared.channels}, {len(prepared.classes)} classes"
    )


@click.command()
@click.argument("name", required=False)
def spaces(name: str | None) -> None:
    """List the shipped search spaces, or describe one."""
    from dfd_tune.space import read_space, shipped_spaces

    if name is not None:
        space = read_space(name)
        file = shipped_spaces().get(name, Path(name).expanduser())
        click.echo(f"# {file}\n{file.read_text(encoding='utf-8')}", nl=False)
        return
    found = [read_space(shipped) for shipped in shipped_spaces()]
    width = max(len(space.name) for space in found)
    for space in found:
        size = f"{space.sampler}, {space.trials} trials" if space.trials else space.sampler
        click.echo(f"{space.name:<{width}}  {space.description} ({size}: {', '.join(space.explore)})")


COMMANDS = (datasets, spaces)
