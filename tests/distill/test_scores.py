"""Balanced accuracy and macro F1, by hand, beside a plain count, and where classes do not occur."""

import numpy as np
import pytest
import torch

from dfd_tune.distill.scores import balanced_accuracy, class_counts, macro_f1


def counts_of(labels, predicted, classes):
    return class_counts(torch.tensor(labels), torch.tensor(predicted), classes)


def test_by_hand():
    # Class 0: 4 images, 3 right, taken for 4 in all. Class 1: 2 images, 1 right, taken for 3. Class 2: 1 image, none
    # right, taken for none. Class 3 does not occur.
    counts = counts_of([0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 1], 4)
    assert [values.tolist() for values in counts] == [[4, 2, 1, 0], [3, 1, 0, 0], [4, 3, 0, 0]]
    assert balanced_accuracy(counts).item() == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert macro_f1(counts).item() == pytest.approx((6 / 8 + 2 / 5 + 0) / 3)


def test_a_class_without_images_counts_for_nothing_even_if_images_are_taken_for_it():
    counts = counts_of([0, 0, 1], [0, 2, 1], 3)
    assert balanced_accuracy(counts).item() == pytest.approx((1 / 2 + 1) / 2)
    assert macro_f1(counts).item() == pytest.approx((2 / 3 + 1) / 2)


def test_who_always_says_the_frequent_class_has_the_accuracy_of_chance():
    labels = [0] * 95 + [1] * 5
    counts = counts_of(labels, [0] * 100, 2)
    assert balanced_accuracy(counts).item() == 0.5
    assert macro_f1(counts).item() == pytest.approx(2 * 95 / 195 / 2)


def test_of_equally_many_images_a_class_balanced_accuracy_is_accuracy():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 20)
    predicted = np.where(random.random(200) < 0.6, labels, random.integers(0, 10, 200))
    counts = class_counts(torch.from_numpy(labels), torch.from_numpy(predicted), 10)
    assert balanced_accuracy(counts).item() == pytest.approx((labels == predicted).mean())


@pytest.mark.parametrize("seed", range(5))
def test_beside_a_plain_count(seed):
    random = np.random.default_rng(seed)
    labels, predicted = random.integers(0, 7, 60) % (seed + 2), random.integers(0, 7, 60)
    counts = class_counts(torch.from_numpy(labels), torch.from_numpy(predicted), 7)
    recalls, f1 = [], []
    for label in np.unique(labels):
        right = np.sum((labels == label) & (predicted == label))
        precision = right / max(1, np.sum(predicted == label))
        recalls.append(right / np.sum(labels == label))
        f1.append(2 * precision * recalls[-1] / (precision + recalls[-1]) if right else 0.0)
    assert balanced_accuracy(counts).item() == pytest.approx(np.mean(recalls))
    assert macro_f1(counts).item() == pytest.approx(np.mean(f1))
