"""The commands that use a model: predict, export.

Not for: the search that the model comes from (launch.py, searches.py).
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click

from dfd_tune.cli.group import STORE_OPTION
from dfd_tune.export.lighter import WEIGHTS

RUN_CODE_OPTION = click.option(
    "--run-code", is_flag=True, help="Run the Python text of a backbone of its maker's own, which the model holds."
)


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", required=True, help="Name of a search, or the path of a student.safetensors file.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@RUN_CODE_OPTION
@STORE_OPTION
def predict(images: tuple[str, ...], model: str, form: str, run_code: bool, store_path: str) -> None:
    """Classify image files with a search's best student."""
    from dfd_tune.predict import find_model, predict_files
    from dfd_tune.store import existing_store

    file = find_model(model, lambda: existing_store(store_path))
    predictions = predict_files(file, [Path(image) for image in images], run_code=run_code)
    if form == "json":
        click.echo(json.dumps([prediction.as_json() for prediction in predictions], indent=2, ensure_ascii=False))
        return
    for prediction in predictions:
        top = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.top(3))
        click.echo(f"{prediction.file}: {top}")


@click.command()
@click.argument("model", metavar="NAME")
@click.option("--onnx", "file", required=True, metavar="FILE", help="File to write, whose name ends in .onnx.")
@click.option(
    "--weights",
    type=click.Choice(WEIGHTS),
    default=WEIGHTS[0],
    show_default=True,
    help="float16 halves the file; int8 quarters it and computes in bytes. Validation images say what that costs.",
)
@click.option(
    "--allow-loss",
    type=float,
    metavar="POINTS",
    help="Percentage points of validation accuracy that lighter weights may cost; more, and nothing is written. "
    "[default: 1.0]",
)
@RUN_CODE_OPTION
@STORE_OPTION
def export(model: str, file: str, weights: str, allow_loss: float | None, run_code: bool, store_path: str) -> None:
    """Write a search's best student as ONNX, resizing and normalisation inside.

    NAME is that of a search, or the path of a student.safetensors file. The file takes raw images, uint8
    (images, height, width, channels), of any size, and gives class probabilities. ONNX Runtime is asked about images
    of many sizes before it is written; where it does not say what the student says, nothing is.
    """
    from dfd_tune.export.onnx_file import check_destination, check_loss, export_onnx
    from dfd_tune.predict import find_model
    from dfd_tune.store import existing_store

    destination = Path(file).expanduser()
    check_destination(destination)
    check_loss(weights, allow_loss)
    store = partial(existing_store, store_path)
    source = find_model(model, store)
    exported = export_onnx(
        source, destination, weights=weights, allowed_loss=allow_loss, store=store, run_code=run_code
    )
    click.echo(f"Wrote {destination}, {destination.stat().st_size / 2**20:.2f} MiB.")
    for line in exported.in_words():
        click.echo(line)


COMMANDS = (predict, export)
