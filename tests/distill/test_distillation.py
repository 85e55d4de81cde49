"""Distillation methods: adapters, several teachers, and trials that compare what each method says it compares."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny import bits, filled_bank, fresh_store, network, prepared, run, trial, without_times, workbench
from torch import nn
from two_processes import train_distilled, train_distributed

from dfd_tune.data.degradation import normalise
from dfd_tune.data.pairs import Draw, Mix, as_tensor
from dfd_tune.distill import losses
from dfd_tune.distill.distillation import (
    Distillation,
    TeacherOutputs,
    adapters_for,
    outputs_of,
    reuse_classifier,
    terms_of,
)
from dfd_tune.distill.features import (
    BankedFeatures,
    LiveFeatures,
    LiveMaps,
    bank_identity,
    class_means,
    open_bank,
)
from dfd_tune.distill.losses import (
    distillation_loss,
    hint_loss,
    joint_loss,
    norm_direction_loss,
    pairwise_distance_loss,
    soft_target_loss,
)
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import find_result, initial_student, save_result, student_file
from dfd_tune.distill.training import batches, mixing, train_network
from dfd_tune.distill.workbench import BankPlan
from dfd_tune.methods import METHODS, Comparison, Method
from dfd_tune.models import BACKBONES, HINT_LAYERS
from dfd_tune.models.deployed import load_deployed
from dfd_tune.parts import Recipe

ALL = np.arange(40)
HALF_ULP = 2.0**-11
RECIPE = Recipe(
    epochs=2,
    batch_size=14,
    learning_rate=0.02,
    schedule="constant",
    momentum=0.9,
    weight_decay=5e-4,
    seed=0,
    precision="float32",
)
STILL = {"learning_rate": 1e-30, "epochs": 1, "batch_size": 40, "weight_decay": 0.0, "momentum": 0.0}
"""A single step that leaves the weights as they are, so that the loss that is reported can be computed again."""


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A workbench, without banks, whose store holds a teacher of each backbone."""
    store = fresh_store(tmp_path_factory.mktemp("taught"))
    together = trial(teachers="+".join(BACKBONES))  # without batch norm, as their student is
    return prepared(store, *(trial(backbone=backbone) for backbone in BACKBONES), together)


def draw_of(indices: np.ndarray) -> Draw:
    """Those images as they are."""
    same = np.zeros_like(indices)
    return Draw(0, torch.from_numpy(indices), torch.from_numpy(same), indices, same)


def features_of(outputs: torch.Tensor):
    """Features that are the same in every epoch."""
    return lambda draw: outputs[draw.indices]


def constant(outputs: torch.Tensor):
    """A teacher that says the same in every epoch, whatever is compared of it."""
    return lambda draw: dict.fromkeys(("features", "logits", "maps"), outputs[draw.indices])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Adapters.


def kinds(adapters) -> list[type[nn.Module]]:
    """Of each teacher's adapter, of methods that compare a single output."""
    return [type(adapter) for (adapter,) in adapters]


def test_dfd_projects_the_students_features_where_the_dimensions_differ_alone():
    # 256 / 8 = 32 features of AlexNet, 512 / 8 = 64 of ResNet-18.
    alexnet, resnet18 = network(), network(backbone="resnet18")
    same, projected = adapters_for(trial(), alexnet, [network(seed=1), resnet18])
    assert kinds([same, projected]) == [nn.Identity, nn.Linear]
    assert (projected[0].in_features, projected[0].out_features) == (32, 64)
    assert kinds(adapters_for(trial(backbone="resnet18"), resnet18, [network(backbone="vgg16")])) == [nn.Identity]


def test_dfd_projects_at_equal_dimensions_where_that_is_asked_for():
    ((projected,),) = adapters_for(trial(projector="always"), network(), [network(seed=1)])
    assert (projected.in_features, projected.out_features) == (32, 32)


