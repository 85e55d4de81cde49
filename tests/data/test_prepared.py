import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from image_files import (
    as_pillow,
    cycled_labels,
    random_images,
    write_batches,
    write_folder,
    write_parquet,
)

from dfd_tune.config import DatasetConfig
from dfd_tune.data.prepared import DamagedFileError, open_dataset, prepare_dataset
from dfd_tune.data.sources import cifar10
from dfd_tune.errors import UserError
from dfd_tune.store import open_store, read_json, write_json, write_manifest

IMAGES, LABELS = random_images(200, side=8), cycled_labels(200, 10)
TEST_IMAGES, TEST_LABELS = random_images(50, side=8, seed=1), cycled_labels(50, 10)


@pytest.fixture
def data(tmp_path):
    write_parquet(tmp_path / "data" / "train.parquet", IMAGES, LABELS)
    return write_parquet(tmp_path / "data" / "test.parquet", TEST_IMAGES, TEST_LABELS)


def config(data, dataset="parquet", **settings):
    return DatasetConfig(dataset=dataset, data=str(data), **settings)


def entries(store):
    folder = store.path("datasets")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_prepared_dataset_holds_every_image_once(data, store, said):
    dataset = prepare_dataset(config(data), store, said.append)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (180, 20, 50)
    together = np.concatenate([dataset.train.images, dataset.validation.images])
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in IMAGES)
    assert np.array_equal(dataset.test.images, TEST_IMAGES)
    # Every image still has its label.
    label_of = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    for split in (dataset.train, dataset.validation):
        assert [label_of[image.tobytes()] for image in split.images] == split.labels.tolist()
    assert np.bincount(dataset.validation.labels).tolist() == [2] * 10
    assert (dataset.channels, dataset.image_size, dataset.name) == (3, 8, "parquet")
    assert dataset.classes == tuple("0123456789")
    assert entries(store) == [dataset.folder.name]


def test_mean_and_deviation_are_those_of_the_training_images(data, store, said):
    dataset = prepare_dataset(config(data), store, said.append)
    pixels = dataset.train.images / 255
    assert dataset.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std(axis=(0, 2, 3)), rel=1e-12)


def test_the_deviation_of_images_of_one_colour_is_not_zero(tmp_path, store, said):
    write_parquet(tmp_path / "data" / "train.parquet", np.full_like(IMAGES, 7), LABELS)
    assert prepare_dataset(config(tmp_path / "data"), store, said.append).std == (1 / 255,) * 3


def test_arrays_are_read_only_maps_of_the_files(data, store, said):
    dataset = prepare_dataset(config(data), store, said.append)
    for split in (dataset.train, dataset.validation, dataset.test):
        assert not split.images.flags.writeable
        assert not split.labels.flags.writeable


def test_a_second_preparation_opens_no_image(data, store, said):
    first = prepare_dataset(config(data), store, said.append)
    times = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert len(said) == 1
    second = prepare_dataset(config(data), store, said.append)
    assert len(said) == 1
    assert times == {path.name: path.stat().st_mtime_ns for path in second.folder.iterdir()}
    assert second.digest == first.digest
    assert np.array_equal(second.train.images, first.train.images)
    assert open_dataset(first.folder).classes == first.classes


def test_changed_files_and_settings_are_prepared_anew(data, store, said):
    first = prepare_dataset(config(data), store, said.append)
    resized = prepare_dataset(config(data, image_size=16), store, said.append)
    other_split = prepare_dataset(config(data, validation_fraction=0.2), store, said.append)
    write_parquet(data / "train.parquet", IMAGES[::-1], LABELS)
    changed = prepare_dataset(config(data), store, said.append)
    digests = {first.digest, resized.digest, other_split.digest, changed.digest}
    assert len(digests) == 4
    assert len(entries(store)) == 4
    assert resized.train.images.shape[1:] == (3, 16, 16)
    assert len(other_split.validation) == 40


