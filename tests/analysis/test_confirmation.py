"""What a search trains anew once it has chosen, from made-up trials."""

import dataclasses

import pytest

from dfd_tune.analysis.cells import cells_of, trials_to_test
from dfd_tune.analysis.confirmation import anew
from dfd_tune.config import TrialConfig
from dfd_tune.confirm import Confirm, tuning_of, twin_of
from dfd_tune.record import load_trials, save_trial
from dfd_tune.store import open_store
from tests.report.searches import (
    DIGEST,
    confirmed,
    grid_trials,
    make_request,
    make_search,
    make_trial,
    students,
    to_train,
    trial_of,
)

TEACHERS = {"resnet18": 0.99, "vgg16": 0.97}
FRESH = [1000, 1001, 1002, 1003, 1004]
TWO_CELLS = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1, 2]})
CHOSEN = {"resnet18": 1, "vgg16": 2}


def validation(point):
    """λ = 1 is best for ResNet-18, λ = 2 for VGG-16, which is the better of the two."""
    return 0.9 + 0.01 * (point["lambda_"] == CHOSEN[point["backbone"]]) + 0.02 * (point["backbone"] == "vgg16")


def planned(request, trials, **confirm):
    """What such a search trains anew, as far as its own trials tell."""
    return anew(make_search(request, TEACHERS, confirm=Confirm(**confirm)), trials)


def of_two_cells(accuracy=validation, **confirm):
    return planned(TWO_CELLS, grid_trials(TWO_CELLS, accuracy), **confirm)


def settings(found, *names):
    return [tuple(getattr(config, name) for name in names) for config in found.arms.values()]


# Which cells and points.


def test_the_best_cells_student_and_its_twin_with_each_fresh_seed():
    found = of_two_cells()
    assert [cell.cell for cell in found.cells] == ["vgg16"]
    wanted = [("vgg16", value, seed) for value in (2.0, 0.0) for seed in FRESH]
    assert settings(found, "backbone", "lambda_", "seed") == wanted
    (cell,) = found.cells
    assert (cell.seeds, list(cell.arms), cell.tuning, found.tuning) == (FRESH, ["student", "plain"], [], {})
    assert [key for keys in cell.arms.values() for key in keys] == list(found.arms)
    assert all(config.key(DIGEST) == key for key, config in found.arms.items())
    assert cell.student["lambda_"] == 2


def test_a_twin_differs_in_nothing_but_lambda():
    (cell,) = of_two_cells().cells
    arms = of_two_cells().arms
    for student, plain in zip(cell.arms["student"], cell.arms["plain"], strict=True):
        assert twin_of(arms[student]) == arms[plain]


def test_all_cells_if_asked():
    found = of_two_cells(cells="all")
    assert {cell.cell: cell.student["lambda_"] for cell in found.cells} == CHOSEN
    assert len(found.arms) == 2 * 2 * 5


def test_the_best_cell_is_the_one_that_holds_the_best_point_even_if_that_is_plain():
    def accuracy(point):  # the best distilled point is VGG-16's, the best of all ResNet-18's plain one
        return 0.99 if (point["backbone"], point["lambda_"]) == ("resnet18", 0) else validation(point)

    (cell,) = of_two_cells(accuracy).cells
    assert (cell.cell, cell.student["lambda_"], list(cell.arms)) == ("resnet18", 1, ["student", "plain"])


def test_nothing_is_confirmed_if_no_seeds_are_asked_for_or_nothing_was_chosen():
    assert not of_two_cells(seeds=0).arms
    trials = [dataclasses.replace(trial, status="FAILED") for trial in grid_trials(TWO_CELLS, validation)]
    for cells in ("best", "all"):
        assert planned(TWO_CELLS, trials, cells=cells).cells == []


def test_where_nothing_is_distilled_the_best_plain_network_is_trained_anew():
    request = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0]})
    trials = grid_trials(request, lambda point: 0.9 + 0.01 * (point["backbone"] == "vgg16"))
    found = planned(request, trials, controls=("longer", "tuned_base"))
    assert [(cell.cell, list(cell.arms)) for cell in found.cells] == [("vgg16", ["plain"])]
    assert settings(found, "backbone", "lambda_") == [("vgg16", 0.0)] * 5
    assert len(planned(request, trials, cells="all").cells) == 2


