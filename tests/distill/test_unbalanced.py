"""A folder of images in which one class has few: what is recorded of it, by hand from the predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DEVICE, run, trial

from dfd_tune.config import DatasetConfig
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.distill.student import save_result, student_file
from dfd_tune.distill.testing import by_class, probabilities_on_test_images
from dfd_tune.distill.workbench import Workbench
from dfd_tune.store import open_store

COUNTS = {"train": {"common": 60, "rare": 10, "some": 20}, "test": {"common": 12, "rare": 2, "some": 6}}


@pytest.fixture
def unbalanced(tmp_path):
    """A workbench of such a folder; a class's images have a bright band at a height of their own."""
    random = np.random.default_rng(0)
    for split, counts in COUNTS.items():
        for place, (name, count) in enumerate(counts.items()):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = random.integers(0, 150, (8, 8), dtype=np.uint8)
                image[1 + 2 * place : 3 + 2 * place] += 80
                Image.fromarray(image).save(folder / f"{number}.png")
    store = open_store(tmp_path / "store")
    config = DatasetConfig(dataset="folder", data=str(tmp_path / "images"), validation_fraction=0.2)
    dataset = prepare_dataset(config, store, lambda line: None)
    return Workbench(store, dataset.folder.name, {}, DEVICE)


def scores_by_hand(predicted, labels):
    """Balanced accuracy and macro F1."""
    recalls, f1 = [], []
    for label in range(3):
        right = int(np.sum((predicted == label) & (labels == label)))
        recalls.append(right / np.sum(labels == label))
        f1.append(2 * right / (np.sum(labels == label) + np.sum(predicted == label)))
    return np.mean(recalls), np.mean(f1)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_what_is_recorded_is_what_the_predictions_say(unbalanced, class_weights):
    config = trial(lambda_=0.0, class_weights=class_weights, epochs=4, flip=False)
    assert np.bincount(unbalanced.dataset.train.labels).tolist() == [48, 8, 16]
    student, result = run(config, unbalanced)
    images = unbalanced.validation_images(config.low_res)
    with torch.no_grad():
        predicted = torch.cat([student.eval()(inputs).argmax(1) for inputs, _ in images.batches()]).cpu().numpy()
    labels = images.labels.cpu().numpy()
    assert np.bincount(labels).tolist() == [12, 2, 4]
    balanced, f1 = scores_by_hand(predicted, labels)
    assert result.metrics["val_accuracy"] == pytest.approx((predicted == labels).mean())
    assert result.metrics["val_balanced_accuracy"] == pytest.approx(balanced)
    assert result.metrics["val_macro_f1"] == pytest.approx(f1)

    save_result(student, result, config, unbalanced)
    probabilities, labels = probabilities_on_test_images(student_file(unbalanced.store, result.key), config, unbalanced)
    told = by_class(probabilities.argmax(1), labels, 3)
    balanced, f1 = scores_by_hand(probabilities.argmax(1), labels)
    assert told["class_images"] == [12, 2, 6]
    assert told["class_right"] == [int(np.sum((probabilities.argmax(1) == labels) & (labels == k))) for k in range(3)]
    assert (told["balanced_accuracy"], told["macro_f1"]) == pytest.approx((balanced, f1))
