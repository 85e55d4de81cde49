"""The confusion matrix: shares by row, and names that can be read."""

import numpy as np
import pytest

from dfd_tune.report.figures.confusion import MOST_NAMES, confusion_matrix

NOTES = ["digits at 4×4", "resnet18 is best"]


def matrix(draw, labels, predicted, classes):
    return draw(lambda folder: confusion_matrix(np.array(labels), np.array(predicted), classes, NOTES, folder, "salt"))


def font_sizes(drawn, names):
    """Of the texts that are among `names`, in pixels."""
    sizes = set()
    for text in drawn.root.iter("{http://www.w3.org/2000/svg}text"):
        if "".join(text.itertext()) in names:
            style = dict(part.strip().split(": ", 1) for part in text.get("style").split("; ") if ": " in part)
            size = style.get("font-size") or style["font"].split()[0]
            sizes.add(float(size.rstrip(";").removesuffix("px")))
    return sizes


def test_rows_are_per_cent_of_the_true_class(draw):
    # Of three cats, two are called cats and one a dog (67 and 33 %); of 300 dogs, one is called a cat.
    labels, predicted = [0, 0, 0] + [1] * 300, [0, 0, 1] + [1] * 299 + [0]
    drawn = matrix(draw, labels, predicted, ["cat", "dog"])
    assert [text for text in drawn.texts if text in ("67", "33", "100", "<1")][:4] == ["67", "33", "<1", "100"]
    assert drawn.texts.count("cat") == drawn.texts.count("dog") == 2
    assert {"true class", "predicted class", "% of the true class", "Confusion matrix of the best student"} <= set(
        drawn.texts
    )
    assert all(note in drawn.text for note in NOTES)


def test_a_class_without_test_images_is_an_empty_row(draw):
    drawn = matrix(draw, [0, 0], [0, 0], ["cat", "dog"])
    assert drawn.texts.count("100") == 2  # the cell, and the end of the scale


def test_a_hundred_long_class_names_stay_readable(draw):
    classes = [f"aquarium_fish_{number:02d}" for number in range(100)]
    labels = np.arange(300) % 100
    drawn = matrix(draw, labels, (labels + (np.arange(300) < 30)) % 100, classes)
    assert all(drawn.texts.count(name) == 2 for name in classes)
    assert min(font_sizes(drawn, classes)) >= 5
    assert "is named" not in drawn.text
    # Names along an axis are as far apart as cells are, and lower than that.
    assert "33" not in drawn.texts, "no numbers in cells so small"


def test_of_more_classes_than_can_be_named_some_are_and_that_is_said(draw):
    classes = [f"class {number}" for number in range(2 * MOST_NAMES + 1)]
    drawn = matrix(draw, range(len(classes)), range(len(classes)), classes)
    assert "One class in 3 is named." in drawn.text
    named = [text for text in drawn.texts if text.startswith("class ")]
    assert len(named) == 2 * 67  # 201 / 3, along two axes


@pytest.mark.parametrize("name", ["$x$", r"$\frac{", "a&b<c>", "n" * 200])
def test_any_class_name_can_be_shown(draw, name):
    drawn = matrix(draw, [0, 1], [0, 1], [name, "other"])
    shown = name if len(name) < 20 else "n" * 23 + "…"
    assert drawn.texts.count(shown) == 2
