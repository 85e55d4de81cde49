"""The summary of a search, and its best student in the model registry."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dfd_tune.errors import UserError
from dfd_tune.store import Store
from dfd_tune.tracking import Tracker
from tests.tracking.records import history_of, search_record, trial_record
from tests.tracking.students import EXAMPLE, student


def test_the_summary_is_one_run_with_files(tracker: Tracker, tmp_path: Path) -> None:
    search = search_record("summed")
    trials = [trial_record("1" * 16, epochs=1), trial_record("2" * 16, epochs=1, status="KILLED")]
    (tmp_path / "report.md").write_text("# Report")
    run_ids = {
        tracker.log_summary(search, trials, [tmp_path / "report.md"], {"test_accuracy": 0.5}, {"dfd.best": "x"})
        for _ in range(2)
    }
    [run_id] = run_ids
    run = tracker._client.get_run(run_id)
    assert (run.info.run_name, run.info.status, run.data.tags["dfd.kind"]) == (
        "summary",
        "FINISHED",
        "summary",
    )
    assert run.data.tags["dfd.best"] == "x"
    assert run.data.metrics == {"test_accuracy": 0.5, "trials_finished": 1.0, "trials_killed": 1.0}
    assert history_of(tracker, run_id, "test_accuracy") == [(0, 0.5)]
    assert [file.path for file in tracker._client.list_artifacts(run_id)] == ["report.md"]
    assert tracker.runs(search) == {}


def test_the_best_model_predicts_in_a_fresh_process(
    tracker: Tracker,
    store: Store,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)

    before = (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.active_run())
    model = student()
    search, first, second = search_record("best-1.5"), *(trial_record(d * 16, epochs=1) for d in "34")
    address = tracker.register_best(search, first, model, EXAMPLE, "student-1.5")
    assert tracker.register_best(search, first, model, EXAMPLE, "student-1.5") == address
    client = tracker._client
    assert address == "models:/student-1.5@best"
    assert [v.version for v in client.search_model_versions("name = 'student-1.5'")] == [1]
    assert capfd.readouterr() == ("", "")
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.active_run()) == before

    _predicts(tracker.address, address, model, tmp_path)
    version = client.get_model_version_by_alias("student-1.5", "best")
    assert version.tags["dfd.trial_key"] == first.key
    [logged] = client.search_logged_models([tracker.experiment_id(search)])
    assert (logged.status, logged.tags["dfd.trial_key"]) == ("READY", first.key)
    assert logged.artifact_location.startswith(store.path("mlflow_artifacts").as_uri())
    assert logged.params["lambda_"] == "2.0"
    summary = client.get_run(version.run_id)
    assert summary.data.tags["dfd.kind"] == "summary"
    assert [output.model_id for output in summary.outputs.model_outputs] == [logged.model_id]

    tracker.register_best(search, second, model, EXAMPLE, "student-1.5")
    assert client.get_model_version_by_alias("student-1.5", "best").version == 2
    tracker.register_best(search, first, model, EXAMPLE, "student-1.5")  # the first is the best again
    assert client.get_model_version_by_alias("student-1.5", "best").version == 1
    assert len(client.search_model_versions("name = 'student-1.5'")) == 2


def _predicts(uri: str, address: str, model: nn.Module, folder: Path) -> None:
    """Load the model by its address in another process, which does not have its class, and compare."""
    code = (
        "import sys, mlflow, numpy as np\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[2])\n"
        "batches = np.load(sys.argv[3])\n"
        "np.savez(sys.argv[4], **{name: model.predict(batch) for name, batch in batches.items()})"
    )
    generator = np.random.default_rng(1)
    shapes = {"many": (5, 100, 70, 3), "one": (1, 8, 8, 3), "as_example": (3, 32, 32, 3)}
    batches = {name: generator.integers(0, 256, shape, dtype=np.uint8) for name, shape in shapes.items()}
    np.savez(folder / "in.npz", **batches)
    command = [sys.executable, "-c", code, uri, address, str(folder / "in.npz"), str(folder / "out.npz")]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    predictions = np.load(folder / "out.npz")
    for name, batch in batches.items():
        with torch.no_grad():
            expected = model(torch.from_numpy(batch)).numpy()
        assert predictions[name].dtype == np.float32
        np.testing.assert_allclose(predictions[name], expected, rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in folder.iterdir()) == ["in.npz", "out.npz"]  # no ./mlruns, ./mlflow.db


def test_a_model_that_cannot_be_exported_leaves_no_version(tracker: Tracker) -> None:
    class Stubborn(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float().flatten(1)[:, : int(images.sum()) % 2 + 1]  # its shape depends on the data

    search, trial = search_record("stubborn"), trial_record("5" * 16, epochs=1)
    with pytest.raises(Exception, match="data-dependent"):
        tracker.register_best(search, trial, Stubborn().eval(), EXAMPLE, "stubborn")
    assert list(tracker._client.search_model_versions("name = 'stubborn'")) == []
    [logged] = tracker._client.search_logged_models([tracker.experiment_id(search)])
    assert logged.status == "FAILED"


def test_a_model_name_that_mlflow_refuses_is_a_user_error(tracker: Tracker) -> None:
    with pytest.raises(UserError, match="'a/b' must be"):
        tracker.register_best(search_record("x"), trial_record("6" * 16, epochs=1), student(), EXAMPLE, "a/b")


def test_a_summary_that_changes_has_one_value_a_step(anywhere: Tracker) -> None:
    search = search_record(f"changing-{anywhere._address.is_server}")
    for accuracy in (0.5, 0.5, 0.75, math.nan, math.nan, math.inf, math.inf):
        run_id = anywhere.log_summary(search, [], [], {"test_accuracy": accuracy, "gain": 1.0})
    values = history_of(anywhere, run_id, "test_accuracy")
    assert [step for step, _ in values] == [0, 1, 2, 3]
    assert [value for _, value in values[:2]] == [0.5, 0.75]
    assert history_of(anywhere, run_id, "gain") == [(0, 1.0)]


def test_a_registration_that_is_cut_off_is_taken_up_again(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    search, trial = search_record("cut-off"), trial_record("5" * 16, epochs=1)
    version_made = tracker._client.create_model_version

    def lost(*arguments: object, **others: object) -> None:
        monkeypatch.undo()
        version_made(*arguments, **others)
        raise MlflowException("the answer was lost")

    monkeypatch.setattr(tracker._client, "create_model_version", lost)
    address = tracker.register_best(search, trial, student(), EXAMPLE, "cut-off")
    [version] = tracker._client.search_model_versions("name = 'cut-off'")
    assert address == "models:/cut-off@best"
    assert tracker._client.get_model_version_by_alias("cut-off", "best").version == version.version
