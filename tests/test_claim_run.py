"""The machinery of a claim's run: each training once, whatever is killed; and its tables, from its files alone."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cifar10_claim import PLAN
from benchmarks.claim_plan import Choice, Contrast, Plan, Row
from benchmarks.claim_report import compare, report
from dfd_tune.config import TrialConfig
from dfd_tune.errors import UserError
from dfd_tune.record import test_record as record_of
from dfd_tune.rules import settings_of
from dfd_tune.store import open_store

PLAIN = {"lambda_": 0.0}
TINY = Plan(
    dataset={"dataset": "digits", "train_images": 100, "train_offset": 50, "test_images": 60},
    settings={
        "resolution": 4,
        "crop_padding": 1,
        "flip": False,
        "width": 0.0625,
        "dropout": 0.0,
        "epochs": 2,
        "batch_size": 50,
        "learning_rate": 0.05,
        "schedule": "one_cycle",
        "reduction": "sum",
        "student_start": "scratch",
        "precision": "float32",
        "teacher_epochs": 1,
        "teacher_batch_size": 50,
        "teacher_learning_rate": 0.05,
        "teacher_schedule": "one_cycle",
        "teacher_momentum": 0.9,
        "teacher_weight_decay": 5e-4,
        "teacher_dropout": 0.0,
        "teacher_seed": 0,
    },
    choices=(Choice(name="lambda", setting="lambda_", values=(0.5, 2.0), backbone="resnet18"),),
    rounds=(
        (
            Row(name="plain", backbone="resnet18", settings=PLAIN),
            Row(name="dfd", backbone="resnet18", choices=("lambda",)),
        ),
        (
            Row(
                name="control",
                backbone="resnet18",
                settings={"teacher_sees": "low_res", "student_start": "teacher"},
                choices=("lambda",),
            ),
        ),
    ),
    contrasts=(Contrast("resnet18", "dfd", "plain"), Contrast("resnet18", "control", "plain")),
    seeds={"resnet18": (1000, 1001)},
)


def run(folder: Path) -> None:
    """Work in `folder`, noting each training as it begins and ends, and each epoch's end by a short wait."""
    import torch

    from benchmarks.claim_queue import work

    torch.set_num_threads(1)

    def note(line: str) -> None:
        with (folder / "notes").open("a") as file:
            file.write(f"{line}\n")

    def unhurried() -> bool:
        time.sleep(0.05)
        return False

    work(
        TINY,
        folder / "results",
        open_store(folder / "store"),
        None,
        note,
        stop_asked=unhurried,
        checkpoint_seconds=0.0,
        poll_seconds=0.1,
    )


def noted(folder: Path, what: str) -> list[str]:
    notes = folder / "notes"
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [line.partition(":")[0] for line in lines if what in line]


