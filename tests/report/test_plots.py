"""What a figure shows is read from its SVG, where every text and every curve's colour can be found."""

import os
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib as mpl
import pytest

from dfd_tune.report.plots import COLOURS, MOST_CURVES, lambda_curve
from tests.report.searches import grid_trials, make_request, make_search, make_trial

LAMBDAS = [0, 0.1, 0.5, 1, 2, 10]
BACKBONES = ["resnet18", "vgg16", "alexnet"]
TEACHERS = {"resnet18": 0.986, "vgg16": 0.986, "alexnet": 0.972}
SVG = "{http://www.w3.org/2000/svg}"
WITH_INTERVALS = "with the mean's 95 % interval"


@pytest.fixture
def draw(tmp_path):
    """Draw, check the two files, and return the SVG's texts and the strokes of its paths."""

    def drawn(search, trials):
        with mpl.rc_context({"svg.fonttype": "none"}):  # texts as texts
            files = lambda_curve(search, trials, tmp_path)
        assert files == [tmp_path / "lambda_curve.png", tmp_path / "lambda_curve.svg"]
        assert sorted(tmp_path.iterdir()) == files
        image = files[0].read_bytes()
        assert image.startswith(b"\x89PNG\r\n\x1a\n")
        assert image.endswith(b"IEND\xaeB`\x82")
        assert 10_000 < len(image) < 500_000
        assert files[1].stat().st_size < 500_000
        root = ElementTree.parse(files[1]).getroot()
        assert root.tag == f"{SVG}svg"
        texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
        return texts, [path.get("style", "").lower() for path in root.iter(f"{SVG}path")]

    return drawn


def accuracy(point):
    return 0.9 + 0.01 * BACKBONES.index(point.get("backbone", "resnet18")) + 0.002 * point["lambda_"]


def dashed(styles, colour):
    """How many dashed paths of that colour there are: level lines."""
    return sum("stroke-dasharray" in style and f"stroke: {colour.lower()}" in style for style in styles)


def test_a_grid_has_a_curve_for_each_backbone_with_base_and_teacher(draw):
    request = make_request({"backbone": BACKBONES, "lambda_": LAMBDAS})
    texts, styles = draw(make_search(request, TEACHERS), grid_trials(request, accuracy))
    assert {*BACKBONES, "λ = 0: plain training", "teacher on high-resolution images"} <= set(texts)
    for colour in COLOURS[:3]:
        assert dashed(styles, colour) == 2  # base and teacher
        assert any(f"stroke: {colour.lower()}" in style and "dasharray" not in style for style in styles)
    assert not any(COLOURS[3].lower() in style for style in styles)
    assert [text for text in texts if text in {"0.1", "0.5", "1", "2", "10"}] == ["0.1", "0.5", "1", "2", "10"]
    assert "(plain)" in " ".join(texts)


def test_the_figure_says_what_it_shows(draw):
    request = make_request({"backbone": BACKBONES, "lambda_": LAMBDAS})
    texts, _ = draw(make_search(request, TEACHERS), grid_trials(request, accuracy))
    assert "digits at 4×4 instead of 8×8 pixels" in texts
    assert "1,149 training and 288 validation images, 20 epochs, one seed" in texts
    assert "λ is chosen on these validation images, not on test images" in texts
    assert "validation accuracy, %" in texts
    assert "λ, the weight of the distillation loss" in texts


def test_seeds_have_intervals(draw):
    request = make_request({"lambda_": [0, 1], "seed": [0, 1, 2]})
    trials = grid_trials(request, lambda point: accuracy(point) + 0.003 * point["seed"])
    texts, _ = draw(make_search(request, TEACHERS), trials)
    assert f"1,149 training and 288 validation images, 20 epochs, 3 seeds a point, {WITH_INTERVALS}" in texts
    texts, _ = draw(make_search(request, TEACHERS), trials[:-2])
    assert any(f"1 to 3 seeds a point, {WITH_INTERVALS}" in text for text in texts)


