"""The λ curve: which curves there are, what their lines mean, and what the figure says of itself."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dfd_tune.report.figures.lambda_curve import MOST_CURVES, lambda_curve
from dfd_tune.report.figures.style import COLOURS
from tests.report.figures.svg import SVG, read_svg
from tests.report.searches import grid_trials, make_request, make_search, make_trial, with_tests

LAMBDAS = [0, 0.1, 0.5, 1, 2, 10]
BACKBONES = ["resnet18", "vgg16", "alexnet"]
TEACHERS = {"resnet18": 0.986, "vgg16": 0.986, "alexnet": 0.972}


def curve(draw, search, trials):
    """Texts and strokes of the figure."""
    drawn = draw(lambda folder: lambda_curve(search, trials, folder))
    return drawn.texts, drawn.styles


def accuracy(point):
    return 0.9 + 0.01 * BACKBONES.index(point.get("backbone", "resnet18")) + 0.002 * point["lambda_"]


def dashed(styles, colour):
    """How many dashed paths of that colour there are: level lines."""
    return sum("stroke-dasharray" in style and f"stroke: {colour.lower()}" in style for style in styles)


def test_a_grid_has_a_curve_for_each_backbone_with_base_and_teacher(draw):
    request = make_request({"backbone": BACKBONES, "lambda_": LAMBDAS})
    texts, styles = curve(draw, make_search(request, TEACHERS), grid_trials(request, accuracy))
    assert {*BACKBONES, "λ = 0: plain training", "teacher on high-resolution images"} <= set(texts)
    for colour in COLOURS[:3]:
        assert dashed(styles, colour) == 2  # base and teacher
        assert any(f"stroke: {colour.lower()}" in style and "dasharray" not in style for style in styles)
    assert not any(COLOURS[3].lower() in style for style in styles)
    assert [text for text in texts if text in {"0.1", "0.5", "1", "2", "10"}] == ["0.1", "0.5", "1", "2", "10"]
    assert "(plain)" in " ".join(texts)


def test_the_figure_says_what_it_shows(draw):
    request = make_request({"backbone": BACKBONES, "lambda_": LAMBDAS})
    texts, _ = curve(draw, make_search(request, TEACHERS), grid_trials(request, accuracy))
    assert "Accuracy against λ, on validation images" in texts
    facts = (
        "digits at 4×4 instead of 8×8 pixels: 1,149 training, 288 validation and 360 test images; 20 epochs; "
        "chosen with one seed a point"
    )
    assert facts in " ".join(texts)
    assert "λ is chosen on these validation images, not on test images." in texts
    assert "validation accuracy, %" in texts
    assert "λ, the weight of the distillation loss" in texts


def test_under_the_papers_protocol_test_accuracies_are_shown_and_named_so(draw):
    request = make_request({"lambda_": [0, 1, 2]})
    trials = grid_trials(request, lambda point: 0.9)
    search = make_search(request, TEACHERS, protocol="paper")
    texts, _ = curve(draw, search, trials)
    assert "validation accuracy, %" in texts  # nothing is tested yet
    assert any(text.startswith("λ will be chosen on TEST images") for text in texts)
    texts, _ = curve(draw, with_tests(search, trials, lambda point: 0.5 + point["lambda_"] / 100), trials)
    assert "TEST accuracy, %" in texts
    assert "Accuracy against λ, on TEST images" in texts
    assert any("chosen on TEST images, as the paper appears to do" in text for text in texts)
    assert "validation accuracy, %" not in texts
    # From 50 to 52 % and the teacher's 97.6 %: the validation accuracy of 90 % alone would give other ticks.
    assert "50" in texts


def test_a_point_that_is_not_wholly_tested_is_left_out_under_the_papers_protocol(draw):
    request = make_request({"lambda_": [0, 1, 2]})
    trials = grid_trials(request, lambda point: 0.9)
    search = with_tests(make_search(request, {}, protocol="paper"), trials, lambda point: 0.5 + 0.2 * point["lambda_"])
    whole = draw(lambda folder: lambda_curve(search, trials, folder))
    del search.tested[trials[2].key]
    part = draw(lambda folder: lambda_curve(search, trials, folder))
    assert "90" in whole.texts  # λ = 2
    assert "90" not in part.texts


def test_seeds_have_intervals(draw):
    request = make_request({"lambda_": [0, 1], "seed": [0, 1, 2]})
    trials = grid_trials(request, lambda point: accuracy(point) + 0.003 * point["seed"])
    texts, _ = curve(draw, make_search(request, TEACHERS), trials)
    assert any(text.startswith("Bars: the mean's 95 % interval. λ is chosen") for text in texts)
    assert "3 seeds a point" in " ".join(texts)
    texts, _ = curve(draw, make_search(request, TEACHERS), trials[:-2])
    assert "1 to 3 seeds a point" in " ".join(texts)
    texts, _ = curve(draw, make_search(request, TEACHERS), trials[::3])
    assert "Bars" not in " ".join(texts)


def ticks_of(drawn):
    """The numbers along the vertical axis, which come after those of λ."""
    (axis,) = [group for group in drawn.root.iter(f"{SVG}g") if group.get("id") == "matplotlib.axis_2"]
    return [float("".join(text.itertext())) for text in list(axis.iter(f"{SVG}text"))[:-1]]


def test_no_interval_takes_the_axis_beyond_what_accuracies_can_be(draw):
    # Two seeds, 40 points apart: half width 12.7062 · s / √2 = 2.5 times their difference.
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    wide = grid_trials(request, lambda point: 0.3 + 0.4 * point["seed"])
    ticks = ticks_of(draw(lambda folder: lambda_curve(make_search(request, {}), wide, folder)))
    assert (ticks[0], ticks[-1]) == (0, 100)


def test_the_axis_keeps_close_to_what_is_there(draw):
    request = make_request({"lambda_": [0, 1]})
    near = grid_trials(request, lambda point: 0.90 + 0.02 * point["lambda_"])
    ticks = ticks_of(draw(lambda folder: lambda_curve(make_search(request, {}), near, folder)))
    assert ticks[0] >= 89
    assert ticks[-1] <= 93


def test_intervals_are_drawn_to_scale(tmp_path):
    # λ = 1 with s = 0.01 and λ = 2 with s = 0.02: bars of 4.3027 · s / √3 each way, one twice as long as the other.
    request = make_request({"lambda_": [1, 2], "seed": [0, 1, 2]})
    trials = grid_trials(request, lambda point: 0.9 + 0.01 * point["lambda_"] * (point["seed"] - 1))
    lambda_curve(make_search(request, {}), trials, tmp_path)
    drawn = read_svg(tmp_path / "lambda_curve.svg")
    (bars,) = [group for group in drawn.root.iter(f"{SVG}g") if group.get("id", "").startswith("LineCollection")]
    lengths = []
    for path in bars.iter(f"{SVG}path"):
        ends = [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", path.get("d"))]
        lengths.append(abs(ends[0] - ends[1]))
    assert len(lengths) == 2
    assert lengths[1] == pytest.approx(2 * lengths[0], rel=1e-3)


def test_a_sampled_space_has_a_scale_of_its_own_and_the_base_apart(draw):
    explore = {"lambda_": {"low": 0.05, "high": 20, "log": True}, "backbone": BACKBONES}
    request = make_request(explore, "random", 9)
    trials = [make_trial(request, {"lambda_": 0.05 * 1.8**step, "backbone": "vgg16"}, 0.9) for step in range(10)]
    twin = make_trial(request, {"lambda_": 0.0, "backbone": "vgg16"}, 0.88)
    texts, styles = curve(draw, make_search(request, TEACHERS), [*trials, twin])
    ticks = ["0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20"]
    assert [text for text in texts if text in ticks] == ticks
    assert "(plain)" in " ".join(texts)
    assert dashed(styles, COLOURS[0]) == 2
    texts, styles = curve(draw, make_search(request, TEACHERS), trials)
    assert "(plain)" not in " ".join(texts)
    assert dashed(styles, COLOURS[0]) == 1  # the teacher's


@pytest.mark.parametrize(
    "ends", [{"low": 0, "high": 3}, {"low": 0.3, "high": 0.4, "log": True}, {"low": 1e-9, "high": 1e6, "log": True}]
)
def test_any_range_can_be_drawn(draw, ends):
    request = make_request({"lambda_": ends}, "random", 9)
    trials = [make_trial(request, {"lambda_": float(ends[end])}, 0.9) for end in ("low", "high")]
    texts, _ = curve(draw, make_search(request, TEACHERS), trials)
    assert "teacher on high-resolution images" in texts


def test_a_list_of_lambda_in_a_sampled_space(draw):
    request = make_request({"lambda_": [1, 2], "learning_rate": {"low": 0.01, "high": 0.1}}, "tpe", 9)
    points = [{"lambda_": value, "learning_rate": rate} for value in (1.0, 2.0) for rate in (0.02, 0.03)]
    twin = {"lambda_": 0.0, "learning_rate": 0.03}  # not in the list
    texts, _ = curve(
        draw, make_search(request, TEACHERS), [make_trial(request, point, 0.9) for point in [*points, twin]]
    )
    assert "(plain)" in " ".join(texts)


def test_of_many_curves_colours_tell_the_first_axis(draw):
    request = make_request({"backbone": BACKBONES, "student_start": ["scratch", "base", "teacher"], "lambda_": [0, 1]})
    texts, styles = curve(draw, make_search(request, TEACHERS), grid_trials(request, accuracy))
    names = {f"{backbone} {start}" for backbone in BACKBONES for start in ("scratch", "base", "teacher")}
    assert len(names) == 9 <= MOST_CURVES
    assert names <= set(texts)
    used = [colour for colour in COLOURS[:-1] if any(colour.lower() in style for style in styles)]  # axes are black
    assert used == list(COLOURS[:3])
    assert not any("of 9 curves" in text for text in texts)


def test_of_too_many_curves_the_best_are_drawn_and_that_is_said(draw):
    request = make_request({"width": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1], "lambda_": [0, 1]})
    texts, _ = curve(draw, make_search(request, {}), grid_trials(request, lambda point: point["width"] / 2))
    assert [text for text in texts if text.startswith("width=")] == [
        f"width={number / 10:g}" for number in range(3, 12)
    ]
    assert any(text.endswith("The best 9 of 11 curves.") for text in texts)


def test_nothing_is_drawn_where_there_is_no_curve(tmp_path):
    fixed = make_request({"learning_rate": [0.1, 0.2]})
    assert lambda_curve(make_search(fixed, {}), grid_trials(fixed, lambda point: 0.9), tmp_path) == []
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    one_point = grid_trials(request, lambda point: 0.9)[:2]
    assert lambda_curve(make_search(request, {}), one_point, tmp_path) == []
    failed = [make_trial(request, {"lambda_": value, "seed": 0}, 0.0, status="FAILED") for value in (0.0, 1.0)]
    assert lambda_curve(make_search(request, {}), failed, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_equal_records_give_equal_files(tmp_path):
    request = make_request({"lambda_": LAMBDAS})
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files = lambda_curve(make_search(request, TEACHERS), grid_trials(request, accuracy), tmp_path / name)
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]


def test_no_display_is_needed_and_none_is_asked_for(tmp_path):
    script = """
        import sys
        from pathlib import Path
        from tests.report.searches import grid_trials, make_request, make_search
        from dfd_tune.report.figures.lambda_curve import lambda_curve
        assert "matplotlib" not in sys.modules
        request = make_request({"lambda_": [0, 1]})
        files = lambda_curve(make_search(request, {}), grid_trials(request, lambda point: 0.9), Path(sys.argv[1]))
        assert "matplotlib.pyplot" not in sys.modules
        assert len(files) == 2
    """
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"MPLBACKEND": "tkagg", "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
