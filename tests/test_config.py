import dataclasses
import json
import math

import pytest

from dfd_tune.config import LARGEST_SEED, DatasetConfig, TrialConfig, teacher_defaults
from dfd_tune.errors import UserError
from dfd_tune.parts import Camera, LowRes
from dfd_tune.rules import broken_rule, coerce, problems_in, settings_of
from tests.samples import digits_trial

OTHER = {
    "resolution": 3,
    "downsample": "area",
    "upsample": "nearest",
    "blur": 1.0,
    "noise": 2.0,
    "jpeg_quality": 50,
    "frontend": "vdsr",
    "crop_padding": 2,
    "flip": True,
    "augment_seed": 1,
    "backbone": "vgg16",
    "width": 0.5,
    "dropout": 0.1,
    "batch_norm": False,
    "epochs": 7,
    "batch_size": 32,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "momentum": 0.5,
    "weight_decay": 0.0,
    "mixup": 0.2,
    "class_weights": "balanced",
    "seed": 1,
    "lambda_": 3.0,
    "method": "rdl",
    "reduction": "mean",
    "temperature": 2.0,
    "hint_layer": "stage1",
    "projector": "always",
    "teachers": "alexnet+vgg16",
    "teacher_sees": "low_res",
    "teacher_file": "features-d7-s8-0123456789abcdef",
    "student_start": "base",
    "start_rate_factor": 0.5,
    "workers": 2,
    "precision": "bf16",
    "evaluate_every": 3,
    "teacher_epochs": 7,
    "teacher_batch_size": 32,
    "teacher_learning_rate": 0.01,
    "teacher_schedule": "cosine",
    "teacher_momentum": 0.5,
    "teacher_weight_decay": 0.0,
    "teacher_dropout": 0.1,
    "teacher_class_weights": "balanced",
    "teacher_seed": 1,
    "frontend_size": 0.5,
    "frontend_epochs": 3,
    "frontend_batch_size": 16,
    "frontend_learning_rate": 0.01,
    "frontend_content": "teacher",
    "frontend_seed": 1,
}
"""For every setting a value that the digits' recipe does not have."""

KEYED = set(OTHER) - {"evaluate_every"}
"""Those that can change a result."""
CAMERA = ["resolution", "downsample", "blur", "noise", "jpeg_quality"]
START_OWN = ["start_rate_factor"]
FRONTEND_OWN = [name for name in OTHER if name.startswith("frontend_")]
METHOD_OWN = ["method", "reduction", "temperature", "hint_layer", "projector", "teachers", "teacher_sees"]
TEACHERS_OWN = [name for name in OTHER if name.startswith("teacher_") and name not in METHOD_OWN]


def changed(config: TrialConfig) -> set[str]:
    """The settings whose other value gives another key."""
    return {
        name
        for name, value in OTHER.items()
        if dataclasses.replace(config, **{name: value}).key("d") != config.key("d")
    }


def test_every_setting_is_tried_here():
    assert set(OTHER) == set(settings_of(TrialConfig))
    assert all(getattr(digits_trial(), name) != value for name, value in OTHER.items())


@pytest.mark.parametrize(
    ("method", "looks_at"),
    [
        ("dfd", {"reduction", "projector"}),
        ("kd", {"temperature"}),
        ("logits", {"reduction"}),
        ("rdl", {"reduction"}),
        ("fitnets", {"reduction", "hint_layer"}),
        ("attention", {"hint_layer"}),
        ("cqd", {"reduction", "projector", "temperature"}),
        ("simkd", {"reduction"}),
        ("norm_direction", {"projector"}),
    ],
)
def test_a_distilling_trials_key_holds_every_setting_that_its_method_looks_at(method, looks_at):
    config = digits_trial(lambda_=2, method=method)
    idle = {*FRONTEND_OWN, *START_OWN, "reduction", "temperature", "hint_layer", "projector"} - looks_at
    assert changed(config) == KEYED - idle - ({"method"} if method == "rdl" else set())


