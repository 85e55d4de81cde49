import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from image_files import cycled_labels, random_images, write_parquet
from scipy.io import savemat

from dfd_tune.config import DatasetConfig
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.data.recipes import PAPER, SVHN
from dfd_tune.data.sources import SOURCES, svhn
from dfd_tune.errors import UserError

IMAGES, LABELS = random_images(40), cycled_labels(40, 10)


def load(data, image_size=None, say=lambda line: None, cache=None):
    return SOURCES["svhn"].load(data, image_size, cache, say)


def config(data, dataset="svhn", **changes):
    return DatasetConfig(dataset=dataset, data=str(data), validation_fraction=0.25, **changes)


def as_matlab(images, labels):
    """The variables of an original file: images last, 10 for the digit 0."""
    return {
        "X": images.transpose(2, 3, 1, 0),
        "y": np.where(labels == 0, 10, labels).astype(np.uint8)[:, None],
    }


def write_mats(folder, images=IMAGES, labels=LABELS, test_images=IMAGES[:10], test_labels=LABELS[:10]):
    folder.mkdir(parents=True, exist_ok=True)
    # The originals are compressed.
    savemat(folder / svhn.TRAIN_FILE, as_matlab(images, labels), do_compression=True)
    savemat(folder / svhn.TEST_FILE, as_matlab(test_images, test_labels), do_compression=True)
    return folder


def write_hub(folder):
    write_parquet(folder / "train.parquet", IMAGES, LABELS, names=svhn.CLASSES)
    return write_parquet(folder / "test.parquet", IMAGES[:10], LABELS[:10], names=svhn.CLASSES)


# what is read


def test_the_original_files_are_read(tmp_path):
    raw = load(write_mats(tmp_path))
    assert np.array_equal(raw.train_images, IMAGES)
    assert np.array_equal(raw.train_labels, LABELS)
    assert np.array_equal(raw.test_images, IMAGES[:10])
    assert np.array_equal(raw.test_labels, LABELS[:10])
    assert raw.train_images.flags.c_contiguous
    assert (raw.train_images.dtype, raw.train_labels.dtype) == (np.uint8, np.int64)
    assert raw.classes == tuple("0123456789")


def test_label_10_is_the_digit_0(tmp_path):
    write_mats(tmp_path)
    numbers = np.array([[10], [1], [9]], dtype=np.uint8)
    savemat(tmp_path / svhn.TEST_FILE, {"X": np.zeros((32, 32, 3, 3), dtype=np.uint8), "y": numbers})
    raw = load(tmp_path)
    assert [raw.classes[label] for label in raw.test_labels] == ["0", "1", "9"]


def test_a_pixel_ends_up_in_its_row_column_and_channel(tmp_path):
    write_mats(tmp_path)
    pixels = np.zeros((32, 32, 3, 2), dtype=np.uint8)
    row, column, channel, index = 5, 20, 2, 1
    pixels[row, column, channel, index] = 200
    savemat(tmp_path / svhn.TEST_FILE, {"X": pixels, "y": np.ones((2, 1), dtype=np.uint8)})
    images = load(tmp_path).test_images
    assert np.argwhere(images).tolist() == [[index, channel, row, column]]
    assert images[index, channel, row, column] == 200


def test_the_same_images_are_the_same_dataset_in_matlab_and_parquet_files(tmp_path, store, said):
    mats, hub = write_mats(tmp_path / "mats"), write_hub(tmp_path / "hub")

    def digest(dataset, data, size=None):
        return prepare_dataset(config(data, dataset, image_size=size), store, said.append).digest

    assert digest("svhn", mats) == digest("svhn", hub) == digest("parquet", hub)
    assert digest("svhn", mats, 16) == digest("svhn", hub, 16) != digest("svhn", mats)


def test_parquet_without_names_is_read_too(tmp_path):
    raw = load(write_parquet(tmp_path / "train.parquet", random_images(100), cycled_labels(100, 10)))
    assert raw.classes == svhn.CLASSES
    assert len(raw.test_labels) == 20


def test_digits_are_not_mirrored():
    assert {**SVHN} == {**PAPER, "flip": False}
    assert SOURCES["svhn"].recipe == SVHN


def test_the_fingerprint_follows_the_files_and_opens_none(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a file is opened")

    fingerprint = SOURCES["svhn"].fingerprint
    write_mats(tmp_path)
    (tmp_path / "readme.txt").write_text("no part of it")
    with monkeypatch.context() as patched:
        for opener in ("builtins.open", "io.open", "os.open"):
            patched.setattr(opener, refuse)
        first = fingerprint(tmp_path)
        with pytest.raises(UserError, match="a file is opened"):  # so it would be noticed
            load(tmp_path)
    assert [row[0] for row in first["files"]] == [svhn.TRAIN_FILE, svhn.TEST_FILE]
    assert fingerprint(tmp_path) == first
    savemat(tmp_path / svhn.TEST_FILE, as_matlab(IMAGES[:11], LABELS[:11]))
    assert fingerprint(tmp_path) != first


# what is refused


def problem_of(data, store):
    """The one sentence that refuses a folder."""
    with pytest.raises(UserError) as caught:
        prepare_dataset(config(data), store, lambda line: None)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    assert str(data) in problem
    return problem


PIXELS = as_matlab(IMAGES, LABELS)["X"]
NUMBERS = as_matlab(IMAGES, LABELS)["y"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({"y": NUMBERS}, "it lacks the variable X"),
        ({"X": PIXELS}, "it lacks the variable y"),
        ({"X": PIXELS.astype(float), "y": NUMBERS}, "its X is not an array of uint8"),
        ({"X": {"inside": 1}, "y": NUMBERS}, "its X is not an array of uint8"),
        ({"X": PIXELS, "y": NUMBERS.astype(float)}, "its y is not an array of uint8"),
        ({"X": IMAGES, "y": NUMBERS}, "its X has the shape (40, 3, 32, 32), not (32, 32, 3, N)"),
        ({"X": PIXELS[..., 0], "y": NUMBERS}, "its X has the shape (32, 32, 3), not (32, 32, 3, N)"),
        ({"X": PIXELS, "y": NUMBERS.T}, "its y has the shape (1, 40), not (N, 1)"),
        ({"X": PIXELS, "y": NUMBERS[:39]}, "it holds 40 images but 39 labels"),
        ({"X": PIXELS, "y": NUMBERS - 1}, "its labels must be 1 to 10, where 10 means 0, but there are 0"),
        ({"X": PIXELS, "y": NUMBERS + 1}, "its labels must be 1 to 10, where 10 means 0, but there are 11"),
    ],
)
def test_a_file_with_other_content_is_refused(tmp_path, store, content, cause):
    write_mats(tmp_path / "data")
    savemat(tmp_path / "data" / svhn.TRAIN_FILE, content)
    problem = problem_of(tmp_path / "data", store)
    assert f"{svhn.TRAIN_FILE}' can't be read as a file of SVHN ({cause}); get {svhn.TRAIN_FILE} from http" in problem