def test_intervals_are_drawn_to_scale(tmp_path):
    # λ = 1 with s = 0.01 and λ = 2 with s = 0.02: bars of 4.3027 · s / √3 each way, one twice as long as the other.
    request = make_request({"lambda_": [1, 2], "seed": [0, 1, 2]})
    trials = grid_trials(request, lambda point: 0.9 + 0.01 * point["lambda_"] * (point["seed"] - 1))
    lambda_curve(make_search(request, {}), trials, tmp_path)
    root = ElementTree.parse(tmp_path / "lambda_curve.svg").getroot()
    (bars,) = [group for group in root.iter(f"{SVG}g") if group.get("id", "").startswith("LineCollection")]
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
    texts, styles = draw(make_search(request, TEACHERS), [*trials, twin])
    ticks = ["0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20"]
    assert [text for text in texts if text in ticks] == ticks
    assert "(plain)" in " ".join(texts)
    assert dashed(styles, COLOURS[0]) == 2
    texts, styles = draw(make_search(request, TEACHERS), trials)
    assert "(plain)" not in " ".join(texts)
    assert dashed(styles, COLOURS[0]) == 1  # the teacher's


@pytest.mark.parametrize(
    "ends", [{"low": 0, "high": 3}, {"low": 0.3, "high": 0.4, "log": True}, {"low": 1e-9, "high": 1e6, "log": True}]
)
def test_any_range_can_be_drawn(draw, ends):
    request = make_request({"lambda_": ends}, "random", 9)
    trials = [make_trial(request, {"lambda_": float(ends[end])}, 0.9) for end in ("low", "high")]
    texts, _ = draw(make_search(request, TEACHERS), trials)
    assert "teacher on high-resolution images" in texts


def test_a_list_of_lambda_in_a_sampled_space(draw):
    request = make_request({"lambda_": [1, 2], "learning_rate": {"low": 0.01, "high": 0.1}}, "tpe", 9)
    points = [{"lambda_": value, "learning_rate": rate} for value in (1.0, 2.0) for rate in (0.02, 0.03)]
    twin = {"lambda_": 0.0, "learning_rate": 0.03}  # not in the list
    texts, _ = draw(make_search(request, TEACHERS), [make_trial(request, point, 0.9) for point in [*points, twin]])
    assert "(plain)" in " ".join(texts)


def test_of_many_curves_colours_tell_the_first_axis(draw):
    request = make_request({"backbone": BACKBONES, "student_start": ["scratch", "base", "teacher"], "lambda_": [0, 1]})
    texts, styles = draw(make_search(request, TEACHERS), grid_trials(request, accuracy))
    names = {f"{backbone} {start}" for backbone in BACKBONES for start in ("scratch", "base", "teacher")}
    assert len(names) == 9 <= MOST_CURVES
    assert names <= set(texts)
    used = [colour for colour in COLOURS[:-1] if any(colour.lower() in style for style in styles)]  # axes are black
    assert used == list(COLOURS[:3])
    assert not any("of 9 curves" in text for text in texts)


def test_of_too_many_curves_the_best_are_drawn_and_that_is_said(draw):
    request = make_request({"width": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1], "lambda_": [0, 1]})
    texts, _ = draw(make_search(request, {}), grid_trials(request, lambda point: point["width"] / 2))
    assert [text for text in texts if text.startswith("width=")] == [
        f"width={number / 10:g}" for number in range(3, 12)
    ]
    assert any(text.endswith("the best 9 of 11 curves") for text in texts)


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
        from dfd_tune.report.plots import lambda_curve
        assert "matplotlib" not in sys.modules
        request = make_request({"lambda_": [0, 1]})
        files = lambda_curve(make_search(request, {}), grid_trials(request, lambda point: 0.9), Path(sys.argv[1]))
        assert "matplotlib.pyplot" not in sys.modules
        assert len(files) == 2
    """
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"MPLBACKEND": "tkagg", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
