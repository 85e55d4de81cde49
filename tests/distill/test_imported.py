"""Teachers that were trained elsewhere: what students learn from them, what is measured, and what is refused."""

from __future__ import annotations

import dataclasses
import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import CLASSES, DEVICE, SIDE, bits, fresh_store, network, run, trial, without_times, workbench
from torch import nn

from dfd_tune.distill.features import BankedFeatures
from dfd_tune.distill.imported import NearestMean, bring_in, ensure_imported, imported, least_accuracy, network_of
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.testing import network_right_on_test_images
from dfd_tune.distill.training import evaluate
from dfd_tune.distill.workbench import BankPlan
from dfd_tune.errors import UserError
from dfd_tune.models.card import ModelCard
from dfd_tune.models.deployed import save_student
from dfd_tune.store import open_store

TRAINED = {"teacher_epochs": 60, "teacher_learning_rate": 0.05}
SAID: list[str] = []


class Bands(nn.Module):
    """Knows the tiny dataset's classes by heart: the mean brightness of each class's two rows."""

    def __init__(self, order=(0, 1, 2)):
        super().__init__()
        self.register_buffer("order", torch.tensor(order))

    def forward(self, images):
        rows = images.mean(dim=(1, 3))
        return 4 * torch.stack([rows[:, 1:3].mean(1), rows[:, 3:5].mean(1), rows[:, 5:7].mean(1)], 1)[:, self.order]


def export(module, path, side=SIDE):
    images = torch.randn(2, 1, side, side)
    torch.export.save(torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), path)
    return path


