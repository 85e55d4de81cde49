import pickle
import struct
import urllib.error
import urllib.request
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import (
    cycled_labels,
    png,
    random_images,
    write_batch,
    write_batch_of_python2,
    write_batches,
    write_folder,
    write_parquet,
)

from dfd_tune.data.sources import SOURCES, cifar10
from dfd_tune.errors import UserError

IMAGES, LABELS = random_images(40, side=8), cycled_labels(40, 4)


def load(name, data, image_size=None, say=lambda line: None, cache=None):
    return SOURCES[name].load(data, image_size, cache, say)


# digits


def test_digits_are_gray_use_the_whole_range_and_are_split_the_same_each_time(said):
    raw = load("digits", None, say=said.append)
    assert raw.train_images.shape[1:] == (1, 8, 8)
    assert (raw.train_images.min(), raw.train_images.max()) == (0, 255)
    assert len(np.unique(raw.train_images)) == 17
    assert len(raw.train_labels) + len(raw.test_labels) == 1797
    assert abs(len(raw.test_labels) - 1797 / 5) < 1
    assert raw.classes == tuple("0123456789")
    assert len(said) == 1
    assert "no test set" in said[0]
    assert np.array_equal(load("digits", None).test_images, raw.test_images)


def test_digits_can_be_resized():
    assert load("digits", None, image_size=16).test_images.shape[1:] == (1, 16, 16)


# folder


def test_a_folder_with_train_and_test(tmp_path):
    write_folder(tmp_path / "train", IMAGES, LABELS)
    write_folder(tmp_path / "test", IMAGES[:6], LABELS[:6])
    raw = load("folder", tmp_path)
    by_class = np.argsort(LABELS, kind="stable")
    assert np.array_equal(raw.train_images, IMAGES[by_class])
    assert np.array_equal(raw.train_labels, LABELS[by_class])
    assert len(raw.test_labels) == 6
    assert raw.classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("below", ["", "train"])
def test_without_a_test_set_a_fifth_of_every_class_is_held_out(tmp_path, below, said):
    write_folder(tmp_path / below, IMAGES, LABELS)
    raw = load("folder", tmp_path, say=said.append)
    assert np.bincount(raw.test_labels).tolist() == [2] * 4
    assert np.bincount(raw.train_labels).tolist() == [8] * 4
    assert any("no test set" in line for line in said)


def test_a_class_may_be_called_train(tmp_path):
    write_folder(tmp_path, IMAGES, np.array(["car", "plane", "ship", "train"])[LABELS])
    assert load("folder", tmp_path).classes == ("car", "plane", "ship", "train")