def test_of_features_and_logits_the_features_alone_are_projected():
    of_resnet18, of_alexnet = adapters_for(trial(method="cqd"), network(), [network(backbone="resnet18"), network()])
    assert [type(adapter) for adapter in of_resnet18] == [nn.Linear, nn.Identity]
    assert [type(adapter) for adapter in of_alexnet] == [nn.Identity, nn.Identity]
    # As dfd's: what else is compared draws nothing.
    ((alone,), _) = adapters_for(trial(), network(), [network(backbone="resnet18"), network()])
    assert bits(of_resnet18[0]) == bits(alone)


@pytest.mark.parametrize("method", ["kd", "logits", "rdl", "attention"])
def test_methods_whose_outputs_always_fit_adapt_nothing(method):
    adapters = adapters_for(trial(method=method), network(), [network(backbone="resnet18"), network()])
    assert kinds(adapters) == [nn.Identity, nn.Identity]


@pytest.mark.parametrize(("ours", "theirs"), itertools.product(BACKBONES, BACKBONES))
def test_fitnets_regresses_every_teachers_maps_by_a_convolution_of_single_places(ours, theirs):
    student, teacher = network(backbone=ours), network(backbone=theirs)
    ((regressor,),) = adapters_for(trial(method="fitnets"), student, [teacher])
    assert isinstance(regressor, nn.Conv2d)
    assert regressor.kernel_size == (1, 1)
    inputs = noise(2, 1, 8, 8)
    with torch.no_grad():
        maps = student.eval().maps(inputs, "middle")
        assert regressor(maps).shape == (2, teacher.channels_of("middle"), *maps.shape[2:])


@pytest.mark.parametrize("method", ["dfd", "fitnets"])
def test_adapters_depend_on_seed_and_place_alone_and_leave_random_state_alone(method, monkeypatch):
    student, teacher, small = network(), network(backbone="resnet18"), network(seed=5, backbone="vgg16")

    def weights(seed=3, teachers=(teacher, teacher), **settings):
        return [bits(one) for (one,) in adapters_for(trial(method=method, seed=seed, **settings), student, teachers)]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    # A GPU's generators are part of the global state as well.
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU was seeded"))
    first = weights()
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.undo()
    torch.manual_seed(2)
    assert weights(lambda_=9.0, learning_rate=0.5, resolution=2) == first
    assert weights(teachers=(small, teacher))[1] == first[1]
    assert weights(teachers=(teacher,)) == first[:1]
    different = [*first, *weights(seed=4)]
    assert not any(one["weight"] == other["weight"] for one, other in itertools.combinations(different, 2))


def test_an_adapter_takes_the_students_step_against_the_gradient(taught):
    config = trial(teachers="resnet18", **STILL | {"learning_rate": 0.02})
    images, student = taught.images_for(config), network()
    ((adapter,),) = adapters_for(config, student, [network(backbone="resnet18")])
    target = noise(40, 64)
    draw = images.draw(0, ALL)
    inputs, labels = images.views(draw), images.labels_of(draw)
    features = student.features(inputs)
    distilled = distillation_loss(adapter(features), target, "mean")
    joint_loss(student.classifier(features), labels, distilled, 3.0).total.backward()
    expected = {name: weight.detach() - 0.02 * weight.grad for name, weight in adapter.named_parameters()}
    start = bits(adapter)

    trained = network()
    ((adapter,),) = adapters_for(config, trained, [network(backbone="resnet18")])
    train_network(
        trained,
        images,
        taught.validation_images(config.low_res),
        recipe=config.recipe,
        process=SingleProcess(),
        distillation=Distillation(3.0, terms_of(config), (constant(target),), adapters=((adapter,),)),
    )
    assert bits(adapter) != start
    for name, weight in adapter.named_parameters():
        torch.testing.assert_close(weight.detach(), expected[name], rtol=1e-5, atol=1e-7)


# Several teachers.


