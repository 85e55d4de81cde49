"""Making low-resolution images: hand-made values, and what must hold for every method."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional as F

from dfd_tune.data import degradation
from dfd_tune.data.degradation import RESAMPLERS, degrade, enlarge_array, normalise, resize, take_pictures
from dfd_tune.errors import UserError
from dfd_tune.parts import Camera, Resampling

METHODS = tuple(RESAMPLERS)
BLOCKS = torch.tensor(
    [
        [0, 4, 100, 100],
        [8, 12, 100, 100],
        [1, 2, 255, 253],
        [1, 3, 251, 255],
    ],
    dtype=torch.uint8,
).reshape(1, 1, 4, 4)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_methods_are_those_of_the_settings() -> None:
    assert set(METHODS) == set(Resampling.__args__)  # type: ignore[attr-defined]


def test_area_halves_by_block_means() -> None:
    # (0+4+8+12)/4 = 6, 100, 7/4 = 1.75 -> 2, 1014/4 = 253.5 -> 254 (halves go to the even number)
    assert resize(BLOCKS, 2, "area").flatten().tolist() == [6, 100, 2, 254]


def test_nearest_takes_a_pixel() -> None:
    # The centre of a new pixel lies on the corner of four; the lower right one is taken.
    assert resize(BLOCKS, 2, "nearest").flatten().tolist() == [12, 100, 3, 255]


@pytest.mark.parametrize("method", ["area", "nearest"])
def test_doubling_repeats_pixels(method: str) -> None:
    small = noise(1, 3, 4, 4)
    assert torch.equal(resize(small, 8, method), small.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_bilinear_doubling_by_hand() -> None:
    # Pixel centres of 0, 100 at 0.5 and 1.5; new centres at 0.25, 0.75, 1.25, 1.75.
    row = torch.tensor([[0, 100], [0, 100]], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert resize(row, 4, "bilinear")[0, 0, 0].tolist() == [0, 25, 75, 100]


def test_bicubic_overshoot_is_cut_not_wrapped() -> None:
    edge = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    edge[..., 4:] = 255
    row = resize(edge, 32, "bicubic")[0, 0, 0].int()
    assert (row[:14] < 30).all()
    assert (row[18:] > 225).all()


@pytest.mark.parametrize("method", ["bicubic", "bilinear", "area"])
def test_down_sampling_is_anti_aliased(method: str) -> None:
    checks = ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 255).to(torch.uint8).expand(1, 1, 32, 32)
    assert (resize(checks, 8, method).int() - 128).abs().max() <= 12


@pytest.mark.parametrize(("downsample", "upsample"), itertools.product(METHODS, METHODS))
def test_constant_images_stay_constant(downsample: str, upsample: str) -> None:
    for value in (0, 1, 77, 255):
        images = torch.full((1, 3, 33, 29), value, dtype=torch.uint8)
        result = degrade(images, resolution=7, image_size=16, downsample=downsample, upsample=upsample)
        assert result.shape == (1, 3, 16, 16)
        assert (result == value).all()


@pytest.mark.parametrize("method", METHODS)
def test_images_that_have_the_resolution_are_not_changed(method: str) -> None:
    images = noise(4, 3, 16, 16)
    assert torch.equal(resize(images, 16, method), images)
    same = degrade(images, resolution=16, image_size=16, downsample=method, upsample=method)
    assert torch.equal(same, images)
    once = degrade(images, resolution=16, image_size=32, downsample=method, upsample="bicubic")
    assert torch.equal(once, resize(images, 32, "bicubic", antialias=False))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 3, 100, 70), (3, 3, 5, 9), (0, 3, 32, 32)])
def test_any_size_comes_out_as_bytes_of_the_network_size(method: str, shape: tuple[int, ...]) -> None:
    result = degrade(noise(*shape), resolution=6, image_size=20, downsample=method, upsample=method)
    assert result.shape == (*shape[:2], 20, 20)
    assert result.dtype == torch.uint8


@pytest.mark.parametrize("method", METHODS)
def test_memory_layout_does_not_matter(method: str) -> None:
    images = noise(6, 3, 31, 37)
    permuted = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    how = {"resolution": 8, "image_size": 32, "downsample": method, "upsample": method}
    assert torch.equal(degrade(permuted, **how), degrade(images, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_pictures_enlarged_are_what_the_deployed_model_sees(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    array = noise(11, 3, 32, 32).numpy()
    array.setflags(write=False)
    whole = degrade(torch.tensor(array), resolution=8, image_size=32, downsample=method, upsample=method)
    for values in (2**24, 4 * 3 * 32 * 32):  # all at once, then in chunks of four
        monkeypatch.setattr(degradation, "VALUES_PER_CHUNK", values)
        pictures = take_pictures(array, Camera(8, method), np.random.default_rng(0))  # type: ignore[arg-type]
        assert torch.equal(enlarge_array(pictures, 32, method), whole)


def flat(value: int, count: int = 4) -> np.ndarray:
    return np.full((count, 3, 32, 32), value, dtype=np.uint8)


def photographed(images: np.ndarray, seed: int = 0, **camera: Any) -> np.ndarray:
    return take_pictures(images, Camera(8, **camera), np.random.default_rng(seed))


def test_blur_leaves_flat_images_and_means_but_takes_contrast() -> None:
    assert (photographed(flat(77), blur=2.0) == 77).all()
    images = noise(2, 3, 32, 32).numpy()
    spread = [photographed(images, blur=blur).std() for blur in (0.0, 0.5, 1.0, 3.0)]
    assert spread == sorted(spread, reverse=True)
    assert abs(photographed(images, blur=3.0).mean() - images.mean()) < 2
    assert photographed(images, blur=16.0).shape == (2, 3, 8, 8)  # reaches further than the image


@pytest.mark.parametrize("method", METHODS)
def test_a_camera_without_blur_noise_and_jpeg_only_resizes(method: Resampling) -> None:
    images = noise(5, 3, 32, 32)
    random = np.random.default_rng(0)
    pictures = take_pictures(images.numpy(), Camera(8, method, blur=0.0, noise=0.0, jpeg_quality=None), random)
    assert torch.equal(torch.tensor(pictures), resize(images, 8, method))
    # Nor does it draw a number.
    assert random.bit_generator.state == np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize("deviation", [0.7, 1.5, 3.0])
def test_blur_widens_a_dot_to_its_deviation(deviation: float) -> None:
    dot = torch.zeros(1, 1, 31, 31)
    dot[..., 15, 15] = 1000
    blurred = degradation._blurred(dot, deviation)[0, 0].double()
    assert blurred.sum().item() == pytest.approx(1000, rel=1e-5)
    places = torch.arange(31, dtype=torch.float64) - 15
    for direction in (0, 1):
        spread = (blurred.sum(direction) * places**2).sum() / blurred.sum()
        # Cut at three deviations, a Gaussian has 0.986 of its deviation left.
        assert 0.97 * deviation < spread.sqrt() < 1.01 * deviation
    assert torch.equal(blurred, blurred.T)


def test_blur_of_a_line_by_hand() -> None:
    # An edge of 0 and 200, one pixel wide each: after a Gaussian of deviation σ, the weight that the centre pixel of a
    # line keeps is 1 / (1 + 2 e^(-1/2σ²) + 2 e^(-4/2σ²) + …).
    line = np.zeros((1, 1, 8, 8), dtype=np.uint8)
    line[..., 4] = 200
    weights = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    blurred = take_pictures(line, Camera(8, "area", blur=1.0), np.random.default_rng(0))
    assert blurred[0, 0, 0, 4] == round(200 * weights[3] / weights.sum())
    assert blurred[0, 0, 0, 3] == round(200 * weights[2] / weights.sum())


def test_noise_has_the_deviation_asked_for_and_belongs_to_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    images = flat(128, 60)
    noisy = photographed(images, noise=10.0).astype(float) - 128
    assert abs(noisy.std() - 10) < 0.3
    assert abs(noisy.mean()) < 0.3
    assert len(np.unique(noisy.reshape(60, -1), axis=0)) == 60
    monkeypatch.setattr(degradation, "VALUES_PER_CHUNK", 7 * 3 * 32 * 32)
    assert np.array_equal(photographed(images, noise=10.0).astype(float) - 128, noisy)
    assert not np.array_equal(photographed(images, seed=1, noise=10.0).astype(float) - 128, noisy)


def test_noise_is_cut_not_wrapped() -> None:
    assert photographed(flat(255), noise=20.0).min() > 128
    assert photographed(flat(0), noise=20.0).max() < 128


def test_jpeg_loses_more_at_lower_quality_and_nothing_of_flat_images() -> None:
    assert (photographed(flat(128), jpeg_quality=10) == 128).all()
    images = noise(3, 3, 32, 32).numpy()
    clean = photographed(images).astype(float)
    lost = [np.abs(photographed(images, jpeg_quality=quality) - clean).mean() for quality in (95, 50, 10)]
    assert 0 < lost[0] < lost[1] < lost[2]
    grey = take_pictures(images[:, :1], Camera(8, jpeg_quality=50), np.random.default_rng(0))
    assert grey.shape == (3, 1, 8, 8)


def through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """uint8 (C, H, W), written and read by Pillow."""
    file = io.BytesIO()
    Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    pixels = np.array(Image.open(file))
    return pixels[None] if len(picture) == 1 else pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [1, 30, 100])
def test_jpeg_is_pillows(quality: int, channels: int) -> None:
    images = noise(3, channels, 32, 32).numpy()
    clean, compressed = photographed(images), photographed(images, jpeg_quality=quality)
    assert np.array_equal(compressed, np.stack([through_jpeg(picture, quality) for picture in clean]))
    assert not np.array_equal(compressed, clean)


def test_a_camera_blurs_then_shrinks_then_adds_noise_then_rounds_then_compresses() -> None:
    images = noise(3, 3, 32, 32).numpy()
    camera: dict[str, Any] = {"downsample": "bilinear", "blur": 1.5, "noise": 12.0, "jpeg_quality": 60}
    blurred = images.astype(np.float64)
    for axis in (-1, -2):  # three deviations are 4.5 pixels, so 5; edges are mirrored
        blurred = gaussian_filter1d(blurred, 1.5, axis=axis, mode="mirror", radius=5)
    small = F.interpolate(torch.tensor(blurred), size=(8, 8), mode="bilinear", antialias=True).numpy()
    noisy = small + 12 * np.random.default_rng(0).standard_normal(small.shape, dtype=np.float32)
    rounded = np.rint(noisy).clip(0, 255).astype(np.uint8)
    without_jpeg = photographed(images, **camera | {"jpeg_quality": None})
    # Float32 may round a value near a half the other way.
    assert np.abs(without_jpeg.astype(int) - rounded).max() <= 1
    assert (without_jpeg != rounded).mean() < 0.01
    expected = np.stack([through_jpeg(picture, 60) for picture in without_jpeg])
    assert np.array_equal(photographed(images, **camera), expected)


def test_a_front_end_stands_between_the_way_down_and_the_way_back() -> None:
    images = noise(2, 3, 32, 32)
    doubled = degrade(
        images,
        resolution=8,
        image_size=32,
        downsample="area",
        upsample="nearest",
        restore=lambda small: 255 - small.repeat_interleave(2, -1).repeat_interleave(2, -2),
    )
    plain = degrade(images, resolution=8, image_size=32, downsample="area", upsample="nearest")
    assert torch.equal(doubled, 255 - plain)


def test_low_resolution_images_hold_less_detail() -> None:
    images = noise(1, 1, 32, 32)
    spread = [
        degrade(images, resolution=r, image_size=32, downsample="bicubic", upsample="bicubic").float().std()
        for r in (4, 8, 16, 32)
    ]
    assert spread == sorted(spread)


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(UserError, match=r"Unknown resampling method 'bicubik'\. Did you mean 'bicubic'\?"):
        resize(noise(1, 1, 8, 8), 4, "bicubik")


def test_normalise_by_hand() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 2, 1, 1)
    expected = [(0 - 0.5) / 0.25, (1 - 0.2) / 0.4]
    result = normalise(images, (0.5, 0.2), (0.25, 0.4))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.flatten(), expected, rtol=1e-6)
    assert torch.equal(normalise(images, torch.tensor([0.5, 0.2]), torch.tensor([0.25, 0.4])), result)
