"""A student's images are found by its trial key, and by nothing else; they are those that it was trained on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dfd_tune.data.cameras import camera_images
from dfd_tune.export.trained_on import TrainedOn, find_images
from dfd_tune.models.deployed import load_deployed
from dfd_tune.store import FolderStore, open_store
from tests.trained import CONFIG, COUNTS, write_trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store, file = write_trained(tmp_path_factory.mktemp("trained"))
    return store, load_deployed(file)[1]


def files(store) -> set[str]:
    return {str(file) for file in store.root.rglob("*")}


def test_the_images_are_those_of_the_trial_and_looking_writes_nothing(trained):
    store, card = trained
    before = files(store)
    found = find_images(store, card)
    assert found is not None
    images, labels = found.validation()
    assert images.dtype == np.uint8
    assert images.shape == (COUNTS["validation"], CONFIG.resolution, CONFIG.resolution, 1)
    assert (labels == found.dataset.validation.labels).all()
    assert found.training(20).shape == (20, CONFIG.resolution, CONFIG.resolution, 1)
    assert len(found.training(10_000)) == COUNTS["train"]
    assert files(store) == before


def test_they_are_seen_by_the_trials_camera_noise_included(trained, tmp_path):
    store, card = trained
    dataset = find_images(store, card).dataset
    camera = dataclasses.replace(CONFIG.camera, noise=9.0, blur=0.5)
    expected = camera_images(open_store(tmp_path / "other"), dataset, camera, "validation")
    assert (TrainedOn(dataset, camera).validation()[0] == expected.transpose(0, 2, 3, 1)).all()


@pytest.mark.parametrize(
    "extras",
    [
        {},
        {"trial_key": "0123456789abcdef"},
        {"config": dataclasses.asdict(CONFIG) | {"seed": 77}},
        {"config": {"colour_of_the_cat": "grey"}},
        {"config": dataclasses.asdict(CONFIG) | {"resolution": -1}},
    ],
)
def test_a_student_of_another_trial_has_none(trained, extras):
    store, card = trained
    others = {} if not extras else dict(card.extras) | extras
    assert find_images(store, dataclasses.replace(card, extras=others)) is None


def test_a_store_without_the_dataset_or_with_a_damaged_one_has_none(trained, tmp_path):
    card = trained[1]
    assert find_images(open_store(tmp_path / "empty"), card) is None
    store, file = write_trained(tmp_path / "damaged")
    assert find_images(store, load_deployed(file)[1]) is not None
    store.path("datasets", "tiny", "validation.arrow").write_bytes(b"short")
    assert find_images(store, load_deployed(file)[1]) is None


def test_no_other_dataset_is_opened(trained, monkeypatch):
    store, card = trained
    with store.publish("datasets", "0-comes-first") as draft:
        (draft / "dataset.json").write_text('{"digest": "0123456789abcdef"}')
    opened = []
    here = FolderStore.here
    monkeypatch.setattr(FolderStore, "here", lambda self, *parts: opened.append(parts) or here(self, *parts))
    assert find_images(store, card) is not None
    assert len(opened) == 1
    store.discard("datasets", "0-comes-first")
