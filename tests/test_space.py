from typing import get_args

import pytest

from dfd_tune.analysis.verdicts import FEWEST_SEEDS
from dfd_tune.axes import Choice, Range, axis_from_json, grid_points, meets, parse_axis
from dfd_tune.config import TrialConfig
from dfd_tune.criteria import CRITERIA
from dfd_tune.data.sources import SOURCES
from dfd_tune.errors import UserError
from dfd_tune.methods import METHODS
from dfd_tune.parts import Resampling
from dfd_tune.settings import resolve, settle
from dfd_tune.space import read_space, shipped_spaces

SAMPLED = "sampler: tpe\ntrials: 3\n"


@pytest.fixture
def read(tmp_path):
    """Read a space from text."""

    def read_text(text):
        file = tmp_path / "mine.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_space(str(file))

    return read_text


@pytest.fixture
def refusals(read, tmp_path):
    """The sentences with which a space is refused, without the file's name."""

    def problems(text):
        with pytest.raises(UserError) as caught:
            read(text)
        assert all(problem.endswith((".", "?")) and "\n" not in problem for problem in caught.value.problems)
        return [problem.replace(str(tmp_path / "mine.yaml"), "FILE") for problem in caught.value.problems]

    return problems


SHIPPED = {"degradations", "lambda_grid", "methods", "random_all", "table1", "table2", "tpe_all"}
SIDES = {"digits": 8, "letters": 16, "cifar10": 32, "svhn": 32, "parquet": 32, "folder": 32}
"""Of images that the recipes are made for, in pixels."""


def test_seven_spaces_are_shipped():
    assert set(shipped_spaces()) == SHIPPED


