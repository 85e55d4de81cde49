import pytest

from dfd_tune.axes import Choice, Range, grid_points
from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.data.recipes import DIGITS, PAPER
from dfd_tune.errors import UserError
from dfd_tune.rules import settings_of
from dfd_tune.settings import resolve_dataset, settle
from dfd_tune.show_config import describe
from tests.samples import request_for

SPACE = """
explore:
  lambda_: [0, 1]
  learning_rate: [0.1, 0.2]
settings:
  epochs: 7
  momentum: 0.8
"""


@pytest.fixture
def space(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(SPACE)
    return file


def refusals(*arguments, **options):
    with pytest.raises(UserError) as caught:
        request_for(*arguments, **options)
    return caught.value.problems


def origin_of(request):
    return {name: (value, origin) for name, value, origin in describe(request)}


def test_later_layers_stand_above_earlier_ones(space):
    request = request_for(space, "momentum=0.7")
    settings = request.settings
    assert settings["weight_decay"] == DIGITS["weight_decay"] == 5e-4
    assert settings["downsample"] == "bicubic"  # default
    assert settings["batch_size"] == DIGITS["batch_size"]  # recipe
    assert settings["epochs"] == 7 != DIGITS["epochs"]  # space above recipe
    assert settings["momentum"] == 0.7  # --set above space
    assert set(settings) | set(request.explore) == set(settings_of(TrialConfig))


def test_every_value_says_where_it_comes_from(space):
    rows = origin_of(request_for(space, "momentum=0.7", "train_images=50", "lambda_=[0, 5]"))
    assert rows["downsample"] == ("bicubic", "default")
    assert rows["batch_size"] == ("64", "dataset digits")
    assert rows["validation_fraction"] == ("0.2", "dataset digits")
    assert rows["epochs"] == ("7", "space mine")
    assert rows["momentum"] == ("0.7", "--set")
    assert rows["train_images"] == ("50", "--set")
    assert rows["teacher_epochs"] == ("7", "as the student's")
    assert rows["learning_rate"] == ("{0.1, 0.2}", "explored by space mine")
    assert rows["lambda_"] == ("{0, 5}", "--set")
    assert rows["protocol"] == ("validation", "default")
    confirm = {f"confirm: {name}" for name in ("seeds", "cells", "replicate", "controls")}
    assert set(rows) == {
        "protocol",
        "scheduler",
        "objectives",
        "choose",
        "choose_by",
        *confirm,
        *settings_of(TrialConfig),
        *settings_of(DatasetConfig),
    }


def test_what_is_trained_anew_says_where_it_comes_from(space):
    space.write_text(SPACE + "confirm: {seeds: 7, cells: all}\ncontrols: [longer]\n")
    rows = origin_of(request_for(space, confirm={"cells": "best", "controls": "longer, tuned_base"}))
    assert rows["confirm: seeds"] == ("7", "space mine")
    assert rows["confirm: cells"] == ("best", "command line")
    assert rows["confirm: replicate"] == ("student", "default")
    assert rows["confirm: controls"] == ("longer, tuned_base", "command line")
    rows = origin_of(request_for(space, confirm={"seeds": 0}))
    assert rows["confirm: seeds"] == ("0", "command line")
    assert rows["confirm: controls"] == ("none", "command line")


def test_an_axis_stands_above_the_recipe(space):
    request = request_for(space)
    assert DIGITS["learning_rate"] == 0.05
    assert "learning_rate" not in request.settings
    assert request.trial({"lambda_": 1.0, "learning_rate": 0.2}).learning_rate == 0.2


def test_a_set_value_fixes_an_axis(space):
    request = request_for(space, "lambda_=3")
    assert request.explore == {"learning_rate": Choice((0.1, 0.2))}
    assert request.settings["lambda_"] == 3
    assert request.trial({"learning_rate": 0.1}).lambda_ == 3


def test_a_set_list_replaces_an_axis_or_makes_one(space):
    request = request_for(space, "lambda_=[0, 1e-3]", "seed=[1,2,3]")
    assert request.explore == {
        "lambda_": Choice((0.0, 0.001)),
        "learning_rate": Choice((0.1, 0.2)),
        "seed": Choice((1, 2, 3)),
    }
    assert "seed" not in request.settings


def test_several_teachers_may_be_set_as_a_list(space):
    assert request_for(space, "teachers=[alexnet, vgg16]").settings["teachers"] == "alexnet+vgg16"
    assert request_for(space, "teachers=alexnet+vgg16").settings["teachers"] == "alexnet+vgg16"
    axis = request_for(space, "teachers=[[alexnet, vgg16], [vgg16]]").explore["teachers"]
    assert axis == Choice(("alexnet+vgg16", "vgg16"))


def test_a_share_of_the_side_is_settled_by_the_images():
    request = request_for("table1")
    assert request.explore["resolution"] == Choice(("1/4", "1/2"))
    for side in (8, 32):
        settled = settle(request, image_size=side, vgg19_at_hand=False, device="cpu")
        assert settled.explore["resolution"] == Choice((side // 4, side // 2))
    fixed = request_for("table1", "resolution=1/8")
    assert settle(fixed, image_size=32, vgg19_at_hand=False, device="cpu").settings["resolution"] == 4


@pytest.mark.parametrize(
    ("resolution", "side", "start"),
    [
        ("[1/4, 1/2]", 9, ["resolution is 1/4 of the image's side, but of 9 pixels", "resolution is 1/2 of the"]),
        ("1/8", 8, ["resolution is 1/8 of the image's side, but of 8 pixels that is no whole number of at least 2"]),
        ("[1/2, 4]", 8, ["resolution names a value twice: 4, 4; leave one out."]),
    ],
)
def test_a_share_that_does_not_fit_the_images_is_refused(resolution, side, start):
    with pytest.raises(UserError) as caught:
        settle(request_for("table1", f"resolution={resolution}"), image_size=side, vgg19_at_hand=False, device="cpu")
    assert len(caught.value.problems) == len(start)
    assert all(found.startswith(text) for found, text in zip(caught.value.problems, start, strict=True))


def test_conditions_are_settled_with_the_axes(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("explore: {resolution: [1/4, 1/2], lambda_: [0, 1]}\nonly: [{resolution: 1/2}, {lambda_: 0}]")
    request = settle(request_for(file), image_size=32, vgg19_at_hand=False, device="cpu")
    points = [point for point in grid_points(request.explore) if request.allows(point)]
    assert [(point["resolution"], point["lambda_"]) for point in points] == [(8, 0), (16, 0), (16, 1)]
    # A condition also holds of an axis that --set has fixed.
    fixed = settle(request_for(file, "resolution=8"), image_size=32, vgg19_at_hand=False, device="cpu")
    assert [point for point in grid_points(fixed.explore) if fixed.allows(point)] == [{"lambda_": 0.0}]


@pytest.mark.parametrize(("at_hand", "content"), [(True, "vgg19"), (False, "teacher")])
def test_whose_features_srgan_compares_depends_on_what_is_at_hand(at_hand, content):
    settled = settle(request_for("table2"), image_size=8, vgg19_at_hand=at_hand, device="cpu")
    assert settled.settings["frontend_content"] == content
    told = settle(request_for("table2", "frontend_content=teacher"), image_size=8, vgg19_at_hand=at_hand, device="cpu")
    assert told.settings["frontend_content"] == "teacher"


@pytest.mark.parametrize(("device", "precision"), [("cpu", "float32"), ("cuda", "bf16")])
def test_the_precision_depends_on_the_device_unless_it_is_set(device, precision):
    settled = settle(request_for("lambda_grid", "precision=auto"), image_size=8, vgg19_at_hand=False, device=device)
    assert settled.settings["precision"] == precision
    trial = settled.trial(next(grid_points(settled.explore)))
    assert trial.recipe.precision == trial.teacher().recipe.precision == trial.base().recipe.precision == precision
    for told in ("float32", "bf16"):
        settled = settle(
            request_for("lambda_grid", f"precision={told}"), image_size=8, vgg19_at_hand=False, device=device
        )
        assert settled.settings["precision"] == told


def test_a_trial_is_made_once_its_precision_is_settled():
    request = request_for("lambda_grid", "precision=auto")
    with pytest.raises(AssertionError, match="settled"):
        request.trial(next(grid_points(request.explore)))


def test_the_protocol_is_the_spaces_unless_given(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("protocol: paper\nexplore: {lambda_: [0]}")
    assert request_for(file).protocol == "paper"
    assert request_for(file, protocol="validation").protocol == "validation"
    assert origin_of(request_for(file))["protocol"] == ("paper", "space mine")
    assert origin_of(request_for("lambda_grid", protocol="paper"))["protocol"] == ("paper", "--protocol")


def test_what_is_chosen_by_is_the_spaces_unless_given(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("choose_by: macro_f1\nexplore: {lambda_: [0]}")
    assert request_for(file).choose_by == "macro_f1"
    assert request_for(file, choose_by="loss").choose_by == "loss"
    assert origin_of(request_for(file))["choose_by"] == ("macro_f1", "space mine")
    assert origin_of(request_for(file, choose_by="accuracy"))["choose_by"] == ("accuracy", "--choose-by")
    assert origin_of(request_for("lambda_grid"))["choose_by"] == ("accuracy", "default")


def test_test_images_choose_by_accuracy_alone(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("choose_by: loss\nexplore: {lambda_: [0]}")
    for given in ({"protocol": "paper"}, {"protocol": "paper", "choose_by": "macro_f1"}):
        with pytest.raises(UserError, match="protocol paper chooses by accuracy"):
            request_for(file, **given)
    assert request_for(file, protocol="paper", choose_by="accuracy").protocol == "paper"


def test_teachers_follow_class_weights_unless_that_is_explored_or_said():
    def teachers(*assignments):
        rows = origin_of(request_for("lambda_grid", *assignments))
        return rows["teacher_class_weights"]

    assert teachers() == ("none", "as the student's")
    assert teachers("class_weights=balanced") == ("balanced", "as the student's")
    assert teachers("class_weights=balanced", "teacher_class_weights=none") == ("none", "--set")
    assert teachers("class_weights=[none, balanced]") == ("none", "as the student's")


def test_the_last_of_two_assignments_counts(space):
    assert request_for(space, "epochs=2", "epochs=3").settings["epochs"] == 3
    assert request_for(space, "lambda_=2", "lambda_=[3]").explore["lambda_"] == Choice((3.0,))
    last = request_for(space, "lambda_=[3]", "lambda_=2")
    assert "lambda_" not in last.explore
    assert last.settings["lambda_"] == 2


def test_numbers_may_be_written_as_yaml_does_not_read_them(space):
    request = request_for(space, "weight_decay=1e-3")
    assert request.settings["weight_decay"] == 0.001


def test_the_seed_is_that_of_everything_but_may_be_set_apart(space):
    request = request_for(space, "teacher_seed=9", seed=5)
    assert [request.settings[name] for name in ("seed", "augment_seed", "teacher_seed")] == [5, 5, 9]
    assert request.seed == 5


def test_one_teacher_serves_whatever_is_explored_of_the_student(space):
    request = request_for(space, "epochs=[3, 9]")
    points = [{"lambda_": 1.0, "learning_rate": rate, "epochs": epochs} for rate in (0.1, 0.2) for epochs in (3, 9)]
    (teacher,) = {request.trial(point).teacher() for point in points}
    assert teacher.recipe.learning_rate == DIGITS["learning_rate"]
    assert teacher.recipe.epochs == 7  # the space's, beneath the axis


def test_a_teacher_may_have_a_recipe_of_its_own(space):
    request = request_for(space, "teacher_epochs=2", "momentum=0.6")
    recipe = request.trial({"lambda_": 1.0, "learning_rate": 0.1}).teacher().recipe
    assert (recipe.epochs, recipe.momentum) == (2, 0.6)


def test_settings_of_the_dataset_are_told_apart(space):
    request = request_for(space, "image_size=16", "test_images=20", dataset="cifar10")
    assert request.dataset == DatasetConfig(
        dataset="cifar10", image_size=16, test_images=20, validation_fraction=PAPER["validation_fraction"]
    )
    assert "image_size" not in request.settings


def test_the_number_of_trials_may_be_given(space):
    assert request_for("tpe_all").trials == 30
    assert request_for("tpe_all", trials=5).trials == 5
    (refused,) = refusals(space, trials=5)
    assert refused.startswith("--trials is for the samplers random,")
    assert "--trials is 0, but sampler tpe needs" in refusals("tpe_all", trials=0)[0]


def test_a_sampled_axis_may_become_a_list():
    request = request_for("tpe_all", "lambda_=[0, 1]")
    assert request.explore["lambda_"] == Choice((0.0, 1.0))
    assert isinstance(request.explore["learning_rate"], Range)


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("epochs", "--set 'epochs' must be key=value, as in --set epochs=5."),
        ("epochs=", "--set 'epochs=' must be key=value"),
        ("=5", "--set '=5' must be key=value"),
        ("lambda_=[1", "--set lambda_: '[1' is no YAML value"),
        ("lambda_=2024-13-45", "--set lambda_: '2024-13-45' is no YAML value"),
        ("epoch=3", "--set: Unknown setting 'epoch'. Did you mean 'epochs'?"),
        ("epoch=[3]", "--set: Unknown setting 'epoch'. Did you mean 'epochs'?"),
        ("data=here", "--set: Unknown setting 'data'."),
        ("epochs=0", "--set: epochs is 0, but must be a whole number at least 1 and at most 10000."),
        ("epochs=1e1", "--set: epochs is '1e1', but must be a whole number"),
        ("lambda_=1" + "0" * 400, "--set: lambda_ is 1000"),
        ("lambda_=[1, x]", "--set: lambda_ has the value 'x', but each must be a number"),
        ("lambda_=[]", "--set: lambda_ has an empty list"),
        ("lambda_={low: 1, high: 2}", "--set: lambda_ is {'low': 1, 'high': 2}, but must be a number"),
        ("image_size=[8, 16]", "--set: image_size can't be explored"),
        ("workers=[1, 2]", "--set: workers can't be explored"),
        ("validation_fraction=0.9", "--set: validation_fraction is 0.9, but must be a number at least 0.01"),
    ],
)
def test_a_slip_gets_one_sentence(space, assignment, problem):
    (found,) = refusals(space, assignment)
    assert found.startswith(problem), found


def test_fixing_every_axis_leaves_nothing_to_explore(space):
    (problem,) = refusals(space, "lambda_=1", "learning_rate=0.1")
    assert problem.startswith("Every axis of the space is fixed with --set")
    assert request_for(space, "lambda_=1", "learning_rate=0.1", "seed=[1, 2]").explore == {"seed": Choice((1, 2))}


def test_a_wrong_list_for_the_last_axis_is_not_called_fixing_it(space):
    (problem,) = refusals(space, "lambda_=1", "learning_rate=[-1]")
    assert problem.startswith("--set: learning_rate has the value -1.0")


def test_a_sampled_space_takes_no_list_of_seeds():
    (problem,) = refusals("tpe_all", "seed=[1, 2]")
    assert problem.startswith("--set: seed can't be explored with sampler tpe")


def test_all_slips_are_reported_together(space):
    problems = refusals(space, "epoch=1", "width=9", "oops", "lambda_=[-1]", trials=3)
    assert len(problems) == 5


def test_a_dataset_alone_is_resolved_as_in_a_launch(space):
    launched = request_for(space, "image_size=16", dataset="cifar10").dataset
    assert resolve_dataset("cifar10", None, ["image_size=16"]) == launched


def test_a_dataset_alone_takes_only_its_own_settings():
    with pytest.raises(UserError) as caught:
        resolve_dataset("digits", None, ["epochs=3", "image_size=1", "train_image=5"])
    problems = caught.value.problems
    assert problems[0].startswith("--set: Unknown setting of a dataset 'epochs'.")
    assert problems[1].startswith("--set: image_size is 1, but must be a whole number at least 8")
    assert "Did you mean 'train_images'?" in problems[2]
    with pytest.raises(UserError, match=r"Unknown dataset 'digit'. Did you mean 'digits'\?"):
        resolve_dataset("digit", None, [])