def test_the_loss_to_several_teachers_is_the_mean_of_the_losses():
    ours = noise(40, 6)
    theirs = [noise(40, 6, seed=seed) for seed in (1, 2, 3)]
    distillation = Distillation(1.0, terms_of(trial()), tuple(map(constant, theirs)))
    found = distillation.loss([[ours]] * 3, draw_of(ALL)).item()
    each = [distillation_loss(ours, outputs, "mean").item() for outputs in theirs]
    assert found == pytest.approx(sum(each) / 3, rel=1e-6)
    alone = Distillation(1.0, terms_of(trial()), (constant(theirs[0]),))
    assert alone.loss([[ours]], draw_of(ALL)).item() == each[0]


def test_features_and_logits_by_hand():
    """Features 3, 4 of a teacher at 0, by `sum`: ½ · 25. Logits as in test_losses.py: ln 4/3 at T = 2."""
    config = trial(method="cqd", reduction="sum", temperature=2.0)
    ours = [torch.tensor([[3.0, 4.0]]), torch.tensor([[math.log(3), -math.log(3)]])]
    theirs = {"features": torch.zeros(1, 2), "logits": torch.tensor([[5.0, 5.0]])}
    expected = 12.5 + 2 * math.log(4 / 3)
    distillation = Distillation(0.5, terms_of(config), (lambda draw: theirs,))
    assert distillation.loss([ours], draw_of(np.array([0]))).item() == pytest.approx(expected, rel=1e-6)
    # To a second teacher, with which both agree, there is nothing to add: the mean is a half.
    agreeing = dict(zip(("features", "logits"), ours, strict=True))
    both = Distillation(0.5, terms_of(config), (lambda draw: theirs, lambda draw: agreeing))
    assert both.loss([ours, ours], draw_of(np.array([0]))).item() == pytest.approx(expected / 2, rel=1e-6)


def test_every_teacher_is_compared_with_its_own_adapters_output_for_the_images_of_the_batch():
    theirs = [noise(40, 6, seed=seed) for seed in (1, 2)]
    distillation = Distillation(1.0, terms_of(trial()), tuple(map(constant, theirs)))
    batch = np.array([7, 3, 39])
    adapted = [[outputs[[7, 3, 39]]] for outputs in theirs]
    assert distillation.loss(adapted, draw_of(batch)).item() == 0
    assert distillation.loss(adapted[::-1], draw_of(batch)).item() > 0.1


def averaged_softly(theirs, temperature):
    """Logits whose softened outputs are the mean of the softened outputs."""
    return temperature * torch.stack([torch.softmax(logits / temperature, 1) for logits in theirs]).mean(0).log()


def mean_of(theirs, temperature):
    return torch.stack(theirs).mean(0)


@pytest.mark.parametrize(
    ("method", "average"),
    [("dfd", mean_of), ("logits", mean_of), ("kd", averaged_softly)],
    ids=["dfd", "logits", "kd"],
)
def test_the_gradient_to_several_teachers_is_that_to_their_average(method, average):
    config = trial(method=method)
    start, theirs = noise(40, 6), [2 * noise(40, 6, seed=seed) for seed in (1, 2, 3)]

    def outcome(targets):
        ours = start.clone().requires_grad_()
        sources = tuple(map(constant, targets))
        loss = Distillation(1.0, terms_of(config), sources).loss([[ours]] * len(targets), draw_of(ALL))
        loss.backward()
        return loss.item(), ours.grad

    (loss, gradient), (at_average, expected) = outcome(theirs), outcome([average(theirs, config.temperature)])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    assert gradient.abs().max() > 1e-4
    # The losses differ by how far the teachers are apart, which the student can't change.
    assert loss > 1.05 * at_average


def test_the_gradient_of_distances_to_several_teachers_is_that_to_their_mean_distances():
    theirs = [noise(6, 4, seed=1), noise(6, 3, seed=2)]
    ours, same = (noise(6, 5).requires_grad_() for _ in range(2))
    terms = terms_of(trial(method="rdl", reduction="sum"))
    Distillation(1.0, terms, tuple(map(constant, theirs))).loss([[ours], [ours]], draw_of(np.arange(6))).backward()
    mean = sum(torch.cdist(rows, rows) ** 2 for rows in theirs) / 2
    pairs = torch.triu(torch.ones(6, 6), 1).bool()
    distances = (same[:, None] - same[None]).square().sum(-1)
    (0.5 * (distances - mean)[pairs].square().mean()).backward()
    torch.testing.assert_close(ours.grad, same.grad, rtol=1e-4, atol=1e-4)


