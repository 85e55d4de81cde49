"""The best student in MLflow's model registry: exported, with a signature, under an alias.

The client's calls are used throughout, never MLflow's fluent ones: those act on a global address and a global
active run, which belong to the caller. Not for: choosing the best student, nor for its weights in the store.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfd_tune.record import TrialRecord
from dfd_tune.tracking.runs import KEY_TAG

if TYPE_CHECKING:
    import torch
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "best"
Student = Callable[[], "tuple[torch.nn.Module, np.ndarray]"]
"""Gives a model, on the CPU and in eval mode, that maps uint8 (N, H, W, C) to float32 (N, K) for any N, H and W; and an
example, uint8 (N, H, W, C) with N of at least 2: a size of 1 would become the only one allowed."""

_LOGGED_NAME = "student"  # the name of a logged model may hold no '.', which a search's may


def register(
    client: MlflowClient,
    *,
    experiment_id: str,
    run_id: str,
    trial: TrialRecord,
    student: Student,
    name: str,
    cost: Mapping[str, float],
    description: str,
    by_id: bool,
) -> str:
    """Log a model, register it as `name`, and give it the alias `best`; returns models:/NAME@best.

    A trial that is registered under this name already is not registered again; it only gets the alias back, and
    `student` is not called.

    Args:
        client: a connected client.
        experiment_id: where the model is logged.
        run_id: the run that it belongs to.
        trial: its key becomes the version's tag, its settings become the model's parameters.
        student: gives the model and an example of its input.
        name: of the registered model, which is there.
        cost: what the student costs, by name; parameters of the model beside the trial's settings.
        description: shown beside the version.
        by_id: register by the logged model's id, as a server wants it; a client that writes to a database
            itself looks ids up at MLflow's global address, so there it must be the artifacts' place.
    """
    version = _version_of(client, name, trial.key)
    if version is None:
        logged = _log(client, experiment_id, run_id, trial, cost, *student())
        version = client.create_model_version(
            name,
            f"models:/{logged.model_id}" if by_id else logged.artifact_location,
            run_id,
            tags={KEY_TAG: trial.key},
            description=description,
            model_id=logged.model_id,
        )
        # The registry does not keep the logged model's id; this tag is where MLflow's pages look for the link.
        link = json.dumps([{"name": name, "version": version.version}])
        client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": link})
    if version.version != _aliased(client, name):
        client.set_registered_model_alias(name, ALIAS, version.version)
    return f"models:/{name}@{ALIAS}"


def student_in(file: Path) -> tuple[torch.nn.Module, np.ndarray]:
    """The deployed student in a file, as `register` wants it.

    Raises:
        UserError: it is not there, or holds no such model.
    """
    from dfd_tune.models.deployed import load_deployed

    model, card = load_deployed(file)
    return model, np.zeros((2, card.image_size, card.image_size, card.channels), dtype=np.uint8)


def _version_of(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    """The newest usable version that holds this trial's student."""
    versions = [
        version
        for version in client.search_model_versions(f"name = '{name}'", max_results=1000)
        if version.tags.get(KEY_TAG) == key and version.status == "READY"
    ]
    return max(versions, key=lambda version: int(version.version), default=None)


def _aliased(client: MlflowClient, name: str) -> str | None:
    aliases: Mapping[str, Any] = client.get_registered_model(name).aliases
    return None if ALIAS not in aliases else str(aliases[ALIAS])


def _log(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    trial: TrialRecord,
    cost: Mapping[str, float],
    model: torch.nn.Module,
    example: np.ndarray,
) -> LoggedModel:
    """Log the model to the run. One that could not be exported is left as FAILED."""
    from mlflow.entities import LoggedModelOutput

    assert not model.training, "the model must be in eval mode"
    assert example.dtype == np.uint8, example.dtype
    assert example.ndim == 4, example.shape
    assert min(example.shape[:3]) > 1, example.shape
    params = {name: str(value) for name, value in (dict(cost) | trial.config).items()}
    logged = client.create_logged_model(
        experiment_id, _LOGGED_NAME, run_id, tags={KEY_TAG: trial.key}, params=params, model_type="student"
    )
    try:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        with tempfile.TemporaryDirectory() as folder, _silence():
            path = Path(folder, "model")
            _save(path, run_id, logged.model_id, logged.artifact_location, model, example)
            client.log_model_artifacts(logged.model_id, str(path))
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    return client.finalize_logged_model(logged.model_id, "READY")


def _save(path: Path, run_id: str, model_id: str, location: str, model: torch.nn.Module, example: np.ndarray) -> None:
    """Export to a folder in the `pt2` format, of plain tensors alone: it can be loaded where MLflow is told to unpickle
    nothing (MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false), without which it would unpickle what another's archive says."""
    import mlflow.pytorch
    import torch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.inference_mode():
        classes = model(torch.from_numpy(example)).shape[1]
    channels = example.shape[3]
    signature = ModelSignature(  # MLflow exports the sizes that are -1 here as free ones
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, channels))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, classes))]),
    )
    mlflow.pytorch.save_model(
        model,
        str(path),
        mlflow_model=Model(artifact_path=location, model_uuid=model_id, run_id=run_id, model_id=model_id),
        signature=signature,
        input_example=example,
        pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"numpy=={np.__version__}"],
        serialization_format="pt2",
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what MLflow and torch.export print and warn about off the terminal."""
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        yield
