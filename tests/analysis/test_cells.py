"""Cells and what the test images say of them, from made-up trials whose numbers can be worked out by hand."""

import dataclasses

import pytest

from dfd_tune.analysis.cells import best_curves, cells_of, curves_of, other_axes, trials_to_test
from dfd_tune.analysis.choice import best_trial
from dfd_tune.analysis.comparisons import compare
from tests.report.searches import grid_trials, make_request, make_search, make_trial, with_tests

TEACHERS = {"resnet18": 0.99, "vgg16": 0.97}


def lambdas(points):
    return [point.config["lambda_"] for point in points]


def always(value):
    return lambda point: value


# What is a cell.


def test_a_cell_for_each_combination_of_the_other_axes_in_their_order():
    request = make_request({"lambda_": [2, 0, 1], "backbone": ["vgg16", "resnet18"], "resolution": [4, 2]})
    search = make_search(request, TEACHERS)
    cells = cells_of(search, grid_trials(request, always(0.9))[::-1])
    assert [cell.name for cell in cells] == [
        "vgg16 resolution=4",
        "vgg16 resolution=2",
        "resnet18 resolution=4",
        "resnet18 resolution=2",
    ]
    assert other_axes(search) == ["backbone", "resolution"]
    for cell in cells:
        assert cell.setting == {"backbone": cell.name.split()[0], "resolution": int(cell.name[-1])}
        assert lambdas(cell.plain) == [0]
        assert cell.base == cell.plain[0]
        assert lambdas(cell.distilled) == [1, 2]
        assert lambdas(cell.points) == [0, 1, 2]
        assert cell.is_line
        assert cell.teacher.val_accuracy == TEACHERS[cell.config["backbone"]]
    assert curves_of(search, grid_trials(request, always(0.9))[::-1]) == cells


def test_seeds_make_no_cells_of_their_own():
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    (cell,) = cells_of(make_search(request, TEACHERS), grid_trials(request, always(0.9)))
    assert cell.name == "resnet18"
    assert [len(point.trials) for point in cell.points] == [2, 2]


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_one_plain_trial_a_seed_serves_the_cells_of_all_methods(seeds):
    request = make_request({"method": ["dfd", "kd", "rdl"], "lambda_": [0, 1], "seed": seeds})
    trials = grid_trials(request, lambda point: 0.9 + 0.01 * point["lambda_"])
    assert len(trials) == 4 * len(seeds)  # λ = 0 once
    cells = cells_of(make_search(request, TEACHERS), trials)
    assert [cell.name for cell in cells] == ["dfd", "kd", "rdl"]
    assert [lambdas(cell.plain) for cell in cells] == [[0], [0], [0]]
    assert cells[0].base == cells[1].base == cells[2].base
    assert [cell.setting["method"] for cell in cells] == ["dfd", "kd", "rdl"]


def test_several_teachers_are_no_baseline():
    request = make_request({"lambda_": [1], "teacher_epochs": [2, 3]})
    cells = cells_of(make_search(request, TEACHERS), grid_trials(request, always(0.9)))
    # The record has the first teacher alone.
    assert [cell.teacher and cell.teacher.val_accuracy for cell in cells] == [0.99, None]


def test_an_unfinished_grid_has_the_cells_that_have_points():
    request = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1]})
    plain = [trial for trial in grid_trials(request, always(0.9)) if trial.config["lambda_"] == 0]
    running = make_trial(request, {"backbone": "resnet18", "lambda_": 1.0}, 0.0, status="RUNNING")
    search = make_search(request, TEACHERS)
    assert [(cell.name, cell.distilled, cell.chosen) for cell in cells_of(search, [plain[0], running])] == [
        ("resnet18", (), None)
    ]
    assert cells_of(search, [running]) == []
    (alone,) = cells_of(search, grid_trials(request, always(0.9))[1:2])
    assert (alone.base, lambdas(alone.distilled)) == (None, [1])
    assert compare(search, alone).state == "not tested yet"


def test_a_sampled_search_has_one_cell_around_its_best_trial_with_its_twin():
    explore = {"lambda_": {"low": 0.1, "high": 10, "log": True}, "backbone": ["resnet18", "vgg16"]}
    request = make_request(explore, "random", 9)
    best = make_trial(request, {"lambda_": 2.5, "backbone": "vgg16"}, 0.95)
    others = [make_trial(request, {"lambda_": 3.5, "backbone": name}, 0.9) for name in ("vgg16", "resnet18")]
    twin = make_trial(request, {"lambda_": 0.0, "backbone": "vgg16"}, 0.91)
    stranger = make_trial(request, {"lambda_": 0.0, "backbone": "resnet18"}, 0.92)
    search = make_search(request, TEACHERS)
    (cell,) = cells_of(search, [*others, stranger, best, twin])
    assert (cell.name, lambdas(cell.plain), lambdas(cell.distilled)) == ("vgg16", [0], [2.5])
    assert cell.chosen.trials == (best,)
    assert {trial.key for trial in trials_to_test(search, [*others, stranger, best, twin])} == {best.key, twin.key}
    (lonely,) = cells_of(search, [*others, best])
    assert lonely.base is None
    assert compare(with_tests(search, [*others, best], always(0.9)), lonely).state == "nothing to compare"
    assert cells_of(search, []) == []