# What teachers say.


def logits_by(features, teacher) -> TeacherOutputs:
    return TeacherOutputs(("logits",), teacher, features)


def test_maps_of_a_teacher_are_those_of_its_layer_for_the_views_of_the_epoch(taught):
    config = trial(method="fitnets")
    live = taught.live(config.teacher())
    batch = np.array([5, 0, 38])
    for epoch in range(2):
        draw = live.images.draw(epoch, batch)
        inputs = live.images.views(draw)
        with torch.no_grad():
            expected = live.teacher.features[:11](inputs)  # conv3 and its ReLU, AlexNet's middle
        found = LiveMaps(live, "middle")(draw)
        torch.testing.assert_close(found, expected)
        assert torch.equal(found, LiveMaps(live, "conv3")(draw))
        assert found.shape == (3, 48, 2, 2)
        assert not found.requires_grad


def test_a_teacher_in_training_mode_is_refused_whatever_is_compared(taught):
    config = trial()
    teacher = network(seed=1, dropout=0.5)
    live = LiveFeatures(teacher.train(), taught.images_for(config.teacher()), "float32")
    draw = live.images.draw(0, ALL)
    for target in (live, LiveMaps(live, "middle"), logits_by(features_of(noise(40, 32)), teacher)):
        with pytest.raises(AssertionError, match="training mode"):
            target(draw)
        teacher.eval()
        target(draw)
        teacher.train()


@pytest.mark.parametrize("layout", ["views", "epochs"])
def test_logits_of_a_bank_are_the_live_ones_up_to_float16(layout, store, taught):
    live = taught.live(trial().teacher())
    identity = bank_identity(layout, live, weights="w" * 16, dataset="d" * 16, low_res=None, epochs=2)
    bank = open_bank(filled_bank(store, identity, live), identity, live)
    for epoch in range(2):
        draw = live.images.draw(epoch, ALL)
        kept, fresh = (logits_by(source, live.teacher)(draw)["logits"] for source in (bank, live))
        # A feature that is off by 2⁻¹¹ of itself moves a logit by its weight times that.
        bound = HALF_ULP * live(draw).abs() @ live.teacher.classifier[-1].weight.abs().T
        assert ((kept - fresh).abs() <= bound + 1e-5).all()
        inputs = live.images.views(draw)
        with torch.no_grad():
            torch.testing.assert_close(fresh, live.teacher(inputs), rtol=1e-5, atol=1e-5)
        assert fresh.std() > 100 * bound.mean()


def unasked():
    pytest.fail("it was asked for what it does not need")


def test_class_means_are_those_of_the_images_as_they_are(taught):
    live = taught.live(trial(backbone="resnet18").teacher())
    images = live.images
    plain = as_tensor(taught.dataset.train.images).to(images.labels.device)
    with torch.no_grad():
        features = live.teacher.features(normalise(plain, images.mean, images.std))
    means = class_means(live)
    draw = images.draw(3, np.array([5, 0, 38]))
    for found, label in zip(means(draw), [5 % 3, 0, 38 % 3], strict=True):
        assert images.labels[label] == label  # as the tiny dataset is made: classes by turns
        torch.testing.assert_close(found, features[images.labels == label].mean(0), rtol=1e-4, atol=1e-5)
    assert means.means.shape == (3, 64)


def test_class_means_are_computed_once_a_process(taught):
    config = trial(method="norm_direction", epochs=1)
    run(config, taught)
    kept = taught.class_means(config.teacher())
    run(dataclasses.replace(config, seed=1), taught)
    assert taught.class_means(config.teacher()) is kept


