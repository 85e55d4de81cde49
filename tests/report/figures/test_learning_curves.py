"""Learning curves: a panel a cell, with base network and chosen student."""

import pytest

from dfd_tune.report.figures.learning_curves import MOST_PANELS, learning_curves
from dfd_tune.report.figures.style import COLOURS
from tests.report.figures.svg import SVG
from tests.report.searches import grid_trials, make_request, make_search, with_tests


def rising(epochs, to=0.9):
    return [to * (epoch + 1) / epochs for epoch in range(epochs)]


def curves(draw, request, epochs=5, to=lambda point: 0.9, trials=None, **changes):
    trials = trials or grid_trials(request, to, lambda point: rising(epochs, to(point)))
    search = make_search(request, {}, **changes)
    return draw(lambda folder: learning_curves(search, trials, folder))


def panels(drawn):
    """The groups of the panels that are shown."""
    return [
        group
        for group in drawn.root.iter(f"{SVG}g")
        if group.get("id", "").startswith("axes_") and any(True for _ in group.iter(f"{SVG}text"))
    ]


def texts_of(group, axis):
    """Tick labels and label of a panel's horizontal (1) or vertical (2) axis, by order of panels."""
    (found,) = [
        part
        for number, part in enumerate(
            part for part in group.iter(f"{SVG}g") if part.get("id", "").startswith("matplotlib.axis_")
        )
        if number == axis - 1
    ]
    return ["".join(text.itertext()) for text in found.iter(f"{SVG}text")]


def test_a_panel_for_each_cell_with_its_chosen_lambda(draw):
    request = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 0.5, 2]})
    best = {"resnet18": 0.5, "vgg16": 2}
    drawn = curves(draw, request, to=lambda point: 0.9 if point["lambda_"] == best[point["backbone"]] else 0.8)
    assert len(panels(drawn)) == 2
    assert {"resnet18", "vgg16", "λ = 0", "λ = 0.5", "λ = 2", "epoch", "validation accuracy, %"} <= set(drawn.texts)
    assert drawn.texts.count("λ = 0") == 2
    assert drawn.texts.count("λ = 2") == 1
    dashes = [style for style in drawn.styles if "dasharray" in style and COLOURS[6].lower() in style]
    assert len(dashes) == 4  # plain training, in panel and legend


def test_the_figure_says_what_it_is_of(draw):
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    drawn = curves(draw, request)
    assert "Learning curves: validation accuracy by epoch" in drawn.texts
    assert "digits at 4×4 instead of 8×8 pixels: 1,149 training" in drawn.text
    assert "20 epochs; chosen with 2 seeds a point" in drawn.text
    assert "λ was chosen on validation images, on the very students that were tested: no verdict." in drawn.text
    assert "Of several seeds the mean, shaded from the worst to the best." in drawn.text


def test_under_the_papers_protocol_it_says_that_test_images_chose(draw):
    request = make_request({"lambda_": [0, 1, 2]})
    trials = grid_trials(request, lambda point: 0.9 - point["lambda_"] / 100, lambda point: rising(4))
    search = with_tests(make_search(request, {}, protocol="paper"), trials, lambda point: point["lambda_"] / 10)
    drawn = draw(lambda folder: learning_curves(search, trials, folder))
    assert "λ was chosen on TEST images" in drawn.text
    assert "λ = 2" in drawn.texts  # the best on test images; on validation images, 1 is


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 20])
def test_epochs_are_whole_numbers(draw, epochs):
    request = make_request({"lambda_": [0, 1]})
    (panel,) = panels(curves(draw, request, epochs))
    *ticks, label = texts_of(panel, 1)
    assert label == "epoch"
    assert all(tick.isdecimal() and 1 <= int(tick) <= epochs for tick in ticks)
    assert len(ticks) >= min(epochs, 3)


def test_panels_share_their_accuracy_axis_and_label_it_once_a_row(draw):
    request = make_request({"backbone": ["resnet18", "vgg16", "alexnet"], "lambda_": [0, 1]})
    low = {"resnet18": 0.9, "vgg16": 0.3, "alexnet": 0.2}
    shown = panels(curves(draw, request, to=lambda point: low[point["backbone"]]))
    first, *others = [texts_of(panel, 2) for panel in shown]
    assert first[-1] == "validation accuracy, %"
    assert "80" in first
    assert others == [[], []]


def test_epochs_are_labelled_below_the_last_panel_of_each_column(draw):
    request = make_request({"resolution": [2, 3, 4, 5, 6], "lambda_": [0, 1]})
    shown = panels(curves(draw, request))
    labels = [texts_of(panel, 1) for panel in shown]
    # Two in the second row: the third column ends with the first row.
    assert labels[:2] == [[], []]
    assert all({"1", "5", "epoch"} <= set(texts) for texts in labels[2:])


def test_no_more_panels_are_drawn_than_can_be_read_and_that_is_said(draw):
    request = make_request({"width": [number / 10 for number in range(1, 15)], "lambda_": [0, 1]})
    drawn = curves(draw, request)
    assert len(panels(drawn)) == MOST_PANELS
    assert f"The first {MOST_PANELS} of 14 cells." in drawn.text
    few = make_request({"lambda_": [0, 1]})
    assert "of 14 cells" not in curves(draw, few).text


def test_of_seeds_of_different_lengths_the_common_epochs_are_drawn(draw):
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    trials = grid_trials(request, lambda point: 0.9, lambda point: rising(3 + 4 * point["seed"]))
    (panel,) = panels(curves(draw, request, trials=trials))
    assert max(int(tick) for tick in texts_of(panel, 1)[:-1]) == 3


def test_only_epochs_that_looked_at_validation_images_have_a_point(draw):
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    trials = grid_trials(request, lambda point: 0.9, lambda point: rising(7))
    for trial in trials:
        for epoch in trial.history:
            if epoch["epoch"] not in (3, 6, 7):
                del epoch["val_accuracy"]
    (panel,) = panels(curves(draw, request, trials=trials))
    assert {int(tick) for tick in texts_of(panel, 1)[:-1]} <= {3, 4, 5, 6, 7}


def test_nothing_is_drawn_without_a_history_or_with_nothing_to_show(tmp_path):
    request = make_request({"lambda_": [0, 1]})
    search = make_search(request, {})
    assert learning_curves(search, grid_trials(request, lambda point: 0.9), tmp_path) == []
    assert learning_curves(search, [], tmp_path) == []
    # Under `paper` nothing is chosen before test images are looked at, and this cell has no base.
    distilled = grid_trials(request, lambda point: 0.9, lambda point: rising(3))[1:]
    assert learning_curves(make_search(request, {}, protocol="paper"), distilled, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