def declare(file, **facts):
    file.with_suffix(".yaml").write_text(yaml.safe_dump(facts))
    return file


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A workbench that has trained a teacher well enough, and its trial."""
    bench, config = workbench(fresh_store(tmp_path_factory.mktemp("own") / "store")), trial(**TRAINED)
    bench.prepare(config.teacher(), SingleProcess())
    return bench, config


@pytest.fixture
def weights(own):
    """The file in which that teacher lies."""
    bench, config = own
    return bench.store.path("pretrained", config.teacher().key(bench.dataset.digest), "network.safetensors")


@pytest.fixture
def logits(tmp_path):
    """A program that says the classes in another order than the dataset."""
    file = export(Bands((2, 0, 1)), tmp_path / "bands.pt2")
    return declare(file, gives="logits", image_size=SIDE, mean=0.5, std=0.25, classes=["low", "high", "middle"])


@pytest.fixture
def features(tmp_path):
    file = export(Bands(), tmp_path / "features.pt2")
    return declare(file, gives="features", image_size=SIDE, mean="dataset", std="dataset")


def taught_by(file, store, **settings):
    """A workbench whose store has the file, measured, and the trial that it teaches."""
    bench = workbench(store)
    name = bring_in(store, file, bench.dataset, SAID.append)
    config = trial(teacher_file=str(name), **settings)
    bench.prepare(config.teacher(), SingleProcess())
    return bench, config


def refusal(file, store):
    with pytest.raises(UserError) as raised:
        bring_in(store, file, workbench(store).dataset, SAID.append)
    (problem,) = raised.value.problems
    return problem


@pytest.mark.parametrize("method", ["dfd", "kd", "fitnets"])
def test_a_student_of_a_file_is_that_of_the_teacher_trained_here(method, own, weights, store):
    bench, config = own
    ordinary, result = run(dataclasses.replace(config, method=method), bench)
    elsewhere, asked = taught_by(weights, store, method=method)
    student, same = run(asked, elsewhere)
    assert bits(student) == bits(ordinary)
    assert without_times(same.history) == without_times(result.history)
    assert same.key != result.key
    assert same.teacher == asked.teacher().key(bench.dataset.digest)


def test_its_features_and_accuracy_are_those_of_the_teacher_trained_here(own, weights, store):
    bench, config = own
    elsewhere, asked = taught_by(weights, store)
    draw = bench.images_for(config).draw(1, np.arange(40))
    assert torch.equal(elsewhere.features(asked.teacher())(draw), bench.features(config.teacher())(draw))
    known, found = bench.pretrained(config.teacher()), elsewhere.pretrained(asked.teacher())
    assert found.val_accuracy == known.val_accuracy
    assert bits(found.network) == bits(known.network)
    assert found.file == weights.name
    right = network_right_on_test_images(asked.teacher(), elsewhere)
    assert np.array_equal(right, network_right_on_test_images(config.teacher(), bench))


def test_a_student_may_start_from_its_weights(own, weights, store):
    bench, config = own
    settings = {"student_start": "teacher", "lambda_": 0.0}
    ordinary, _ = run(dataclasses.replace(config, **settings), bench)
    elsewhere, asked = taught_by(weights, store, **settings)
    assert bits(run(asked, elsewhere)[0]) == bits(ordinary)


def test_classes_in_another_order_are_put_into_the_datasets(own, weights, store, tmp_path):
    bench, config = own
    order = [2, 0, 1]
    tensors = load_file(weights)
    for name in ("classifier.1.weight", "classifier.1.bias"):
        tensors[name] = tensors[name][order].contiguous()
    save_file(tensors, tmp_path / "other.safetensors")
    mean, std = (list(values) for values in (bench.dataset.mean, bench.dataset.std))
    classes = [CLASSES[place] for place in order]
    file = declare(tmp_path / "other.safetensors", image_size=SIDE, mean=mean, std=std, classes=classes)
    elsewhere, asked = taught_by(file, store)
    assert bits(elsewhere.pretrained(asked.teacher()).network) == bits(bench.pretrained(config.teacher()).network)
    assert asked.teacher().file.backbone == "alexnet"
    assert not asked.teacher().file.batch_norm


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16", "resnet18"])
def test_an_architecture_is_read_off_its_shapes(backbone, store, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network(backbone=backbone).state_dict().items()}, file)
    declare(file, image_size=SIDE, mean="dataset", std="dataset", classes="dataset")
    name = bring_in(store, file, workbench(store).dataset, SAID.append)
    assert (name.backbone, name.width, name.batch_norm) == (backbone, 0.125, backbone != "alexnet")
    assert name.dim == network(backbone=backbone).feature_dim


def test_the_card_of_a_deployed_student_says_all(store, tmp_path):
    dataset = workbench(store).dataset
    card = ModelCard(
        backbone="alexnet",
        width=0.125,
        dropout=0.0,
        batch_norm=False,
        channels=1,
        image_size=SIDE,
        classes=CLASSES,
        mean=dataset.mean,
        std=dataset.std,
        resolution=4,
        downsample="bicubic",
        upsample="bicubic",
    )
    save_student(tmp_path / "student.safetensors", network(seed=3), card)
    name = bring_in(store, tmp_path / "student.safetensors", dataset, SAID.append)
    assert bits(network_of(store, name, dataset)[0]) == bits(network(seed=3))


@pytest.mark.parametrize("method", ["kd", "logits"])
def test_a_program_teaches_by_its_logits_in_the_datasets_order(method, logits, store):
    bench, config = taught_by(logits, store, method=method)
    guide = config.teacher()
    images = bench.validation_for(guide)
    assert images.mean.tolist() == [0.5]
    inputs, labels = next(images.batches())
    assert (bench.pretrained(guide).network(inputs).argmax(1) == labels).all()
    assert bench.pretrained(guide).val_accuracy == 1
    _, result = run(config, bench)
    assert math.isfinite(result.metrics["distillation"])
    assert result.metrics["distillation"] > 0


@pytest.mark.parametrize("method", ["dfd", "rdl"])
def test_a_program_teaches_by_its_features_and_is_measured_by_the_nearest_mean(method, features, store):
    bench, config = taught_by(features, store, method=method, lambda_=0.01)
    guide = config.teacher()
    found = bench.pretrained(guide)
    assert found.val_accuracy == evaluate(found.network, bench.validation_for(guide))[0]
    train = bench.images_for(guide)
    looked = found.network.features(train.views(train.draws_of_views(0, [np.arange(40)], np.full(40, 8))[0]))
    assert looked.shape == (40, 3)
    assert isinstance(found.network.classifier, NearestMean)
    _, result = run(config, bench)
    assert result.metrics["distillation"] > 0


def test_the_nearest_mean_is_the_nearest():
    means, vectors = torch.randn(4, 6), torch.randn(50, 6)
    assert torch.equal(NearestMean(means)(vectors).argmax(1), torch.cdist(vectors, means).argmin(1))


@pytest.mark.parametrize("layout", ["views", "epochs"])
def test_a_bank_of_a_program_holds_what_it_gives_live(layout, logits, store):
    live, config = taught_by(logits, store, method="kd")
    guide = config.teacher()
    banks = {guide.key(live.dataset.digest): BankPlan(layout, config.epochs)}
    banked = workbench(store, banks)
    assert banked.prepare(guide, SingleProcess())[1:] == (False, True)
    source = banked.features(guide)
    assert isinstance(source, BankedFeatures)
    assert source.identity.teacher_weights == guide.file.digest
    draw = live.images_for(config).draw(1, np.arange(40))
    torch.testing.assert_close(source(draw), live.features(guide)(draw), rtol=1e-3, atol=1e-3)


def test_images_of_another_side_are_resized(store, tmp_path):
    class Sides(nn.Module):
        def forward(self, images):
            assert images.shape[-1] == 16
            return nn.functional.avg_pool2d(images, 2).flatten(1)

    file = declare(export(Sides(), tmp_path / "large.pt2", side=16), gives="features", image_size=16, mean=0, std=1)
    bench, config = taught_by(file, store)
    assert config.teacher().file.side == 16
    assert config.teacher().file.dim == 64
    # Enlarged twice and averaged again, a plain image is what it was.
    gray = torch.full((2, 1, SIDE, SIDE), 0.3, device=DEVICE)
    given = bench.pretrained(config.teacher()).network.features(gray)
    torch.testing.assert_close(given.cpu(), torch.full((2, 64), 0.3))


def test_the_store_is_enough_once_it_has_the_file(logits, store):
    bench, config = taught_by(logits, store, method="kd")
    _, before = run(config, bench)
    logits.unlink()
    logits.with_suffix(".yaml").unlink()
    fresh = workbench(store)
    assert fresh.prepare(config.teacher(), SingleProcess())[1:] == (False, False)
    _, after = run(config, fresh)
    assert without_times(after.history) == without_times(before.history)
    shutil.rmtree(store.path("teachers"))
    with pytest.raises(UserError, match="does not have the teacher file"):
        workbench(store).pretrained(config.teacher())


def test_a_name_holds_bytes_and_declaration_and_no_path(logits, store, tmp_path):
    dataset = workbench(store).dataset
    first = bring_in(store, logits, dataset, SAID.append)
    moved = tmp_path / "elsewhere" / "other.pt2"
    moved.parent.mkdir()
    shutil.copy(logits, moved)
    shutil.copy(logits.with_suffix(".yaml"), moved.with_suffix(".yaml"))
    assert bring_in(store, moved, dataset, SAID.append) == first
    assert imported(store, first).file == logits.name
    facts = yaml.safe_load(logits.with_suffix(".yaml").read_text())
    declare(moved, **facts | {"mean": 0.4})
    assert bring_in(store, moved, dataset, SAID.append).digest != first.digest
    export(Bands((0, 1, 2)), moved)
    declare(moved, **facts)
    assert bring_in(store, moved, dataset, SAID.append).digest != first.digest
    keys = {
        trial(teacher_file=str(name)).key("d" * 16)
        for name in (first, dataclasses.replace(first, digest="0" * 16), None)
        if name is not None
    }
    assert len(keys | {trial().key("d" * 16)}) == 3


def test_what_is_hardly_better_than_chance_is_refused_with_a_hint(logits, store):
    facts = yaml.safe_load(logits.with_suffix(".yaml").read_text())
    declare(logits, **facts | {"classes": ["high", "middle", "low"]})
    with pytest.raises(UserError, match=r"0.0% of 9 validation images.*order of `classes`"):
        taught_by(logits, store, method="kd")
    assert not list(store.path("pretrained").glob("[!.]*"))


def test_chance_is_the_largest_class_and_three_standard_errors():
    labels = torch.tensor([0] * 60 + [1] * 40)
    assert least_accuracy(labels) == pytest.approx(0.6 + 3 * math.sqrt(0.6 * 0.4 / 100))


def test_what_is_lacking_is_named(store, tmp_path):
    file = export(Bands(), tmp_path / "bands.pt2")
    assert "declare gives, image_size, mean, std, classes in" in refusal(file, store)
    declare(file, gives="features", image_size=SIDE)
    assert "declare mean, std in" in refusal(file, store)
    weights = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network().state_dict().items()}, weights)
    assert "declare image_size, mean, std, classes in" in refusal(weights, store)
    save_file({"x": torch.zeros(3)}, weights)
    assert "backbone, width, batch_norm" in refusal(weights, store)


FACTS = {"gives": "logits", "image_size": SIDE, "mean": 0.5, "std": 0.25, "classes": list(CLASSES)}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"gives": "maps"}, "gives is 'maps', but must be logits or features"),
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": 16}, "takes images of 8 pixels, but image_size is declared as 16"),
        ({"mean": [0.5, 0.5]}, "a list of 1"),
        ({"std": 0}, "std is 0, but must be a number above 0"),
        ({"std": "data"}, "std is 'data'"),
        ({"classes": "own"}, "classes is 'own'"),
        ({"classes": ["high", "middle", "lowest"]}, "one that differs: lowest"),
        ({"classes": ["high", "middle", "middle"]}, "one that differs: low"),
        ({"classes": ["high", "middle"]}, "has 2 classes, but they must be the 3"),
        ({"side": 8}, "Unknown key 'side'"),
        ({"width": 0.5}, "nothing is to declare of width"),
    ],
)
def test_what_a_declaration_can_not_mean_is_said(facts, words, store, tmp_path):
    file = declare(export(Bands(), tmp_path / "bands.pt2"), **FACTS | facts)
    assert words in refusal(file, store)


def test_a_file_that_is_no_teacher_is_refused(store, tmp_path):
    assert "is no file" in refusal(tmp_path / "gone.pt2", store)
    text = tmp_path / "text.safetensors"
    text.write_text("weights")
    assert "neither safetensors nor" in refusal(text, store)
    text.write_bytes(b"PK\x03\x04")
    declare(text, **FACTS)
    assert "no archive that torch.export.save wrote" in refusal(text, store)
    assert not store.path("teachers").exists()


def test_weights_of_another_shape_than_declared_are_refused(store, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network().state_dict().items()}, file)
    known = {"image_size": SIDE, "mean": 0.5, "std": 0.25, "classes": list(CLASSES)}
    declare(file, **known, width=0.5)
    assert "does not hold the weights of alexnet of width 0.5" in refusal(file, store)
    declare(file, **known, gives="logits")
    assert "nothing is to declare of gives" in refusal(file, store)


def test_a_program_that_is_still_in_training_is_refused(store, tmp_path):
    class Loose(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def forward(self, images):
            return self.norm(images).mean(dim=(1, 3))

    facts = {"gives": "features", "image_size": SIDE, "mean": 0, "std": 1}
    assert "export it after model.eval()" in refusal(declare(export(Loose(), tmp_path / "bn.pt2"), **facts), store)

    class Flat(nn.Module):
        def forward(self, images):
            return images.mean()

    assert "one row of numbers for each" in refusal(declare(export(Flat(), tmp_path / "flat.pt2"), **facts), store)


def test_images_of_other_channels_are_refused(store, tmp_path):
    images = torch.randn(2, 3, SIDE, SIDE)

    class Colours(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3))

    program = torch.export.export(Colours(), (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    file = declare(tmp_path / "colours.pt2", gives="features", image_size=SIDE, mean=0, std=1)
    torch.export.save(program, file)
    assert "takes images of 3 channels" in refusal(file, store)


def test_measuring_it_twice_is_measuring_it_once(logits, store):
    bench, config = taught_by(logits, store, method="kd")
    guide = config.teacher()
    found, again = ensure_imported(
        open_store(store.root), guide, bench.dataset, bench.images_for(guide), bench.validation_for(guide)
    )
    assert not again
    assert found.val_accuracy == 1