def test_features_and_logits_are_of_one_look_of_the_teacher(taught):
    config = trial(method="cqd", lambda_=2.0)
    live = taught.live(config.teacher())
    draw = live.images.draw(1, np.array([5, 0, 38]))
    looks = []

    def features(draw):
        looks.append(draw)
        return live(draw)

    found = outputs_of(config, live, features=lambda: features, class_means=unasked)(draw)
    assert len(looks) == 1
    assert torch.equal(found["features"], live(draw))
    assert torch.equal(found["logits"], live.teacher.classifier(live(draw)))
    assert found.keys() == {"features", "logits"}


# Whole trials.


def fits(method: str, teachers: str) -> bool:
    """Whether an AlexNet may be distilled so; of the others, each has another number of features."""
    return teachers == "own" or not METHODS[method].reuses_classifier


BY_TEACHERS = [
    (method, teachers)
    for method, teachers in itertools.product(METHODS, ["own", "resnet18", "alexnet+resnet18"])
    if fits(method, teachers)
]


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_of_every_method_trains_from_end_to_end(method, taught):
    config = trial(method=method)
    student, result = run(config, taught)
    save_result(student, result, config, taught)
    assert result.key == config.key(taught.dataset.digest)
    assert find_result(taught.store, result.key) == result
    assert result.teacher == config.teacher().key(taught.dataset.digest)
    for metrics in result.history:
        assert math.isfinite(metrics["loss"])
        assert metrics["distillation"] > 0
        assert metrics["loss"] == pytest.approx(metrics["cross_entropy"] + metrics["distillation"], rel=1e-5)
    plain, _ = run(dataclasses.replace(config, lambda_=0.0), taught)
    assert bits(plain) != bits(student)
    # The adapters are gone: what is stored is the student, no more.
    assert load_file(student_file(taught.store, result.key)).keys() == network().state_dict().keys()


def expected_loss(config, bench, mixed=None) -> float:
    """The distillation loss of the untrained student, from its and its teachers' outputs, method by method.

    Mixed are, if they are: the images, what each is mixed with, and the share of the former.
    """
    student = initial_student(config, bench)
    draws = [(bench.images_for(config).draw(0, ALL), 1.0)]
    if mixed is not None:
        order, places, share = mixed
        draws = [
            (bench.images_for(config).draw(0, each), part)
            for each, part in ((order, share), (order[places], 1 - share))
        ]

    def seen(told):
        """What `told` says of the images, mixed."""
        return sum(part * told(draw) for draw, part in draws)

    inputs = seen(bench.images_for(config).views)
    teachers = [bench.pretrained(guide).network for guide in config.guides()]
    adapters = adapters_for(config, student, teachers)
    found = []
    with torch.no_grad():
        for guide, teacher, (adapter, *_) in zip(config.guides(), teachers, adapters, strict=True):
            high = seen(bench.images_for(guide).views)
            if config.method in ("dfd", "simkd"):
                found.append(distillation_loss(adapter(student.features(inputs)), teacher.features(high), "mean"))
            elif config.method == "norm_direction":
                ours, means = adapter(student.features(inputs)), seen(bench.class_means(guide))
                found.append(norm_direction_loss(ours, teacher.features(high), means))
            elif config.method == "cqd":
                of_logits = soft_target_loss(student(inputs), teacher(high), config.temperature)
                ours = adapter(student.features(inputs))
                found.append(of_logits + distillation_loss(ours, teacher.features(high), "mean"))
            elif config.method == "logits":
                found.append(distillation_loss(student(inputs), teacher(high), "mean"))
            elif config.method == "kd":
                found.append(soft_target_loss(student(inputs), teacher(high), config.temperature))
            elif config.method == "rdl":
                found.append(pairwise_distance_loss(student.features(inputs), teacher.features(high), "mean"))
            elif config.method == "attention":
                ours = student.maps(inputs, config.hint_layer)
                found.append(losses.attention_loss(ours, teacher.maps(high, config.hint_layer)))
            else:
                maps = adapter(student.maps(inputs, config.hint_layer))
                found.append(hint_loss(maps, teacher.maps(high, config.hint_layer), "mean"))
    return sum(loss.item() for loss in found) / len(found)


