"""What docs/mlflow.md says of loading models that others have made, tried with the installed MLflow."""

from __future__ import annotations

import contextlib
import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
import torch
import yaml
from mlflow.exceptions import MlflowException

from dfd_tune.tracking.models import _save, _silence
from tests.tracking.students import EXAMPLE, student

VARIABLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student as it is registered."""
    folder = tmp_path_factory.mktemp("registered") / "model"
    with _silence():
        _save(folder, "0" * 32, "m-0", str(folder), student(), EXAMPLE)
    return folder


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, place: Path):
        self.place = str(place)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.place, "w")


def changed(model: Path, folder: Path, records: Mapping[str, bytes]) -> Path:
    """A copy of the model whose archive holds other records, by the end of their names."""
    folder.mkdir()
    for file in model.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(model)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    with (
        zipfile.ZipFile(model / "data" / "model.pt2") as old,
        zipfile.ZipFile(folder / "data" / "model.pt2", "w") as new,
    ):
        root = old.namelist()[0].split("/")[0]
        kept = {name: old.read(name) for name in old.namelist()}
        for name, content in (kept | {f"{root}/{name}": content for name, content in records.items()}).items():
            new.writestr(name, content)
    return folder


def test_a_registered_student_loads_where_nothing_may_be_unpickled(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "false")
    found = mlflow.pyfunc.load_model(str(model)).predict(EXAMPLE)
    with torch.no_grad():
        np.testing.assert_allclose(found, student()(torch.from_numpy(EXAMPLE)).numpy(), rtol=1e-5, atol=1e-6)


def test_an_archive_that_holds_a_pickle_runs_it_unless_mlflow_is_told_not_to(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "went_off"
    torch.save(Bomb(place), tmp_path / "inputs.pt")
    records = {"data/sample_inputs/model.pt": (tmp_path / "inputs.pt").read_bytes()}
    foreign = changed(model, tmp_path / "foreign", records)
    monkeypatch.setenv(VARIABLE, "false")
    for archive in (foreign, changed(model, tmp_path / "raw", dict.fromkeys(records, pickle.dumps(Bomb(place))))):
        with pytest.raises(MlflowException, match="pickle"):
            mlflow.pyfunc.load_model(str(archive))
    assert not place.exists()
    monkeypatch.delenv(VARIABLE)
    with contextlib.suppress(Exception):  # what came of unpickling is no input
        mlflow.pyfunc.load_model(str(foreign))
    assert place.exists()


def test_a_model_that_brings_a_module_runs_it_all_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the docs promise no more than they do."""
    place, foreign = tmp_path / "went_off", changed(model, tmp_path / "foreign", {})
    (foreign / "code").mkdir()
    (foreign / "code" / "brought_along.py").write_text(f"open({str(place)!r}, 'w')\n")
    description = yaml.safe_load((foreign / "MLmodel").read_text())
    description["flavors"]["python_function"] |= {"loader_module": "brought_along", "code": "code"}
    (foreign / "MLmodel").write_text(yaml.safe_dump(description))
    monkeypatch.setenv(VARIABLE, "false")
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(Exception, match=r"brought_along|_load_pyfunc"):
        mlflow.pyfunc.load_model(str(foreign))
    assert place.exists()
