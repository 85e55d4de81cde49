"""A dataset as a camera sees it: made once, read by all, and never taken from damaged files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dfd_tune.data import cameras
from dfd_tune.data.cameras import SPLITS, camera_images
from dfd_tune.data.degradation import resize, take_pictures
from dfd_tune.data.prepared import Dataset, Split
from dfd_tune.parts import Camera
from dfd_tune.store import FolderStore, Store, read_json, write_manifest

CAMERA = Camera(4, "area", blur=0.8, noise=9.0, jpeg_quality=70)


def split(count: int, seed: int, channels: int = 1) -> Split:
    images = np.random.default_rng(seed).integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)
    return Split(images, np.arange(count, dtype=np.int64) % 2)


@pytest.fixture
def dataset() -> Dataset:
    return Dataset(
        folder=Path("unused"),
        digest="0" * 16,
        name="tiny",
        classes=("a", "b"),
        channels=1,
        image_size=8,
        mean=(0.5,),
        std=(0.25,),
        train=split(30, seed=0),
        validation=split(7, seed=1),
        test=split(5, seed=2),
    )


def folder_of(store: Store, dataset: Dataset, camera: Camera = CAMERA) -> Path:
    return store.path("low_res", camera.key(dataset.digest))


def pictures_of(store: Store, dataset: Dataset, camera: Camera = CAMERA) -> dict[str, np.ndarray]:
    return {name: np.array(camera_images(store, dataset, camera, name)) for name in SPLITS}


def test_every_split_is_what_the_camera_makes_of_it(store: Store, dataset: Dataset) -> None:
    for number, name in enumerate(SPLITS):
        images = getattr(dataset, name).images
        expected = take_pictures(images, CAMERA, np.random.default_rng(number))
        found = camera_images(store, dataset, CAMERA, name)
        assert np.array_equal(found, expected)
        assert (found.dtype, found.shape) == (np.uint8, (len(images), 1, 4, 4))


def test_a_camera_that_only_shrinks_gives_the_images_resized(store: Store, dataset: Dataset) -> None:
    found = camera_images(store, dataset, Camera(4), "test")
    assert np.array_equal(found, resize(torch.tensor(dataset.test.images), 4, "bicubic").numpy())


def test_pictures_are_taken_once_and_then_mapped_read_only(
    store: Store, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pictures_of(store, dataset)
    files = {file.name: file.stat().st_mtime_ns for file in folder_of(store, dataset).iterdir()}
    assert files.keys() == {"train.npy", "validation.npy", "test.npy", "camera.json", "manifest.json"}
    # Whoever took another picture now would fail.
    monkeypatch.setattr(cameras, "take_pictures", None)
    for name in SPLITS:
        found = camera_images(store, dataset, CAMERA, name)
        assert np.array_equal(found, first[name])
        assert isinstance(found, np.memmap)
        assert Path(str(found.filename)) == folder_of(store, dataset) / f"{name}.npy"
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 0
    assert {file.name: file.stat().st_mtime_ns for file in folder_of(store, dataset).iterdir()} == files


def test_another_store_gets_the_same_pictures_noise_included(tmp_path: Path, dataset: Dataset) -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = pictures_of(FolderStore(tmp_path / "one"), dataset)
    np.random.seed(2)
    second = pictures_of(FolderStore(tmp_path / "other"), dataset)
    assert all(np.array_equal(first[name], second[name]) for name in SPLITS)


def test_equal_images_of_different_splits_get_noise_of_their_own(store: Store, dataset: Dataset) -> None:
    same = dataclasses.replace(dataset, train=dataset.test, validation=dataset.test)
    found = pictures_of(store, same)
    assert not np.array_equal(found["train"], found["validation"])
    assert not np.array_equal(found["train"], found["test"])
    clean = pictures_of(store, same, dataclasses.replace(CAMERA, noise=0.0))
    assert np.array_equal(clean["train"], clean["test"])


CHANGES = [
    {"resolution": 2},
    {"downsample": "nearest"},
    {"blur": 0.0},
    {"blur": 1.5},
    {"noise": 0.0},
    {"noise": 30.0},
    {"jpeg_quality": None},
    {"jpeg_quality": 5},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_another_camera_has_pictures_of_its_own(change: dict[str, object], store: Store, dataset: Dataset) -> None:
    other = dataclasses.replace(CAMERA, **change)  # type: ignore[arg-type]
    assert other.key(dataset.digest) != CAMERA.key(dataset.digest)
    ours, theirs = camera_images(store, dataset, CAMERA, "train"), camera_images(store, dataset, other, "train")
    assert not np.array_equal(ours, theirs)
    assert len(list(store.path("low_res").iterdir())) == 2


def test_another_dataset_has_pictures_of_its_own(store: Store, dataset: Dataset) -> None:
    other = dataclasses.replace(dataset, digest="1" * 16, train=split(30, seed=9))
    assert not np.array_equal(
        camera_images(store, dataset, CAMERA, "train"), camera_images(store, other, CAMERA, "train")
    )


def test_what_is_not_there_does_not_count_for_the_key() -> None:
    # So the images of plain resizing keep their key when another imperfection becomes known.
    assert Camera(4).identity() == {"resolution": 4, "downsample": "bicubic"}
    assert Camera(4, noise=0.0).key("0" * 16) == Camera(4).key("0" * 16)


def cut_short(folder: Path) -> None:
    file = folder / "train.npy"
    file.write_bytes(file.read_bytes()[:-1])


def cut_within_the_header(folder: Path) -> None:
    file = folder / "train.npy"
    file.write_bytes(file.read_bytes()[:20])


def empty(folder: Path) -> None:
    (folder / "train.npy").write_bytes(b"")


def missing(folder: Path) -> None:
    (folder / "train.npy").unlink()


def of_other_numbers(folder: Path) -> None:
    np.save(folder / "train.npy", np.load(folder / "train.npy").astype(np.float32))


def of_fewer_images(folder: Path) -> None:
    np.save(folder / "train.npy", np.load(folder / "train.npy")[:-1])


def of_another_side(folder: Path) -> None:
    np.save(folder / "train.npy", np.load(folder / "train.npy")[..., :2])


def of_pickled_objects(folder: Path) -> None:
    np.save(folder / "train.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def without_camera(folder: Path) -> None:
    (folder / "camera.json").unlink()


def broken_camera(folder: Path) -> None:
    (folder / "camera.json").write_text((folder / "camera.json").read_text()[:-5])


def a_camera_that_is_a_list(folder: Path) -> None:
    (folder / "camera.json").write_text("[]")


def another_camera(folder: Path) -> None:
    value = json.loads((folder / "camera.json").read_text())
    value["camera"]["noise"] = 1.0
    (folder / "camera.json").write_text(json.dumps(value))


def another_dataset(folder: Path) -> None:
    value = json.loads((folder / "camera.json").read_text())
    (folder / "camera.json").write_text(json.dumps(value | {"dataset": "1" * 16}))


DAMAGES = (
    cut_short,
    cut_within_the_header,
    empty,
    missing,
    of_other_numbers,
    of_fewer_images,
    of_another_side,
    of_pickled_objects,
    without_camera,
    broken_camera,
    a_camera_that_is_a_list,
    another_camera,
    another_dataset,
)


@pytest.mark.parametrize("seal", [lambda folder: None, write_manifest], ids=["damaged", "damaged before it was sealed"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_files_are_made_anew(
    damage: Callable[[Path], None], seal: Callable[[Path], None], store: Store, dataset: Dataset
) -> None:
    first = pictures_of(store, dataset)
    folder = folder_of(store, dataset)
    content = {file.name: file.read_bytes() for file in folder.iterdir()}
    damage(folder)
    seal(folder)
    assert np.array_equal(camera_images(store, dataset, CAMERA, "train"), first["train"])
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == content
    assert [entry.name for entry in store.path("low_res").iterdir()] == [folder.name]


def test_a_picture_that_fails_leaves_nothing_behind(
    store: Store, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(images: np.ndarray, camera: Camera, random: np.random.Generator) -> np.ndarray:
        if len(images) == len(dataset.test):
            raise OSError("disk full")
        return take_pictures(images, camera, random)

    monkeypatch.setattr(cameras, "take_pictures", failing)
    with pytest.raises(OSError, match="disk full"):
        camera_images(store, dataset, CAMERA, "train")
    assert list(store.path("low_res").iterdir()) == []
    monkeypatch.undo()
    assert len(camera_images(store, dataset, CAMERA, "train")) == 30


def test_the_files_say_which_camera_and_dataset_they_are_of(store: Store, dataset: Dataset) -> None:
    camera_images(store, dataset, CAMERA, "test")
    assert read_json(folder_of(store, dataset) / "camera.json") == {
        "camera": {"resolution": 4, "downsample": "area", "blur": 0.8, "noise": 9.0, "jpeg_quality": 70},
        "dataset": "0" * 16,
    }