@pytest.mark.parametrize(("method", "teachers"), BY_TEACHERS)
def test_the_loss_that_is_reported_is_that_of_the_outputs_of_student_and_teachers(method, teachers, taught):
    # AlexNet without dropout says the same in training as in evaluation mode.
    config = trial(method=method, teachers=teachers, temperature=3.0, **STILL)
    _, result = run(config, taught)
    assert result.history[0]["distillation"] == pytest.approx(expected_loss(config, taught), rel=1e-4)


def test_methods_and_teachers_give_trials_of_their_own(taught):
    configs = [
        trial(method=name, teachers=names, epochs=1)
        for name, names in itertools.product(METHODS, ("own", "alexnet+vgg16"))
        if fits(name, names)
    ]
    results = [run(config, taught)[1] for config in configs]
    assert len({result.key for result in results}) == len(configs)
    assert len({result.history[0]["distillation"] for result in results}) == len(configs)


def test_a_trial_of_several_teachers_of_other_dimensions_is_equal_bit_by_bit_and_names_the_first(taught):
    config = trial(teachers="alexnet+resnet18", seed=2)
    student, result = run(config, taught)
    assert result.teacher == trial().teacher().key(taught.dataset.digest)
    assert student.state_dict().keys() == network().state_dict().keys()
    torch.manual_seed(9)
    again, same = run(dataclasses.replace(config, teachers="resnet18+alexnet"), taught)
    assert same.key == result.key
    assert without_times(same.history) == without_times(result.history)
    assert bits(again) == bits(student)
    other, _ = run(dataclasses.replace(config, teachers="resnet18"), taught)
    assert bits(other) != bits(student)


def test_a_method_is_a_row_and_its_loss(taught, monkeypatch):
    """A made-up one: features are to be `temperature` times as long as the teacher's."""

    def length_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        return (student.norm(dim=1) - temperature * teacher.norm(dim=1)).abs().mean()

    monkeypatch.setattr(losses, "length_loss", length_loss, raising=False)
    row = Comparison(output="features", loss="length_loss", settings=("temperature",))
    monkeypatch.setitem(METHODS, "length", Method(compares=(row,)))
    config = trial(method="length", temperature=3.0, **STILL)
    _, result = run(config, taught)
    student, teacher = network(seed=config.seed), taught.pretrained(config.teacher()).network
    draw = taught.images_for(config).draw(0, ALL)
    with torch.no_grad():
        low = student.features(taught.images_for(config).views(draw))
        high = teacher.features(taught.images_for(config.teacher()).views(draw))
    assert result.history[0]["distillation"] == pytest.approx(length_loss(low, high, 3.0).item(), rel=1e-4)
    digest = taught.dataset.digest
    for unread in ({"reduction": "sum"}, {"hint_layer": "early"}):
        assert trial(method="length", temperature=3.0, **STILL | unread).key(digest) == result.key
    assert trial(method="length", temperature=2.0, **STILL).key(digest) != result.key


def test_a_loss_is_given_no_setting_that_its_row_does_not_name(monkeypatch):
    row = Comparison(output="logits", loss="soft_target_loss")
    monkeypatch.setitem(METHODS, "kd", Method(compares=(row,)))
    (term,) = terms_of(trial(method="kd"))
    with pytest.raises(TypeError, match="temperature"):
        term.compare(noise(2, 3), noise(2, 3))


# Mixed images.


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_of_mixed_images_is_that_of_the_outputs_for_them(method, taught):
    config = trial(method=method, mixup=0.6, seed=2, **STILL)
    (order,), (share, places) = batches(40, 40, 2, 0), mixing(40, config.recipe, 0, 0)
    _, result = run(config, taught)
    assert result.history[0]["distillation"] == pytest.approx(
        expected_loss(config, taught, (order, places, share)), rel=1e-4
    )
    assert result.history[0]["distillation"] != pytest.approx(expected_loss(config, taught), rel=1e-3)