@pytest.mark.parametrize("damage", ["cut short", "empty", "text", "zeros"])
def test_a_file_that_is_not_of_matlab_is_refused(tmp_path, store, damage):
    file = write_mats(tmp_path / "data") / svhn.TEST_FILE
    content = {
        "cut short": file.read_bytes()[: file.stat().st_size // 2],
        "empty": b"",
        "text": b"<html>404 Not Found</html>" * 20,
        "zeros": bytes(1000),
    }
    file.write_bytes(content[damage])
    assert f"{svhn.TEST_FILE}' can't be read as a file of SVHN (" in problem_of(tmp_path / "data", store)


def test_the_format_of_matlab_7_3_is_refused(tmp_path, store):
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    file = write_mats(tmp_path / "data") / svhn.TRAIN_FILE
    file.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n")
    problem = problem_of(tmp_path / "data", store)
    assert f"{svhn.TRAIN_FILE}' is in the format of MATLAB 7.3, which is not read; save it with '-v7'" in problem


@pytest.mark.parametrize("missing", [svhn.TRAIN_FILE, svhn.TEST_FILE])
def test_one_of_the_two_files_is_not_enough(tmp_path, store, missing):
    (write_mats(tmp_path / "data") / missing).unlink()
    assert problem_of(tmp_path / "data", store).endswith(
        f"lacks {missing}; get it from http://ufldl.stanford.edu/housenumbers/ and put it there."
    )


def test_a_path_that_holds_nothing_of_it_is_refused(tmp_path, store):
    holds = f"{svhn.TRAIN_FILE} and {svhn.TEST_FILE}"
    assert f"does not exist; name a folder that holds {holds}" in problem_of(tmp_path / "none", store)
    file = write_mats(tmp_path / "data") / svhn.TRAIN_FILE
    assert f"is not a folder; name a folder that holds {holds}" in problem_of(file, store)
    (tmp_path / "empty").mkdir()
    problem = problem_of(tmp_path / "empty", store)
    assert f"holds no SVHN; expected is {holds} (the cropped digits of http" in problem
    assert "train*.parquet and test*.parquet" in problem


def test_parquet_files_of_other_classes_are_refused(tmp_path, store):
    write_parquet(tmp_path / "train.parquet", IMAGES, LABELS + 1)
    problem = problem_of(tmp_path, store)
    assert "have the classes 1, 2, 3, 4, 5 and 5 more, but SVHN has 0 to 9; " in problem
    assert problem.endswith("--dataset parquet.")


# the download


def test_without_a_network_the_user_learns_what_to_put_where(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(UserError) as caught:
        load(None, cache=tmp_path / "cache")
    (problem,) = caught.value.problems
    assert problem.startswith("SVHN can't be downloaded (Temporary failure in name resolution); ")
    for part in ("--data PATH", svhn.TRAIN_FILE, svhn.TEST_FILE, svhn.PAGE, "train*.parquet", "test*.parquet"):
        assert part in problem
    # A lock file at most: nothing that a second try would take for a download.
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {"svhn.lock"}


def test_a_download_that_breaks_off_leaves_nothing_and_a_whole_one_is_kept(tmp_path, monkeypatch, said):
    import torchvision.datasets.utils

    originals = write_mats(tmp_path / "originals")
    asked = []

    def server(url, root, filename, md5):
        assert len(md5) == 32
        asked.append(url)
        Path(root).mkdir(exist_ok=True)
        (Path(root) / filename).write_bytes((originals / filename).read_bytes())

    def broken(url, root, filename, md5):
        server(url, root, filename, md5)
        if filename == svhn.TEST_FILE:
            raise RuntimeError("File not found or corrupted.")

    cache = tmp_path / "cache"
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", broken)
    with pytest.raises(UserError, match="File not found or corrupted"):
        load(None, cache=cache)
    assert {path.name for path in cache.iterdir()} <= {"svhn.lock"}
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", server)
    for _ in range(2):
        raw = load(None, cache=cache, say=said.append)
        assert np.array_equal(raw.train_images, IMAGES)
        assert np.array_equal(raw.test_images, IMAGES[:10])
    assert asked == 2 * [svhn.PAGE + svhn.TRAIN_FILE, svhn.PAGE + svhn.TEST_FILE]
    assert said == ["Downloading SVHN (246 MB)."]
    assert SOURCES["svhn"].fingerprint(None) == {"download": [svhn.TRAIN_FILE, svhn.TEST_FILE]}