def test_plain_training_has_one_key_whatever_would_be_distilled():
    assert changed(digits_trial(lambda_=0)) == KEYED - {*METHOD_OWN, *TEACHERS_OWN, *START_OWN, *FRONTEND_OWN}


@pytest.mark.parametrize("start", ["teacher", "base"])
def test_plain_training_from_a_network_depends_on_how_that_was_trained(start):
    config = digits_trial(lambda_=0, student_start=start)
    other = KEYED - ({"student_start", "teacher_file"} if start == "base" else set())
    assert changed(config) == other - {*METHOD_OWN, *FRONTEND_OWN}


@pytest.mark.parametrize("frontend", ["vdsr", "espcn", "srgan"])
def test_a_trial_behind_a_front_end_depends_on_how_that_was_trained(frontend):
    config = digits_trial(lambda_=0, frontend=frontend, frontend_content="vgg19")
    idle = {*METHOD_OWN, *TEACHERS_OWN, *START_OWN} | ({"frontend"} if frontend == "vdsr" else set())
    assert changed(config) == KEYED - idle - ({"frontend_content"} if frontend != "srgan" else set())


def test_srgan_with_a_teachers_features_depends_on_the_teacher():
    config = digits_trial(lambda_=0, frontend="srgan", frontend_content="teacher")
    assert set(TEACHERS_OWN) - {"teacher_file"} <= changed(config)
    assert config.low_res.frontend.content == config.teacher()


def test_naming_the_students_own_backbone_as_teacher_changes_nothing():
    named = digits_trial(lambda_=2, teachers="resnet18")
    assert named.key("d") == digits_trial(lambda_=2).key("d")
    assert named.guides() == (named.teacher(),)


def test_teachers_that_see_low_resolution_are_base_networks():
    config = digits_trial(lambda_=2, teacher_sees="low_res", teachers="resnet18+vgg16", frontend="vdsr", noise=3.0)
    assert {guide.role for guide in config.guides()} == {"base"}
    assert [guide.low_res for guide in config.guides()] == [config.low_res] * 2
    assert [guide.network.backbone for guide in config.guides()] == ["resnet18", "vgg16"]
    assert config.base() in config.guides()
    assert config.teacher().low_res is None
    plain = dataclasses.replace(config, lambda_=0.0)
    assert plain.guides() == ()
    assert plain.key("d") == dataclasses.replace(plain, teacher_sees="high_res").key("d")


def test_several_teachers_are_the_same_in_any_order():
    one, other = (digits_trial(lambda_=2, teachers=names) for names in ("vgg16+alexnet", "alexnet+vgg16"))
    assert one.guides() == other.guides()
    assert one.key("d") == other.key("d")
    assert [guide.network.backbone for guide in one.guides()] == ["alexnet", "vgg16"]


def test_networks_before_a_trial_are_each_named_once():
    assert list(digits_trial(lambda_=0).pretrained()) == []
    config = digits_trial(lambda_=2, student_start="teacher")
    assert list(config.pretrained()) == [config.teacher()]
    config = digits_trial(lambda_=2, student_start="teacher", teachers="vgg16")
    assert list(config.pretrained()) == [*config.guides(), config.teacher()]
    config = digits_trial(lambda_=2, student_start="base")
    assert list(config.pretrained()) == [config.teacher(), config.base()]
    config = digits_trial(lambda_=2, student_start="base", teacher_sees="low_res")
    assert list(config.pretrained()) == [config.base()]
    config = digits_trial(lambda_=2, student_start="teacher", teacher_sees="low_res")
    assert list(config.pretrained()) == [config.base(), config.teacher()]


@pytest.mark.parametrize(("start", "rate"), [("scratch", 0.2), ("base", 0.05), ("teacher", 0.05)])
def test_a_student_that_starts_from_trained_weights_has_its_own_peak_rate(start, rate):
    config = digits_trial(student_start=start, learning_rate=0.2, start_rate_factor=0.25, teacher_learning_rate=0.3)
    assert config.recipe.learning_rate == pytest.approx(rate)
    assert {network.recipe.learning_rate for network in config.pretrained()} == {0.3}


