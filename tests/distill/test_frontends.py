"""Super-resolution front ends: what they minimise, trained once, found again, measured, and looked through."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny import bits, fresh_store, prepared, run, trial, workbench
from torch.nn import functional as F
from two_processes import prepare_frontend

from dfd_tune.data.cameras import camera_images
from dfd_tune.data.degradation import enlarge, resize
from dfd_tune.distill import frontends
from dfd_tune.distill.frontends import (
    ADVERSARIAL_WEIGHT,
    MOST_PSNR,
    VGG19_FILE,
    ensure_frontend,
    find_frontend,
    vgg19_at_hand,
)
from dfd_tune.distill.kept import FACTS_FILE, WEIGHTS_FILE
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import save_result, student_file
from dfd_tune.distill.testing import accuracy_on_test_images, probabilities_on_test_images
from dfd_tune.distill.training import DivergedError
from dfd_tune.distill.workbench import Workbench
from dfd_tune.errors import UserError
from dfd_tune.models.deployed import load_deployed
from dfd_tune.models.super_resolution import build_frontend, discriminator
from dfd_tune.parts import Camera, FrontendConfig, LowRes
from dfd_tune.rules import settings_of
from dfd_tune.store import MANIFEST_FILE, write_manifest

KINDS = ("vdsr", "espcn", "srgan")
QUICK = {
    "resolution": 4,
    "frontend_size": 0.1,
    "frontend_epochs": 4,
    "frontend_batch_size": 10,
    "frontend_learning_rate": 2e-3,
    "frontend_content": "teacher",
}


def behind(kind: str, **settings):
    """A trial whose student looks through a small front end of that kind."""
    return trial(**QUICK | {"frontend": kind} | settings)


def config_of(kind: str, **settings) -> FrontendConfig:
    config = behind(kind, **settings).low_res.frontend
    assert config is not None
    return config


def bench_for(store, config: FrontendConfig) -> Workbench:
    """A workbench whose store holds the teacher that the front end is trained with, if it is one."""
    bench = workbench(store)
    if config.kind == "srgan" and config.content != "vgg19":
        bench.prepare(config.content, SingleProcess())
    return bench


def trained(store, config: FrontendConfig):
    found, now = bench_for(store, config).prepare_frontend(config, SingleProcess())
    assert now
    return found


def pairs_of(bench: Workbench, split: str, resolution: int = 4):
    """The images of a split as the plain camera sees them, and at twice its resolution."""
    images = torch.tensor(getattr(bench.dataset, split).images)
    return [resize(images, side, "bicubic") for side in (resolution, 2 * resolution)]


def folder_of(bench: Workbench, config: FrontendConfig):
    return bench.store.path("frontends", config.key(bench.dataset.digest))


# What they learn.


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_is_the_same_each_time(kind, store, tmp_path):
    config = config_of(kind, frontend_epochs=12)
    found = trained(store, config)
    assert [metrics["epoch"] for metrics in found.history] == list(range(1, 13))
    squared = [metrics["loss"] for metrics in found.history if not metrics["adversarial"]]
    assert squared[-1] < squared[0]
    torch.manual_seed(2)
    again = trained(fresh_store(tmp_path / "other"), config)
    assert bits(again.network) == bits(found.network)
    assert dataclasses.replace(again, network=found.network) == found


def test_training_leaves_random_state_alone(store):
    config = config_of("srgan")
    bench = bench_for(store, config)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert bench.prepare_frontend(config, SingleProcess())[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_loss_of_vdsr_is_the_squared_error_of_bicubic_enlargement(store):
    # All images in one batch: the loss is taken before the first step.
    config = config_of("vdsr", frontend_epochs=1, frontend_batch_size=40)
    low, high = pairs_of(workbench(store), "train")
    enlarged = F.interpolate(low.float() / 255, size=(8, 8), mode="bicubic", align_corners=False)
    expected = (enlarged - high.float() / 255).square().mean().item()
    assert trained(store, config).history[0]["loss"] == pytest.approx(expected, rel=1e-5)


@lru_cache
def blocks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of 4 × 4 and the same with every pixel repeated, which no bicubic kernel gives but a network can learn."""
    low = np.random.default_rng(seed).integers(60, 196, (60, 1, 4, 4), dtype=np.uint8)
    return low, low.repeat(2, axis=-1).repeat(2, axis=-2)


