"""A small search as the paper's tables want it, through the command line: front ends, methods, tested for every λ."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

pytestmark = pytest.mark.slow

SPACE = """
description: front ends and methods
protocol: paper
confirm: {seeds: 0}
explore:
  frontend: [none, espcn, srgan]
  method: [dfd, fitnets]
  lambda_: [0, 2]
  seed: [0, 1]
only:
  - {lambda_: 0, method: dfd}
  - {frontend: none}
"""


@pytest.fixture(scope="module")
def paper(launch, results_of, store_path, tmp_path_factory):
    space = tmp_path_factory.mktemp("paper") / "small.yaml"
    space.write_text(SPACE)
    settings = ("--set", "backbone=resnet18", "--set", "frontend_epochs=2", "--set", "epochs=1")
    arguments = ("--space", space, "--name", "paper", *settings)
    done = launch(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return SimpleNamespace(store=store_path, arguments=arguments, output=done.stdout, results=results_of("paper"))


def test_what_is_shared_is_said_before_it_is_made(paper):
    shared = "Made once and shared: 1 teacher, 1 feature bank, 2 front ends, 1 set of low-resolution images"
    assert shared in paper.output
    assert "λ is chosen on TEST images" in paper.output
    assert paper.output.count("Front end srgan: trained in") == 1


def test_only_the_points_that_were_asked_for_are_trained(paper):
    points = [
        tuple(trial["config"][name] for name in ("frontend", "method", "lambda_", "seed"))
        for trial in paper.results["trials"]
    ]
    plain = [(frontend, "dfd", 0, seed) for frontend in ("none", "espcn", "srgan") for seed in (0, 1)]
    distilled = [("none", method, 2, seed) for method in ("dfd", "fitnets") for seed in (0, 1)]
    assert sorted(points) == sorted(plain + distilled)
    assert all(trial["status"] == "FINISHED" for trial in paper.results["trials"])


def test_front_ends_are_recorded_with_their_quality(paper):
    espcn, srgan = paper.results["frontends"]
    assert (espcn["kind"], espcn["content"]) == ("espcn", None)
    assert (srgan["kind"], srgan["content"]) == ("srgan", "teacher resnet18")
    for record in (espcn, srgan):
        assert 0 < record["psnr"] < 100
        assert -1 <= record["ssim"] <= 1
        assert record["bicubic_psnr"] == espcn["bicubic_psnr"]


def test_under_the_papers_protocol_every_trial_is_tested_and_it_is_said(paper):
    assert paper.results["protocol"] == "paper"
    assert set(paper.results["tested"]) == {trial["key"] for trial in paper.results["trials"]}
    assert all(0 <= accuracy <= 1 for accuracy in paper.results["tested"].values())
    for text in ("table2.md", "cells-paper.tex", "report.html"):
        assert "TEST" in (paper.store / "searches" / "paper" / "report" / text).read_text(), text


def test_the_report_is_there_and_in_mlflow(paper):
    folder = paper.store / "searches" / "paper" / "report"
    figures = {"lambda_curve", "examples", "learning_curves", "confusion_matrix"}
    tables = {"table2", "cells-paper", "frontends-paper"}
    wanted = {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    wanted |= {f"{name}.{kind}" for name in tables for kind in ("md", "csv", "tex")} | {"report.html"}
    assert wanted <= {file.name for file in folder.iterdir()}
    uri = f"sqlite:///{paper.store}/mlflow.db"
    client = MlflowClient(uri, uri)
    runs = client.search_runs([client.get_experiment_by_name("paper").experiment_id])
    (summary,) = [run for run in runs if run.data.tags["dfd.kind"] == "summary"]
    espcn = paper.results["frontends"][0]
    assert summary.data.metrics["frontend_espcn_4_psnr"] == pytest.approx(espcn["psnr"])
    uploaded = {file.path for file in client.list_artifacts(summary.info.run_id, "report")}
    assert {f"report/{name}" for name in wanted} <= uploaded


def test_predictions_on_test_images_agree_with_the_best_students_accuracy(paper):
    with np.load(paper.store / "searches" / "paper" / "best" / "test_predictions.npz", allow_pickle=False) as arrays:
        right = arrays["probabilities"].argmax(1) == arrays["labels"]
        assert arrays["probabilities"].sum(1) == pytest.approx(1, abs=1e-5)
    assert right.mean() == pytest.approx(paper.results["best"]["test_accuracy"])


def test_a_student_behind_a_front_end_predicts_from_its_file_alone(paper, run_cli, tmp_path):
    (key, *_) = [trial["key"] for trial in paper.results["trials"] if trial["config"]["frontend"] == "srgan"]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "digit.png")
    file = paper.store / "trials" / key / "student.safetensors"
    done = run_cli("predict", tmp_path / "digit.png", "--model", file, "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (prediction,) = json.loads(done.stdout)
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_a_second_launch_runs_nothing_and_another_protocol_is_another_search(paper, launch):
    done = launch(*paper.arguments)
    assert done.returncode == 0, done.stderr
    assert "All trials of this search are finished already." in done.stdout
    changed = launch(*paper.arguments, "--protocol", "validation")
    assert changed.returncode == 2
    assert "protocol was paper, now validation" in changed.stderr


def test_another_search_finds_teachers_front_ends_and_trials_in_the_store(paper, launch, results_of):
    other = [argument if argument != "paper" else "again" for argument in paper.arguments]
    done = launch(*other, "--protocol", "validation", "--set", "lambda_=[0, 2, 5]")
    assert done.returncode == 0, done.stdout + done.stderr
    # λ = 0 behind nothing and two front ends, and two λ of two methods; two seeds each.
    assert "14 trials (grid)" in done.stdout
    assert "10 of them are in the store already" in done.stdout
    assert "trained in" not in done.stdout
    assert done.stdout.count("from the store") == 3
    listed = results_of("again")
    # Tested are the chosen λ of each of two methods and plain training behind each front end: all but one λ of each.
    untested = [trial["config"] for trial in listed["trials"] if trial["key"] not in listed["tested"]]
    assert {(config["method"], config["lambda_"] > 0) for config in untested} == {("dfd", True), ("fitnets", True)}


def test_report_writes_several_searches_into_one(paper, run_cli, tmp_path):
    again = run_cli("report", "paper", "--store", paper.store, "--output", tmp_path / "one")
    assert (again.returncode, again.stderr) == (0, "")
    assert (tmp_path / "one" / "report.html").stat().st_size > 50_000
    wrong = run_cli("report", "papers", "paper", "peper", "--store", paper.store)
    assert wrong.returncode == 2
    assert wrong.stderr.count("Did you mean 'paper'?") == 2
    (tmp_path / "file").write_text("mine")
    refused = run_cli("report", "paper", "--store", paper.store, "--output", tmp_path / "file")
    assert refused.returncode == 2
    assert (tmp_path / "file").read_text() == "mine"