def test_mixed_images_are_looked_at_live_even_where_there_is_a_bank(taught):
    config = trial(mixup=0.6, epochs=1)
    banked = workbench(taught.store, {config.teacher().key(taught.dataset.digest): BankPlan("epochs", 1)})
    # The bank that it is told of need not be there.
    assert without_times(run(config, banked)[1].history) == without_times(run(config, taught)[1].history)


def test_a_bank_is_not_asked_for_mixed_images(store, taught):
    live = taught.live(trial().teacher())
    identity = bank_identity("views", live, weights="w" * 16, dataset="d" * 16, low_res=None, epochs=2)
    bank = open_bank(filled_bank(store, identity, live), identity, live)
    draw = live.images.draw(0, ALL)
    with pytest.raises(AssertionError, match="mixed"):
        bank(dataclasses.replace(draw, mixed=Mix(0.5, draw)))


@pytest.mark.parametrize("lambda_", [0.0, 1.0])
def test_mixed_images_give_another_student_with_a_key_of_its_own(lambda_, taught):
    plain, mixed = (run(trial(lambda_=lambda_, mixup=mixup, epochs=1), taught) for mixup in (0.0, 0.6))
    assert bits(mixed[0]) != bits(plain[0])
    assert mixed[1].key != plain[1].key
    assert mixed[1].teacher == plain[1].teacher


@pytest.mark.parametrize("method", METHODS)
def test_no_method_changes_its_teachers(method, taught):
    config = trial(method=method, teachers="alexnet+resnet18" if fits(method, "alexnet+resnet18") else "own", epochs=1)
    teachers = [taught.pretrained(guide).network for guide in config.guides()]
    before = [bits(teacher) for teacher in teachers]
    run(config, taught)
    for guide, teacher, weights in zip(config.guides(), teachers, before, strict=True):
        assert taught.pretrained(guide).network is teacher
        assert bits(teacher) == weights
        assert not any(module.training for module in teacher.modules())
        assert all(not weight.requires_grad and weight.grad is None for weight in teacher.parameters())


@pytest.mark.parametrize("method", ["kd", "logits", "rdl", "cqd", "norm_direction"])
def test_a_student_of_banks_learns_what_a_student_of_live_teachers_learns(method, taught):
    config = trial(method=method, teachers="alexnet+resnet18")
    keys = [guide.key(taught.dataset.digest) for guide in config.guides()]
    banked = prepared(taught.store, config, banks={key: BankPlan("epochs", config.epochs) for key in keys})
    assert all(isinstance(banked.features(guide), BankedFeatures) for guide in config.guides())
    (_, live), (_, kept) = run(config, taught), run(config, banked)
    assert kept.key == live.key
    for ours, theirs in zip(without_times(kept.history), without_times(live.history), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3)


def test_fitnets_looks_at_maps_even_where_there_is_a_bank(taught):
    config = trial(method="fitnets", epochs=1)
    banked = workbench(taught.store, {config.teacher().key(taught.dataset.digest): BankPlan("epochs", 1)})
    # The bank that it is told of need not be there.
    assert without_times(run(config, banked)[1].history) == without_times(run(config, taught)[1].history)


@pytest.mark.parametrize(
    ("backbone", "layer"), [(name, layer) for name, layers in HINT_LAYERS.items() for layer in layers]
)
def test_fitnets_trains_at_every_layer_of_every_backbone(backbone, layer, taught):
    config = trial(method="fitnets", backbone=backbone, hint_layer=layer, epochs=1)
    _, result = run(config, taught)
    assert math.isfinite(result.history[0]["loss"])
    assert result.history[0]["distillation"] > 0


