"""The deployed model: the same steps as in training, exportable, and one file that loads or says why not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from dfd_tune.data.degradation import RESAMPLERS, degrade, enlarge, normalise, resize
from dfd_tune.errors import UserError
from dfd_tune.models import Network
from dfd_tune.models.card import ModelCard, card_from_json
from dfd_tune.models.deployed import CARD_KEY, Deployed, load_deployed, network_of, save_student
from dfd_tune.models.super_resolution import FRONT_ENDS, FrontEnd, build_frontend

CARD = ModelCard(
    backbone="vgg16",
    width=0.05,
    dropout=0.1,
    batch_norm=True,
    channels=3,
    image_size=16,
    classes=("cat", "dog", "Möwe"),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    resolution=8,
    downsample="bicubic",
    upsample="bilinear",
    extras={"config": {"lambda_": 2.0}, "val_accuracy": 0.9, "note": None},
)


def student(card: ModelCard = CARD) -> Network:
    return network_of(card, seed=1)


def frontend(kind: str, channels: int = 3, size: float = 0.1) -> FrontEnd:
    """A front end in evaluation mode that does not only enlarge, as an untrained VDSR does."""
    made = build_frontend(kind, channels=channels, size=size, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in made.state_dict().values():
            if tensor.is_floating_point():  # running statistics too
                tensor += 0.05 * torch.rand(tensor.shape, generator=generator)
    return made


def deployed(front: FrontEnd | None = None, **changes: Any) -> Deployed:
    card = dataclasses.replace(CARD, **changes)
    return Deployed(
        student(card),
        mean=card.mean,
        std=card.std,
        resolution=card.resolution,
        image_size=card.image_size,
        downsample=card.downsample,
        upsample=card.upsample,
        frontend=front,
    )


def photos(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)


def test_probabilities_are_those_of_the_training_steps() -> None:
    model = deployed()
    images = photos(4, 32, 32)
    low_res = degrade(
        images.permute(0, 3, 1, 2), resolution=8, image_size=16, downsample="bicubic", upsample="bilinear"
    )
    with torch.no_grad():
        expected = torch.softmax(model.network(normalise(low_res, CARD.mean, CARD.std)), dim=1)
        probabilities = model(images)
    torch.testing.assert_close(probabilities, expected)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4))


@pytest.mark.parametrize("method", tuple(RESAMPLERS))
def test_the_exported_model_equals_the_eager_one_at_any_size(method: str) -> None:
    model = deployed(downsample=method, upsample=method)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(model, (photos(2, 20, 24),), dynamic_shapes=({0: auto, 1: auto, 2: auto},))
    exported = program.module()
    with torch.no_grad():
        for shape in [(1, 8, 8), (5, 100, 70), (3, 32, 32), (2, 16, 5)]:
            images = photos(*shape)
            torch.testing.assert_close(exported(images), model(images), rtol=1e-6, atol=1e-7)


# 5 pixels become 10 and are enlarged to 16; 8 become 16 and stay; 12 become 24 and shrink.
@pytest.mark.parametrize("resolution", [5, 8, 12])
@pytest.mark.parametrize("kind", tuple(FRONT_ENDS))
def test_a_student_looks_through_its_front_end(kind: str, resolution: int) -> None:
    front = frontend(kind)
    model, plain = deployed(front, resolution=resolution), deployed(resolution=resolution)
    images = photos(4, 32, 32)
    small = resize(images.permute(0, 3, 1, 2).contiguous(), resolution, "bicubic")
    with torch.no_grad():
        restored = enlarge(front.restore(small), 16, "bilinear")
        expected = torch.softmax(model.network(normalise(restored, CARD.mean, CARD.std)), dim=1)
        probabilities = model(images)
        torch.testing.assert_close(probabilities, expected)
        assert (probabilities - plain(images)).abs().max() > 1e-4
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("kind", tuple(FRONT_ENDS))
def test_the_exported_model_holds_its_front_end(kind: str) -> None:
    model = deployed(frontend(kind), backbone="alexnet")
    auto = torch.export.Dim.AUTO
    program = torch.export.export(model, (photos(2, 20, 24),), dynamic_shapes=({0: auto, 1: auto, 2: auto},))
    exported, plain = program.module(), deployed(backbone="alexnet")
    with torch.no_grad():
        for shape in [(1, 8, 8), (5, 50, 35), (2, 16, 5)]:
            images = photos(*shape)
            torch.testing.assert_close(exported(images), model(images), rtol=1e-6, atol=1e-7)
            assert (exported(images) - plain(images)).abs().max() > 1e-4


def test_grey_images_have_one_channel() -> None:
    model = deployed(channels=1, mean=(0.5,), std=(0.2,))
    assert model(photos(2, 9, 9, 1)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"must be torch.uint8 of shape \(images, height, width, 1\)"):
        model(photos(2, 9, 9, 3))


@pytest.mark.parametrize("images", [photos(2, 9, 9).float(), photos(2, 9, 9)[0]])
def test_other_inputs_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images are torch\.\w+ of shape"):
        deployed()(images)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_saved_student_comes_back_as_it_was(tmp_path: Path, channels_last: bool) -> None:
    network = student()
    network.train()(torch.randn(8, 3, 16, 16))  # running statistics differ from their start
    if channels_last:
        network.to(memory_format=torch.channels_last)
    file = tmp_path / "new folder" / "student.safetensors"
    save_student(file, network, CARD)
    save_student(file, network, CARD)
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    before = torch.get_rng_state()
    model, card = load_deployed(file)
    assert torch.equal(torch.get_rng_state(), before)
    assert card == CARD
    assert not model.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor)
    images = photos(3, 32, 32)
    expected = Deployed(
        network,
        mean=CARD.mean,
        std=CARD.std,
        resolution=8,
        image_size=16,
        downsample="bicubic",
        upsample="bilinear",
    )
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected(images))


@pytest.mark.parametrize("kind", tuple(FRONT_ENDS))
def test_a_front_end_is_saved_with_its_student(tmp_path: Path, kind: str) -> None:
    front, network = frontend(kind), student()
    card = dataclasses.replace(CARD, frontend={"kind": kind, "size": 0.1})
    file = tmp_path / "student.safetensors"
    save_student(file, network, card, front)
    model, found = load_deployed(file)
    assert found == card
    assert model.frontend is not None
    assert not model.frontend.training
    for made, kept in ((front, model.frontend), (network, model.network)):
        assert made.state_dict().keys() == kept.state_dict().keys()
        assert all(torch.equal(tensor, kept.state_dict()[name]) for name, tensor in made.state_dict().items())
    images = photos(3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), deployed(front)(images))


def test_a_file_whose_front_end_is_not_that_of_its_card_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    state = student().state_dict()
    front = {f"frontend.{name}": tensor for name, tensor in frontend("espcn").state_dict().items()}

    def written(weights: dict[str, Tensor], named: object) -> Path:
        card = json.dumps(json.loads(CARD.to_json()) | {"frontend": named})
        safetensors.torch.save_file(weights, file, metadata={CARD_KEY: card})
        return file

    load_deployed(written(state | front, {"kind": "espcn", "size": 0.1}))
    assert "weights of a front end that its card does not name" in refusal(written(state | front, None))
    assert "weights don't fit the espcn" in refusal(written(state, {"kind": "espcn", "size": 0.1}))
    assert "weights don't fit the espcn" in refusal(written(state | front, {"kind": "espcn", "size": 0.5}))
    assert "weights don't fit the vdsr" in refusal(written(state | front, {"kind": "vdsr", "size": 0.1}))


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "student.safetensors"
    save_student(file, student(), CARD)
    old = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        save_student(file, student(), CARD)
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]
    assert file.read_bytes() == old


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_deployed(file)
    assert len(caught.value.problems) == 1
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "missing.safetensors")
    assert "can't be read" in refusal(tmp_path)
    for name, content in [("empty", b""), ("text", b"hello, I am not a model"), ("zeros", bytes(64))]:
        (tmp_path / name).write_bytes(content)
        assert "is not a safetensors file" in refusal(tmp_path / name)
    save_student(tmp_path / "cut", student(), CARD)
    whole = (tmp_path / "cut").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-100])
    assert "is not a safetensors file" in refusal(tmp_path / "cut")
    safetensors.torch.save_file(student().state_dict(), tmp_path / "bare")
    assert "without a card" in refusal(tmp_path / "bare")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 0.1}, "weights don't fit the vgg16"),
        ({"backbone": "resnet18"}, "weights don't fit the resnet18"),
        ({"classes": ["a", "b", "c", "d"]}, "weights don't fit"),
        ({"backbone": "resnet19"}, "backbone is 'resnet19', but must be one of"),
        ({"width": 1e9}, "width is 1000000000.0, but must be a number"),
        ({"width": "wide"}, "width is 'wide'"),
        ({"channels": 2}, "channels is 2, but must be 1 or 3"),
        ({"channels": True}, "channels is True"),
        ({"image_size": 5}, "image_size is 5, but must be a whole number at least 8"),
        ({"image_size": None}, "image_size is None"),
        ({"classes": ["cat"]}, "at least two names"),
        ({"classes": "cat"}, "classes must be a list"),
        ({"mean": [0.5]}, "mean is (0.5,), but must be one number per channel"),
        ({"std": [0.2, 0.0, 0.3]}, "must be above 0"),
        ({"upsample": "magic"}, "upsample is 'magic'"),
        ({"extras": 3}, "extras must be an object"),
        ({"frontend": "vdsr"}, "frontend must be an object with kind and size"),
        ({"frontend": {"kind": "vdsr"}}, "frontend must be an object with kind and size"),
        ({"frontend": {"kind": "vdrs", "size": 1}}, "frontend is 'vdrs', but must be one of"),
        ({"frontend": {"kind": "none", "size": 1}}, "frontend is 'none'"),
        ({"frontend": {"kind": "vdsr", "size": 1e9}}, "frontend_size is 1000000000.0, but must be a number"),
        ({"colour": "red"}, "it has colour, which this version does not know"),
    ],
)
def test_cards_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    card = json.loads(CARD.to_json()) | changes
    file = tmp_path / "student.safetensors"
    safetensors.torch.save_file(student().state_dict(), file, metadata={CARD_KEY: json.dumps(card)})
    assert reason in refusal(file)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "3", "{}", '{"width": NaN}'])
def test_texts_that_are_no_card_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "student.safetensors"
    safetensors.torch.save_file(student().state_dict(), file, metadata={CARD_KEY: text})
    refusal(file)


def test_a_card_survives_json_and_holds_nothing_else() -> None:
    assert card_from_json(CARD.to_json()) == CARD
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(CARD, extras={"loss": float("nan")}).to_json()
    with pytest.raises(ValueError, match="dropout is 2"):
        dataclasses.replace(CARD, dropout=2.0)
