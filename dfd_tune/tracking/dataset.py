"""A search's dataset as the input of MLflow's runs: name, digest and sizes.

Not for: images; none is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput


def dataset_input(dataset: Mapping[str, Any]) -> DatasetInput:
    """The dataset of a search's record as a run's input."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    # The dataset's record is complete, so it serves as profile; the schema is that of its arrays.
    size, channels = dataset.get("image_size") or -1, dataset.get("channels") or -1
    schema = {
        "mlflow_tensorspec": {
            "features": json.dumps([_tensor("uint8", [-1, size, size, channels])]),
            "targets": json.dumps([_tensor("int64", [-1])]),
        }
    }
    source = {"tags": {"dataset": str(dataset["dataset"]), "data": str(dataset.get("data") or "downloaded")}}
    entity = Dataset(
        name=str(dataset["dataset"]),
        digest=str(dataset["digest"])[:36],
        source_type="code",
        source=json.dumps(source),
        schema=json.dumps(schema),
        profile=json.dumps(dict(dataset), default=str),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])


def _tensor(dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