def test_hints_bring_the_students_maps_nearer_to_the_teachers(taught):
    config = trial(method="fitnets", teachers="resnet18", epochs=8, lambda_=20.0, batch_size=8)
    _, result = run(config, taught)
    assert result.history[-1]["distillation"] < 0.8 * result.history[0]["distillation"]


# A teacher's classifier.


def test_a_reused_classifier_is_the_teachers_and_stays_so_while_the_features_learn(taught):
    config = trial(method="simkd", seed=3)
    teacher = taught.pretrained(config.teacher()).network
    start = initial_student(config, taught)
    assert bits(start.classifier) == bits(teacher.classifier)
    assert bits(start.features) == bits(network(seed=3).features)
    assert [weight.requires_grad for weight in start.classifier.parameters()] == [False, False]
    assert all(weight.requires_grad for weight in start.features.parameters())
    student, result = run(config, taught)
    assert bits(student.classifier) == bits(teacher.classifier)
    assert bits(student.features) != bits(start.features)
    for mine, other in zip(student.classifier.parameters(), teacher.classifier.parameters(), strict=True):
        assert mine.data_ptr() != other.data_ptr()
    # What is deployed is the student alone, with that classifier in it.
    save_result(student, result, config, taught)
    model, _ = load_deployed(student_file(taught.store, result.key))
    assert bits(model.network) == bits(student)


def test_plain_training_has_a_classifier_of_its_own(taught):
    config = trial(method="simkd", lambda_=0.0)
    assert bits(initial_student(config, taught)) == bits(network())
    assert config.key(taught.dataset.digest) == trial(lambda_=0.0).key(taught.dataset.digest)
    student, _ = run(config, taught)
    assert bits(student.classifier) != bits(network().classifier)


@pytest.mark.parametrize("start", ["base", "teacher"])
def test_whatever_a_student_starts_from_a_reused_classifier_is_the_teachers(start, taught):
    config = trial(method="simkd", student_start=start, backbone="vgg16", dropout=0.3, teachers="resnet18")
    bench = prepared(taught.store, config)
    student, teacher = initial_student(config, bench), bench.pretrained(*config.guides()).network
    # Of another backbone, with dropout before it in the one and not in the other, but of as many features.
    for mine, other in zip(student.classifier.parameters(), teacher.classifier.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert bits(student.features) == bits(bench.pretrained(config.start()).network.features)


def test_a_classifier_of_other_features_is_not_reused():
    with pytest.raises(ValueError, match="does not fit"):
        reuse_classifier(network(), network(backbone="resnet18"))


# Two processes.


def test_two_processes_train_features_below_a_reused_classifier_as_one_does(two_processes, store, tmp_path):
    how = (RECIPE, "simkd", "alexnet")
    alone = train_distilled(SingleProcess(), store.root, *how)
    ranks = two_processes(train_distributed, store.root, tmp_path / "meeting", *how)
    classifier = bits(network(seed=2).classifier)
    for rank in ranks:
        for name, weights in rank["weights"].items():
            np.testing.assert_array_equal(weights, ranks[0]["weights"][name])
            np.testing.assert_allclose(weights, alone["weights"][name], rtol=1e-4, atol=1e-5)
        told = {name.removeprefix("student.classifier."): weights for name, weights in rank["weights"].items()}
        assert {name: told[name].tobytes() for name in classifier} == classifier


@pytest.mark.parametrize("method", ["dfd", "fitnets", "cqd", "norm_direction"])
def test_two_processes_train_adapters_as_one_does(method, two_processes, store, tmp_path):
    how = (RECIPE, method, "resnet18")
    alone = train_distilled(SingleProcess(), store.root, *how)
    ranks = two_processes(train_distributed, store.root, tmp_path / "meeting", *how)
    for ours, theirs in zip(ranks[0]["history"], alone["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert "adapter.weight" in alone["weights"]
    for rank in ranks:
        for name, weights in rank["weights"].items():
            np.testing.assert_array_equal(weights, ranks[0]["weights"][name])
            np.testing.assert_allclose(weights, alone["weights"][name], rtol=1e-4, atol=1e-5)
