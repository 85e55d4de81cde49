"""The front ends: shapes, hand-counted parameters, seeds, where VDSR starts, and bytes in, bytes out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dfd_tune.data.degradation import resize
from dfd_tune.errors import UserError
from dfd_tune.models.super_resolution import FACTOR, FRONT_ENDS, FrontEnd, build_frontend, discriminator, layers_of
from dfd_tune.parts import FRONTEND_FACTOR

KINDS = tuple(FRONT_ENDS)


def frontend(kind: str, *, channels: int = 1, size: float = 0.125, seed: int = 0) -> FrontEnd:
    return build_frontend(kind, channels=channels, size=size, seed=seed)


def size_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [2, 4, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_every_front_end_doubles_the_side(kind: str, side: int, channels: int) -> None:
    images = torch.rand(3, channels, side, side)
    restored = frontend(kind, channels=channels).eval()(images)
    assert restored.shape == (3, channels, 2 * side, 2 * side)
    assert restored.dtype == torch.float32
    assert restored.isfinite().all()
    assert FACTOR == FRONTEND_FACTOR == 2


def conv(inputs: int, outputs: int, side: int) -> int:
    """A convolution with a bias."""
    return inputs * outputs * side * side + outputs


COUNTED = {
    # 5·5·1·64 + 64 = 1,664; 3·3·64·32 + 32 = 18,464; 3·3·32·4 + 4 = 1,156 for the four pixels of a new one.
    ("espcn", 1): 1_664 + 18_464 + 1_156,
    ("espcn", 3): conv(3, 64, 5) + conv(64, 32, 3) + conv(32, 3 * 4, 3),
    # 3·3·1·64 + 64 = 640; eighteen of 3·3·64·64 + 64 = 36,928; 3·3·64·1 + 1 = 577. The paper: 665K.
    ("vdsr", 1): 640 + 18 * 36_928 + 577,
    ("vdsr", 3): conv(3, 64, 3) + 18 * conv(64, 64, 3) + conv(64, 3, 3),
    # 9·9·64 + 64 = 5,248 and a PReLU; sixteen blocks of two convolutions of 36,864, two batch norms of 128 and a PReLU;
    # a convolution of 36,864 with batch norm; 3·3·64·256 + 256 = 147,712 and a PReLU; 9·9·64 + 1 = 5,185.
    ("srgan", 1): 5_249 + 16 * (2 * 36_864 + 2 * 128 + 1) + 36_864 + 128 + 147_713 + 5_185,
}


@pytest.mark.parametrize(("kind", "channels"), COUNTED)
def test_parameters_at_published_size_are_as_counted_by_hand(kind: str, channels: int) -> None:
    assert size_of(frontend(kind, channels=channels, size=1.0)) == COUNTED[kind, channels]


def convolutions(model: nn.Module) -> list[tuple[int, int]]:
    """Channels in and out of every convolution."""
    return [(m.in_channels, m.out_channels) for m in model.modules() if isinstance(m, nn.Conv2d)]


def test_size_scales_widths_and_depths() -> None:
    assert convolutions(frontend("vdsr", size=0.5)) == [(1, 32), *[(32, 32)] * 8, (32, 1)]
    assert convolutions(frontend("espcn", size=0.5)) == [(1, 32), (32, 16), (16, 4)]
    assert convolutions(frontend("srgan", size=0.25)) == [(1, 16), *[(16, 16)] * 9, (16, 64), (16, 1)]
    judge = [(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    assert convolutions(discriminator(channels=1, size=0.5)) == judge


def test_the_smallest_front_ends_keep_what_they_need() -> None:
    assert convolutions(frontend("vdsr", size=1e-3)) == [(1, 8), (8, 8), (8, 1)]
    assert convolutions(frontend("espcn", size=1e-3)) == [(1, 8), (8, 8), (8, 4)]
    assert convolutions(frontend("srgan", size=1e-3)) == [(1, 8), *[(8, 8)] * 3, (8, 32), (8, 1)]
    assert (layers_of(20, 0.5, least=3), layers_of(20, 0.1, least=3), layers_of(20, 2.0, least=3)) == (10, 3, 40)


@pytest.mark.parametrize("channels", [1, 3])
def test_vdsr_starts_as_bicubic_enlargement(channels: int) -> None:
    images = noise(5, channels, 8, 8)
    model = frontend("vdsr", channels=channels)
    floats = images.float() / 255
    expected = F.interpolate(floats, size=(16, 16), mode="bicubic", align_corners=False)
    with torch.no_grad():
        assert torch.equal(model(floats), expected)
        restored = model.restore(images)
    # In 0..1 a value may fall on the other side of a half than in 0..255.
    difference = (restored.int() - resize(images, 16, "bicubic", antialias=False).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


def test_vdsr_is_free_to_leave_its_start() -> None:
    model = frontend("vdsr")
    images, true = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):  # the last layer is zero at first, so those before it only learn from the second step on
        optimizer.zero_grad()
        F.mse_loss(model(images), true).backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["espcn", "srgan"])
def test_gradients_reach_every_parameter(kind: str) -> None:
    model = frontend(kind, channels=3)
    F.mse_loss(model(torch.rand(2, 3, 4, 4)), torch.rand(2, 3, 8, 8)).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_from_the_seed_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    # A GPU's generators are part of the global state as well.
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU was seeded"))
    first = frontend(kind, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.undo()
    torch.manual_seed(2)
    again, other = frontend(kind, seed=3).state_dict(), frontend(kind, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if first[name].ndim == 4 and first[name].any()]
    assert len(drawn) >= 2
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [4, 8, 16, 33])
def test_the_discriminator_gives_a_logit_for_images_of_any_side(side: int, channels: int) -> None:
    judge = discriminator(channels=channels, size=0.125)
    logits = judge(torch.rand(5, channels, side, side))
    assert logits.shape == (5, 1)
    assert logits.isfinite().all()
    assert logits.std() > 0


def test_restoring_rounds_and_leaves_every_grey_value_as_it_is() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    restored = FrontEnd(nn.Upsample(scale_factor=2)).restore(images)
    assert restored.dtype == torch.uint8
    assert torch.equal(restored, images.repeat_interleave(2, -1).repeat_interleave(2, -2))


@pytest.mark.parametrize(("shift", "value"), [(10.0, 255), (-10.0, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_leaves_the_range_of_bytes_is_cut_not_wrapped(kind: str, shift: float, value: int) -> None:
    model = frontend(kind).eval()
    last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
    assert last.bias is not None
    with torch.no_grad():
        last.bias.add_(shift)
        restored = model.restore(noise(2, 1, 6, 6))
    assert restored.shape == (2, 1, 12, 12)
    assert restored.dtype == torch.uint8
    assert (restored == value).all()


def test_unknown_front_ends_are_refused_and_the_known_ones_named() -> None:
    with pytest.raises(
        UserError, match=r"Unknown front end 'vdrs'\. Did you mean 'vdsr'\? Known: espcn, srgan, vdsr\."
    ):
        frontend("vdrs")
