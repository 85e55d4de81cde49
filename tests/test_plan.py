import pytest

from dfd_tune.distill.workbench import BankPlan
from dfd_tune.errors import UserError
from dfd_tune.fit import SMALL_GRID
from dfd_tune.methods import METHODS
from dfd_tune.plan import describe, make_plan
from tests.samples import digits_trial, request_for, tiny_dataset

PLENTY = 10**12
DIGITS = tiny_dataset()  # 100 training images, 8×8, gray

# Feature dimensions at the digits' width of 1/4: 512/4 of the averaged maps of ResNet-18 and VGG-16, and 256/4 of
# AlexNet's.
DIMS = {"resnet18": 128, "vgg16": 128, "alexnet": 64}


NOTHING_ANEW = {"seeds": 0}


def plan_for(space, *assignments, dataset=DIGITS, budget=PLENTY, confirm=NOTHING_ANEW, **options):
    """The plan of a search that confirms nothing, unless told to; None is what the space says."""
    request = request_for(space, *assignments, confirm=confirm, **options)
    return make_plan(request, dataset, bank_budget=budget)


def banks_of(plan):
    return {network.config.network.backbone: network.bank for network in plan.networks}


def refusals(space, *assignments, dataset=DIGITS, **options):
    with pytest.raises(UserError) as caught:
        plan_for(space, *assignments, dataset=dataset, **options)
    return caught.value.problems


def test_the_papers_figure_on_digits():
    plan = plan_for("lambda_grid")
    assert plan.num_trials == len(plan.trials) == 3 * 8
    assert [network.config.role for network in plan.networks] == ["teacher"] * 3
    # 7 of the 8 values of λ are above 0.
    assert [network.trials for network in plan.networks] == [7, 7, 7]
    assert {network.config.network.backbone for network in plan.networks} == set(DIMS)


def test_trials_stand_in_the_order_of_the_grid_under_their_keys():
    plan = plan_for("lambda_grid", "lambda_=[0, 5]", "backbone=[vgg16, resnet18]")
    assert [(trial.backbone, trial.lambda_) for trial in plan.trials.values()] == [
        ("vgg16", 0),
        ("vgg16", 5),
        ("resnet18", 0),
        ("resnet18", 5),
    ]
    assert all(trial.key(DIGITS.digest) == key for key, trial in plan.trials.items())


def test_a_bank_by_views_where_views_are_fewer_than_epochs():
    plan = plan_for("lambda_grid")
    # One pixel of padding, no flip: (2·1 + 1)² = 9 views, against 20 epochs. Live, 7 trials would make 140 passes.
    assert set(banks_of(plan).values()) == {BankPlan("views", 20)}
    # 9 views × 100 images × dimensions × 2 bytes.
    assert {network.config.network.backbone: network.bank_bytes for network in plan.networks} == {
        backbone: 9 * 100 * dim * 2 for backbone, dim in DIMS.items()
    }
    assert plan.banks == {network.key: BankPlan("views", 20) for network in plan.networks}


@pytest.mark.parametrize(
    ("assignments", "layout", "slots"),
    [
        (["epochs=8"], "epochs", 8),  # 8 epochs < 9 views
        (["epochs=9"], "views", 9),
        (["flip=true"], "views", 18),  # each of the 9 crops, flipped or not
        (["flip=true", "epochs=17"], "epochs", 17),
        (["crop_padding=0"], "views", 1),
        (["crop_padding=4"], "epochs", 20),  # 81 views
        (["epochs=[3, 8]"], "epochs", 8),  # that of the longest trial
    ],
)
def test_the_smaller_layout_is_chosen(assignments, layout, slots):
    plan = plan_for("lambda_grid", "backbone=[resnet18]", *assignments)
    (network,) = plan.networks
    assert network.bank is not None
    assert network.bank.layout == layout
    assert network.bank_bytes == slots * 100 * 128 * 2