def test_a_sampled_search_has_its_cell_around_a_distilled_trial_even_if_a_plain_one_is_better():
    request = make_request({"lambda_": {"low": 0, "high": 10}}, "random", 9)
    trials = [make_trial(request, {"lambda_": value}, 0.9 - value / 100) for value in (0.0, 1.0, 2.0)]
    search = with_tests(make_search(request, TEACHERS), trials, lambda point: 0.9 - point["lambda_"] / 50)
    (cell,) = cells_of(search, trials)
    assert (lambdas(cell.plain), lambdas([cell.chosen])) == ([0], [1])
    assert compare(search, cell).difference.mean == pytest.approx(-0.02)


def test_a_sampled_search_that_distilled_nothing_has_nothing_to_compare():
    request = make_request({"learning_rate": {"low": 0.01, "high": 0.1}, "lambda_": [0]}, "random", 9)
    trials = [
        make_trial(request, {"lambda_": 0.0, "learning_rate": rate}, accuracy)
        for rate, accuracy in ((0.02, 0.8), (0.03, 0.9))
    ]
    search = with_tests(make_search(request, TEACHERS), trials, always(0.9))
    (cell,) = cells_of(search, trials)
    assert [point.trials for point in cell.plain] == [(trials[1],)]
    assert (cell.chosen, compare(search, cell).state) == (None, "nothing to compare")


def test_of_a_sampled_search_a_figure_shows_a_curve_for_each_listed_combination():
    explore = {"lambda_": [0, 1], "learning_rate": {"low": 0.01, "high": 0.1}, "backbone": ["resnet18", "vgg16"]}
    request = make_request(explore, "tpe", 9)
    points = [{"lambda_": 1.0, "learning_rate": rate, "backbone": "vgg16"} for rate in (0.02, 0.03)]
    points.append({"lambda_": 0.0, "learning_rate": 0.02, "backbone": "vgg16"})
    (curve,) = curves_of(make_search(request, TEACHERS), [make_trial(request, point, 0.9) for point in points])
    assert curve.name == "vgg16"
    assert not curve.is_line  # two points at λ = 1
    assert lambdas(curve.points) == [0, 1, 1]


def test_the_best_curves_keep_their_order():
    request = make_request({"lambda_": [0, 1], "resolution": [2, 3, 4, 5]})
    heights = {2: 0.7, 3: 0.9, 4: 0.6, 5: 0.8}
    trials = grid_trials(
        request, lambda point: heights[point["resolution"]] if point["lambda_"] else 0.95 - point["resolution"] / 10
    )
    # λ = 0 counts as well: 0.75 for resolution 2.
    search = make_search(request, TEACHERS)
    curves = curves_of(search, trials)
    assert [curve.name for curve in best_curves(search, curves, 2)] == ["resolution=3", "resolution=5"]
    assert [curve.name for curve in best_curves(search, curves, 3)] == ["resolution=2", "resolution=3", "resolution=5"]
    assert best_curves(search, curves, 9) == curves


# Which λ is chosen.


def test_lambda_is_chosen_on_validation_images_or_under_paper_on_test_images():
    request = make_request({"lambda_": [0, 1, 2, 5], "seed": [0, 1]})
    trials = grid_trials(request, lambda point: {0: 0.99, 1: 0.95, 2: 0.94, 5: 0.93}[point["lambda_"]])
    search = with_tests(
        make_search(request, TEACHERS), trials, lambda point: {0: 0.98, 1: 0.9, 2: 0.91, 5: 0.92}[point["lambda_"]]
    )
    (honest,) = cells_of(search, trials)
    assert lambdas([honest.chosen]) == [1]
    (peeking,) = cells_of(dataclasses.replace(search, protocol="paper"), trials)
    assert lambdas([peeking.chosen]) == [5]


def test_of_equal_validation_accuracies_the_smaller_lambda_is_chosen_whatever_the_loss():
    request = make_request({"lambda_": [0, 2, 1]})
    trials = [
        make_trial(request, {"lambda_": value}, 0.9, val_loss=loss)
        for value, loss in ((0.0, 0.1), (2.0, 0.3), (1.0, 0.4))
    ]
    (cell,) = cells_of(make_search(request, TEACHERS), trials)
    assert lambdas([cell.chosen]) == [1]