def test_a_lucky_seed_of_a_point_that_lost_the_others_is_not_confirmed():
    request = make_request({"lambda_": [0, 1, 2], "seed": [0, 1, 2, 3, 4]})
    trials = [
        dataclasses.replace(trial, status="FAILED", metrics={})
        if trial.config["lambda_"] == 2 and trial.config["seed"]
        else trial
        for trial in grid_trials(request, lambda point: 0.9 + 0.05 * (point["lambda_"] == 2))
    ]
    (cell,) = planned(request, trials).cells
    assert cell.student["lambda_"] == 1


def test_of_equally_good_points_the_smaller_lambda_is_confirmed():
    request = make_request({"lambda_": [0, 5, 2]})
    (cell,) = planned(request, grid_trials(request, lambda point: 0.9)).cells
    assert cell.student["lambda_"] == 2


def test_methods_share_the_plain_training_of_their_confirmations():
    request = make_request({"method": ["dfd", "kd", "rdl"], "lambda_": [0, 1]})
    trials = grid_trials(request, lambda point: 0.9 + 0.01 * point["lambda_"])
    found = planned(request, trials, cells="all", controls=("half_longer",))
    assert [cell.cell for cell in found.cells] == ["dfd", "kd", "rdl"]
    for arm in ("plain", "half_longer"):
        assert len({tuple(cell.arms[arm]) for cell in found.cells}) == 1
    assert len({tuple(cell.arms["student"]) for cell in found.cells}) == 3
    assert len(found.arms) == (3 + 1 + 1) * 5


def test_a_sampled_search_confirms_its_one_cell():
    request = make_request({"lambda_": {"low": 0.1, "high": 10}, "backbone": ["resnet18", "vgg16"]}, "random", 9)
    trials = [
        make_trial(request, {"lambda_": value, "backbone": backbone}, accuracy)
        for value, backbone, accuracy in ((2.5, "vgg16", 0.95), (3.5, "vgg16", 0.9), (1.5, "resnet18", 0.93))
    ]
    for cells in ("best", "all"):
        found = planned(request, trials, cells=cells)
        assert [cell.cell for cell in found.cells] == ["vgg16"]
        assert {(backbone, value) for backbone, value in settings(found, "backbone", "lambda_")} == {
            ("vgg16", 2.5),
            ("vgg16", 0.0),
        }


# Seeds.


def test_fresh_seeds_are_such_as_no_trial_of_the_search_has():
    request = make_request({"lambda_": [0, 1], "seed": [0, 1000, 1002]})
    (cell,) = planned(request, grid_trials(request, lambda point: 0.9), seeds=3).cells
    assert cell.seeds == [1001, 1003, 1004]


def test_another_seed_of_the_search_gives_other_fresh_ones():
    trials = grid_trials(TWO_CELLS, validation)
    other = make_search(TWO_CELLS, TEACHERS, confirm=Confirm(seeds=2), seed=50)
    assert anew(other, trials).cells[0].seeds == [1050, 1051]


def test_a_pipeline_is_made_anew_from_its_teacher_on():
    found = of_two_cells(seeds=2, replicate="pipeline")
    assert {config.teacher_seed for config in found.arms.values()} == {1000, 1001}
    assert {config.augment_seed for config in found.arms.values()} == {1000, 1001}
    (cell,) = found.cells
    for place, seed in enumerate([1000, 1001]):
        student, plain = (found.arms[cell.arms[arm][place]] for arm in ("student", "plain"))
        assert (student.seed, plain.seed) == (seed, seed)
        assert student.teacher() == plain.teacher()
    teachers = {config.teacher().key(DIGEST) for config in found.arms.values()}
    assert len(teachers) == 2
    assert not teachers & {teacher.key for teacher in make_search(TWO_CELLS, TEACHERS).teachers}


# Plain training's own settings.


def tuned_search(accuracy, status=lambda place: "FINISHED"):
    """The search of two cells with the control `tuned_base`, whose tuning has ended: its search and all trials."""
    search = make_search(TWO_CELLS, TEACHERS, confirm=Confirm(controls=("tuned_base",)))
    trials = grid_trials(TWO_CELLS, validation)
    found = anew(search, trials)
    new = to_train(dataclasses.replace(found, arms={}), trials)
    for place, (config, stage) in enumerate(new, 1):
        trials.append(trial_of(config, accuracy(place), status=status(place), stage=stage))
    return search, trials, found


def test_plain_training_gets_as_many_trials_of_its_own_as_its_cell_has_points():
    _, trials, found = tuned_search(lambda place: 0.5)
    (cell,) = found.cells
    assert len(found.tuning) == len(cell.tuning) == 3
    plain = next(trial for trial in trials if (trial.config["backbone"], trial.config["lambda_"]) == ("vgg16", 0))
    assert cell.tuning[0] == plain.key  # which the search has run
    assert [trial.stage for trial in trials if trial.key in cell.tuning] == ["search", "control", "control"]