def test_the_digest_names_the_content_and_not_where_it_came_from(tmp_path, store, said):
    photos, kinds, test_photos = random_images(100), cycled_labels(100, 10), random_images(20, seed=1)
    batches = write_batches(tmp_path / "batches", photos, kinds, test_photos, kinds[:20])
    names = cifar10.CLASSES
    write_parquet(tmp_path / "hub" / "train.parquet", photos, kinds, names=names)
    write_parquet(tmp_path / "hub" / "test.parquet", test_photos, kinds[:20], names=names)
    by_class = np.argsort(kinds, kind="stable")
    write_folder(tmp_path / "files" / "train", photos, np.array(names)[kinds])
    write_folder(tmp_path / "files" / "test", test_photos, np.array(names)[kinds[:20]])
    write_parquet(tmp_path / "sorted" / "train.parquet", photos[by_class], kinds[by_class], names=names)
    test_order = np.argsort(kinds[:20], kind="stable")
    write_parquet(tmp_path / "sorted" / "test.parquet", test_photos[test_order], kinds[:20][test_order], names=names)

    def digest(dataset, data, size=None):
        return prepare_dataset(config(data, dataset, image_size=size), store, said.append).digest

    assert digest("cifar10", batches) == digest("cifar10", tmp_path / "hub") == digest("parquet", tmp_path / "hub")
    assert digest("cifar10", batches, 16) == digest("parquet", tmp_path / "hub", 16)
    assert digest("folder", tmp_path / "files") == digest("parquet", tmp_path / "sorted")
    assert digest("folder", tmp_path / "files") != digest("cifar10", batches)  # another order


def test_a_class_by_another_name_is_another_dataset(tmp_path, store, said):
    digests = set()
    for names in ("abcdefghij", "abcdefghiX"):
        data = write_parquet(tmp_path / names / "train.parquet", IMAGES, LABELS, names=names)
        digests.add(prepare_dataset(config(data), store, said.append).digest)
    assert len(digests) == 2


def test_subsets_are_fixed_stratified_and_as_large_as_asked(data, store, tmp_path, said):
    settings = {"train_images": 100, "test_images": 20}
    dataset = prepare_dataset(config(data, **settings), store, said.append)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (90, 10, 20)
    assert np.bincount(dataset.test.labels).tolist() == [2] * 10
    assert np.bincount(np.concatenate([dataset.train.labels, dataset.validation.labels])).tolist() == [10] * 10
    again = prepare_dataset(config(data, **settings), open_store(tmp_path / "other"), said.append)
    assert again.digest == dataset.digest
    assert np.array_equal(again.validation.images, dataset.validation.images)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"train_images": 201}, "train_images is 201, but must be .* at most 200,"),
        ({"train_images": 29}, "train_images is 29, but must be at least 30 "),
        ({"train_images": 101, "train_offset": 100}, "train_images is 101, .* at most 100, as train_offset .* 100 "),
        ({"train_offset": 171}, "train_offset is 171, which leaves 29 .* at most 170"),
        ({"train_offset": 999}, "train_offset is 999, which leaves 0 of the 200 "),
        ({"train_offset": -1}, "train_offset is -1, but must be a whole number at least 0"),
        ({"test_images": 51}, "test_images is 51, but must be .* at most 50,"),
        ({"test_images": 9}, "test_images is 9, but must be at least 10 "),
        ({"image_size": 65}, "image_size is 65, but must be a whole number at least 8 and at most 64"),
    ],
)
def test_unsuitable_numbers_are_refused_and_leave_nothing(data, store, said, settings, expected):
    with pytest.raises(UserError, match=expected):
        prepare_dataset(config(data, **settings), store, said.append)
    assert entries(store) == []


def test_two_unsuitable_numbers_are_refused_together(data, store, said):
    with pytest.raises(UserError) as caught:
        prepare_dataset(config(data, train_images=999, test_images=999), store, said.append)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("images", [30, 200])
def test_the_smallest_and_the_largest_subset_are_fine(data, store, said, images):
    dataset = prepare_dataset(config(data, train_images=images), store, said.append)
    assert set(dataset.train.labels) == set(dataset.validation.labels) == set(range(10))


def test_a_small_class_stays_large_enough_in_a_subset(tmp_path, store, said):
    labels = np.where(np.arange(200) < 5, 1, 0)  # its share of 20 would be half an image
    data = write_parquet(tmp_path / "data" / "train.parquet", IMAGES, labels)
    dataset = prepare_dataset(config(data, train_images=20), store, said.append)
    assert sum(np.bincount(split.labels)[1] for split in (dataset.train, dataset.validation)) == 3
    assert set(dataset.train.labels) == set(dataset.validation.labels) == {0, 1}