def test_a_front_end_depends_on_the_camera_and_its_own_recipe_alone():
    config = digits_trial(lambda_=2, frontend="vdsr")
    found = {
        name
        for name, value in OTHER.items()
        if name not in ("frontend", "upsample")
        and dataclasses.replace(config, **{name: value}).low_res.frontend.key("d") != config.low_res.frontend.key("d")
    }
    assert found == {*CAMERA, *FRONTEND_OWN} - {"frontend_content"}
    assert config.low_res.frontend.resolution == 8


def test_a_key_depends_on_the_dataset():
    assert digits_trial().key("one") != digits_trial().key("two")


def test_keys_do_not_change_between_versions():
    # Results are found under these keys. Where training changes its meaning, raise TRAINING_SEMANTICS.
    config = digits_trial(lambda_=2)
    assert config.key("d") == "2dd11bf9dfbc098f"
    assert config.teacher().key("d") == "57158b8a77d22788"
    assert config.base().key("d") == "f3fb79e7a8a9b635"
    assert config.camera.key("d") == "9073b5bca5795ae0"
    alike = {"class_weights": "none", "teacher_class_weights": "none", "mixup": 0.0}
    rich = dataclasses.replace(config, **OTHER | {"frontend": "srgan", "frontend_content": "teacher"} | alike)
    assert rich.key("d") == "72175ea57e11f43f"
    assert rich.low_res.frontend.key("d") == "444ca1425c43f86e"


def test_whole_and_decimal_numbers_are_one_trial():
    config = digits_trial(lambda_=2, width=1)
    assert config == digits_trial(lambda_=2.0, width=1.0)
    assert config.key("d") == digits_trial(lambda_=2.0, width=1.0).key("d")
    assert isinstance(config.lambda_, float)
    assert isinstance(config.epochs, int)


def test_a_configuration_survives_json():
    config = digits_trial(lambda_=0.1)
    assert TrialConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(UserError) as caught:
        digits_trial(epochs=0, learning_rate=0, backbone="resnet", momentum=math.nan, flip=1)
    problems = dict(
        zip(("flip", "backbone", "epochs", "learning_rate", "momentum"), caught.value.problems, strict=True)
    )
    assert problems["flip"] == "flip is 1, but must be true or false."
    assert (
        "one of alexnet, vgg16, resnet18, or torchvision/NAME or FILE.py:FUNCTION (did you mean resnet18?)"
        in problems["backbone"]
    )
    assert problems["epochs"] == "epochs is 0, but must be a whole number at least 1 and at most 10000."
    assert problems["learning_rate"] == "learning_rate is 0, but must be a number above 0 and at most 100."
    assert problems["momentum"] == "momentum is nan, but must be a number at least 0 and at most 0.999."


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("lambda_", [0, 0.1, 1_000_000], [-1e-9, 1_000_001, math.inf, math.nan, 10**400, True, "2", None, [1]]),
        ("epochs", [1, 10_000], [0, 10_001, 2.0, 2.5, True, "2", None]),
        ("width", [1e-6, 4], [0, 4.1]),
        ("flip", [True, False], [0, 1, "true", None]),
        ("backbone", ["vgg16"], ["VGG16", "", None, 16, ["vgg16"]]),
        ("seed", [0, LARGEST_SEED], [-1, LARGEST_SEED + 1, 10**400]),
        ("resolution", [2, 64, "1/2", "1/ 4", "1/64"], [1, 65, "1/1", "2/4", "1/65", "1/x", "/2", "", 0.5]),
        ("jpeg_quality", [None, 1, 100], [0, 101, "none", 50.0]),
        (
            "teachers",
            ["own", "vgg16", "vgg16+alexnet"],
            ["", "own+vgg16", "vgg16+vgg16", "vgg", "vgg16+", None, ["vgg16"]],
        ),
    ],
)
def test_ranges_of_a_trials_settings(name, good, bad):
    assert [value for value in good if broken_rule(TrialConfig, name, value) is not None] == []
    assert [value for value in bad if broken_rule(TrialConfig, name, value) is None] == []


