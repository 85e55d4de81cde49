"""Figures made of images: which there are, under which words, and that no pixel is smoothed."""

import numpy as np
import pytest
from PIL import Image

from dfd_tune.report.figures.pictures import Mistake, examples, worst_mistakes

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"]
NOTES = ["cifar10 at 8×8 instead of 32×32 pixels: 45,000 training images; 100 epochs", "A second note."]


def noise(count, side, channels=3):
    return np.random.default_rng(side).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def test_a_row_for_each_kind_of_image_and_a_column_for_each_class(draw):
    cameras = [
        "bicubic",
        "bilinear",
        "area",
        "nearest",
        "bicubic\nblur 1",
        "bicubic\nnoise 10",
        "bicubic\njpeg quality 50",
    ]
    rows = [("high resolution\n32×32", noise(8, 32))] + [(f"{camera}\n8×8", noise(8, 8)) for camera in cameras]
    drawn = draw(lambda folder: examples(rows, CLASSES, NOTES, folder, "salt"))
    assert drawn.pictures == 8 * 8
    assert set(CLASSES) <= set(drawn.texts)
    assert "What each network sees" in drawn.texts
    assert all(note in drawn.text for note in [*NOTES, "Every pixel is shown as a square."])
    assert {"high resolution", "32×32", "blur 1", "noise 10", "jpeg quality 50"} <= set(drawn.texts)
    assert drawn.texts.count("8×8") == len(cameras)


def test_every_pixel_is_a_square_of_its_own_colour(tmp_path):
    # Four strong colours; smoothing would make others of them.
    colours = np.array([[[250, 10], [10, 200]], [[10, 250], [10, 200]], [[10, 10], [250, 10]]], dtype=np.uint8)
    png, _ = examples([("row", colours[None])], ["class"], [], tmp_path, "salt")
    pixels = np.asarray(Image.open(png).convert("RGB")).astype(int)
    strong = pixels.max(2) - pixels.min(2) > 60  # no text, no frame
    rows, columns = np.flatnonzero(strong.any(1)), np.flatnonzero(strong.any(0))
    shown = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    for row in (0, 1):
        for column in (0, 1):
            share = (np.abs(shown - colours[:, row, column]).max(2) <= 1).mean()
            assert share == pytest.approx(0.25, abs=0.02)


def test_grey_images_are_shown_from_black_to_white_whatever_their_range(tmp_path):
    image = np.array([[100, 120], [140, 160]], dtype=np.uint8)[None, None]
    png, _ = examples([("row", image)], ["class"], [], tmp_path, "salt")
    pixels = np.asarray(Image.open(png).convert("L")).astype(int)
    shares = [(np.abs(pixels - value) <= 1).mean() for value in (100, 120, 140, 160)]
    assert min(shares) > 0.03, "stretched, they would have other greys"
    assert max(shares) < 1.2 * min(shares)


def test_each_mistake_shows_the_image_and_what_the_student_saw(draw):
    mistakes = [Mistake("automobile", "airplane", 0.987), Mistake("cat", "dog", 0.5), Mistake("a$b", "$", 1.0)]
    drawn = draw(lambda folder: worst_mistakes(noise(3, 32), noise(3, 32), mistakes, NOTES, folder, "salt"))
    assert drawn.pictures == 6
    said = ["automobile taken for airplane", "(99% sure)", "cat taken for dog", "(50% sure)", "a$b taken for $"]
    assert set(said) <= set(drawn.texts)
    assert "The best student's worst mistakes" in drawn.texts
    assert "Left: the image as it is; right: as the student sees it." in drawn.text


def test_long_names_are_cut_and_broken_so_that_pairs_do_not_run_into_one_another(draw):
    mistakes = [Mistake("n" * 100, f"{'m' * 10} {'k' * 100}", 0.9)] * 4
    drawn = draw(lambda folder: worst_mistakes(noise(4, 8, 1), noise(4, 8, 1), mistakes, NOTES, folder, "salt"))
    assert drawn.texts.count("n" * 19 + "… taken for") == 4
    assert drawn.texts.count(f"{'m' * 10} {'k' * 8}…") == 4


def test_a_single_mistake_has_room_for_what_is_said_above_it(tmp_path):
    png, _ = worst_mistakes(noise(1, 8), noise(1, 8), [Mistake("a", "b", 0.9)], NOTES, tmp_path, "salt")
    assert Image.open(png).width >= 700