def test_after_an_offset_there_are_other_images_of_which_the_digest_tells(data, store, said):
    def images_of(**settings: int) -> tuple[str, set[bytes]]:
        dataset = prepare_dataset(config(data, **settings), store, said.append)
        splits = (dataset.train, dataset.validation)
        return dataset.digest, {image.tobytes() for split in splits for image in split.images}

    first, seen = images_of(train_images=60)
    next_, unseen = images_of(train_images=60, train_offset=60)
    rest, others = images_of(train_offset=60)
    assert len(seen) == len(unseen) == 60
    assert len(others) == 140
    assert seen.isdisjoint(others)
    assert unseen < others
    assert len({first, next_, rest}) == 3
    assert images_of(train_images=60, train_offset=0) == (first, seen)


def test_a_class_that_an_offset_leaves_too_small_is_named(tmp_path, store, said):
    labels = np.where(np.arange(200) < 5, 1, 0)
    data = write_parquet(tmp_path / "data" / "train.parquet", IMAGES, labels)
    with pytest.raises(UserError, match=r"train_offset 20 leaves there are classes with fewer: '1' \(1\)"):
        prepare_dataset(config(data, train_offset=20), store, said.append)
    assert entries(store) == []


def test_unsuitable_data_is_refused(tmp_path, store, said):
    (tmp_path / "file").write_text("")
    for selection, expected in [
        (DatasetConfig(dataset="digit"), "Unknown dataset 'digit'. Did you mean 'digits'?"),
        (DatasetConfig(dataset="digits", data=str(tmp_path)), "--dataset digits takes no --data"),
        (
            DatasetConfig(dataset="folder"),
            "--dataset folder needs --data PATH: a folder that holds image files",
        ),
        (config(tmp_path / "none"), "/none' does not exist; name a folder that holds train*.parquet"),
        (config(tmp_path / "file"), "/file' is not a folder; name a folder that holds train*.parquet"),
    ]:
        with pytest.raises(UserError) as caught:
            prepare_dataset(selection, store, said.append)
        assert expected in str(caught.value)
    assert entries(store) == []
    assert said == []


def test_an_unreadable_image_leaves_nothing_and_a_mended_one_is_prepared(data, store, said):
    write_parquet(data / "train.parquet", [*IMAGES[:199], b"broken"], LABELS)
    with pytest.raises(UserError, match="row 199"):
        prepare_dataset(config(data), store, said.append)
    assert entries(store) == []
    write_parquet(data / "train.parquet", IMAGES, LABELS)
    assert len(prepare_dataset(config(data), store, said.append).train) == 180


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-200])


def drop_a_setting(path):
    card = read_json(path)
    write_json(path, {name: value for name, value in card.items() if name != "mean"})


def other_count(path):
    card = read_json(path)
    write_json(path, card | {"images": card["images"] | {"train": 7}})


def fewer_classes(path):
    write_json(path, read_json(path) | {"classes": ["a", "b"]})


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train.arrow", cut_short),
        ("validation.arrow", lambda path: path.write_bytes(b"")),
        ("test.arrow", lambda path: path.unlink()),
        ("dataset.json", lambda path: path.write_text("{")),
        ("dataset.json", lambda path: path.write_text("[]")),
        ("dataset.json", lambda path: path.write_bytes(b"\xff\xfe")),
        ("dataset.json", lambda path: path.unlink()),
        ("dataset.json", drop_a_setting),
        ("dataset.json", other_count),
        ("dataset.json", fewer_classes),
    ],
)
@pytest.mark.parametrize("seal", [lambda folder: None, write_manifest], ids=["damaged", "damaged before it was sealed"])
def test_a_damaged_entry_is_prepared_again(data, store, said, name, damage, seal):
    first = prepare_dataset(config(data), store, said.append)
    damage(first.folder / name)
    seal(first.folder)
    with pytest.raises(DamagedFileError):
        open_dataset(first.folder)
    said.clear()
    again = prepare_dataset(config(data), store, said.append)
    assert "is damaged" in said[0]
    assert len(said) == 2  # that, and decoding
    assert (again.folder, again.digest) == (first.folder, first.digest)
    assert np.array_equal(again.train.images[:], open_dataset(first.folder).train.images)
    assert entries(store) == [first.folder.name]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_can_not_be_read_just_now_is_no_damage(number, data, store, said, monkeypatch):
    first = prepare_dataset(config(data), store, said.append)
    files = {file: file.stat().st_mtime_ns for file in first.folder.iterdir()}

    def failing(*arguments, **options):
        raise OSError(number, os.strerror(number))

    for owner, name in ((Path, "read_bytes"), (pyarrow, "memory_map")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing)
            with pytest.raises(OSError, match=os.strerror(number)):
                open_dataset(first.folder)
            with pytest.raises(UserError, match=os.strerror(number)):
                prepare_dataset(config(data), store, said.append)
    assert {file: file.stat().st_mtime_ns for file in first.folder.iterdir()} == files
    assert prepare_dataset(config(data), store, said.append).digest == first.digest
    assert len(said) == 1


