"""The heading that lets a figure stand alone, and axes of per cent."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dfd_tune.report.figures.style import broken, head, literal, plain_axes, save, shortened, within_per_cent

NOTE = "cifar10 at 8×8 instead of 32×32 pixels: 45,000 training, 5,000 validation and 10,000 test images; 100 epochs"
WIDE = "WWWW MMMM WWWW MMMM WWWW MMMM WWWW MMMM WWWW MMMM WWWW MMMM WWWW MMMM WWWW MMMM WWWW MMMM WWWW MMMM WWWW MMMM"


@pytest.mark.parametrize("inches", [2.5, 5, 12])
def test_a_heading_stays_within_the_figure_however_narrow_and_above_what_it_shows(inches):
    figure = Figure(figsize=(inches, 2), layout="constrained")
    axes = figure.subplots()
    axes.set_title("of the axes")
    head(figure, "What this shows, in a few words", [NOTE, WIDE])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    assert figure.get_figwidth() == inches
    lowest = figure.bbox.height
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
        assert box.y1 <= lowest, "lines must not lie on one another"
        lowest = box.y0
    shown = axes.get_tightbbox(renderer)
    assert shown.y0 >= 0
    assert shown.y1 <= lowest
    assert shown.height > 0.8 * 2 * figure.dpi, "what the figure shows keeps its size"


def test_a_heading_says_all_it_is_given_word_for_word():
    figure = Figure(figsize=(3, 2), layout="constrained")
    head(figure, "A title", [NOTE, "another line"])
    lines = [text.get_text() for text in figure.texts]
    assert lines[0] == "A title"
    assert lines[-1] == "another line"
    assert " ".join(lines[1:-1]) == NOTE
    assert figure.texts[0].get_fontsize() > figure.texts[1].get_fontsize()


def test_lines_are_broken_between_words_and_as_late_as_they_may_be():
    assert broken("", 8, 1) == []
    assert broken("one two", 8, 100) == ["one two"]
    assert broken("one two", 8, 0.01) == ["one", "two"]
    assert " ".join(broken(NOTE, 8, 2)) == NOTE
    assert len(broken(NOTE, 16, 2)) >= 2 * len(broken(NOTE, 8, 2)) - 1


def test_dollars_begin_no_formula(tmp_path):
    figure = Figure(figsize=(4, 2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(literal(r"$\frac{$"))
    head(figure, r"costs $\frac{$", ["$", r"$\frac{$"])
    png, svg = save(figure, tmp_path, "dollars", "salt")
    assert png.stat().st_size > 1000
    assert svg.stat().st_size > 1000


def test_long_names_are_cut_and_show_it():
    assert shortened("automobile", 10) == "automobile"
    assert shortened("automobiles", 10) == "automobil…"


@pytest.mark.parametrize(
    ("values", "ends"), [([-40, 160], (0, 100)), ([20, 180], (None, 100)), ([-20, 50], (0, None)), ([40, 60], (39, 61))]
)
def test_an_axis_of_per_cent_is_cut_at_0_and_100_alone(values, ends):
    axes = Figure().subplots()
    axes.plot([0, 1], values)
    untouched = axes.get_ylim()
    within_per_cent(axes)
    expected = [end if end is not None else other for end, other in zip(ends, untouched, strict=True)]
    assert list(axes.get_ylim()) == pytest.approx(expected)
    assert list(axes.lines[0].get_ydata()) == values, "the data stay as they are"


def test_plain_axes_have_no_frame_above_and_at_the_right():
    axes = Figure().subplots()
    plain_axes(axes)
    assert [axes.spines[side].get_visible() for side in ("top", "right", "left", "bottom")] == [
        False,
        False,
        True,
        True,
    ]


def test_equal_figures_with_an_equal_salt_give_equal_files_and_no_draft_stays(tmp_path):
    contents = []
    for name in ("one", "two"):
        figure = Figure()
        figure.subplots().plot([0, 1])
        files = save(figure, tmp_path / name, "figure", "salt")
        assert (
            sorted((tmp_path / name).iterdir())
            == files
            == [tmp_path / name / f"figure.{kind}" for kind in ("png", "svg")]
        )
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
