import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from image_files import as_pillow, png, random_images
from PIL import Image

from dfd_tune.data.sources.decode import MOST_PIXELS, Encoded, decode_images, read_image, resize_images
from dfd_tune.errors import UserError


def decode(contents, image_size=None):
    images = [Encoded(content, f"{index}.png") for index, content in enumerate(contents)]
    return decode_images(images, image_size, "'here'", lambda line: None)


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_images_come_back_as_they_were(channels):
    images = random_images(600, channels=channels, side=9)  # several chunks
    decoded = decode([png(image) for image in images])
    assert np.array_equal(decoded, images)
    assert decoded.flags.c_contiguous


def test_gray_among_colour_becomes_colour():
    gray, colour = random_images(1, channels=1, side=8), random_images(1, side=8)
    decoded = decode([png(gray[0]), png(colour[0])])
    assert decoded.shape == (2, 3, 8, 8)
    assert np.array_equal(decoded[0], np.repeat(gray[0], 3, axis=0))
    assert np.array_equal(decoded[1], colour[0])


def constant(mode, value):
    return Image.new(mode, (8, 8), value)


PALETTE = Image.new("P", (8, 8), 1)
PALETTE.putpalette([0, 0, 0, 10, 20, 30])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (constant("1", 1), [255]),
        (constant("L", 77), [77]),
        (constant("I;16", 65535), [255]),
        (constant("I;16", 257 * 100), [100]),
        (constant("LA", (200, 255)), [200]),
        (constant("LA", (200, 51)), [40]),
        (constant("RGBA", (200, 100, 50, 255)), [200, 100, 50]),
        (constant("RGBA", (200, 100, 50, 51)), [40, 20, 10]),
        (constant("RGBA", (200, 100, 50, 0)), [0, 0, 0]),
        (PALETTE, [10, 20, 30]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_modes_become_gray_or_colour_and_alpha_lies_on_black(image, expected):
    decoded = decode([saved(image)])
    assert decoded.shape == (1, len(expected), 8, 8)
    assert decoded[0, :, 3, 3].tolist() == expected


def test_a_transparent_colour_of_a_palette_becomes_black():
    assert decode([saved(PALETTE, transparency=1)])[0, :, 0, 0].tolist() == [0, 0, 0]


def test_floating_point_pixels_are_refused():
    with pytest.raises(UserError, match="range is not known"):
        decode([saved(constant("F", 0.5), "TIFF")])


def test_the_orientation_of_a_photograph_is_applied():
    image = random_images(1, side=8)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    decoded = decode([saved(as_pillow(image), exif=exif)])[0]
    assert np.array_equal(decoded, np.rot90(image, k=-1, axes=(1, 2)))


def test_resizing_gives_one_size_whatever_the_shape():
    contents = [saved(Image.new("RGB", size, (9, 8, 7))) for size in [(100, 20), (8, 8), (33, 64)]]
    decoded = decode(contents, image_size=16)
    assert decoded.shape == (3, 3, 16, 16)
    assert (decoded == np.array([9, 8, 7])[:, None, None]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_resized_as_files_are(channels):
    images = random_images(5, channels=channels, side=32)
    assert np.array_equal(resize_images(images, 16), decode([png(image) for image in images], 16))
    assert resize_images(images, 16).flags.c_contiguous
    assert np.array_equal(resize_images(images, None), images)


def test_resizing_is_anti_aliased():
    board = np.indices((64, 64)).sum(0) % 2 * 255
    small = resize_images(board.astype(np.uint8)[None, None], 16)
    assert abs(small.astype(int) - 127).max() < 20  # every pixel averages black and white


def test_unreadable_images_are_all_counted_and_the_first_five_named():
    good = png(random_images(1, side=8)[0])
    broken = [b"no image", good[:-30], None, b"", good[:20], b"x", b"y"]
    with pytest.raises(UserError) as caught:
        decode([good, *broken, good])
    (problem,) = caught.value.problems
    assert problem.startswith("7 of 9 images of 'here' can't be decoded: 1.png (not an image), 2.png (")
    assert "3.png (it is empty)" in problem
    assert "5.png" in problem
    assert "6.png" not in problem
    assert "and 2 more; replace or remove them." in problem


def test_odd_sizes_are_named_with_their_size_and_the_remedy():
    contents = [saved(Image.new("RGB", size)) for size in [(32, 32), (32, 30), (32, 32), (28, 28)]]
    with pytest.raises(UserError) as caught:
        decode(contents)
    (problem,) = caught.value.problems
    assert "2 of 4 images" in problem
    assert "are not 32×32 like the first: 1.png (32×30), 3.png (28×28); " in problem
    assert "--set image_size=S" in problem


@pytest.mark.parametrize("size", [(40, 30), (7, 7), (65, 65)])
def test_a_size_that_networks_do_not_take_is_named(size):
    with pytest.raises(UserError, match=rf"8 to 64 pixels.*0\.png \({size[0]}×{size[1]}\).*image_size=S"):
        decode([saved(Image.new("RGB", size))] * 2)


@pytest.mark.parametrize("side", [8, 64])
def test_the_limits_themselves_are_fine(side):
    assert decode([saved(Image.new("RGB", (side, side)))]).shape == (1, 3, side, side)


def test_odd_and_unreadable_images_are_reported_together():
    with pytest.raises(UserError) as caught:
        decode([b"broken", saved(Image.new("L", (8, 8))), saved(Image.new("L", (9, 9)))])
    assert len(caught.value.problems) == 2


def declaring(kind, width, height):
    """A file of a few hundred bytes whose header says that size."""
    content = bytearray(saved(Image.new("L", (8, 8), 200), kind))
    if kind == "PNG":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    else:
        start = content.index(b"\xff\xc0") + 5
        content[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
@pytest.mark.parametrize("size", [(13_000, 13_800), (10_000, 10_000), (7_100, 7_100)])
def test_an_image_that_declares_too_many_pixels_is_named_and_not_decoded(kind, size, tmp_path):
    """Pillow would raise of the first, warn of the second, and decode the third."""
    bomb, good = declaring(kind, *size), saved(Image.new("L", (8, 8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            decode([good, bomb, good, bomb], image_size=8)
        (problem,) = caught.value.problems
        assert problem.startswith("2 of 4 images of 'here' have more than 50 million pixels and are not decoded")
        assert "1.png (" in problem
        file = tmp_path / "bomb.png"
        file.write_bytes(bomb)
        with pytest.raises(UserError, match=r"bomb\.png' has .* pixels, but at most 50 million") as caught:
            read_image(file, 3)
    told = f"{size[0]}×{size[1]}" if kind != "GIF" and size[0] * size[1] < 89e6 else None
    assert told is None or told in str(caught.value)
    assert len(bomb) < 2000


def test_the_largest_image_itself_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("dfd_tune.data.sources.decode.MOST_PIXELS", 64)
    assert decode([saved(Image.new("L", (8, 8)))]).shape == (1, 1, 8, 8)
    with pytest.raises(UserError, match=r"0\.png \(9×8 pixels\)"):
        decode([saved(Image.new("L", (9, 8)))], image_size=8)
    assert MOST_PIXELS >= 24_000_000, "photographs of cameras"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_is_decoded_alone(kind):
    """The others may be anything: the file is cut off after the first one."""
    frames = [as_pillow(image) for image in random_images(6, channels=1, side=64)]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    whole = saved(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
    expected = decode([whole])
    assert np.array_equal(expected[0, 0], np.asarray(frames[0]))
    if kind == "GIF":  # the others say where their frames are in what follows, or all at once
        assert np.array_equal(decode([whole[: len(whole) // 2]]), expected)


def test_postscript_is_not_run(tmp_path):
    file = tmp_path / "image.png"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match="PostScript"):
        read_image(file, 3)