def results_in(folder: Path) -> dict[str, dict]:
    return {file.stem: json.loads(file.read_text()) for file in (folder / "results").glob("*.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run by two processes, one of which is killed in the middle, gone on with by a third."""
    folder = tmp_path_factory.mktemp("claim")
    spawn = multiprocessing.get_context("spawn")
    first, second = (spawn.Process(target=run, args=(folder,)) for _ in range(2))
    first.start()
    second.start()
    deadline = time.monotonic() + 300
    while len(noted(folder, "validation")) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    killed_at = len(noted(folder, "validation"))
    second.join()
    assert second.exitcode == 0
    return folder, killed_at


def test_every_training_is_finished_once_though_a_process_was_killed(finished):
    folder, killed_at = finished
    names = [training.name for training in TINY.trainings()]
    assert len(set(names)) == len(names) == 2 + 2 + 3 * 2
    assert killed_at < len(names)
    assert sorted(noted(folder, "validation")) == sorted(names)
    assert len(noted(folder, "begun")) - len(names) in (0, 1)  # what was under way was begun again
    assert results_in(folder).keys() == set(names)


def test_what_comes_after_something_is_begun_when_that_is_finished(finished):
    folder, _ = finished
    lines = (folder / "notes").read_text().splitlines()
    begun = {line.partition(":")[0]: place for place, line in enumerate(lines) if "begun" in line}
    ended = {line.partition(":")[0]: place for place, line in enumerate(lines) if "validation" in line}
    for training in TINY.trainings():
        assert all(ended[name] < begun[training.name] for name in training.after)


def test_only_confirming_students_and_teachers_meet_the_test_images(finished):
    results = results_in(finished[0])
    for training in TINY.trainings():
        record = results[training.name]
        assert ("test" in record) == (training.stage != "selection")
        assert (
            len(record["val_accuracies"])
            == record["config"]["teacher_epochs" if training.stage == "teacher" else "epochs"]
        )
    assert results["resnet18-plain-1000"]["test"]["images"] == 60
    assert results["resnet18-teacher"]["key"] in results["resnet18-dfd-1000"]["teachers"]
    low = results["resnet18-teacher-low_res"]["key"]
    assert results["resnet18-control-1000"]["teachers"].keys() == {low, results["resnet18-teacher"]["key"]}


def test_the_value_that_validation_images_choose_is_taken(finished):
    results = results_in(finished[0])
    accuracies = {value: results[f"lambda-{value:g}"]["val_accuracy"] for value in (0.5, 2.0)}
    best = min(value for value, accuracy in accuracies.items() if accuracy == max(accuracies.values()))
    assert results["resnet18-dfd-1001"]["config"]["lambda_"] == best
    assert results["resnet18-plain-1001"]["config"]["lambda_"] == 0


def test_what_was_finished_is_not_trained_again_and_what_is_gone_is(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "results").mkdir()
    gone = "resnet18-dfd-1000"
    for file in (folder / "results").glob("*.json"):
        if file.stem != gone:
            (tmp_path / "results" / file.name).write_bytes(file.read_bytes())
    run(tmp_path)  # with an empty store, as on a new machine
    assert noted(tmp_path, "begun") == [gone]
    ours, theirs = results_in(tmp_path)[gone], results_in(folder)[gone]
    assert ours["val_accuracies"] == theirs["val_accuracies"]
    assert (ours["test"], ours["teachers"]) == (theirs["test"], theirs["teachers"])


def test_files_of_another_plan_are_refused(finished):
    from benchmarks.claim_queue import load_results

    folder, _ = finished
    other = Plan(**(vars(TINY) | {"settings": TINY.settings | {"momentum": 0.8}}))
    with pytest.raises(UserError, match="is of another plan: momentum differ"):
        load_results(other, folder / "results")


def test_what_is_recorded_of_the_plan_for_cifar10_can_be_read():
    from benchmarks.claim_queue import load_results

    folder = Path(__file__).parent.parent / "docs" / "cifar10_claim"
    recorded = load_results(PLAN, folder)
    assert recorded.keys() == {file.stem for file in folder.glob("*.json")} > {"resnet18-dfd_from_teacher-1000"}
    assert f"{len(recorded)} of {len(PLAN.trainings())} trainings are finished." in report(PLAN, recorded)
    with pytest.raises(UserError, match="is of another plan: start_rate_factor differ"):
        load_results(dataclasses.replace(PLAN, implied={}), folder)
    with pytest.raises(UserError, match="is of another plan: start_rate_factor differ"):
        load_results(dataclasses.replace(PLAN, implied={"start_rate_factor": 0.3}), folder)


def invented(row: str, seed: int, right: list[int]) -> dict[str, dict]:
    """A confirming training's file, as far as the tables need it."""
    test = vars(record_of("key", np.array(right, dtype=bool)))
    config = {"student_start": "scratch", "epochs": 2, "lambda_": 0.0}
    record = {"status": "FINISHED", "val_accuracy": 0.5, "seconds": 1.0, "config": config, "test": test}
    return {f"resnet18-{row}-{seed}": record}


def test_differences_and_the_gap_are_those_of_the_files():
    results = (
        invented("plain", 1000, [1, 0, 0, 0])
        | invented("plain", 1001, [1, 1, 0, 0])
        | invented("dfd", 1000, [1, 1, 0, 0])
        | invented("dfd", 1001, [1, 1, 0, 0])
        | invented("control", 1000, [1, 1, 1, 1])
    )
    dfd, control = compare(TINY, results)
    assert (dfd.planned, control.planned) == (2, 2)
    assert dfd.paired is not None
    # Pairs gain a quarter and nothing. MS_S = MS_I = MS_SI = 1/8, so the variance of the mean is (1/8) / 8: 0.125².
    assert (dfd.paired.difference, dfd.paired.standard_error) == (pytest.approx(0.125), pytest.approx(0.125))
    assert dfd.paired.p_value == pytest.approx(0.5)  # t of 1 with one degree of freedom
    assert dfd.p_value == pytest.approx(1.0)  # twice that, as two are planned
    assert dfd.verdict == "too few seeds for a verdict"
    assert (control.paired.seeds, control.verdict) == (1, "unfinished")
    assert dfd.recovered is None
    text = report(TINY, results)
    assert "5 of 10 trainings are finished." in text
    assert "| resnet18 | plain | scratch | 2 | 0 | 2 of 2 |" in text
    assert "| 37.50 ± " in text  # plain: a quarter and a half


def test_five_pairs_have_a_verdict_and_a_share_of_the_gap():
    plan = Plan(**(vars(TINY) | {"seeds": {"resnet18": tuple(range(5))}}))
    random = np.random.default_rng(0)
    results = {"resnet18-teacher": {"status": "FINISHED", "teachers": {}, "val_accuracies": [1.0], "val_accuracy": 1.0}}
    results["resnet18-teacher"]["test"] = vars(record_of("teacher", np.ones(400, dtype=bool)))
    plain = random.random((5, 400)) < 0.6
    for seed in range(5):
        results |= invented("plain", seed, plain[seed]) | invented("dfd", seed, plain[seed] | (np.arange(400) < 200))
    dfd, control = compare(plan, results)
    assert (dfd.verdict, control.verdict) == ("better", "unfinished")
    assert dfd.p_value == pytest.approx(2 * dfd.paired.p_value)
    gain, gap = 200 * 5 - plain[:, :200].sum(), 400 * 5 - plain.sum()
    assert dfd.recovered.share == pytest.approx(gain / gap)


def test_the_plan_for_cifar10_names_every_setting_and_uses_no_seed_of_the_selection():
    for training in PLAN.trainings():
        chosen = {choice.setting for choice in PLAN.choices if choice.name in training.choices}
        settings = training.settings | dict.fromkeys(chosen, 0.5)
        config = TrialConfig(**settings)
        # Those of a front end have none to be of; the rest would follow another version's defaults.
        unnamed = settings_of(TrialConfig).keys() - settings.keys()
        # Results are recorded under this plan, of a version in which these could not be set: batch norm is in every
        # network, how often validation images are looked at changes none, features of equal dimension had no projector,
        # images were not mixed and weighed alike, teachers were trained here, and a factor has nothing to scale where no
        # training starts from trained weights.
        later = {"batch_norm", "evaluate_every", "projector", "mixup", "teacher_file"}
        later |= {"class_weights", "teacher_class_weights"}
        later |= {"start_rate_factor"} if config.student_start == "scratch" else set()
        assert {name for name in unnamed if not name.startswith("frontend_")} <= {"temperature", "hint_layer"} | later
        assert config.batch_norm
        assert config.projector == "auto"
        assert config.recipe.learning_rate == config.learning_rate
        assert (training.seed == PLAN.selection_seed) == (training.stage != "confirming")
        assert config.reduction == "sum"
    assert PLAN.dataset["train_offset"] >= 6000
    assert min(len(seeds) for seeds in PLAN.seeds.values()) >= 5
    assert len(PLAN.seeds["resnet18"]) >= 8