def test_hidden_and_other_files_are_left_alone(tmp_path):
    write_folder(tmp_path, IMAGES, LABELS)
    for name in ("0/.hidden.png", "0/notes.txt", "readme.md", ".cache/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    raw = load("folder", tmp_path)
    assert len(raw.train_labels) + len(raw.test_labels) == 40
    assert raw.classes == ("0", "1", "2", "3")


def test_the_order_in_which_files_were_made_does_not_matter(tmp_path):
    write_folder(tmp_path / "a", IMAGES, LABELS)
    for index in reversed(range(40)):
        file = tmp_path / "b" / str(LABELS[index]) / f"{index:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(IMAGES[index]))
    first, second = load("folder", tmp_path / "a"), load("folder", tmp_path / "b")
    assert np.array_equal(first.train_images, second.train_images)
    assert np.array_equal(first.test_labels, second.test_labels)


def test_a_folder_names_what_is_wrong_with_it(tmp_path):
    with pytest.raises(UserError, match="holds no images in class folders; expected are"):
        load("folder", tmp_path)
    write_folder(tmp_path / "one", IMAGES, np.full(40, "cat"))
    with pytest.raises(UserError, match=r"at least 2 classes, but .* has 1 \('cat'\)"):
        load("folder", tmp_path / "one")
    write_folder(tmp_path / "few", IMAGES[:9], [*["cat"] * 7, *["dog"] * 2])
    with pytest.raises(UserError, match=r"at least 3 training images, .*: 'dog' \(2\);"):
        load("folder", tmp_path / "few")
    (tmp_path / "few" / "empty").mkdir()
    with pytest.raises(UserError, match=r"'dog' \(2\), 'empty' \(0\);"):
        load("folder", tmp_path / "few")
    write_folder(tmp_path / "new" / "train", IMAGES, LABELS)
    write_folder(tmp_path / "new" / "test", IMAGES[:3], ["0", "1", "walrus"])
    with pytest.raises(UserError, match="lacks: walrus;"):
        load("folder", tmp_path / "new")


def test_three_images_of_a_class_are_too_few_where_some_must_be_held_out(tmp_path):
    write_folder(tmp_path, IMAGES[:12], [*["cat"] * 9, *["dog"] * 3])
    with pytest.raises(UserError, match=r"at least 4 images.*'dog' \(3\)"):
        load("folder", tmp_path)
    write_folder(tmp_path / "more", IMAGES[:13], [*["cat"] * 9, *["dog"] * 4])
    assert np.bincount(load("folder", tmp_path / "more").train_labels)[1] == 3


def test_a_corrupt_file_is_named(tmp_path):
    write_folder(tmp_path, IMAGES, LABELS)
    (tmp_path / "2" / "bad.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"1 of 41 images .*: 2/bad\.jpg \(not an image\)"):
        load("folder", tmp_path)


# parquet


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_files_are_read_in_order_with_the_names_of_the_hub(tmp_path, as_struct):
    names = ("ant", "bee", "cow", "dog")
    for shard in range(2):
        part = slice(20 * shard, 20 * shard + 20)
        file = tmp_path / "data" / f"train-{shard:05}-of-00002.parquet"
        write_parquet(file, IMAGES[part], LABELS[part], names=names, as_struct=as_struct)
    write_parquet(tmp_path / "data" / "test.parquet", IMAGES[:5], LABELS[:5], names=names, as_struct=as_struct)
    write_parquet(tmp_path / ".cache" / "train.parquet", IMAGES[:5], LABELS[:5])
    raw = load("parquet", tmp_path)
    assert np.array_equal(raw.train_images, IMAGES)
    assert np.array_equal(raw.train_labels, LABELS)
    assert np.array_equal(raw.test_images, IMAGES[:5])
    assert raw.classes == names


def test_labels_without_names_are_called_by_their_numbers(tmp_path):
    numbers = np.array([2, 3, 10, 700])
    write_parquet(tmp_path / "train.parquet", IMAGES, numbers[LABELS])
    write_parquet(tmp_path / "test.parquet", IMAGES[:5], numbers[LABELS[:5]])
    raw = load("parquet", tmp_path)
    assert raw.classes == ("2", "3", "10", "700")
    assert np.array_equal(raw.train_labels, LABELS)
    assert np.array_equal(raw.test_labels, LABELS[:5])


def test_without_test_files_a_fifth_is_held_out(tmp_path, said):
    raw = load("parquet", write_parquet(tmp_path / "train.parquet", IMAGES, LABELS), say=said.append)
    assert len(raw.test_labels) == 8
    assert any("no test set" in line for line in said)


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0, 1, -1], None, "no classes: -1;"),
        ([0, 1, -1], ("a", "b"), "no classes: -1; allowed are 0 to 1"),
        ([0, 1, 2], ("a", "b"), "no classes: 2; allowed are 0 to 1"),
    ],
)
def test_labels_that_are_no_classes_are_named(tmp_path, labels, names, expected):
    write_parquet(tmp_path / "train.parquet", IMAGES[:30], labels * 10, names=names)
    with pytest.raises(UserError, match=expected):
        load("parquet", tmp_path)


def test_a_test_label_that_training_lacks_is_named(tmp_path):
    write_parquet(tmp_path / "train.parquet", IMAGES, LABELS)
    write_parquet(tmp_path / "test.parquet", IMAGES[:2], [1, 9])
    with pytest.raises(UserError, match="no classes: 9;"):
        load("parquet", tmp_path)


