"""A search whose teacher was trained elsewhere, gone on with once its file is gone, through the command line."""

import json

import pytest
import torch
import yaml
from mlflow import MlflowClient
from torch import nn

from dfd_tune.data.sources import SOURCES
from dfd_tune.teacher_file import parse
from tests.search.conftest import runs_of


@pytest.fixture
def program(tmp_path):
    """Knows digits by the mean image of each; gives its logits in the reverse order."""
    raw = SOURCES["digits"].load(None, None, tmp_path, lambda line: None)
    images = torch.tensor(raw.train_images).flatten(1) / 255
    means = torch.stack([images[torch.tensor(raw.train_labels) == label].mean(0) for label in reversed(range(10))])
    nearest = nn.Linear(64, 10)
    with torch.no_grad():
        nearest.weight.copy_(2 * means)
        nearest.bias.copy_(-means.square().sum(1))
    model = nn.Sequential(nn.Flatten(), nearest).eval()
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    file = tmp_path / "means.pt2"
    torch.export.save(torch.export.export(model, (torch.randn(2, 1, 8, 8),), dynamic_shapes=shapes), file)
    classes = [str(label) for label in reversed(range(10))]
    facts = {"gives": "logits", "image_size": 8, "mean": 0, "std": 1, "classes": classes}
    file.with_suffix(".yaml").write_text(yaml.safe_dump(facts))
    return file


@pytest.mark.slow
def test_a_search_goes_on_though_the_file_of_its_teacher_is_gone(
    program, launch, run_cli, ray_variables, results_of, store_path, tmp_path
):
    space = tmp_path / "taught.yaml"
    space.write_text(
        "confirm: {seeds: 0}\nexplore: {lambda_: [0, 2]}\n"
        "settings: {backbone: alexnet, batch_norm: false, batch_size: 25, method: kd}\n"
    )
    begun = launch("--space", space, "--name", "taught", "--teacher", program, "--max-trials", 1)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    program.unlink()
    program.with_suffix(".yaml").unlink()
    done = run_cli("resume", "taught", "--store", store_path, **ray_variables)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = results_of("taught")
    assert [trial["status"] for trial in listed["trials"]] == ["FINISHED"] * 2
    (teacher,) = listed["teachers"]
    assert (teacher["file"], teacher["backbone"], teacher["gives"]) == ("means.pt2", "program", "logits")
    assert teacher["val_accuracy"] > 0.7
    assert teacher["test_accuracy"] > 0.7
    names = {trial["config"]["teacher_file"] for trial in listed["trials"]}
    assert {parse(name).digest for name in names} == {teacher["digest"]}
    for text in (done.stdout, (store_path / "searches" / "taught" / "report" / "report.html").read_text()):
        assert "means.pt2" in text
        assert teacher["digest"] in text
    assert str(program.parent) not in json.dumps(listed)
    runs = runs_of(store_path, "taught")
    (summary,) = [run for run in runs if run.data.tags["dfd.kind"] == "summary"]
    assert summary.data.metrics["teacher_program_val_accuracy"] == pytest.approx(teacher["val_accuracy"])
    assert {run.data.params["teacher_file"] for run in runs if run.data.tags["dfd.kind"] == "trial"} == names
    uri = f"sqlite:///{store_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    assert "means.pt2" in client.get_model_version_by_alias("taught", "best").description
