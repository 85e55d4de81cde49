"""The feature bank: as good as the live teacher, and never used where it does not belong."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from tiny import bits, filled_bank, network, prepared, run, trial, without_times, workbench, write_dataset

from dfd_tune.data.pairs import TrainingImages
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill import features
from dfd_tune.distill.features import BankMismatchError, LiveFeatures, LiveMaps, bank_identity, open_bank
from dfd_tune.distill.losses import distillation_loss
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.workbench import BankPlan, Workbench
from dfd_tune.parts import Camera, LowRes
from dfd_tune.store import write_manifest

LAYOUTS = ("views", "epochs")
EPOCHS = 3
ALL = np.arange(40)
OF = {"weights": "w" * 16, "dataset": "d" * 16, "low_res": None}
HALF_ULP = 2.0**-11  # relative error of rounding to float16


@pytest.fixture
def images() -> TrainingImages:
    random = torch.Generator().manual_seed(0)
    space = ViewSpace(crop_padding=1, flip=True)
    pixels = torch.randint(256, (40, 1, 8, 8), generator=random, dtype=torch.uint8)
    labels = torch.randint(3, (40,), generator=random)
    return TrainingImages(pixels, labels, space, augment_seed=5, mean=torch.tensor([0.5]), std=torch.tensor([0.25]))


@pytest.fixture
def live(images) -> LiveFeatures:
    return LiveFeatures(network(seed=1).eval().requires_grad_(False), images, "float32")


@pytest.fixture
def identities(live):
    """By layout."""
    return {layout: bank_identity(layout, live, epochs=EPOCHS, **OF) for layout in LAYOUTS}


def test_a_bank_holds_a_slot_for_every_view_or_epoch(identities):
    assert identities["views"].shape == (18, 40, 32)  # 3² offsets times 2 flips; AlexNet's 256 features / 8
    assert identities["epochs"].shape == (EPOCHS, 40, 32)
    # Every seed draws from the same views, so one bank by views serves them all.
    assert identities["views"].augment_seed is None
    assert identities["epochs"].augment_seed == 5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_banked_features_are_the_live_ones_up_to_float16(layout, store, live, identities):
    bank = open_bank(filled_bank(store, identities[layout], live), identities[layout], live)
    for epoch in range(EPOCHS):
        for indices in (ALL, np.random.default_rng(epoch).permutation(ALL)[:7]):
            draw = live.images.draw(epoch, indices)
            kept, fresh = bank(draw), live(draw)
            assert kept.dtype == fresh.dtype == torch.float32
            # A convolution may round its last bits differently in a batch of another size: hence the 1e-5.
            torch.testing.assert_close(kept, fresh, rtol=HALF_ULP, atol=1e-5)
    assert not torch.equal(bank(live.images.draw(0, ALL)), bank(live.images.draw(1, ALL)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loss_on_banked_features_is_the_live_one(layout, store, live, identities):
    bank = open_bank(filled_bank(store, identities[layout], live), identities[layout], live)
    student = network(seed=2).features(live.images.views(live.images.draw(1, ALL))).detach()
    kept, fresh = (
        distillation_loss(student, source(live.images.draw(1, ALL)), "sum").item() for source in (bank, live)
    )
    # With f_t off by δ, the loss is off by no more than mean ‖f_s - f_t‖·‖δ‖, and ‖δ‖ ≤ 2⁻¹¹·‖f_t‖.
    teacher = live(live.images.draw(1, ALL))
    bound = ((student - teacher).norm(dim=1) * teacher.norm(dim=1)).mean().item() * HALF_ULP
    assert fresh > 0
    assert abs(kept - fresh) <= 1.01 * bound + 1e-4


def test_filling_in_parts_changes_nothing(store, live, identities, monkeypatch):
    whole = np.load(filled_bank(store, identities["views"], live) / "features.npy")
    store.discard("banks", identities["views"].key)
    monkeypatch.setattr(features, "FILL_BATCH", 7)
    in_parts = np.load(filled_bank(store, identities["views"], live) / "features.npy")
    # Two values that straddle a rounding border may end up a unit in the last place apart.
    np.testing.assert_allclose(in_parts.astype(np.float32), whole.astype(np.float32), rtol=2 * HALF_ULP, atol=1e-5)


def test_a_bank_by_views_serves_another_seed(store, live, identities):
    folder = filled_bank(store, identities["views"], live)
    other = LiveFeatures(live.teacher, dataclasses.replace(live.images, augment_seed=6), "float32")
    identity = bank_identity("views", other, epochs=99, **OF)
    assert identity == identities["views"]
    bank = open_bank(folder, identity, other)
    draw = other.images.draw(0, ALL)
    torch.testing.assert_close(bank(draw), other(draw), rtol=HALF_ULP, atol=1e-5)
    assert not torch.allclose(bank(draw), live(live.images.draw(0, ALL)), rtol=0.01)


def test_features_beyond_float16_are_refused_and_leave_no_bank(store, live, identities):
    with torch.no_grad():
        live.teacher.features[14].weight.mul_(1e6)  # of the last convolution
    with pytest.raises(OverflowError, match="float16"), np.errstate(over="ignore"):
        filled_bank(store, identities["epochs"], live)
    assert list(store.path("banks").iterdir()) == []


def test_a_teacher_in_training_mode_is_refused(live):
    live.teacher.train()
    with pytest.raises(AssertionError, match="training mode"):
        live(live.images.draw(0, ALL))


OTHERS = {
    "teacher_weights": "v" * 16,
    "precision": "bf16",
    "dataset": "e" * 16,
    "low_res": "c" * 16,
    "layer": "classifier",
    "crop_padding": 2,
    "flip": False,
    "layout": "views",
    "augment_seed": 6,
    "slots": EPOCHS + 1,
    "images": 39,
    "feature_dim": 31,
}


def test_every_part_of_the_identity_is_tried_below(identities):
    assert OTHERS.keys() == {field.name for field in dataclasses.fields(identities["epochs"])}


@pytest.mark.parametrize("name", OTHERS)
def test_a_bank_of_another_identity_is_refused(name, store, live, identities):
    identity = identities["epochs"]
    folder = filled_bank(store, identity, live)
    other = dataclasses.replace(identity, **{name: OTHERS[name]})
    assert other.key != identity.key
    with pytest.raises(BankMismatchError, match="another teacher, dataset or set of views"):
        open_bank(folder, other, live)


def cut_short(folder):
    file = folder / "features.npy"
    file.write_bytes(file.read_bytes()[:-1])


def cut_within_the_header(folder):
    file = folder / "features.npy"
    file.write_bytes(file.read_bytes()[:20])


def empty(folder):
    (folder / "features.npy").write_bytes(b"")


def without_features(folder):
    (folder / "features.npy").unlink()


def without_identity(folder):
    (folder / "bank.json").unlink()


def edited_identity(folder):
    value = json.loads((folder / "bank.json").read_text())
    (folder / "bank.json").write_text(json.dumps(value | {"dataset": "e" * 16}))


def broken_identity(folder):
    (folder / "bank.json").write_text((folder / "bank.json").read_text()[:-5])


def identity_that_is_a_list(folder):
    (folder / "bank.json").write_text("[]")


def _rewritten(folder, change):
    np.save(folder / "features.npy", change(np.load(folder / "features.npy")))


def in_float32(folder):
    _rewritten(folder, lambda rows: rows.astype(np.float32))


def of_fewer_images(folder):
    _rewritten(folder, lambda rows: rows[:, :-1])


def of_other_images(folder):
    _rewritten(folder, lambda rows: np.roll(rows, 1, axis=1))


def of_zeros(folder):
    _rewritten(folder, np.zeros_like)


def of_no_numbers(folder):
    _rewritten(folder, lambda rows: np.full_like(rows, np.nan))


def with_some_no_numbers(folder):
    """As a block of random bytes has: one in 32 of them is NaN or infinite in float16."""

    def change(rows):
        rows[..., ::32] = np.nan
        return rows

    _rewritten(folder, change)


DAMAGES = (
    cut_short,
    cut_within_the_header,
    empty,
    without_features,
    without_identity,
    edited_identity,
    broken_identity,
    identity_that_is_a_list,
    in_float32,
    of_fewer_images,
    of_other_images,
    of_zeros,
    of_no_numbers,
    with_some_no_numbers,
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seal", [lambda folder: None, write_manifest], ids=["damaged", "damaged before it was sealed"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_bank_is_refused(damage, seal, layout, store, live, identities):
    folder = filled_bank(store, identities[layout], live)
    open_bank(folder, identities[layout], live)
    damage(folder)
    seal(folder)
    with pytest.raises(BankMismatchError):
        open_bank(folder, identities[layout], live)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_can_not_be_read_just_now_is_no_damage(number, store, config, monkeypatch):
    made = banked(store, config, "epochs")
    made.prepare(config.teacher(), SingleProcess())
    (folder,) = store.path("banks").iterdir()
    files = {file: file.stat().st_mtime_ns for file in folder.iterdir()}

    def failing(*arguments, **options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(np, "load", failing)
        with pytest.raises(OSError, match=os.strerror(number)):
            banked(store, config, "epochs").prepare(config.teacher(), SingleProcess())
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == files
    assert banked(store, config, "epochs").prepare(config.teacher(), SingleProcess())[1:] == (False, False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_another_teacher_under_the_right_name_are_refused(layout, store, live, identities):
    impostor = LiveFeatures(network(seed=9).eval(), live.images, "float32")
    folder = filled_bank(store, identities[layout], impostor)
    with pytest.raises(BankMismatchError, match="does not hold this teacher's features"):
        open_bank(folder, identities[layout], live)


def test_rows_of_another_seeds_views_are_refused(store, live, identities):
    other = LiveFeatures(live.teacher, dataclasses.replace(live.images, augment_seed=6), "float32")
    folder = filled_bank(store, identities["epochs"], other)
    with pytest.raises(BankMismatchError, match="does not hold this teacher's features"):
        open_bank(folder, identities["epochs"], live)


@pytest.mark.parametrize("layer", [None, "middle"])
def test_a_teacher_looks_in_its_precision(layer, live):
    """On a CPU as well; what bf16 gives is what autocast gives, and not what float32 does."""
    draw = live.images.draw(0, ALL)
    inputs = live.images.views(draw)
    with torch.no_grad():
        look = live.teacher.features if layer is None else partial(live.teacher.maps, layer=layer)
        expected = {"float32": look(inputs)}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected["bf16"] = look(inputs).float()
    assert not torch.equal(expected["float32"], expected["bf16"])
    for precision, seen in expected.items():
        looking = dataclasses.replace(live, precision=precision)
        found = looking(draw) if layer is None else LiveMaps(looking, layer)(draw)
        assert found.dtype == torch.float32
        assert torch.equal(found, seen)


def test_each_precision_has_a_bank_of_its_own(store):
    asked = [trial(precision=precision) for precision in ("float32", "bf16")]
    for config in asked:
        made = banked(store, config, "views")
        assert made.prepare(config.teacher(), SingleProcess())[1:] == (True, True)
        assert made.features(config.teacher()).identity.precision == config.precision
    assert len(list(store.path("banks").iterdir())) == 2


# On the workbench: the bank in its place between teacher and student.


def banked(store, config, layout) -> Workbench:
    """A workbench whose teacher has a bank; not prepared."""
    key = config.teacher().key(workbench(store).dataset.digest)
    return workbench(store, {key: BankPlan(layout, config.epochs)})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_student_of_a_bank_learns_what_a_student_of_the_live_teacher_learns(layout, store, bench, config):
    _, live_result = run(config, bench)
    made = banked(store, config, layout)
    _, trained, filled = made.prepare(config.teacher(), SingleProcess())
    assert (trained, filled) == (False, True)
    assert isinstance(made.features(config.teacher()), features.BankedFeatures)
    _, bank_result = run(config, made)
    assert bank_result.key == live_result.key
    for ours, theirs in zip(without_times(bank_result.history), without_times(live_result.history), strict=True):
        assert theirs["distillation"] > 0
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_teacher_that_sees_low_resolution_looks_at_what_its_student_looks_at(layout, store):
    config = trial(teacher_sees="low_res")
    (guide,) = config.guides()
    made = workbench(store, {guide.key(workbench(store).dataset.digest): BankPlan(layout, config.epochs)})
    made.prepare(guide, SingleProcess())
    assert isinstance(made.features(guide), features.BankedFeatures)
    base = made.pretrained(config.base()).network
    for epoch in range(config.epochs):
        draw = made.images_for(config).draw(epoch, ALL)
        inputs = made.images_for(config).views(draw)  # the student's
        with torch.no_grad():
            expected = base.features(inputs)
        torch.testing.assert_close(made.live(guide)(draw), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(made.features(guide)(draw), expected, rtol=HALF_ULP, atol=1e-5)


@pytest.mark.parametrize("teachers", ["own", "alexnet+resnet18"])
def test_a_student_of_a_low_resolution_teachers_bank_learns_what_one_of_the_live_teacher_learns(teachers, store):
    config = trial(teacher_sees="low_res", teachers=teachers)
    live = prepared(store, config)
    keys = [guide.key(live.dataset.digest) for guide in config.guides()]
    kept = prepared(store, config, banks={key: BankPlan("views", config.epochs) for key in keys})
    assert len(list(store.path("banks").iterdir())) == len(keys)
    (_, one), (_, other) = run(config, live), run(config, kept)
    for ours, theirs in zip(without_times(one.history), without_times(other.history), strict=True):
        assert ours["distillation"] > 0
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_what_a_teacher_looks_at_is_part_of_its_banks_name(live):
    sees = (None, LowRes(Camera(4)), LowRes(Camera(2)), LowRes(Camera(4), "nearest"))
    keys = {bank_identity("views", live, epochs=2, **OF | {"low_res": low_res}).key for low_res in sees}
    assert len(keys) == len(sees)


def test_a_bank_is_filled_once(store, config):
    made = banked(store, config, "epochs")
    assert made.prepare(config.teacher(), SingleProcess())[1:] == (True, True)
    for again in (made, banked(store, config, "epochs")):
        assert again.prepare(config.teacher(), SingleProcess())[1:] == (False, False)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_prepare_fills_a_damaged_bank_anew_and_nothing_uses_it(damage, store, config):
    made = banked(store, config, "epochs")
    made.prepare(config.teacher(), SingleProcess())
    (folder,) = store.path("banks").iterdir()
    content = {file.name: file.read_bytes() for file in folder.iterdir()}
    damage(folder)
    with pytest.raises(BankMismatchError):
        run(config, banked(store, config, "epochs"))
    assert banked(store, config, "epochs").prepare(config.teacher(), SingleProcess())[1:] == (False, True)
    assert [entry.name for entry in store.path("banks").iterdir()] == [folder.name]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == content


def test_a_bank_of_another_dataset_is_filled_beside(store, config):
    banked(store, config, "epochs").prepare(config.teacher(), SingleProcess())
    (first,) = store.path("banks").iterdir()
    write_dataset(store, "other", first_seed=10)
    other = Workbench(store, "other", {}, torch.device("cpu"))
    key = config.teacher().key(other.dataset.digest)
    other = Workbench(store, "other", {key: BankPlan("epochs", config.epochs)}, torch.device("cpu"))
    assert other.prepare(config.teacher(), SingleProcess())[1:] == (True, True)
    assert len([entry for entry in store.path("banks").iterdir() if entry != first]) == 1


def test_plain_training_touches_no_teacher(store):
    # The store has neither the teacher nor the bank that the workbench is told of.
    config = trial(lambda_=0.0)
    _, result = run(config, banked(store, config, "views"))
    assert result.teacher is None
    assert [metrics["distillation"] for metrics in result.history] == [0.0, 0.0]
    assert not store.path("pretrained").exists()
    assert not store.path("banks").exists()
    with pytest.raises(FileNotFoundError, match=r"teacher .* is not in the store"):
        run(trial(lambda_=0.1), workbench(store))


@pytest.mark.parametrize("layout", [None, *LAYOUTS])
@pytest.mark.parametrize("backbone", ["vgg16", "resnet18"])
def test_a_students_training_leaves_the_teacher_as_it_is(backbone, layout, store):
    config = trial(backbone=backbone, epochs=1)
    made = banked(store, config, layout) if layout else workbench(store)
    made.prepare(config.teacher(), SingleProcess())
    teacher = made.pretrained(config.teacher()).network
    before = bits(teacher)
    assert any("running_mean" in name for name in before)
    run(config, made)
    assert made.pretrained(config.teacher()).network is teacher
    assert bits(teacher) == before
    assert not any(module.training for module in teacher.modules())
    assert all(not weight.requires_grad and weight.grad is None for weight in teacher.parameters())