def test_means_of_the_same_numbers_are_equal_in_whatever_order_they_were_added():
    request = make_request({"lambda_": [0, 1, 2], "seed": [0, 1, 2]})
    values = {1: (0.1, 0.2, 0.3), 2: (0.3, 0.2, 0.1)}
    assert sum(values[1]) != sum(values[2])
    trials = grid_trials(request, lambda point: values.get(point["lambda_"], (0, 0, 0))[point["seed"]])
    (cell,) = cells_of(make_search(request, TEACHERS), trials)
    assert lambdas([cell.chosen]) == [1]


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING", None])
def test_a_point_that_lost_seeds_is_never_chosen_over_one_that_has_all(status):
    """λ = 1 has five good seeds, λ = 2 one that is better, and four that ended so, or were not begun."""
    request = make_request({"lambda_": [0, 1, 2], "seed": [0, 1, 2, 3, 4]})
    trials = []
    for trial in grid_trials(request, lambda point: 0.95 if point["lambda_"] == 2 else 0.9):
        if trial.config["lambda_"] < 2 or trial.config["seed"] == 0:
            trials.append(trial)
        elif status is not None:
            trials.append(dataclasses.replace(trial, status=status))
    search = make_search(request, TEACHERS)
    (cell,) = cells_of(search, trials)
    assert lambdas(cell.distilled) == [1, 2]
    assert lambdas([cell.chosen]) == [1]
    assert best_trial(search, [trial for trial in trials if trial.config["lambda_"]]).config["lambda_"] == 1
    only = [trial for trial in trials if trial.config["lambda_"] == 2]
    (lost,) = cells_of(search, only)
    assert (lost.chosen, best_trial(search, only)) == (None, None)


def test_where_a_space_picks_its_seeds_a_point_has_those_that_were_begun():
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    trials = [
        trial
        for trial in grid_trials(request, always(0.9))
        if (trial.config["lambda_"], trial.config["seed"]) != (1.0, 1)
    ]
    search = make_search(request, TEACHERS)
    assert cells_of(search, trials)[0].chosen is None
    picking = dataclasses.replace(search, request={"only": [{"seed": [0]}, {"lambda_": [0.0]}]})
    assert lambdas([cells_of(picking, trials)[0].chosen]) == [1]


def test_under_paper_only_points_whose_seeds_are_all_tested_can_be_chosen():
    request = make_request({"lambda_": [0, 1, 2], "seed": [0, 1]})
    trials = grid_trials(request, always(0.9))
    search = with_tests(
        make_search(request, TEACHERS, protocol="paper"), trials, lambda point: 0.9 + 0.01 * point["lambda_"]
    )
    last = next(trial for trial in trials if (trial.config["lambda_"], trial.config["seed"]) == (2, 1))
    del search.tested[last.key]
    (cell,) = cells_of(search, trials)
    assert lambdas([cell.chosen]) == [1]
    (untested,) = cells_of(make_search(request, TEACHERS, protocol="paper"), trials)
    assert untested.chosen is None


def test_under_paper_a_sampled_searchs_cell_is_around_what_the_test_images_liked_best():
    request = make_request({"lambda_": {"low": 0.1, "high": 10}}, "random", 9)
    trials = [make_trial(request, {"lambda_": value}, accuracy) for value, accuracy in ((1.0, 0.95), (2.0, 0.9))]
    search = with_tests(make_search(request, {}, protocol="paper"), trials, lambda point: point["lambda_"] / 10)
    (cell,) = cells_of(search, trials)
    assert lambdas([cell.chosen]) == [2]
    (before,) = cells_of(make_search(request, {}, protocol="paper"), trials)
    assert lambdas(before.distilled) == [1]


# Which trials are tested.


def test_tested_are_all_seeds_of_each_cells_chosen_and_plain_points_and_nothing_else():
    request = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1, 2], "seed": [0, 1]})
    best = {"resnet18": 1, "vgg16": 2}
    trials = grid_trials(request, lambda point: 0.9 + 0.01 * (point["lambda_"] == best[point["backbone"]]))
    found = trials_to_test(make_search(request, TEACHERS), trials)
    wanted = {(name, value, seed) for name in best for value in (0, best[name]) for seed in (0, 1)}
    points = [tuple(trial.config[name] for name in ("backbone", "lambda_", "seed")) for trial in found]
    assert len(points) == len(wanted)
    assert set(points) == wanted


def test_under_paper_every_finished_trial_is_tested():
    request = make_request({"lambda_": [0, 1, 2]})
    trials = grid_trials(request, always(0.9))[:2]
    failed = make_trial(request, {"lambda_": 2.0}, 0.0, status="FAILED")
    search = make_search(request, TEACHERS, protocol="paper")
    assert trials_to_test(search, [*trials, failed]) == trials
    assert trials_to_test(make_search(request, TEACHERS), [failed]) == []


def test_a_trial_that_serves_several_cells_is_tested_once():
    request = make_request({"method": ["dfd", "kd"], "lambda_": [0, 1]})
    trials = grid_trials(request, always(0.9))
    assert sorted(trial.key for trial in trials_to_test(make_search(request, {}), trials)) == sorted(
        trial.key for trial in trials
    )