@pytest.mark.parametrize("dataset", SOURCES)
@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_space_makes_trials_on_every_dataset(name, dataset):
    space = read_space(name)
    assert space.name == name
    assert space.description
    asked = resolve(space, dataset=dataset, data=None, recipe=SOURCES[dataset].recipe)
    request = settle(asked, image_size=SIDES[dataset], vgg19_at_hand=False, device="cpu")
    point = {key: axis.values[0] if isinstance(axis, Choice) else axis.high for key, axis in request.explore.items()}
    trial = request.trial(point)
    assert isinstance(trial, TrialConfig)
    # Table 1's first resolution is a quarter of the side: the paper's 8×8 of 32×32.
    assert trial.resolution == (SIDES[dataset] // 4 if name == "table1" else SOURCES[dataset].recipe["resolution"])
    assert request.dataset.dataset == dataset


def test_the_grid_is_that_of_the_papers_figure():
    space = read_space("lambda_grid")
    assert space.sampler == "grid"
    assert space.trials is None
    points = list(grid_points(space.explore))
    assert len(points) == 3 * 8
    assert points[0] == {"backbone": "resnet18", "lambda_": 0.0}
    assert points[1] == {"backbone": "resnet18", "lambda_": 0.1}  # the last axis runs fastest
    assert points[-1] == {"backbone": "alexnet", "lambda_": 10.0}


def points_of(name):
    """The points of a shipped grid that are run, on 32×32 images."""
    asked = resolve(read_space(name), dataset="cifar10", data=None, recipe=SOURCES["cifar10"].recipe)
    request = settle(asked, image_size=32, vgg19_at_hand=False, device="cpu")
    return [request.trial(point) for point in grid_points(request.explore) if request.allows(point)]


def test_table_1_has_the_papers_cells_of_a_dataset():
    trials = points_of("table1")
    cells = {(trial.resolution, trial.backbone) for trial in trials}
    assert cells == {(side, backbone) for side in (8, 16) for backbone in ("alexnet", "vgg16", "resnet18")}
    for cell in cells:
        mine = [trial for trial in trials if (trial.resolution, trial.backbone) == cell]
        assert [(trial.lambda_, trial.seed) for trial in mine] == [(0, 0), (0.5, 0), (2, 0), (5, 0)]


def test_every_shipped_space_ends_in_verdicts():
    spaces = {name: read_space(name) for name in shipped_spaces()}
    assert all(space.confirm.seeds >= FEWEST_SEEDS for space in spaces.values())
    # Where cells are what is compared, each has a verdict of its own.
    each = {name for name, space in spaces.items() if space.confirm.cells == "all"}
    assert each == {"degradations", "methods", "table1", "table2"}
    assert {name: space.confirm.controls for name, space in spaces.items() if space.confirm.controls} == {
        "lambda_grid": ("half_longer",)
    }


def test_table_2_has_the_papers_six_rows():
    trials = points_of("table2")
    assert {(trial.backbone, trial.resolution) for trial in trials} == {("resnet18", 8)}
    # The HR baseline is the teacher. Plain training behind nothing and each front end; DFD without one.
    assert {trial.frontend for trial in trials if trial.lambda_ == 0} == {"none", "vdsr", "espcn", "srgan"}
    assert {trial.frontend for trial in trials if trial.lambda_ > 0} == {"none"}


def test_the_methods_space_has_every_method():
    assert {trial.method for trial in points_of("methods") if trial.lambda_ > 0} == set(METHODS)


def test_the_degradations_change_one_thing_at_a_time():
    clean = ("bicubic", 0.0, 0.0, None)
    cameras = {(trial.downsample, trial.blur, trial.noise, trial.jpeg_quality) for trial in points_of("degradations")}
    assert clean in cameras
    for camera in cameras:
        assert sum(ours != plain for ours, plain in zip(camera, clean, strict=True)) <= 1
    assert {downsample for downsample, *_ in cameras} == set(get_args(Resampling))


def test_on_photographs_every_grid_is_the_papers_protocol():
    for name in ("lambda_grid", "table1", "table2", "methods", "degradations"):
        for trial in points_of(name):
            assert (trial.epochs, trial.batch_size) == (100, 128)
            assert (trial.momentum, trial.weight_decay) == (0.9, 5e-4)
            assert (trial.flip, trial.crop_padding, trial.width) == (True, 4, 1.0)


def test_random_search_is_a_yardstick_for_tpe():
    random, tpe = read_space("random_all"), read_space("tpe_all")
    assert (random.sampler, tpe.sampler) == ("random", "tpe")
    assert (random.explore, random.trials, random.settings) == (tpe.explore, tpe.trials, tpe.settings)
    assert random.confirm == tpe.confirm


def test_a_space_of_ones_own(read):
    space = read(
        "description: mine\nsampler: random\ntrials: 7\n"
        "explore:\n"
        "  lambda_: {low: 1e-2, high: 2, log: true}\n"  # YAML reads 1e-2 as text
        "  learning_rate: [1e-3, 1]\n"
        "  width: {low: 1, high: 2, step: 5e-1}\n"
        "  batch_size: {low: 16, high: 64, step: 16}\n"
        "settings: {epochs: 3, weight_decay: 1e-4, image_size: 16}\n"
    )
    assert (space.name, space.description, space.trials) == ("mine", "mine", 7)
    assert space.explore == {
        "lambda_": Range(0.01, 2.0, log=True),
        "learning_rate": Choice((0.001, 1.0)),
        "width": Range(1.0, 2.0, step=0.5),
        "batch_size": Range(16, 64, step=16),
    }
    assert space.settings == {"epochs": 3, "weight_decay": 0.0001, "image_size": 16}
    assert isinstance(space.explore["batch_size"].low, int)
    assert isinstance(space.explore["width"].low, float)


def test_a_share_of_the_side_and_names_of_teachers_may_be_listed(read):
    space = read("explore: {resolution: [1/4, 4], teachers: [own, [alexnet, vgg16], resnet18+vgg16]}")
    assert space.explore == {
        "resolution": Choice(("1/4", 4)),
        "teachers": Choice(("own", "alexnet+vgg16", "resnet18+vgg16")),
    }


def test_conditions_pick_points_of_a_grid(read):
    space = read(
        "explore: {frontend: [none, vdsr], lambda_: [0, 1, 2], jpeg_quality: [none, 50]}\n"
        "only:\n  - {lambda_: 0}\n  - {frontend: none, lambda_: [1, 2], jpeg_quality: none}\n"
    )
    kept = [point for point in grid_points(space.explore) if meets(point, space.only)]
    # λ = 0 behind both, with and without JPEG: 4 points; and λ = 1, 2 of the clean image: 2.
    assert len(kept) == 6
    assert {(point["frontend"], point["jpeg_quality"]) for point in kept if point["lambda_"]} == {("none", None)}
    assert all(meets(point, ()) for point in grid_points(space.explore))


def test_a_space_may_ask_for_the_papers_protocol(read):
    assert read(ONE).protocol == "validation"
    assert read(ONE + "protocol: paper").protocol == "paper"


def test_a_space_may_choose_by_another_metric(read):
    assert read(ONE).choose_by == "accuracy"
    for name in CRITERIA:
        assert read(ONE + f"choose_by: {name}").choose_by == name


def test_a_sampler_is_a_grid_unless_said(read):
    assert read("explore: {lambda_: [0]}").sampler == "grid"


def test_a_file_may_be_named_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yml").write_text("explore: {flip: [on, off]}")
    assert read_space("~/mine.yml").explore == {"flip": Choice((True, False))}


@pytest.mark.parametrize(
    "axis", [Choice((0.0, 1.5)), Choice(("a", "b")), Range(0.1, 2.0, log=True), Range(1, 9, step=2)]
)
def test_an_axis_survives_json(axis):
    assert axis_from_json(axis.as_json()) == axis


def test_an_unknown_space_gets_the_nearest():
    with pytest.raises(UserError, match=r"Unknown space 'lamda_grid'. Did you mean 'lambda_grid'\?") as caught:
        read_space("lamda_grid")
    assert len(caught.value.problems) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    for name, reason in (("none.yaml", "No such file or directory"), ("folder.yaml", "Is a directory")):
        with pytest.raises(UserError) as caught:
            read_space(str(tmp_path / name))
        assert caught.value.problems == (f"The space '{tmp_path / name}' can't be read ({reason}); name a .yaml file.",)


ONE = "explore: {lambda_: [1]}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # No YAML, or no space.
        ("explore:\n  lambda_: [0, 1\n", "FILE, line 3, column 1: this is no YAML: while parsing a flow sequence"),
        ("explore:\n\tlambda_: [0]\n", "FILE, line 2, column 1: this is no YAML: while scanning"),
        (ONE + "---\n" + ONE, "FILE, line 2, column 1: this is no YAML: expected a single document"),
        ("explore: {lambda_: [1]}\nexplore: {}\n", "FILE, line 2, column 1: this is no YAML: the key 'explore' is"),
        (
            "explore:\n  width: [1]\n  width: [2]\n",
            "FILE, line 3, column 3: this is no YAML: the key 'width' is given twice",
        ),
        (SAMPLED + "explore: {width: {low: 1, low: 2}}", "FILE, line 3, column 27: this is no YAML: the key 'low' is"),
        ("? [a]\n: 1\n", "FILE, line 1, column 3: this is no YAML: while constructing a mapping, found unhashable key"),
        ("explore: \x07", "FILE: this is no YAML: unacceptable character #x0007"),
        ("description: 2024-13-45\n" + ONE, "FILE: this is no YAML: month must be in 1..12."),
        ("a: " + "[" * 2000 + "]" * 2000, "FILE: this is nested too deeply"),
        (b"description: \xff\n", "The space 'FILE' can't be read ('utf-8' codec can't decode byte 0xff"),
        ("", "FILE: a space is a mapping with the key `explore`; this file holds none."),
        ("# nothing\n", "FILE: a space is a mapping"),
        ("- lambda_\n", "FILE: a space is a mapping"),
        ("lambda_grid\n", "FILE: a space is a mapping"),
        ("description: mine\n", "FILE: `explore` names no setting; a space explores at least one."),
        ("explore: {}\n", "FILE, line 1: `explore` names no setting"),
        ("explore: [lambda_]\n", "FILE, line 1: `explore` must be a mapping of settings."),
        ("explore: {1: [2]}\n", "FILE, line 1: `explore` must be a mapping of settings."),
        (ONE + "settings: fast\n", "FILE, line 2: `settings` must be a mapping of settings."),
        ("explore: &a {lambda_: *a}\n", "FILE, line 1: lambda_ has a range, but sampler grid takes lists"),
        # Unknown names.
        (ONE + "setings: {epochs: 3}\n", "FILE, line 2: Unknown key 'setings'. Did you mean 'settings'?"),
        (ONE + "3: 4\n", "FILE, line 2: Unknown key '3'. Known: choose_by, confirm, controls, dataset, "),
        ("explore:\n  lamda_: [1]\n", "FILE, line 2: Unknown setting 'lamda_'. Did you mean 'lambda_'?"),
        (ONE + "settings:\n  epoch: 3\n", "FILE, line 3: Unknown setting 'epoch'. Did you mean 'epochs'?"),
        (ONE + "settings: {dataset: digits}\n", "FILE, line 2: Unknown setting 'dataset'."),
        (
            "sampler: tpee\ntrials: 3\nexplore: {lambda_: {low: 1, high: 2}, seed: [1]}\n",
            "FILE, line 1: Unknown sampler 'tpee'. Did you mean 'tpe'? Known: gp, grid, ",
        ),
        # Values.
        (
            "explore:\n  backbone: [resnet18, vgg]\n",
            "FILE, line 2: backbone has the value 'vgg', but each must be one of",
        ),
        (
            "explore: {lambda_: [0, -1]}",
            "FILE, line 1: lambda_ has the value -1.0, but each must be a number at least 0",
        ),
        ("explore: {epochs: [2.5]}", "FILE, line 1: epochs has the value 2.5, but each must be a whole number"),
        ("explore: {lambda_: [.nan]}", "FILE, line 1: lambda_ has the value nan, but each must be a number"),
        ("explore: {lambda_: [1, 1.0]}", "FILE, line 1: lambda_ names a value twice"),
        ("explore: {lambda_: []}", "FILE, line 1: lambda_ has an empty list"),
        ("explore: {lambda_: 2}", "FILE, line 1: lambda_ is 2, but must be a list of values or a range"),
        ("explore: {lambda_: }", "FILE, line 1: lambda_ is None, but must be a list of values or a range"),
        (ONE + "settings: {width: 5}\n", "FILE, line 2: width is 5, but must be a number above 0 and at most 4."),
        (ONE + "settings: {width: [1]}\n", "FILE, line 2: width is [1], but must be a number"),
        (
            ONE + "settings: {image_size: 100}\n",
            "FILE, line 2: image_size is 100, but must be a whole number at least 8",
        ),
        # Ranges.
        (
            SAMPLED + "explore: {lambda_: {low: 2, high: 2}}",
            "FILE, line 3: lambda_ has an empty range: low 2 must be below",
        ),
        (SAMPLED + "explore: {lambda_: {low: 2, high: 1, log: true}}", "FILE, line 3: lambda_ has an empty range"),
        (
            SAMPLED + "explore: {lambda_: {low: 0, high: 1, log: true}}",
            "FILE, line 3: lambda_: a log range must start above",
        ),
        (
            SAMPLED + "explore: {lambda_: {low: -1, high: 1}}",
            "FILE, line 3: lambda_: low is -1.0, but must be a number",
        ),
        (SAMPLED + "explore: {lambda_: {low: 1}}", "FILE, line 3: lambda_: high is missing, but must be a number"),
        (
            SAMPLED + "explore: {lambda_: {low: 1, high: 2, log: 1}}",
            "FILE, line 3: lambda_: log is 1, but must be true or",
        ),
        (
            SAMPLED + "explore: {lambda_: {low: 1, high: 2, lg: true}}",
            "FILE, line 3: lambda_: Unknown key 'lg'. Did you mean",
        ),
        (SAMPLED + "explore: {lambda_: {low: 1, high: 2, step: 0}}", "FILE, line 3: lambda_: step is 0.0, but must be"),
        (
            SAMPLED + "explore: {lambda_: {low: 1, high: 2, step: .inf}}",
            "FILE, line 3: lambda_: step is inf, but must be",
        ),
        (
            SAMPLED + "explore: {epochs: {low: 1, high: 9, step: 0.5}}",
            "FILE, line 3: epochs: step is 0.5, but must be a whole",
        ),
        (
            SAMPLED + "explore: {lambda_: {low: 1, high: 2, step: 1, log: true}}",
            "FILE, line 3: lambda_: step is 1.0, but a log range has no steps",
        ),
        (
            SAMPLED + "explore: {backbone: {low: 1, high: 2}}",
            "FILE, line 3: backbone has a range, but takes no numbers",
        ),
        (SAMPLED + "explore: {flip: {low: 0, high: 1}}", "FILE, line 3: flip has a range, but takes no numbers"),
        ("explore: {lambda_: {low: 1, high: 2}}", "FILE, line 1: lambda_ has a range, but sampler grid takes lists"),
        (
            SAMPLED + "explore: {resolution: {low: 1/4, high: 8}}",
            "FILE, line 3: resolution: low is '1/4', but a share of the image's side is no end of a range",
        ),
        (
            "explore: {resolution: [1/1]}",
            "FILE, line 1: resolution has the value '1/1', but each must be a whole number",
        ),
        (
            "explore: {teachers: [[vgg16, vgg]]}",
            "FILE, line 1: teachers has the value 'vgg16+vgg', but each must be own",
        ),
        (
            "explore: {frontend: [fsrcnn]}",
            "FILE, line 1: frontend has the value 'fsrcnn', but each must be one of none",
        ),
        # Conditions and protocol.
        (ONE + "only: {lambda_: 0}", "FILE, line 2: only must be a list of mappings, as in [{backbone: vgg16}"),
        (ONE + "only: []", "FILE, line 2: only must be a list of mappings"),
        (ONE + "only: [{}]", "FILE, line 2: only must be a list of mappings"),
        (ONE + "only: [{width: 1}]", "FILE, line 2: only names width, which is not explored; name one of lambda_."),
        (ONE + "only: [{lambda_: 3}]", "FILE, line 2: only gives lambda_ the value 3.0, which is not on its list."),
        (SAMPLED + ONE + "only: [{lambda_: 1}]", "FILE, line 4: only picks points of a grid, but the sampler is tpe"),
        (ONE + "protocol: papers", "FILE, line 2: Unknown protocol 'papers'. Did you mean 'paper'?"),
        (
            ONE + "choose_by: f1",
            "FILE, line 2: Unknown metric of `choose_by` 'f1'. Known: accuracy, balanced_accuracy,",
        ),
        (ONE + "choose_by: [loss]", "FILE, line 2: Unknown metric of `choose_by` '['loss']'."),
        (
            ONE + "protocol: paper\nchoose_by: loss",
            "FILE, line 3: choose_by is loss, but the protocol paper chooses by accuracy on test images",
        ),
        # What goes together.
        (
            "trials: 3\n" + ONE,
            "FILE, line 1: trials is for the samplers random, quasi_random, tpe, nsga2 and gp",
        ),
        ("sampler: tpe\n" + ONE, "FILE: trials is missing, but sampler tpe needs a whole number from 1 to 100000."),
        ("sampler: random\ntrials: 0\n" + ONE, "FILE, line 2: trials is 0, but sampler random needs a whole number"),
        ("sampler: random\ntrials: true\n" + ONE, "FILE, line 2: trials is True, but sampler random needs"),
        (SAMPLED + "explore: {seed: [0, 1]}", "FILE, line 3: seed can't be explored with sampler tpe: a lucky seed"),
        (
            "explore: {image_size: [8, 16]}",
            "FILE, line 1: image_size can't be explored: all trials of a search share it",
        ),
        ("explore: {dataset: [digits]}", "FILE, line 1: dataset is no axis"),
        ("explore: {augment_seed: [0, 1]}", "FILE, line 1: augment_seed can't be explored"),
        ("explore: {workers: [1, 2]}", "FILE, line 1: workers can't be explored"),
        ("explore: {precision: [float32, bf16]}", "FILE, line 1: precision can't be explored"),
        (ONE + "settings:\n  lambda_: 2\n", "FILE, line 3: lambda_ is both explored and set; leave one out."),
    ],
)
def test_a_slip_gets_one_sentence_that_says_where(refusals, text, problem):
    (found,) = refusals(text)
    assert found.startswith(problem), found