@pytest.mark.parametrize("kind", ["vdsr", "espcn"])
def test_a_front_end_beats_bicubic_enlargement_where_there_is_something_to_learn(kind, store):
    bench = workbench(store)
    config = config_of(kind, frontend_epochs=60, frontend_learning_rate=5e-3)
    (low, high), (low_held_out, high_held_out) = blocks(0), blocks(1)
    found, _ = ensure_frontend(
        store,
        config,
        bench.dataset,
        low=(low, low_held_out),
        high=(high, high_held_out),
        content=None,
        process=SingleProcess(),
    )
    assert found.psnr > found.bicubic_psnr + 1
    assert found.ssim > found.bicubic_ssim
    assert found.history[-1]["loss"] < 0.5 * found.history[0]["loss"]


def test_an_untrained_vdsr_is_as_good_as_bicubic_enlargement(store):
    found = trained(store, config_of("vdsr", frontend_epochs=1, frontend_learning_rate=1e-30))
    assert found.psnr == pytest.approx(found.bicubic_psnr, abs=0.01)
    assert found.ssim == pytest.approx(found.bicubic_ssim, abs=1e-3)


def ssim_of(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Wang et al. 2004, Eq. 13, over windows of 7 × 7 with mirrored edges, pixel by pixel."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for x, y in zip(ours.astype(float), theirs.astype(float), strict=True):
        x, y = (np.pad(image[0], 3, mode="reflect") for image in (x, y))
        for i, j in np.ndindex(8, 8):
            a, b = x[i : i + 7, j : j + 7], y[i : i + 7, j : j + 7]
            covariance = (a * b).mean() - a.mean() * b.mean()
            likeness = (2 * a.mean() * b.mean() + c1) * (2 * covariance + c2)
            values.append(likeness / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (a.var() + b.var() + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize("kind", ["vdsr", "espcn"])
def test_quality_is_that_of_the_validation_images_by_hand(kind, store):
    found = trained(store, config_of(kind))
    low, high = pairs_of(workbench(store), "validation")
    true = high.numpy()
    restored, bicubic = found.restore(low).numpy(), resize(low, 8, "bicubic", antialias=False).numpy()
    for images, psnr, ssim in (
        (restored, found.psnr, found.ssim),
        (bicubic, found.bicubic_psnr, found.bicubic_ssim),
    ):
        squared_error = np.mean((images.astype(float) - true) ** 2)
        assert psnr == pytest.approx(10 * math.log10(255**2 / squared_error), rel=1e-5)
        assert ssim == pytest.approx(ssim_of(images, true), rel=1e-3)
    assert found.psnr != found.bicubic_psnr


def test_a_front_end_is_trained_on_what_its_camera_takes(store):
    # Of a noisy camera, both sides of a pair come from the store's pictures and the true images.
    noisy = trained(store, config_of("espcn", noise=40.0))
    clean = trained(store, config_of("espcn"))
    assert noisy.key != clean.key
    assert bits(noisy.network) != bits(clean.network)
    bench = workbench(store)
    pictures = camera_images(store, bench.dataset, Camera(4, noise=40.0), "validation")
    restored = noisy.restore(torch.tensor(np.array(pictures))).numpy().astype(float)
    _, high = pairs_of(bench, "validation")
    squared_error = np.mean((restored - high.numpy()) ** 2)
    assert noisy.psnr == pytest.approx(10 * math.log10(255**2 / squared_error), rel=1e-5)


def test_images_without_any_error_have_a_finite_quality(store):
    flat = [np.full((40, 1, side, side), 128, dtype=np.uint8) for side in (4, 8)]
    sides = {"low": (flat[0], flat[0]), "high": (flat[1], flat[1])}
    bench = workbench(store)
    # Whatever is learnt, bicubic enlargement of a flat image is exact.
    found, _ = ensure_frontend(store, config_of("vdsr"), bench.dataset, **sides, content=None, process=SingleProcess())
    assert found.bicubic_psnr == MOST_PSNR
    assert found.psnr <= MOST_PSNR


def test_a_loss_that_is_not_finite_names_the_setting_and_leaves_nothing_behind(store):
    config = dataclasses.replace(config_of("espcn", frontend_epochs=3), learning_rate=1e30)
    bench = workbench(store)
    with pytest.raises(
        DivergedError, match=r"front end espcn .* in epoch 1: frontend_learning_rate 1e\+30 .* lower it"
    ):
        bench.prepare_frontend(config, SingleProcess())
    assert store.entries("frontends") == []
    assert find_frontend(store, config, bench.dataset) is None


# SRGAN.


def fake_vgg19(store):
    """A file as torchvision's, with random weights in the layers that are looked at and one that is not."""
    generator = torch.Generator().manual_seed(0)
    weights = {"classifier.0.weight": torch.zeros(4, 4)}
    for number, inputs, outputs in ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128)):
        deviation = math.sqrt(2 / (9 * inputs))
        weights[f"features.{number}.weight"] = deviation * torch.randn(outputs, inputs, 3, 3, generator=generator)
        weights[f"features.{number}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    file = store.path("downloads", VGG19_FILE)
    file.parent.mkdir()
    torch.save(weights, file)
    return file, weights


@pytest.mark.parametrize("damage", ["no torch file", "other weights"])
def test_a_file_that_does_not_hold_vgg19_is_named(store, damage):
    file, weights = fake_vgg19(store)
    if damage == "no torch file":
        file.write_bytes(b"weights? no.")
    else:
        torch.save({"features.0.weight": weights["features.0.weight"]}, file)
    config = config_of("srgan", frontend_content="vgg19")
    with pytest.raises(UserError, match="does not hold torchvision's weights of VGG-19") as caught:
        workbench(store).prepare_frontend(config, SingleProcess())
    assert str(file) in str(caught.value)
    assert store.entries("frontends") == []


def test_srgan_meets_a_discriminator_in_the_second_half(store):
    for epochs, alone in ((4, 2), (5, 2), (1, 0)):
        found = trained(store, config_of("srgan", frontend_epochs=epochs))
        assert [metrics["adversarial"] for metrics in found.history] == [0.0] * alone + [1.0] * (epochs - alone)
        assert all(math.isfinite(metrics["loss"]) for metrics in found.history)
    for kind in ("vdsr", "espcn"):
        assert not any(metrics["adversarial"] for metrics in trained(store, config_of(kind)).history)


def test_what_the_discriminator_says_changes_what_is_learnt(store, monkeypatch):
    config = config_of("srgan")
    found = trained(store, config)
    store.discard("frontends", found.key)
    monkeypatch.setattr(frontends, "ADVERSARIAL_WEIGHT", 0.0)
    deaf = trained(store, config)
    assert deaf.history[:2] == found.history[:2]
    assert deaf.history[2]["loss"] < found.history[2]["loss"]
    assert bits(deaf.network) != bits(found.network)


def one_step(config: FrontendConfig) -> FrontendConfig:
    """A single step on all images; the loss is taken after the discriminator's step and before the generator's."""
    return dataclasses.replace(config, epochs=1, batch_size=40, learning_rate=0.01)


def adversarial_loss(config: FrontendConfig, restored: torch.Tensor, true: torch.Tensor) -> float:
    """−log D(restored), averaged, once D has made a step towards calling `restored` false and `true` true."""
    torch.manual_seed(config.seed + 1)
    judge = discriminator(channels=1, size=config.size)
    optimizer = torch.optim.Adam(judge.parameters(), config.learning_rate)
    before = -torch.sigmoid(judge(restored)).log().mean().item()
    mistaken = -(1 - torch.sigmoid(judge(restored))).log() - torch.sigmoid(judge(true)).log()
    mistaken.mean().backward()
    optimizer.step()
    after = -torch.sigmoid(judge(restored)).log().mean().item()
    assert abs(after - before) > 0.02  # so a step forgotten, or in the other direction, would be seen
    return after


def test_the_loss_against_vgg19_by_its_layers(store):
    file, weights = fake_vgg19(store)
    assert vgg19_at_hand(store) == file
    config = one_step(config_of("srgan", frontend_content="vgg19"))
    found = trained(store, config)
    assert found.content == "vgg19"

    def maps(images):
        """Second convolution before the second max-pool, after its ReLU, divided by 12.75."""
        mean, std = (
            torch.tensor(values).reshape(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        seen = (images.repeat(1, 3, 1, 1) - mean) / std
        for number in (0, 2, 5, 7):
            if number == 5:
                seen = F.max_pool2d(seen, 2)
            seen = F.relu(
                F.conv2d(seen, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1)
            )
        return seen / 12.75

    low, high = (images.float() / 255 for images in pairs_of(workbench(store), "train"))
    with torch.no_grad():
        restored = build_frontend("srgan", channels=1, size=config.size, seed=config.seed)(low)
        content = (maps(restored) - maps(high)).square().mean()
    expected = content.item() + ADVERSARIAL_WEIGHT * adversarial_loss(config, restored, high)
    assert found.history[0]["loss"] == pytest.approx(expected, rel=1e-3)


def test_the_loss_against_the_teacher_is_that_of_its_middle_maps(store):
    config = one_step(config_of("srgan"))
    found = trained(store, config)
    assert found.content == "teacher alexnet"
    bench = workbench(store)
    teacher = bench.pretrained(config.content).network
    (mean,), (std,) = bench.dataset.mean, bench.dataset.std
    low, high = (images.float() / 255 for images in pairs_of(bench, "train"))
    with torch.no_grad():
        restored = build_frontend("srgan", channels=1, size=config.size, seed=config.seed)(low)
        ours, theirs = (teacher.maps((images - mean) / std, "middle") for images in (restored, high))
    expected = (ours - theirs).square().mean().item() + ADVERSARIAL_WEIGHT * adversarial_loss(config, restored, high)
    assert found.history[0]["loss"] == pytest.approx(expected, rel=1e-3)


def test_the_content_names_the_teachers_backbone_and_leaves_the_teacher_as_it_is(store):
    config = config_of("srgan", backbone="resnet18", frontend_epochs=2)
    bench = bench_for(store, config)
    teacher = bench.pretrained(config.content).network
    before = bits(teacher)
    found, _ = bench.prepare_frontend(config, SingleProcess())
    assert found.content == "teacher resnet18"
    assert bits(teacher) == before
    assert not any(module.training for module in teacher.modules())
    assert all(weight.grad is None for weight in teacher.parameters())
    assert trained(store, config_of("espcn")).content is None


def test_another_content_is_another_front_end(store):
    fake_vgg19(store)
    teacher, vgg19 = (config_of("srgan", frontend_content=content) for content in ("teacher", "vgg19"))
    first, second = trained(store, teacher), trained(store, vgg19)
    assert first.key != second.key
    assert bits(first.network) != bits(second.network)


def test_vgg19_that_is_not_at_hand_is_named(store, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    assert vgg19_at_hand(store) is None
    with pytest.raises(FileNotFoundError, match=VGG19_FILE):
        trained(store, config_of("srgan", frontend_content="vgg19"))
    assert store.entries("frontends") == []
    in_cache = tmp_path / "cache" / "hub" / "checkpoints" / VGG19_FILE
    in_cache.parent.mkdir(parents=True)
    fake_vgg19(store)[0].rename(in_cache)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    assert vgg19_at_hand(store) == in_cache


def test_a_teacher_that_is_not_in_the_store_is_named(store):
    with pytest.raises(FileNotFoundError, match=r"teacher \w+ is not in the store"):
        workbench(store).prepare_frontend(config_of("srgan"), SingleProcess())


# The store.


@pytest.mark.parametrize("kind", KINDS)
def test_a_front_end_is_trained_once_and_then_found(kind, store):
    config = config_of(kind)
    first = trained(store, config)
    bench = workbench(store)
    files = {file: file.stat().st_mtime_ns for file in folder_of(bench, config).iterdir()}
    assert {file.name for file in files} == {WEIGHTS_FILE, FACTS_FILE, MANIFEST_FILE}
    second, now = bench.prepare_frontend(config, SingleProcess())
    assert not now
    assert {file: file.stat().st_mtime_ns for file in folder_of(bench, config).iterdir()} == files
    for found in (second, bench.frontend(config)):
        assert bits(found.network) == bits(first.network)
        assert dataclasses.replace(found, network=first.network) == first
    for found in (first, second):
        assert not any(module.training for module in found.network.modules())
        assert not any(weight.requires_grad for weight in found.network.parameters())


def a_weight_changed(folder):
    weights = load_file(folder / WEIGHTS_FILE)
    next(iter(weights.values())).flat[0] += 0.25
    save_file(weights, folder / WEIGHTS_FILE)


def facts_without_quality(folder):
    facts = json.loads((folder / FACTS_FILE).read_text())
    del facts["ssim"]
    (folder / FACTS_FILE).write_text(json.dumps(facts))


@pytest.mark.parametrize("damage", [a_weight_changed, facts_without_quality], ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_never_used_and_trained_anew(damage, store):
    config = config_of("espcn", frontend_epochs=2)
    first = trained(store, config)
    bench = workbench(store)
    damage(folder_of(bench, config))
    write_manifest(folder_of(bench, config))
    assert find_frontend(store, config, bench.dataset) is None
    with pytest.raises(FileNotFoundError, match=r"front end espcn \w+ is not in the store"):
        bench.frontend(config)
    again, now = bench.prepare_frontend(config, SingleProcess())
    assert now
    assert bits(again.network) == bits(first.network)
    assert [entry.name for entry in store.path("frontends").iterdir()] == [first.key]
    assert not bench.prepare_frontend(config, SingleProcess())[1]


def test_every_setting_of_a_front_end_is_in_its_key():
    changes = {
        "resolution": 2,
        "downsample": "area",
        "blur": 1.0,
        "noise": 1.0,
        "jpeg_quality": 50,
        "frontend": "vdsr",
        "frontend_size": 0.2,
        "frontend_epochs": 5,
        "frontend_batch_size": 11,
        "frontend_learning_rate": 3e-3,
        "frontend_seed": 1,
    }
    keys = {config_of(**{"kind": "espcn"} | {_kind(name): value}).key("d" * 16) for name, value in changes.items()}
    assert len(keys | {config_of("espcn").key("d" * 16)}) == len(changes) + 1
    assert config_of("espcn").key("d" * 16) != config_of("espcn").key("e" * 16)
    declared = {name for name in settings_of(type(trial())) if name.startswith("frontend")}
    assert declared - {"frontend_content"} <= changes.keys()
    # What only concerns student and teacher leaves the front end alone, as long as it does not look at the teacher.
    for name, value in {
        "upsample": "area",
        "seed": 5,
        "lambda_": 7.0,
        "teacher_epochs": 2,
        "backbone": "vgg16",
    }.items():
        assert config_of("espcn", **{name: value}) == config_of("espcn")
    assert config_of("srgan", teacher_epochs=2).key("d" * 16) != config_of("srgan").key("d" * 16)


def _kind(name: str) -> str:
    return "kind" if name == "frontend" else name


def test_two_processes_at_once_train_it_once(two_processes, store):
    config = config_of("espcn", frontend_epochs=20)
    outcomes = two_processes(prepare_frontend, store.root, config)
    assert sorted(now for now, _ in outcomes) == [False, True]
    assert outcomes[0][1] == outcomes[1][1]


# A student behind one.


@pytest.mark.parametrize("upsample", ["bicubic", "nearest"])
@pytest.mark.parametrize("resolution", [3, 4])
def test_a_student_sees_the_restored_images(resolution, upsample, store):
    config = behind("espcn", resolution=resolution, upsample=upsample, noise=5.0, crop_padding=0, flip=False)
    low_res = config.low_res
    front = trained(store, low_res.frontend)
    bench = workbench(store)

    def restored(split):
        """3 pixels become 6, and then 8; 4 become 8 at once."""
        pictures = torch.tensor(np.array(camera_images(store, bench.dataset, config.camera, split)))
        with torch.no_grad():
            bytes_ = (255 * front.network(pictures.float() / 255)).round().clamp(0, 255).to(torch.uint8)
        return bytes_, enlarge(bytes_, 8, upsample)

    for split in ("train", "validation", "test"):
        assert np.array_equal(bench.pictures(split, low_res), restored(split)[0].numpy())
    assert torch.equal(bench.images_for(config).images, restored("train")[1])
    assert torch.equal(bench.images_for(config.base()).images, restored("train")[1])
    assert torch.equal(bench.validation_images(low_res).images, restored("validation")[1])
    assert torch.equal(bench.test_images(low_res).images, restored("test")[1])
    # Neither what the camera alone gives, nor what the teacher sees.
    plain = bench.test_images(LowRes(config.camera, upsample)).images
    assert not torch.equal(bench.test_images(low_res).images, plain)
    high_res, mapped = bench.images_for(config.teacher()).images, bench.dataset.train.images
    assert (high_res.data_ptr(), high_res.shape) == (mapped.ctypes.data, mapped.shape), "the file's own pages"


def test_many_images_are_restored_in_parts(store, monkeypatch):
    front = trained(store, config_of("vdsr"))
    low, _ = pairs_of(workbench(store), "train")
    whole = front.restore(low)
    assert (whole.dtype, whole.shape) == (torch.uint8, (40, 1, 8, 8))
    monkeypatch.setattr(frontends, "RESTORED_AT_ONCE", 7)
    # A convolution may round its last bits differently in a batch of another size.
    assert (front.restore(low).int() - whole.int()).abs().max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_trial_behind_a_front_end_is_stored_and_tested_as_it_was_trained(kind, store):
    config = behind(kind, student_start="base")
    front = config.low_res.frontend
    bench_for(store, front).prepare_frontend(front, SingleProcess())
    bench = prepared(store, config)
    student, result = run(config, bench)
    save_result(student, result, config, bench)
    assert all(metrics["distillation"] > 0 for metrics in result.history)
    file = student_file(store, result.key)
    model, card = load_deployed(file)
    assert card.frontend == {"kind": kind, "size": 0.1}
    assert bits(model.network) == bits(student)
    assert bits(model.frontend) == bits(bench.frontend(front).network)

    # Of a camera that only shrinks, the deployed model sees in a raw image what the student saw.
    raw = torch.tensor(bench.dataset.test.images).permute(0, 2, 3, 1)
    expected, labels = probabilities_on_test_images(file, config, bench)
    with torch.no_grad():
        np.testing.assert_allclose(model(raw).numpy(), expected, rtol=1e-3, atol=1e-4)
    assert labels.tolist() == bench.dataset.test.labels.tolist()
    accuracy = (expected.argmax(1) == labels).mean()
    assert accuracy_on_test_images(file, config, bench) == pytest.approx(accuracy)

    plain, other = run(trial(), bench)
    assert other.key != result.key
    assert bits(plain) != bits(student)


def test_a_trial_whose_front_end_is_missing_says_so(store):
    with pytest.raises(
        FileNotFoundError, match=r"front end vdsr \w+ is not in the store; it is made before the search"
    ):
        run(behind("vdsr", lambda_=0.0), workbench(store))
