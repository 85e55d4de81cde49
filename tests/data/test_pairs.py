"""Pairs: both sides of an image get the same view; images for evaluation are left as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dfd_tune.data.degradation import degrade
from dfd_tune.data.pairs import Mix, TrainingImages, evaluation_images, training_images
from dfd_tune.data.prepared import Dataset, Split
from dfd_tune.data.views import ViewSpace

CPU = torch.device("cpu")
SPACE = ViewSpace(crop_padding=2, flip=True)
ALL = np.arange(30)


def split(count: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    labels = random.integers(0, 3, count)
    for array in (images, labels):  # as memory-mapped files are
        array.setflags(write=False)
    return Split(images, labels)


@pytest.fixture
def dataset():
    return Dataset(
        folder=Path("unused"),
        digest="0" * 16,
        name="tiny",
        classes=("a", "b", "c"),
        channels=3,
        image_size=8,
        mean=(0.5, 0.25, 0.125),
        std=(0.25, 0.5, 1.0),
        train=split(30, seed=0),
        validation=split(7, seed=1),
        test=split(5, seed=2),
    )


def pixels(images: torch.Tensor) -> np.ndarray:
    """Standardised images back as bytes, by the dataset's mean and deviation, written out."""
    values = images.numpy().transpose(0, 2, 3, 1) * [0.25, 0.5, 1.0] + [0.5, 0.25, 0.125]
    return np.rint(values.transpose(0, 3, 1, 2) * 255).astype(np.int64)


def degraded(images: np.ndarray) -> np.ndarray:
    how = {"resolution": 4, "image_size": 8, "downsample": "area", "upsample": "nearest"}
    return degrade(torch.tensor(images), **how).numpy()


def high(split: Split) -> torch.Tensor:
    return torch.tensor(split.images)


def low(split: Split) -> torch.Tensor:
    return torch.tensor(degraded(split.images))


def cut(images: np.ndarray, ids: np.ndarray) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    crops = []
    for image, view in zip(padded, ids, strict=True):
        top, left = view // 2 // 5, view // 2 % 5
        crop = image[:, top : top + 8, left : left + 8]
        crops.append(crop[..., ::-1] if view % 2 else crop)
    return np.stack(crops)


def looked_at(images: TrainingImages, epoch: int, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    draw = images.draw(epoch, indices)
    return images.views(draw), images.labels_of(draw)


def test_both_sides_of_a_pair_get_the_same_view(dataset):
    highs = training_images(dataset, high(dataset.train), SPACE, 7, CPU)
    lows = training_images(dataset, low(dataset.train), SPACE, 7, CPU)
    for epoch in range(3):
        (high_batch, high_labels), (low_batch, low_labels) = looked_at(highs, epoch, ALL), looked_at(lows, epoch, ALL)
        ids = SPACE.draw(7, epoch, ALL)
        assert np.array_equal(pixels(high_batch), cut(dataset.train.images, ids))
        assert np.array_equal(pixels(low_batch), cut(degraded(dataset.train.images), ids))
        assert high_labels.tolist() == low_labels.tolist() == dataset.train.labels.tolist()


def test_a_batch_holds_the_images_that_are_asked_for_in_their_order(dataset):
    images = training_images(dataset, low(dataset.train), SPACE, 7, CPU)
    whole, labels = looked_at(images, 1, ALL)
    order = np.random.default_rng(0).permutation(ALL)
    for part in np.array_split(order, 4):
        batch, part_labels = looked_at(images, 1, part)
        assert torch.equal(batch, whole[part])
        assert torch.equal(part_labels, labels[part])


def test_a_mixed_draw_sees_two_images_in_their_views_by_their_shares(dataset):
    images = training_images(dataset, low(dataset.train), SPACE, 7, CPU)
    own, others = images.draws(2, [np.array([3, 8, 5]), np.array([8, 5, 5])])
    mixed = dataclasses.replace(own, mixed=Mix(0.75, others))
    assert len(mixed) == 3
    torch.testing.assert_close(images.views(mixed), 0.75 * images.views(own) + 0.25 * images.views(others))
    assert torch.equal(images.views(mixed)[2], images.views(own)[2])
    assert torch.equal(images.labels_of(mixed), images.labels_of(own))


def test_an_epochs_draws_are_those_of_its_batches(dataset):
    images = training_images(dataset, low(dataset.train), SPACE, 7, CPU)
    order = np.random.default_rng(0).permutation(ALL)
    parts = np.array_split(order, 4)
    for part, draw in zip(parts, images.draws(2, parts), strict=True):
        ids = SPACE.draw(7, 2, part)
        assert (draw.epoch, len(draw)) == (2, len(part))
        assert draw.indices.tolist() == draw.host_indices.tolist() == part.tolist()
        assert draw.ids.tolist() == draw.host_ids.tolist() == ids.tolist()


def test_epoch_and_augment_seed_decide_the_views(dataset):
    one, same, other = (training_images(dataset, high(dataset.train), SPACE, seed, CPU) for seed in (7, 7, 8))
    first = looked_at(one, 0, ALL)[0]
    assert torch.equal(first, looked_at(same, 0, ALL)[0])
    assert not torch.equal(first, looked_at(one, 1, ALL)[0])
    assert not torch.equal(first, looked_at(other, 0, ALL)[0])


def test_without_crops_and_flips_every_epoch_sees_the_images(dataset):
    images = training_images(dataset, high(dataset.train), ViewSpace(0, False), 0, CPU)
    for epoch in (0, 5):
        assert np.array_equal(pixels(looked_at(images, epoch, ALL)[0]), dataset.train.images)


def test_images_are_standardised_in_float32_with_black_padding(dataset):
    images = training_images(dataset, high(dataset.train), SPACE, 0, CPU)
    corner = images.views(
        images.draws_of_views(0, [np.array([0])], np.array([0]))[0]
    )  # top = left = 0: two rows and columns of padding
    assert corner.dtype == torch.float32
    # Black is (0 - mean) / std: -0.5/0.25, -0.25/0.5, -0.125/1.
    assert corner[0, :, 0, 0].tolist() == [-2.0, -0.5, -0.125]
    expected = (dataset.train.images[0, 0, 0, 0] / 255 - 0.5) / 0.25
    assert corner[0, 0, 2, 2].item() == pytest.approx(expected, rel=1e-6)


def test_evaluation_sees_a_split_as_it_is_and_in_order(dataset):
    held_out = dataset.validation
    for side, expected in ((high(held_out), held_out.images), (low(held_out), degraded(held_out.images))):
        images = evaluation_images(dataset, held_out, side, CPU)
        batches = list(images.batches(size=3))
        assert [len(labels) for _, labels in batches] == [3, 3, 1]
        assert np.array_equal(pixels(torch.cat([batch for batch, _ in batches])), expected)
        assert torch.cat([labels for _, labels in batches]).tolist() == dataset.validation.labels.tolist()
