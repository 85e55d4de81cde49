"""The command that uses a model: predict.

Not for: the search that the model comes from (launch.py, searches.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from dfd_tune.cli.group import STORE_OPTION


@click.command()
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


COMMANDS = (predict,)
