"""Cells and what the test images say of them, from made-up trials whose numbers can be worked out by hand."""

import dataclasses
import math

import pytest

from dfd_tune.analysis.cells import best_curves, cells_of, curves_of, other_axes, trials_to_test
from dfd_tune.analysis.comparisons import compare, verdict_of
from dfd_tune.analysis.points import Interval
from dfd_tune.analysis.points import tested_accuracy as accuracy_once_tested
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
    assert compare(search, alone).verdict == "not tested yet"


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
    assert compare(with_tests(search, [*others, best], always(0.9)), lonely).verdict == "nothing to compare"
    assert cells_of(search, []) == []


def test_a_sampled_search_whose_best_trial_is_plain_has_nothing_to_compare():
    request = make_request({"lambda_": {"low": 0, "high": 10}}, "random", 9)
    trials = [make_trial(request, {"lambda_": value}, 0.9 - value / 100) for value in (0.0, 2.0)]
    search = with_tests(make_search(request, TEACHERS), trials, always(0.9))
    (cell,) = cells_of(search, trials)
    assert (lambdas(cell.plain), cell.chosen) == ([0], None)
    assert compare(search, cell).verdict == "nothing to compare"


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
    curves = curves_of(make_search(request, TEACHERS), trials)
    assert [curve.name for curve in best_curves(curves, 2)] == ["resolution=3", "resolution=5"]
    assert [curve.name for curve in best_curves(curves, 3)] == ["resolution=2", "resolution=3", "resolution=5"]
    assert best_curves(curves, 9) == curves


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


def test_of_equal_validation_accuracies_the_lower_loss_is_chosen():
    request = make_request({"lambda_": [0, 1, 2]})
    trials = [
        make_trial(request, {"lambda_": value}, 0.9, val_loss=loss)
        for value, loss in ((0.0, 0.1), (1.0, 0.4), (2.0, 0.3))
    ]
    (cell,) = cells_of(make_search(request, TEACHERS), trials)
    assert lambdas([cell.chosen]) == [2]


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


# What the test images say.


def compared(accuracy, seeds=(0, 1, 2), teacher=0.97, leave_out=()):
    """The comparison of a single cell of λ = 0 and 1, whose test accuracies are given by (λ, seed)."""
    request = make_request({"lambda_": [0, 1], "seed": list(seeds)})
    trials = [
        trial
        for trial in grid_trials(request, always(0.9))
        if (trial.config["lambda_"], trial.config["seed"]) not in leave_out
    ]
    search = with_tests(
        make_search(request, {"resnet18": teacher + 0.01}),  # its test accuracy is a point lower than on validation
        trials,
        lambda config: accuracy[config["lambda_"], config["seed"]],
    )
    (cell,) = cells_of(search, trials)
    return compare(search, cell)


def test_differences_are_paired_by_seed():
    # Base 0.80 0.84 0.88, distilled 0.82 0.85 0.91: means 0.84 and 0.86, each with an interval of its own. The pairs
    # differ by 0.02 0.01 0.03: mean 0.02, s = 0.01, half width t(0.975, 2) · s / √3 = 4.3027 · 0.01 / 1.7321 = 0.02484.
    base = {(0, 0): 0.80, (0, 1): 0.84, (0, 2): 0.88}
    distilled = {(1, 0): 0.82, (1, 1): 0.85, (1, 2): 0.91}
    result = compared(base | distilled)
    assert result.difference.mean == pytest.approx(0.02)
    assert result.difference.half == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-4)
    assert result.difference.seeds == 3
    assert result.verdict == "no significant difference"  # 0.02 − 0.0248 < 0
    assert result.base.mean == pytest.approx(0.84)
    assert result.base.half == pytest.approx(4.3027 * 0.04 / math.sqrt(3), rel=1e-4)  # s = 0.04
    # s² = (0.04² + 0.01² + 0.05²) / 2 = 0.0021
    assert result.distilled == Interval(
        pytest.approx(0.86), pytest.approx(4.3027 * math.sqrt(0.0021 / 3), rel=1e-4), seeds=3
    )


def test_what_seeds_share_does_not_blur_a_paired_difference():
    # Seeds differ by 10 points, pairs by 1.0 1.1 0.9 points: s = 0.001, half width 4.3027 · 0.001 / √3 = 0.0025.
    accuracy = {(0, 0): 0.6, (0, 1): 0.7, (0, 2): 0.8, (1, 0): 0.61, (1, 1): 0.711, (1, 2): 0.809}
    assert compared(accuracy).verdict == "better"
    turned = {(1 - value, seed): number for (value, seed), number in accuracy.items()}
    assert compared(turned).verdict == "worse"