def test_a_dataset_setting_may_be_left_open_but_not_out_of_range():
    assert broken_rule(DatasetConfig, "image_size", None) is None
    assert broken_rule(DatasetConfig, "image_size", 32) is None
    assert broken_rule(DatasetConfig, "image_size", 7) == "a whole number at least 8 and at most 64"
    assert broken_rule(DatasetConfig, "validation_fraction", None) is not None


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("learning_rate", "1e-3", 0.001),  # YAML 1.1 asks for a dot
        ("learning_rate", 1, 1.0),
        ("learning_rate", "fast", "fast"),
        ("learning_rate", True, True),
        ("learning_rate", 10**400, 10**400),
        ("epochs", "3", "3"),
        ("epochs", 3.0, 3.0),
        ("backbone", "vgg16", "vgg16"),
        ("nothing", "1", "1"),
        ("jpeg_quality", "none", None),
        ("frontend", "none", "none"),
        ("teachers", ["vgg16", "alexnet"], "vgg16+alexnet"),
        ("teachers", ["vgg16", 3], ["vgg16", 3]),
        ("hint_layer", ["conv1"], ["conv1"]),
    ],
)
def test_values_are_read_as_the_setting_means_them(name, value, meant):
    found = coerce(TrialConfig, name, value)
    assert (found, type(found)) == (meant, type(meant))


def test_problems_say_where_and_offer_the_nearest_name():
    problems = problems_in(TrialConfig, {"epoch": 3, "epochs": 0, "seed": 1}, "--set")
    assert problems == [
        "--set: Unknown setting 'epoch'. Did you mean 'epochs'?",
        "--set: epochs is 0, but must be a whole number at least 1 and at most 10000.",
    ]


def test_the_teachers_recipe_follows_the_students_unless_given():
    found = teacher_defaults({"epochs": 3, "dropout": 0.5, "teacher_epochs": 9, "seed": 4, "lambda_": 1})
    assert found == {"teacher_dropout": 0.5}


def test_what_the_search_varies_leaves_the_teacher_alone():
    config = digits_trial()
    of_the_teacher = {
        "crop_padding",
        "flip",
        "augment_seed",
        "backbone",
        "width",
        "batch_norm",
        "precision",
        *TEACHERS_OWN,
    }
    assert {
        name
        for name, value in OTHER.items()
        if dataclasses.replace(config, **{name: value}).teacher().key("d") != config.teacher().key("d")
    } == of_the_teacher
    assert {
        name
        for name, value in OTHER.items()
        if dataclasses.replace(config, **{name: value}).base().key("d") != config.base().key("d")
    } == of_the_teacher - {"teacher_file"} | {"upsample", "frontend", *CAMERA}


def test_teacher_and_base_network_are_the_same_network_on_other_images():
    config = digits_trial(teacher_epochs=7, dropout=0.3, teacher_dropout=0.2)
    teacher, base = config.teacher(), config.base()
    assert (teacher.role, teacher.low_res) == ("teacher", None)
    assert (base.role, base.low_res) == ("base", LowRes(Camera(4, "bicubic"), "bicubic"))
    assert dataclasses.replace(base, low_res=None) == teacher
    assert teacher.recipe.epochs == 7
    assert teacher.network.dropout == 0.2
    assert config.network.dropout == 0.3


@pytest.mark.parametrize(
    ("lambda_", "start", "needs"),
    [(0, "scratch", False), (0, "base", False), (0, "teacher", True), (0.1, "scratch", True), (0.1, "base", True)],
)
def test_only_trials_that_look_at_a_teacher_need_one(lambda_, start, needs):
    assert digits_trial(lambda_=lambda_, student_start=start).needs_teacher is needs