def test_opening_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DamagedFileError, match="missing"):
        open_dataset(tmp_path)


def test_two_processes_at_once_prepare_once(data, tmp_path):
    code = (
        "import sys\n"
        "from dfd_tune.config import DatasetConfig\n"
        "from dfd_tune.data.prepared import prepare_dataset\n"
        "from dfd_tune.store import open_store\n"
        "config = DatasetConfig(dataset='parquet', data=sys.argv[1])\n"
        "dataset = prepare_dataset(config, open_store(sys.argv[2]), lambda line: print('said', line))\n"
        "print(dataset.digest, len(dataset.train), int(dataset.train.images.sum()))\n"
    )
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "store")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [process.communicate()[0].splitlines() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert lines[0][-1] == lines[1][-1]
    told = [line for part in lines for line in part if line.startswith("said") and "Waiting for" not in line]
    assert len(told) == 1
    assert len(entries(open_store(tmp_path / "store"))) == 1


def test_digits_are_prepared_without_any_files(store, said):
    dataset = prepare_dataset(DatasetConfig(dataset="digits", train_images=200, test_images=100), store, said.append)
    assert (dataset.channels, dataset.image_size) == (1, 8)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (180, 20, 100)


@pytest.fixture
def pictures(tmp_path):
    """A folder of images of one size in bytes, in a format without compression."""
    for index, (image, label) in enumerate(zip(IMAGES[:60], LABELS[:60] % 3, strict=True)):
        file = tmp_path / "pictures" / str(label) / f"{index:03}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        as_pillow(image).save(file)
    return tmp_path / "pictures"


def repaint(pictures, image):
    """Change a picture in place, with size and time as they were."""
    file = pictures / "0" / "000.bmp"
    before = file.stat()
    as_pillow(image).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


def test_a_change_in_place_is_noticed_by_a_rescan_alone(pictures, store, said):
    def prepared(**how):
        return prepare_dataset(config(pictures, "folder"), store, said.append, **how)

    first = prepared()
    said.clear()
    assert prepared(rescan=True).folder == first.folder  # nothing has changed
    assert "hold the images that were prepared" in said[-1]
    repaint(pictures, IMAGES[100])
    said.clear()
    assert prepared().folder == first.folder
    assert said == []
    second = prepared(rescan=True)
    assert second.digest != first.digest
    assert "hold other images" in said[-1]
    said.clear()
    # Later launches take the new ones, and read nothing again; who has begun with the others keeps those.
    assert prepared().folder == second.folder
    assert prepared(of_search=second.folder.name).folder == second.folder
    assert prepared(of_search=first.folder.name).digest == first.digest
    assert prepared(prepared=first.folder.name).digest == first.digest
    assert said == []
    assert open_dataset(first.folder).digest == first.digest
    # As they were at first, they are the first ones again.
    repaint(pictures, IMAGES[0])
    assert prepared(rescan=True).folder == first.folder
    assert prepared().folder == first.folder
    assert len(entries(store)) == 2


def test_a_rescan_of_what_was_never_prepared_prepares_it(pictures, store, said):
    dataset = prepare_dataset(config(pictures, "folder"), store, said.append, rescan=True)
    assert prepare_dataset(config(pictures, "folder"), store, said.append).folder == dataset.folder
    assert not any("hold" in line for line in said)


def test_a_dataset_without_files_says_that_there_is_nothing_to_rescan(store, said):
    selection = DatasetConfig(dataset="digits", train_images=200, test_images=100)
    first = prepare_dataset(selection, store, said.append)
    said.clear()
    assert prepare_dataset(selection, store, said.append, rescan=True).digest == first.digest
    assert said == ["--rescan reads the files of --data again; 'digits' has none."]
