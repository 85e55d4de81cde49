import string

import matplotlib
import numpy as np
import pytest

from dfd_tune.config import DatasetConfig
from dfd_tune.data import prepared
from dfd_tune.data.sources import SOURCES, letters
from dfd_tune.errors import UserError
from dfd_tune.settings import resolve_dataset


def drawn(image_size=None, say=lambda line: None):
    return SOURCES["letters"].load(None, image_size, None, say)


@pytest.fixture(scope="module")
def raw():
    return drawn()


@pytest.fixture
def few(monkeypatch):
    """Six images of each letter to train on and two to test."""
    monkeypatch.setattr(letters, "PER_CLASS", {"train": 6, "test": 2})


def all_images(raw):
    return np.concatenate([raw.train_images, raw.test_images])


def test_letters_are_gray_squares_of_26_balanced_classes(raw):
    assert raw.train_images.shape == (26 * letters.PER_CLASS["train"], 1, letters.SIDE, letters.SIDE)
    assert raw.test_images.shape == (26 * letters.PER_CLASS["test"], 1, letters.SIDE, letters.SIDE)
    assert raw.classes == tuple(string.ascii_uppercase)
    for labels, count in ((raw.train_labels, letters.PER_CLASS["train"]), (raw.test_labels, letters.PER_CLASS["test"])):
        assert np.bincount(labels, minlength=26).tolist() == [count] * 26


def test_no_two_images_are_equal_within_or_across_train_and_test(raw):
    images = all_images(raw)
    assert len({image.tobytes() for image in images}) == len(images)


def test_no_image_is_empty_and_greys_differ(raw):
    spread = all_images(raw).reshape(len(all_images(raw)), -1).std(axis=1)
    assert spread.min() > 5
    middles = np.median(raw.test_images.reshape(len(raw.test_labels), -1), axis=1)
    assert middles.max() - middles.min() > 100


def test_every_letter_can_be_told_by_its_picture(raw):
    """The simplest reader there is, the mean picture of each letter, is far above chance (4 %) on every letter."""
    train, test = (
        standardised(images.reshape(len(images), -1).astype(np.float64))
        for images in (raw.train_images, raw.test_images)
    )
    means = standardised(np.stack([train[raw.train_labels == label].mean(axis=0) for label in range(26)]))
    read = (test @ means.T).argmax(axis=1)
    for label in range(26):
        assert (read[raw.test_labels == label] == label).mean() > 0.2, letters.CLASSES[label]


def standardised(rows):
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_drawing_again_gives_the_same_images_whatever_random_state_there_is(few):
    first = drawn()
    np.random.seed(1)
    again = drawn()
    assert np.array_equal(first.train_images, again.train_images)
    assert np.array_equal(first.test_images, again.test_images)


def test_an_image_does_not_depend_on_how_many_there_are(raw, few):
    assert np.array_equal(drawn().test_images, raw.test_images[: 26 * 2])


def test_every_font_has_every_letter():
    """A letter that a font lacks is drawn as a box, or not at all: so it would equal others of its font."""
    for font in letters._fonts(letters.SIDE):
        masks = {letters._glyph(font, letter).mask.tobytes() for letter in letters.CLASSES}
        assert len(masks) == 26, font.getname()


@pytest.mark.parametrize("side", [8, 33, 64])
def test_other_sides_are_drawn_not_resized(few, side):
    images = drawn(side).train_images
    assert images.shape == (26 * 6, 1, side, side)
    assert images.flags.c_contiguous


def test_two_preparations_give_one_digest_and_the_recipe_has_many_test_images(few, store, tmp_path, monkeypatch):
    config = DatasetConfig(dataset="letters", validation_fraction=0.5)
    one = prepared.prepare_dataset(config, store, lambda line: None)
    monkeypatch.setattr(letters, "_FORMAT", letters._FORMAT + 1)
    other = prepared.prepare_dataset(config, store, lambda line: None)
    assert one.folder != other.folder, "another format is prepared anew"
    assert one.digest == other.digest


def test_the_recipe_fits_the_images_and_tests_on_many():
    config = resolve_dataset("letters", None, [])
    assert 26 * 5 <= config.train_images <= 26 * letters.PER_CLASS["train"]
    assert 2000 <= config.test_images <= 26 * letters.PER_CLASS["test"]


def test_a_fingerprint_names_what_draws():
    assert {"matplotlib", "pillow", "numpy", "freetype", "format"} <= set(SOURCES["letters"].fingerprint(None))


def test_missing_fonts_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(UserError) as raised:
        drawn()
    text = str(raised.value)
    assert "DejaVuSans.ttf" in text
    assert "matplotlib" in text
    assert text.count("\n") == 0


def test_a_damaged_font_is_one_sentence(monkeypatch, tmp_path):
    folder = tmp_path / "fonts" / "ttf"
    folder.mkdir(parents=True)
    for name in letters.FONTS:
        (folder / name).write_bytes(b"no font")
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(UserError, match="font"):
        drawn()