@pytest.mark.parametrize(
    ("assignments", "pays"),
    [
        # Filling makes a pass for each slot, ahead; live, each distilling trial makes one an epoch.
        (["lambda_=[0, 1]", "epochs=20"], True),  # 9 views < 20 passes
        (["lambda_=[0, 1]", "epochs=10"], True),  # 9 < 10
        (["lambda_=[0, 1]", "epochs=9"], False),  # 9 views = 9 passes
        (["lambda_=[0, 1]", "epochs=5"], False),  # 5 slots by epochs = 5 passes
        (["lambda_=[1, 2]", "epochs=5"], True),  # 5 slots < 10 passes
        (["lambda_=[1]", "epochs=[2, 6]"], True),  # 6 slots < 8 passes
    ],
)
def test_a_bank_is_filled_only_if_that_saves_passes(assignments, pays):
    (network,) = plan_for("lambda_grid", "backbone=[resnet18]", *assignments).networks
    assert (network.bank is not None) is pays
    assert (network.bank_bytes > 0) is pays


def test_without_a_budget_all_teachers_run_live():
    plan = plan_for("lambda_grid", budget=0)
    assert plan.banks == {}
    assert all(network.trials == 7 and network.bank_bytes == 0 for network in plan.networks)


def test_banks_are_granted_while_the_budget_lasts():
    one = 9 * 100 * 128 * 2
    assert {name for name, bank in banks_of(plan_for("lambda_grid", budget=one)).items() if bank} == {"resnet18"}
    assert {name for name, bank in banks_of(plan_for("lambda_grid", budget=2 * one)).items() if bank} == {
        "resnet18",
        "vgg16",
    }
    # AlexNet's, of half as many features, is what still fits.
    assert {name for name, bank in banks_of(plan_for("lambda_grid", budget=one - 1)).items() if bank} == {"alexnet"}
    assert not plan_for("lambda_grid", budget=one // 2 - 1).banks


def test_plain_training_needs_no_teacher():
    plan = plan_for("lambda_grid", "lambda_=[0]")
    assert plan.num_trials == 3
    assert plan.networks == ()


def test_a_trial_that_starts_from_its_teacher_needs_it_without_looking_at_features():
    (network,) = plan_for("lambda_grid", "lambda_=[0]", "student_start=teacher", "backbone=[vgg16]").networks
    assert (network.config.role, network.trials, network.bank) == ("teacher", 0, None)


def test_each_resolution_has_a_base_network_but_all_share_a_teacher():
    plan = plan_for("lambda_grid", "backbone=[vgg16]", "student_start=base", "resolution=[2, 4]")
    assert sorted(network.config.role for network in plan.networks) == ["base", "base", "teacher"]
    assert {network.config.low_res.camera.resolution for network in plan.networks if network.config.low_res} == {2, 4}
    assert [network.bank for network in plan.networks if network.config.role == "base"] == [None, None]


def test_the_base_of_both_reductions_is_one_trial():
    plan = plan_for("lambda_grid", "backbone=[resnet18]", "lambda_=[0, 1]", "reduction=[mean, sum]")
    assert plan.num_trials == len(plan.trials) == 3
    assert [trial.lambda_ for trial in plan.trials.values()] == [0, 1, 1]


def test_seeds_share_a_teacher():
    plan = plan_for("lambda_grid", "backbone=[resnet18]", "seed=[0, 1, 2]")
    assert plan.num_trials == 8 * 3
    (network,) = plan.networks
    assert network.trials == 7 * 3


@pytest.mark.parametrize("space", ["tpe_all", "random_all"])
def test_a_sampled_space_has_all_networks_that_its_trials_may_need(space):
    plan = plan_for(space)
    assert plan.trials == {}
    assert plan.num_trials == 30
    roles = [(network.config.role, network.config.network.backbone) for network in plan.networks]
    assert sorted(roles) == sorted((role, backbone) for role in ("teacher", "base") for backbone in DIMS)
    # 30 trials over 9 combinations of backbone and start; λ > 0 in all, so 10 look at each teacher.
    assert [network.trials for network in plan.networks if network.config.role == "teacher"] == [10, 10, 10]
    assert all(network.bank == BankPlan("views", 20) for network in plan.networks if network.config.role == "teacher")


def test_a_few_samples_do_not_pay_for_banks():
    # 3 trials over 3 backbones: one trial of 20 epochs each, on average, against 9 views: 20 passes > 9.
    assert len(plan_for("tpe_all", trials=3).banks) == 3
    # One trial: a third of 20 passes for each teacher, fewer than 9.
    assert plan_for("tpe_all", trials=1).banks == {}


def test_a_sampled_number_of_epochs_sizes_banks_by_the_longest(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("sampler: random\ntrials: 9\nexplore: {epochs: {low: 2, high: 6}}")
    (network,) = plan_for(file).networks
    assert network.bank == BankPlan("epochs", 6)
    assert network.bank_bytes == 6 * 100 * 128 * 2


@pytest.mark.parametrize("name", ["teacher_learning_rate", "teacher_momentum", "width", "resolution", "crop_padding"])
def test_what_decides_networks_or_images_takes_no_range(tmp_path, name):
    file = tmp_path / "mine.yaml"
    ends = {"resolution": "low: 2, high: 4", "crop_padding": "low: 0, high: 2"}.get(name, "low: 0.1, high: 0.2")
    file.write_text(f"sampler: tpe\ntrials: 3\nexplore: {{{name}: {{{ends}}}}}")
    (problem,) = refusals(file)
    assert problem.startswith(f"{name} has a range, but each value needs a teacher or images of its own; give a list")


@pytest.mark.parametrize(
    ("assignments", "problems"),
    [
        (["resolution=8"], ["resolution is 8, but must be below the image size of the dataset, 8 pixels."]),
        (["resolution=[7, 8, 9]"], ["resolution is 8, but must be below", "resolution is 9, but must be below"]),
        (["crop_padding=8"], ["crop_padding is 8, but must be below the image size, 8 pixels."]),
        (["resolution=20", "crop_padding=9"], ["resolution is 20, but must", "crop_padding is 9, but must"]),
    ],
)
def test_what_does_not_fit_the_images_is_refused(assignments, problems):
    found = refusals("lambda_grid", *assignments)
    assert len(found) == len(problems)
    assert all(text.startswith(start) for text, start in zip(found, problems, strict=True)), found


def test_the_largest_resolution_and_padding_that_fit():
    plan = plan_for("lambda_grid", "resolution=7", "crop_padding=7")
    assert all((trial.resolution, trial.crop_padding) == (7, 7) for trial in plan.trials.values())


def test_a_batch_must_serve_all_workers():
    # 100 images in batches of at most 9 are 12 batches of 8 or 9, so that each of 4 workers gets at least 2;
    # in batches of at most 8 they are 13 of 7 or 8, and a worker's share of 7 is 1.
    assert plan_for("lambda_grid", "batch_size=9", workers=4).num_trials == 24
    (problem,) = refusals("lambda_grid", "batch_size=8", workers=4)
    assert problem == (
        "batch_size is 8, which leaves one of 4 workers with 1 of 100 images in some step, but batch norm needs 2; "
        "give a larger one."
    )


def test_a_teacher_trains_alone_and_needs_two_images_a_step():
    # 100 images in batches of at most 2 are 50 of 2.
    assert plan_for("lambda_grid", "teacher_batch_size=2").num_trials == 24
    (problem,) = refusals("tpe_all", "teacher_batch_size=2", dataset=tiny_dataset(train=99))
    assert problem.startswith("teacher_batch_size is 2, which leaves one of 1 workers with 1 of 99 images")


def test_a_grid_that_is_a_slip_of_the_pen_is_refused():
    # 1001 seeds × 3 backbones × 8 λ × 5 widths = 120,120.
    problems = refusals("lambda_grid", f"seed={list(range(1001))}", "width=[0.1, 0.2, 0.3, 0.4, 0.5]")
    assert problems == (f"The space spans 120120 combinations, but {SMALL_GRID} is the most; shorten its lists.",)


def test_the_plan_says_what_will_happen():
    lines = describe(plan_for("lambda_grid", budget=9 * 100 * 128 * 2))
    assert lines[:2] == [
        "digits: 100 training, 20 validation, 30 test images, 8×8×1, 2 classes",
        "24 trials (grid) over backbone, lambda_",
    ]
    assert lines[2] == "Made once and shared: 3 teachers, 1 feature bank, 1 set of low-resolution images"
    key = digits_trial(backbone="resnet18").teacher().key(DIGITS.digest)
    # 230,400 bytes
    assert lines[3] == f"teacher resnet18 {key}: features of 7 trials from a bank of 0.2 MB"
    assert lines[4].endswith("looked at live by 7 trials")
    start = describe(plan_for("lambda_grid", "lambda_=[0]", "student_start=base", "backbone=[vgg16]"))
    assert start[3].startswith("base vgg16 ")
    assert start[3].endswith(": gives initial weights")


def test_the_plan_says_when_a_choice_is_made_on_test_images():
    assert not any("TEST" in line for line in describe(plan_for("lambda_grid", confirm=None)))
    plan = plan_for("lambda_grid", protocol="paper", confirm=None)
    assert any("λ is chosen on TEST images" in line for line in describe(plan))
    assert plan.num_anew == 0  # every trial is tested already
    assert [network.trials for network in plan.networks] == [7, 7, 7]


def test_table_1_shares_teachers_and_images_between_its_cells():
    plan = plan_for("table1", confirm=None)
    # 2 resolutions × 3 backbones × 4 λ; then, of each of the 6 cells, the student and its λ = 0 twin with 5 seeds.
    assert plan.num_trials == 24
    assert plan.num_anew == 6 * 2 * 5
    assert plan.cameras == 2
    # At each resolution, 3 values of λ and 5 students anew.
    assert [(network.config.role, network.trials) for network in plan.networks] == [("teacher", 2 * (3 + 5))] * 3
    assert "Made once and shared: 3 teachers, 3 feature banks, 2 sets of low-resolution images" in describe(plan)
    started = plan_for("table1", "student_start=base", confirm=None)
    assert [network.config.role for network in started.networks] == ["teacher"] * 3 + ["base"] * 6


def test_table_2_trains_each_front_end_once():
    plan = plan_for("table2", confirm=None)
    # 4 λ without a front end, λ = 0 behind each of three; of these three cells plain training alone is trained anew.
    assert plan.num_trials == 4 + 3
    assert plan.num_anew == (2 + 3) * 5
    assert [(frontend.config.kind, frontend.trials) for frontend in plan.frontends] == [
        ("vdsr", 1 + 5),
        ("espcn", 1 + 5),
        ("srgan", 1 + 5),
    ]
    (teacher,) = plan.networks
    assert teacher.trials == 3 + 5
    contents = {frontend.config.kind: frontend.config.content for frontend in plan.frontends}
    assert contents == {"vdsr": None, "espcn": None, "srgan": teacher.config}
    assert plan.cameras == 1
    with_vgg = make_plan(request_for("table2"), DIGITS, bank_budget=PLENTY, vgg19_at_hand=True)
    assert [frontend.config.content for frontend in with_vgg.frontends] == [None, None, "vgg19"]


def test_srgan_alone_needs_a_teacher_for_its_content_loss():
    plan = plan_for("table2", "frontend=srgan", "lambda_=[0]")
    assert [(network.config.role, network.trials) for network in plan.networks] == [("teacher", 0)]
    assert describe(plan)[3].endswith("gives initial weights or a content loss")


def test_plain_training_is_one_trial_for_all_methods():
    plan = plan_for("methods", confirm=None)
    methods = len(METHODS)
    assert plan.num_trials == 1 + methods * 3
    assert plan.num_anew == (1 + methods) * 5  # likewise with each fresh seed
    (teacher,) = plan.networks
    assert teacher.trials == methods * 3 + methods * 5


def test_hints_alone_fill_no_bank_as_it_holds_no_maps():
    plan = plan_for("methods", "method=[fitnets]")
    assert plan.banks == {}
    assert [network.trials for network in plan.networks] == [3]
    plan = plan_for("methods", "method=[fitnets]", confirm=None)
    assert plan.banks == {}
    assert [network.trials for network in plan.networks] == [3 + 5]


def test_mixed_images_have_no_bank_but_those_that_are_not_mixed_have():
    (network,) = plan_for("lambda_grid", "backbone=[resnet18]", "mixup=0.2").networks
    assert (network.trials, network.bank) == (7, None)
    plan = plan_for("lambda_grid", "backbone=[resnet18]", "mixup=[0, 0.2]")
    assert plan.num_trials == 2 * 8  # λ = 0 is mixed as well
    (network,) = plan.networks
    assert (network.trials, network.bank) == (14, BankPlan("views", 20))
    # One trial with λ of 20 epochs that reads the bank, against 9 views: it pays; of 9 epochs it doesn't.
    few = ("backbone=[resnet18]", "lambda_=[0, 1]", "mixup=[0, 0.2]")
    assert len(plan_for("lambda_grid", *few).banks) == 1
    assert not plan_for("lambda_grid", *few, "epochs=9").banks


def test_several_teachers_are_trained_and_banked_each():
    plan = plan_for("lambda_grid", "backbone=[resnet18]", "teachers=[alexnet, vgg16]")
    assert sorted(network.config.network.backbone for network in plan.networks) == ["alexnet", "vgg16"]
    assert [network.trials for network in plan.networks] == [7, 7]
    assert len(plan.banks) == 2


def test_teachers_that_see_low_resolution_are_planned_for_each_resolution_with_banks():
    plan = plan_for("lambda_grid", "backbone=[resnet18]", "teacher_sees=[high_res, low_res]", "resolution=[2, 4]")
    # 2 resolutions × (λ = 0, which sees no teacher, and 7 values × 2 kinds of teacher).
    assert plan.num_trials == 2 * (1 + 7 * 2)
    assert [(network.config.role, network.trials) for network in plan.networks] == [
        ("teacher", 2 * 7),
        ("base", 7),
        ("base", 7),
    ]
    assert set(plan.banks.values()) == {BankPlan("views", 20)}
    assert len(plan.banks) == 3
    lines = describe(plan)
    assert lines[2].startswith("Made once and shared: 1 teacher, 2 low-resolution teachers, 3 feature banks, ")
    assert sum(line.startswith("low-resolution teacher resnet18") and "bank" in line for line in lines) == 2


def test_a_low_resolution_teacher_may_be_the_network_that_the_student_starts_from():
    settings = ("backbone=[vgg16]", "teacher_sees=low_res", "student_start=base")
    (network,) = plan_for("lambda_grid", *settings).networks
    assert (network.config.role, network.trials) == ("base", 7)


@pytest.mark.parametrize(
    ("assignments", "problem"),
    [
        (
            ["method=fitnets", "hint_layer=stage9"],
            "Unknown hint_layer of resnet18 'stage9'. Did you mean 'stage4'? Known: middle, stage1",
        ),
        (["frontend=vdsr", "resolution=5"], "frontend vdsr at resolution 5 gives 10 pixels, but the images have 8;"),
        (
            ["frontend=srgan", "frontend_batch_size=1"],
            "frontend_batch_size is 1, which leaves one of 1 workers with 1 of",
        ),
        (["frontend_content=vgg19", "frontend=srgan"], "frontend_content is vgg19, but its weights are not at hand"),
    ],
)
def test_what_the_networks_cannot_do_is_refused(assignments, problem):
    (found,) = refusals("lambda_grid", "backbone=[resnet18]", *assignments)
    assert found.startswith(problem), found


def test_a_hint_layer_must_be_one_of_every_teacher_and_student():
    problems = refusals(
        "lambda_grid", "backbone=[resnet18]", "method=fitnets", "hint_layer=stage2", "teachers=[vgg16, resnet18]"
    )
    assert [problem.split("'")[0] for problem in problems] == ["Unknown hint_layer of vgg16 "]


def test_what_other_backbones_cannot_be_is_said_of_each_and_of_what_is_planned_alone(tmp_path):
    problems = refusals(
        "lambda_grid",
        "backbone=[resnet18, torchvision/resnet34, torchvision/vit_b_16]",
        "width=[0.5, 1.0]",
        "teachers=torchvision/resnet43",
    )
    starts = [
        "Unknown backbone of torchvision 'resnet43'. Did you mean 'resnet34'?",
        "width is 0.5, but torchvision/resnet34",
        "torchvision/vit_b_16 can't be a backbone for images of 8×8 pixels",
    ]
    assert len(problems) == len(starts)
    assert all(any(problem.startswith(start) for problem in problems) for start in starts)
    space = tmp_path / "space.yaml"
    space.write_text(
        "explore:\n  lambda_: [0, 1]\n  backbone: [resnet18, torchvision/mobilenet_v3_small, torchvision/resnet18]\n"
        "  width: {values: [1], when: {backbone: torchvision/resnet18}}\n"
    )
    assert plan_for(space).num_trials == 6


def test_a_teachers_classifier_fits_a_student_of_as_many_features_alone():
    problems = refusals(
        "methods", "teachers=[[own], [resnet18], [alexnet], [resnet18, vgg16]]", "backbone=[resnet18, vgg16]"
    )
    beginning = "method simkd gives the student its teacher's classifier"
    assert all(problem.startswith(beginning) for problem in problems)
    # Both have 128 features, AlexNet 64.
    assert sorted(problem.split("but ")[1].split(";")[0] for problem in problems) == [
        "alexnet has 64 features at width 0.25 and resnet18 128",
        "alexnet has 64 features at width 0.25 and vgg16 128",
        "resnet18+vgg16 are several",
    ]
    # Where it is not looked at, at λ = 0 or by a condition, it need not fit; nor by any other method.
    assert plan_for("methods", "teachers=[alexnet]", "method=[dfd, kd]").num_trials == 1 + 2 * 3
    assert plan_for("methods", "teachers=[alexnet]", "method=simkd", "lambda_=[0]").num_trials == 1


def test_what_does_not_fit_is_named_together_with_other_problems(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "explore: {method: [dfd, simkd], teachers: [own, alexnet], lambda_: [1]}\n"
        "only: [{method: dfd}, {teachers: own}]\nsettings: {backbone: resnet18}"
    )
    assert plan_for(file).num_trials == 3
    file.write_text("sampler: tpe\ntrials: 3\nexplore: {method: [simkd], lambda_: {low: 0.1, high: 1}}")
    found = refusals(file, "teachers=alexnet", "backbone=vgg16", "resolution=8")
    assert len(found) == 2


def test_conditions_may_leave_nothing(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("explore: {lambda_: [0, 1], seed: [0, 1]}\nonly: [{lambda_: 0}]")
    assert plan_for(file).num_trials == 2
    (problem,) = refusals(file, "lambda_=1")
    assert problem.startswith("`only` of the space leaves no point of the grid")


# What is trained anew once all is chosen: 5 fresh seeds of the best cell, unless a test says otherwise.


def arms_of(plan):
    """What stands for each arm, and how often it is trained."""
    anew = plan.confirming
    return [(config.backbone, config.distills, config.epochs, len(anew.seeds)) for config in anew.arms]


def test_the_best_cell_is_stood_for_by_the_first():
    plan = plan_for("lambda_grid", confirm=None)
    assert plan.num_trials == 3 * 8
    # The student, its λ = 0 twin, and plain training for half as long again as 20 epochs.
    assert arms_of(plan) == [("resnet18", True, 20, 5), ("resnet18", False, 20, 5), ("resnet18", False, 30, 5)]
    assert plan.num_anew == 3 * 5
    # Each of three cells may be the best: of 5 students anew, each teacher has 5/3; rounded up.
    assert [network.trials for network in plan.networks] == [9, 9, 9]
    assert (plan.later_networks, plan.later_frontends) == ((), ())


def test_each_cell_is_confirmed_where_that_is_asked_for():
    plan = plan_for("lambda_grid", confirm={"cells": "all", "seeds": 2})
    assert arms_of(plan) == [(backbone, *arm, 2) for backbone in DIMS for arm in ((True, 20), (False, 20), (False, 30))]
    assert plan.num_anew == 3 * 3 * 2
    assert [network.trials for network in plan.networks] == [7 + 2] * 3


def test_seeds_are_not_cells_and_fresh_ones_were_not_searched():
    plan = plan_for("lambda_grid", "backbone=[resnet18]", "seed=[0, 1000, 1001]", confirm={"controls": "none"})
    assert plan.num_anew == 2 * 5
    assert [(config.distills, config.seed) for config in plan.confirming.trials()] == [
        (distills, seed) for distills in (True, False) for seed in range(1002, 1007)
    ]
    assert [network.trials for network in plan.networks] == [7 * 3 + 5]


def test_what_is_trained_anew_counts_where_a_bank_may_pay():
    few = ("backbone=[resnet18]", "lambda_=[0, 1]", "epochs=9")
    # Live, the trial would make 9 passes, as many as a bank of 9 views; each student anew, 9 more.
    assert not plan_for("lambda_grid", *few).banks
    assert len(plan_for("lambda_grid", *few, confirm={"seeds": 1}).banks) == 1


def test_plain_training_alone_is_confirmed_alone():
    plan = plan_for("lambda_grid", "lambda_=[0]", confirm=None)
    assert arms_of(plan) == [("resnet18", False, 20, 5)]
    assert plan.networks == plan.later_networks == ()


@pytest.mark.parametrize("cells", ["best", "all"])
def test_a_sampled_search_has_a_single_cell(cells):
    plan = plan_for("tpe_all", confirm={"cells": cells})
    assert [config.distills for config in plan.confirming.arms] == [True, False]
    assert plan.num_anew == 2 * 5
    # It may have any of 3 backbones: 10 trials look at each teacher, and 5/3 students anew; rounded up.
    assert [network.trials for network in plan.networks if network.config.role == "teacher"] == [12, 12, 12]


def test_networks_that_a_control_alone_needs_come_later():
    plan = plan_for("lambda_grid", "backbone=[resnet18]", confirm={"controls": "low_res_teacher"})
    assert plan.num_anew == 3 * 5
    assert [(network.config.role, network.trials) for network in plan.networks] == [("teacher", 7 + 5)]
    assert [(network.config.role, network.trials) for network in plan.later_networks] == [("base", 5)]
    assert len(plan.banks) == 2
    lines = describe(plan)
    assert lines[3].startswith("Made once and shared: 1 teacher, 1 low-resolution teacher, 2 feature banks, ")
    # Which cell will be the best is not known: each has one, for a third of 5 students, rounded up.
    plan = plan_for("lambda_grid", confirm={"controls": "low_res_teacher"})
    assert [(network.config.role, network.trials) for network in plan.later_networks] == [("base", 2)] * 3


def test_where_the_whole_pipeline_is_trained_anew_each_fresh_seed_has_its_networks():
    plan = plan_for("table2", confirm={"seeds": 3, "replicate": "pipeline"})
    assert plan.num_anew == (2 + 3) * 3
    assert [(network.config.role, network.trials) for network in plan.networks] == [("teacher", 3)]
    assert [(front.config.kind, front.trials) for front in plan.frontends] == [("vdsr", 1), ("espcn", 1), ("srgan", 1)]
    # SRGAN's content loss compares features of the teacher with the same fresh seed.
    fresh = [1000, 1001, 1002]
    later = {network.config.recipe.seed: network for network in plan.later_networks}
    assert list(later) == fresh
    assert [network.trials for network in plan.later_networks] == [1, 1, 1]
    for kind in ("vdsr", "espcn", "srgan"):
        fronts = [front for front in plan.later_frontends if front.config.kind == kind]
        assert [(front.config.seed, front.trials) for front in fronts] == [(seed, 1) for seed in fresh]
    contents = [front.config.content for front in plan.later_frontends if front.config.kind == "srgan"]
    assert contents == [later[seed].config for seed in fresh]
    assert describe(plan)[3].startswith("Made once and shared: 4 teachers, ")
    assert "12 front ends" in describe(plan)[3]


def test_plain_trainings_own_settings_are_searched_with_as_many_trials():
    plan = plan_for("lambda_grid", "backbone=[resnet18]", confirm={"controls": "tuned_base"})
    # As the cell has 8 points, 8 settings, the first of which is λ = 0 of the grid; once each, without a fresh seed.
    anew = plan.confirming
    assert (len(anew.arms), len(anew.seeds), len(anew.tuning)) == (3, 5, 7)
    assert {config.seed for config in anew.tuning} == {0}
    assert not any(config.distills for config in anew.tuning)
    assert plan.num_anew == len(list(anew.trials())) == 3 * 5 + 7
    # However few fresh seeds there are, the settings are tried without them.
    once = plan_for("lambda_grid", "backbone=[resnet18]", confirm={"controls": "tuned_base", "seeds": 1})
    assert [config.seed for config in once.confirming.trials()] == [1000] * 3 + [0] * 7
    # Of 30 sampled trials none is known to be plain.
    assert plan_for("tpe_all", confirm={"controls": "tuned_base"}).num_anew == 3 * 5 + 30


def test_the_plan_says_what_is_trained_anew():
    lines = describe(plan_for("lambda_grid", confirm=None))
    assert lines[2] == (
        "Then 15 trials to confirm: what the best cell chose and, beside it, plain training, half_longer, with 5 fresh "
        "seeds each; only these are tested."
    )
    asked = {"cells": "all", "seeds": 2, "replicate": "pipeline", "controls": "none"}
    assert describe(plan_for("lambda_grid", confirm=asked))[2] == (
        "Then 12 trials to confirm: what each cell chose and, beside it, plain training, with 2 fresh seeds each; only "
        "these are tested. Teachers, starts and views too."
    )
    assert not any("confirm" in line for line in describe(plan_for("lambda_grid")))