def test_a_corrupt_image_is_named_by_file_and_row(tmp_path):
    contents = [png(image) for image in IMAGES]
    contents[17], contents[19] = b"broken", None
    write_parquet(tmp_path / "train.parquet", contents, LABELS)
    with pytest.raises(
        UserError, match=r"train\.parquet row 17 \(not an image\), train\.parquet row 19 \(it is empty\)"
    ):
        load("parquet", tmp_path)


def test_an_image_that_declares_too_many_pixels_is_named_by_file_and_row(tmp_path):
    bomb = bytearray(png(IMAGES[0]))
    bomb[16:24] = struct.pack(">II", 13_000, 13_800)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    write_parquet(tmp_path / "train.parquet", [*IMAGES[:39], bytes(bomb)], LABELS)
    with pytest.raises(UserError, match=r"more than 50 million pixels.*train\.parquet row 39 \("):
        load("parquet", tmp_path, image_size=8)


def test_columns_with_other_names_are_found_when_they_are_the_only_ones(tmp_path):
    write_parquet(tmp_path / "train.parquet", IMAGES, LABELS, image="photo", label="kind")
    assert len(load("parquet", tmp_path).classes) == 4


def test_ambiguous_and_missing_columns_are_named(tmp_path):
    content = pa.array([png(image) for image in IMAGES], pa.binary())
    number = pa.array(LABELS)
    for columns, expected in [
        (
            {"front": content, "back": content, "label": number},
            "image column .*: front, back; rename one to 'image'",
        ),
        (
            {"image": content, "kind": number, "age": number},
            "label column .*: kind, age; rename one to 'label'",
        ),
        ({"label": number}, "no image column .*; its columns are label"),
        ({"image": content}, "no label column .*; its columns are image"),
    ]:
        pq.write_table(pa.table(columns), tmp_path / "train.parquet")
        with pytest.raises(UserError, match=expected):
            load("parquet", tmp_path)
    pq.write_table(
        pa.table({"x": content, "image": content, "age": number, "label": number}), tmp_path / "train.parquet"
    )
    assert len(load("parquet", tmp_path).classes) == 4


def test_a_parquet_folder_names_what_is_wrong_with_it(tmp_path):
    with pytest.raises(UserError, match="holds no train"):
        load("parquet", tmp_path)
    write_parquet(tmp_path / "a" / "train.parquet", IMAGES, LABELS)
    write_parquet(tmp_path / "b" / "train.parquet", IMAGES, LABELS)
    with pytest.raises(UserError, match="in several folders"):
        load("parquet", tmp_path)
    content = (tmp_path / "a" / "train.parquet").read_bytes()
    (tmp_path / "a" / "train.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"train\.parquet' can't be read as Parquet"):
        load("parquet", tmp_path / "a")
    write_parquet(tmp_path / "b" / "train-2.parquet", IMAGES, LABELS, label="other")
    with pytest.raises(UserError, match=r"train\.parquet' lacks a column|train-2\.parquet' lacks a column"):
        load("parquet", tmp_path / "b")


# cifar10

PHOTOS, KINDS = random_images(50), cycled_labels(50, 10)


@pytest.mark.parametrize("inner", ["", cifar10.BATCHES])
def test_python_batches_are_read(tmp_path, inner):
    write_batches(tmp_path / "data" / inner, PHOTOS, KINDS, PHOTOS[:10], KINDS[:10])
    raw = load("cifar10", tmp_path / "data")
    assert np.array_equal(raw.train_images, PHOTOS)
    assert np.array_equal(raw.train_labels, KINDS)
    assert np.array_equal(raw.test_images, PHOTOS[:10])
    assert raw.classes == cifar10.CLASSES


def test_batches_as_python2_wrote_them_are_read(tmp_path):
    folder = write_batches(tmp_path / "data", PHOTOS, KINDS, PHOTOS[:10], KINDS[:10])
    write_batch_of_python2(folder / "test_batch", PHOTOS[5:25], KINDS[5:25])
    # The file is what it claims to be: the ordinary reader agrees.
    assert np.array_equal(
        pickle.loads((folder / "test_batch").read_bytes(), encoding="bytes")[b"data"],
        PHOTOS[5:25].reshape(20, -1),
    )
    raw = load("cifar10", folder)
    assert np.array_equal(raw.test_images, PHOTOS[5:25])
    assert np.array_equal(raw.test_labels, KINDS[5:25])


class Harmful:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return type(self.target).write_text, (self.target, "harm")


def test_a_batch_that_is_a_harmful_pickle_is_not_run(tmp_path):
    folder = write_batches(tmp_path / "data", PHOTOS, KINDS, PHOTOS[:10], KINDS[:10])
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Harmful(tmp_path / "harm")}))
    with pytest.raises(UserError, match=r"test_batch' is no batch of CIFAR-10 .it holds "):
        load("cifar10", folder)
    assert not (tmp_path / "harm").exists()