def test_seeds_without_a_partner_are_left_out_of_difference_and_gap():
    # Seed 2 has a base alone. Pairs: 0.82 − 0.80 and 0.86 − 0.84, both 0.02. Of the pairs, the base is 0.82 on average,
    # so the gap to 0.97 is 0.15, of which 0.02 are recovered.
    accuracy = {(0, 0): 0.80, (0, 1): 0.84, (0, 2): 0.50, (1, 0): 0.82, (1, 1): 0.86}
    result = compared(accuracy, leave_out={(1, 2)})
    assert result.difference == Interval(pytest.approx(0.02), pytest.approx(0, abs=1e-12), seeds=2)
    assert result.gap_recovered == pytest.approx(0.02 / 0.15)
    assert result.base.seeds == 3


def test_without_a_common_seed_there_is_nothing_to_compare():
    result = compared({(0, 0): 0.8, (1, 1): 0.9}, seeds=(0, 1), leave_out={(0, 1), (1, 0)})
    assert (result.difference, result.gap_recovered, result.verdict) == (None, None, "nothing to compare")
    assert (result.base.mean, result.distilled.mean) == (0.8, 0.9)


def test_the_gap_recovered_is_a_share_of_what_low_resolution_costs():
    # Base 0.80, HR baseline 0.90, distilled 0.85: half of it; 0.75 loses as much.
    assert compared({(0, 0): 0.8, (1, 0): 0.85}, seeds=(0,), teacher=0.9).gap_recovered == pytest.approx(0.5)
    assert compared({(0, 0): 0.8, (1, 0): 0.75}, seeds=(0,), teacher=0.9).gap_recovered == pytest.approx(-0.5)


@pytest.mark.parametrize("teacher", [0.8, 0.7])
def test_there_is_no_gap_where_the_hr_baseline_is_not_above_the_base(teacher):
    result = compared({(0, 0): 0.8, (1, 0): 0.85}, seeds=(0,), teacher=teacher)
    assert result.gap_recovered is None
    assert result.difference.mean == pytest.approx(0.05)


def test_without_a_teachers_test_accuracy_there_is_no_gap():
    request = make_request({"lambda_": [0, 1]})
    trials = grid_trials(request, always(0.9))
    search = with_tests(make_search(request, {"resnet18": 0.99}), trials, lambda point: 0.8 + point["lambda_"] / 100)
    unmeasured = [dataclasses.replace(teacher, test_accuracy=None) for teacher in search.teachers]
    for teachers in (unmeasured, []):
        changed = dataclasses.replace(search, teachers=teachers)
        (cell,) = cells_of(changed, trials)
        assert compare(changed, cell).gap_recovered is None


@pytest.mark.parametrize(
    ("mean", "half", "verdict"),
    [
        (0.02, 0.019, "better"),
        (0.02, 0.02, "no significant difference"),  # the interval ends at 0
        (0.02, 0.021, "no significant difference"),
        (-0.02, 0.021, "no significant difference"),
        (-0.02, 0.02, "no significant difference"),
        (-0.02, 0.019, "worse"),
        (0.0, 0.0, "no significant difference"),
        (0.5, None, "too few seeds for a verdict"),
        (-0.5, None, "too few seeds for a verdict"),
    ],
)
def test_verdicts_at_their_borders(mean, half, verdict):
    assert verdict_of(Interval(mean, half, 1 if half is None else 3)) == verdict


def test_two_seeds_may_be_equal_by_chance_and_give_no_verdict():
    assert verdict_of(Interval(0.02, 0.0, 2)) == "too few seeds for a verdict"
    assert verdict_of(Interval(0.02, 0.0, 3)) == "better"


def test_a_cell_is_not_tested_until_all_of_its_trials_are():
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    trials = grid_trials(request, always(0.9))
    search = make_search(request, TEACHERS)
    (cell,) = cells_of(search, trials)
    assert compare(search, cell).verdict == "not tested yet"
    assert compare(search, cell).base is None
    half = with_tests(search, trials[:3], always(0.8))
    result = compare(half, cell)
    assert (result.base.mean, result.distilled, result.verdict) == (0.8, None, "not tested yet")
    assert accuracy_once_tested(half, cell.chosen) is None
    whole = with_tests(search, trials, always(0.8))
    assert compare(whole, cell).verdict == "too few seeds for a verdict"
    assert accuracy_once_tested(whole, cell.chosen) == Interval(0.8, 0.0, 2)


def test_plain_training_alone_has_nothing_to_compare():
    request = make_request({"lambda_": [0, 1]})
    trials = grid_trials(request, always(0.9))[:1]
    search = with_tests(make_search(request, TEACHERS), trials, always(0.8))
    (cell,) = cells_of(search, trials)
    assert compare(search, cell).verdict == "nothing to compare"
    assert compare(search, cell).base.mean == 0.8
