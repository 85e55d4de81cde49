"""The baselines do the product's work: on digits and a small network, one epoch of each ends at the product's loss."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.baselines import plain_script, product, strong_script
from benchmarks.baselines.work import TEACHER, read_images, read_work, student_start
from benchmarks.compare import LOSSES_APART
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import train_student

CPU = torch.device("cpu")
LAMBDA = 0.5
SIZE = product.Size(
    dataset="digits",
    data=None,
    train_images=200,
    test_images=50,
    width=0.125,
    epochs=1,
    batch_size=32,
    resolution=4,
    image_size=8,
    learning_rate=0.002,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    product.make_work(folder, SIZE, seeds=[0])
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    """The last loss of the product's own trial, its teacher live."""
    plan, bench = product.bench_of(folder, "float32", CPU)
    bench.banks = {}
    config = dataclasses.replace(product.distilled(plan), lambda_=LAMBDA)
    return train_student(config, bench, SingleProcess())[1].metrics["loss"]


def strong(folder, lambda_):
    work = read_work(folder)
    teacher = work.network(folder / TEACHER).eval() if lambda_ else None
    images = strong_script.Resident(*read_images(folder, "train"), work, lambda_ > 0, CPU)
    validation = strong_script.evaluation_images(work, folder, "validation", CPU)
    student = work.network(student_start(folder, 0))
    return strong_script.train(images, student, teacher, lambda_, validation, seed=0, epochs=1, precision="float32")[-1]


def test_the_strong_script_takes_the_products_steps(folder, ours):
    assert strong(folder, LAMBDA)["loss"] == pytest.approx(ours, rel=LOSSES_APART["same draws"])


def test_the_strong_script_trains_plainly_as_the_product_does(folder):
    plan, bench = product.bench_of(folder, "float32", CPU)
    config = dataclasses.replace(product.distilled(plan), lambda_=0.0)
    metrics = train_student(config, bench, SingleProcess())[1].metrics
    found = strong(folder, 0.0)
    assert found["loss"] == pytest.approx(metrics["loss"], rel=LOSSES_APART["same draws"])
    assert found["val_accuracy"] == pytest.approx(metrics["val_accuracy"])


def test_the_plain_script_ends_near_the_product(folder, ours):
    torch.manual_seed(0)
    work = read_work(folder)
    pictures = plain_script.Pictures(
        *read_images(folder, "train"), work, (plain_script.LOW, plain_script.HIGH), augment=True
    )
    history = plain_script.train(
        work,
        work.network(student_start(folder, 0)),
        plain_script.frozen_teacher(work, folder / TEACHER, CPU),
        LAMBDA,
        plain_script.loader_of(pictures, work.batch_size, 0, CPU),
        plain_script.evaluation_loader(work, folder, "validation", plain_script.LOW, CPU),
        epochs=1,
        device=CPU,
    )
    assert history[-1]["loss"] == pytest.approx(ours, rel=LOSSES_APART["training"])


def test_the_plain_scripts_pairs_show_one_view(folder):
    """With a resolution that loses nothing, both sides of a cropped and flipped pair are one image."""
    work = dataclasses.replace(read_work(folder), resolution=8, flip=True)
    images, labels = read_images(folder, "train")
    pictures = plain_script.Pictures(
        images[:20], labels[:20], work, (plain_script.LOW, plain_script.HIGH), augment=True
    )
    for (low, high), _ in pictures:
        assert torch.equal(low, high)


def test_crops_are_the_products():
    draw = np.random.default_rng(0)
    space = ViewSpace(crop_padding=2, flip=True)
    images = torch.from_numpy(draw.integers(0, 256, (space.count, 3, 8, 8), np.uint8))
    padded, ids = torch.nn.functional.pad(images, (2,) * 4), torch.arange(space.count)
    tops, lefts, flipped = ids // 2 // 5, ids // 2 % 5, ids % 2 == 1
    assert torch.equal(strong_script.cut(padded, tops, lefts, flipped, 8), space.cut(images, ids, ids))