def test_damaged_and_missing_batches_are_named(tmp_path):
    folder = write_batches(tmp_path / "data", PHOTOS, KINDS, PHOTOS[:10], KINDS[:10])
    write_batch(folder / "data_batch_2", PHOTOS[:10], KINDS[:10] + 1)
    with pytest.raises(UserError, match=r"data_batch_2' is no batch of CIFAR-10 .its labels do not fit"):
        load("cifar10", folder)
    (folder / "data_batch_2").write_bytes((folder / "data_batch_1").read_bytes()[:999])
    with pytest.raises(UserError, match="data_batch_2' is no batch of CIFAR-10"):
        load("cifar10", folder)
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    with pytest.raises(UserError, match="lacks data_batch_2, test_batch;"):
        SOURCES["cifar10"].fingerprint(folder)


def test_cifar10_is_read_from_parquet_too_and_nothing_else_is_taken_for_it(tmp_path):
    write_parquet(tmp_path / "ten" / "train.parquet", PHOTOS, KINDS)
    assert load("cifar10", tmp_path / "ten").classes == cifar10.CLASSES
    write_parquet(tmp_path / "four" / "train.parquet", IMAGES, LABELS)
    with pytest.raises(UserError, match=r"has 4 classes, but CIFAR-10 has 10; .*--dataset parquet"):
        load("cifar10", tmp_path / "four")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"holds no CIFAR-10; expected is cifar-10-python\.tar\.gz unpacked"):
        load("cifar10", tmp_path / "none")


def test_without_a_network_the_user_learns_what_to_put_where(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(UserError) as caught:
        load("cifar10", None, cache=tmp_path / "cache")
    (problem,) = caught.value.problems
    assert problem.startswith("CIFAR-10 can't be downloaded (Temporary failure in name resolution); ")
    for part in ("--data PATH", "cifar-10-python.tar.gz", "train*.parquet", "test*.parquet"):
        assert part in problem
    # A lock file at most: nothing that a second try would take for a download.
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {"cifar10.lock"}


def test_a_download_that_breaks_off_leaves_nothing_and_a_whole_one_is_kept(tmp_path, monkeypatch, said):
    import torchvision.datasets.utils

    def broken(url, root, **_):
        write_batches(tmp_path / root / cifar10.BATCHES, PHOTOS[:10], KINDS[:10], PHOTOS[:2], KINDS[:2])
        raise RuntimeError("File not found or corrupted.")

    def whole(url, root, **_):
        write_batches(tmp_path / root / cifar10.BATCHES, PHOTOS, KINDS, PHOTOS[:10], KINDS[:10])

    def unexpected(*_, **__):
        raise AssertionError("downloaded again")

    cache = tmp_path / "cache"
    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", broken)
    with pytest.raises(UserError, match="File not found or corrupted"):
        load("cifar10", None, cache=cache)
    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", whole)
    assert len(load("cifar10", None, cache=cache, say=said.append).train_labels) == 50
    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", unexpected)
    assert len(load("cifar10", None, cache=cache, say=said.append).train_labels) == 50
    assert said == ["Downloading CIFAR-10 (170 MB)."]