def test_plain_training_of_a_sampled_search_gets_all_of_its_trials():
    request = make_request({"lambda_": {"low": 0.1, "high": 10}}, "random", 7)
    trials = [make_trial(request, {"lambda_": 1.5}, 0.9)]
    search = make_search(request, TEACHERS, confirm=Confirm(controls=("tuned_base",)), num_trials=7)
    assert len(anew(search, trials).tuning) == 7


def test_the_arm_of_tuned_plain_training_comes_once_its_search_has_ended():
    search, trials, before = tuned_search(lambda place: 0.99 if place == 2 else 0.5)
    (cell,) = before.cells
    assert "tuned_base" not in cell.arms
    assert not any(trial.stage == "confirm" for trial in trials)
    assert "tuned_base" not in anew(search, trials[:-1]).cells[0].arms
    after = anew(search, trials)
    best = tuning_of(twin_of(TrialConfig(**cell.student)), 3)[2]
    arm = [after.arms[key] for key in after.cells[0].arms["tuned_base"]]
    assert arm == [dataclasses.replace(best, seed=seed) for seed in FRESH]


def test_tuned_plain_training_may_have_the_students_own_settings():
    search, trials, _ = tuned_search(lambda place: 0.5)
    (cell,) = anew(search, trials).cells
    assert cell.arms["tuned_base"] == cell.arms["plain"]


@pytest.mark.parametrize(("status", "ended"), [("FAILED", True), ("RUNNING", False), ("KILLED", False)])
def test_of_plain_trainings_own_trials_those_that_failed_are_passed_over(status, ended):
    search, trials, _ = tuned_search(
        lambda place: 0.99 - place / 10, lambda place: status if place == 1 else "FINISHED"
    )
    (cell,) = anew(search, trials).cells
    assert ("tuned_base" in cell.arms) == ended
    if ended:  # the second of those beside the plain twin has 0.79, the twin 0.92
        assert cell.arms["tuned_base"] == cell.arms["plain"]


# The same again.


@pytest.mark.parametrize("replicate", ["student", "pipeline"])
def test_a_resumed_search_finds_the_same_again(tmp_path, replicate):
    store = open_store(tmp_path / "store")
    search, trials = confirmed(
        make_search(TWO_CELLS, TEACHERS),
        grid_trials(TWO_CELLS, validation),
        cells="all",
        replicate=replicate,
        controls=("half_longer", "longer", "low_res_teacher", "tuned_base"),
    )
    for trial in trials:
        save_trial(store, search.search, trial)
    back = load_trials(store, search)
    assert back != trials  # in another order
    found = anew(search, back)
    assert found.cells == search.confirmation
    assert to_train(found, back) == []


def test_what_was_trained_anew_does_not_change_the_choice():
    search, trials = confirmed(
        make_search(TWO_CELLS, TEACHERS), grid_trials(TWO_CELLS, validation), accuracy=lambda config: 0.1
    )
    assert anew(search, trials).cells == search.confirmation
    fine = [
        dataclasses.replace(trial, metrics={**trial.metrics, "val_accuracy": 0.999})
        if trial.stage != "search"
        else trial
        for trial in trials
    ]
    assert anew(search, fine).cells == search.confirmation


# What is tested, and what is left of pairs.


def test_tested_are_the_arms_and_nothing_else():
    search, trials = confirmed(
        make_search(TWO_CELLS, TEACHERS), grid_trials(TWO_CELLS, validation), controls=("longer", "tuned_base")
    )
    found = trials_to_test(search, trials)
    assert {trial.stage for trial in found} == {"confirm"}
    assert {trial.key for trial in found} == {trial.key for trial in trials if trial.stage == "confirm"}
    before = dataclasses.replace(search, confirmation=[])
    assert trials_to_test(before, [trial for trial in trials if trial.stage == "search"]) == []


def test_a_confirming_trial_that_failed_is_not_tested_and_not_begun_again():
    search, trials = confirmed(
        make_search(TWO_CELLS, TEACHERS),
        grid_trials(TWO_CELLS, validation),
        students(0.1),
        failed=lambda config: (config["lambda_"], config["seed"]) == (2.0, 1002),
    )
    assert to_train(anew(search, trials), trials) == []
    (cell,) = [cell for cell in cells_of(search, trials) if cell.confirmed]
    assert cell.confirmed.seeds == 5
    assert cell.confirmed.arms["student"].lacking == 1
    assert len(search.tests) == 9