def test_all_problems_of_a_file_are_reported_together(refusals):
    text = "sampler: tpe\nexplore:\n  lamda_: [1]\n  backbone: [vgg]\nsettings:\n  width: 9\nextra: 1\n"
    problems = refusals(text)
    assert len(problems) == 5
    for line, word in ((3, "lamda_"), (4, "backbone"), (6, "width"), (7, "extra")):
        assert any(problem.startswith(f"FILE, line {line}: ") and word in problem for problem in problems)
    assert any("trials is missing" in problem for problem in problems)


def test_every_wrong_value_of_a_list_is_named():
    axis, problems = parse_axis("epochs", [0, 1, "two"], "grid")
    assert axis is None
    assert [problem.split(",")[0] for problem in problems] == ["epochs has the value 0", "epochs has the value 'two'"]


@pytest.mark.parametrize(
    "impossible",
    [
        lambda: Range(2, 1),
        lambda: Range(1, 1),
        lambda: Range(0.0, 1.0, log=True),
        lambda: Range(1.0, 2.0, log=True, step=0.5),
        lambda: Range(0, 4, step=0),
        lambda: Range(0, 4, step=5),
        lambda: Range(0.0, float("inf")),
        lambda: Range(float("nan"), 1.0),
        lambda: Range(0.0, 1.0, step=float("nan")),
        lambda: Choice(()),
        lambda: Choice((1, 1.0)),
        lambda: axis_from_json({"low": 2, "high": 1}),
    ],
)
def test_an_axis_that_can_not_be_can_not_be_made(impossible):
    with pytest.raises(ValueError, match=r"range|choice"):
        impossible()


@pytest.mark.parametrize(
    ("axis", "inside", "outside"),
    [
        (Range(1, 9, step=2), [1, 3, 9, 5.0], [0, 2, 8, 10, 3.5]),
        (Range(1, 8, step=3), [1, 4, 7], [8]),
        (Range(1, 9), [1, 2, 9], [1.5, 0, 10]),
        (Range(1, 100, log=True), [1, 7, 100], [0, 1.5]),
        (Range(0.0, 1.0, step=0.1), [0.0, 0.1, 0.1 + 0.1 + 0.1, 0.7, 1.0], [0.05, 0.31, 1.1, -0.1]),
        (Range(0.01, 1.0, log=True), [0.01, 0.5, 1.0], [0.0, 1.01, float("nan")]),
        (Range(0.0, 1e6, step=5e-324), [0.0, 0.3, 1e6], [-1.0]),
    ],
)
def test_a_range_holds_what_its_steps_reach(axis, inside, outside):
    assert all(axis.contains(value) for value in inside)
    assert not any(axis.contains(value) for value in outside)
