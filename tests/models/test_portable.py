"""Resizing by matrices is torch's resizing, for every method and any sides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dfd_tune.data.degradation import RESAMPLERS, resize
from dfd_tune.models.portable import REDUCERS, Enlarge, _weights

SIDES = ((20, 20), (21, 35), (48, 23), (64, 64), (101, 77), (3, 5), (200, 199), (163, 20))


def images(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (3, 3, height, width), generator=generator, dtype=torch.uint8)


def test_every_method_has_its_matrices():
    assert REDUCERS.keys() == RESAMPLERS.keys()


@pytest.mark.parametrize("method", RESAMPLERS)
@pytest.mark.parametrize("size", [5, 8, 32])
def test_any_image_is_resized_as_torch_does(method, size):
    exact = method in ("area", "nearest")
    for sides in SIDES:
        given = images(*sides).to(torch.float32)
        ours, theirs = REDUCERS[method](given, size), RESAMPLERS[method](given, size, True)
        # Float32 rounds sums of up to 200 products; of 255 that is far below half a byte.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if exact else 5e-4)


@pytest.mark.parametrize("method", RESAMPLERS)
@pytest.mark.parametrize(("before", "after"), [(8, 32), (5, 16), (8, 8), (7, 10), (20, 16), (32, 24)])
def test_enlarging_between_fixed_sides_is_torchs(method, before, after):
    given = images(before, before).to(torch.float32)
    theirs = RESAMPLERS[method](given, after, after < before)
    torch.testing.assert_close(Enlarge(before, after, method)(given), theirs, rtol=0, atol=5e-4)


def test_a_flat_image_stays_flat():
    for method in ("bicubic", "bilinear", "area"):
        flat = torch.full((1, 1, 37, 91), 200, dtype=torch.uint8)
        assert (REDUCERS[method](flat.to(torch.float32), 8).round() == 200).all()
        assert (resize(flat, 8, method) == 200).all()


def test_weights_of_a_triangle_by_hand():
    # From 4 to 2 the triangle reaches 2 pixels from a centre at 1; the pixels' centres are ½, ½ and 1½ away, halved.
    rows = _weights(4, 2, lambda distance: torch.clamp(1 - distance, min=0), 1.0, torch.zeros(1))
    expected = torch.tensor([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    torch.testing.assert_close(rows, expected)
