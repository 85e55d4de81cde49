import pytest

from dfd_tune.report.curves import best_curves, curves_of
from dfd_tune.report.points import points_of
from tests.report.searches import grid_trials, make_request, make_search, make_trial

TEACHERS = {"resnet18": 0.99, "vgg16": 0.97}


def lambdas(points):
    return [point.config["lambda_"] for point in points]


def curves_for(request, trials, teachers=TEACHERS):
    return curves_of(make_search(request, teachers), points_of(trials))


def test_a_curve_for_each_combination_of_the_other_axes_in_their_order():
    request = make_request({"lambda_": [2, 0, 1], "backbone": ["vgg16", "resnet18"], "resolution": [4, 2]})
    curves = curves_for(request, grid_trials(request, lambda point: 0.9)[::-1])
    assert [curve.name for curve in curves] == [
        "vgg16 resolution=4",
        "vgg16 resolution=2",
        "resnet18 resolution=4",
        "resnet18 resolution=2",
    ]
    for curve in curves:
        assert lambdas(curve.plain) == [0]
        assert lambdas(curve.distilled) == [1, 2]
        assert curve.is_line
        assert curve.teacher == TEACHERS[curve.name.split()[0]]


def test_seeds_make_no_curves_of_their_own():
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    (curve,) = curves_for(request, grid_trials(request, lambda point: 0.9))
    assert curve.name == "resnet18"
    assert [len(point.trials) for point in curve.points] == [2, 2]


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_the_one_base_of_both_reductions_stands_in_both_curves(seeds):
    request = make_request({"reduction": ["mean", "sum"], "lambda_": [0, 1], "seed": seeds})
    # The two λ = 0 points have one key, so a search has one trial of them.
    trials = list({trial.key: trial for trial in grid_trials(request, lambda point: 0.9)}.values())
    assert len(trials) == 3 * len(seeds)
    curves = curves_for(request, trials)
    assert [curve.name for curve in curves] == ["mean", "sum"]
    assert [lambdas(curve.plain) for curve in curves] == [[0], [0]]
    assert curves[0].plain == curves[1].plain


def test_sampled_settings_make_no_curves():
    explore = {"lambda_": [0, 1], "learning_rate": {"low": 0.01, "high": 0.1}, "backbone": ["resnet18", "vgg16"]}
    request = make_request(explore, "tpe", 9)
    points = [{"lambda_": 1.0, "learning_rate": rate, "backbone": "vgg16"} for rate in (0.02, 0.03)]
    points.append({"lambda_": 0.0, "learning_rate": 0.02, "backbone": "vgg16"})
    (curve,) = curves_for(request, [make_trial(request, point, 0.9) for point in points])
    assert curve.name == "vgg16"
    assert not curve.is_line  # two points at λ = 1
    assert lambdas(curve.points) == [0, 1, 1]


def test_a_curve_that_never_distilled_has_no_teacher():
    request = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1]})
    trials = [trial for trial in grid_trials(request, lambda point: 0.9) if trial.config["lambda_"] == 0]
    assert [(curve.teacher, curve.distilled) for curve in curves_for(request, trials)] == [(None, ())] * 2


def test_several_teachers_are_no_level():
    request = make_request({"lambda_": [1], "teacher_epochs": [2, 3]})
    trials = grid_trials(request, lambda point: 0.9)
    assert [curve.teacher for curve in curves_for(request, trials)] == [0.99, None]  # the record has the first alone


def test_the_best_curves_keep_their_order():
    request = make_request({"lambda_": [0, 1], "resolution": [2, 3, 4, 5]})
    heights = {2: 0.7, 3: 0.9, 4: 0.6, 5: 0.8}
    trials = grid_trials(
        request, lambda point: heights[point["resolution"]] if point["lambda_"] else 0.95 - point["resolution"] / 10
    )
    # λ = 0 counts as well: 0.75 for resolution 2.
    curves = curves_for(request, trials)
    assert [curve.name for curve in best_curves(curves, 2)] == ["resolution=3", "resolution=5"]
    assert [curve.name for curve in best_curves(curves, 3)] == ["resolution=2", "resolution=3", "resolution=5"]
    assert best_curves(curves, 9) == curves
