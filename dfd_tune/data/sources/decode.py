"""Image files to arrays: one size, one number of channels, every problem named.

Gray images (1-bit, 8-bit, 16-bit, with or without alpha) stay gray if all of them are; else all become RGB.
Alpha is composited on black, palettes are resolved, EXIF orientation is applied, of an animation the first
frame is taken. Resizing is anti-aliased bicubic and does not keep the aspect ratio. What a file's header says of its
size is read first: a few kilobytes may stand for gigabytes of pixels.
Not for: crops and low-resolution images, which are made from these in training (views.py, degradation.py).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfd_tune.data.sources.raw import first_few
from dfd_tune.errors import UserError, cause_of, raise_all

if TYPE_CHECKING:
    from PIL import Image

SMALLEST, LARGEST = 8, 64
"""Sides in pixels that the networks take."""

MOST_PIXELS = 50_000_000
"""Of an image that is decoded, width times height: eight threads decode at once, each into 3 or 4 bytes a pixel."""

_CHUNK = 256
_GRAY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16L", "I;16B"})
_REMEDY = f"give a size to which all are resized with `--set image_size=S`, S from {SMALLEST} to {LARGEST}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One image before decoding.

    Attributes:
        content: its file, or its bytes (anything with the buffer interface); None if there is nothing.
        name: the file's name for messages.
        row: the row in that file; None if the file is the image.
    """

    content: Any
    name: str
    row: int | None = None

    @property
    def where(self) -> str:
        """What a message calls the image."""
        return self.name if self.row is None else f"{self.name} row {self.row}"


class TooManyPixelsError(Exception):
    """An image declares more pixels than are decoded; the message is how many, as a phrase."""


@dataclass
class _Findings:
    """What decoding some images has shown."""

    colour: bool = False
    unreadable: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    odd_sizes: list[str] = field(default_factory=list)


def decode_images(
    images: Sequence[Encoded], image_size: int | None, where: str, say: Callable[[str], None]
) -> np.ndarray:
    """Decode images in parallel.

    Args:
        images: at least one.
        image_size: side in pixels to which all are resized; None: they must be square and of one size.
        where: the source, as a phrase for messages.
        say: takes a line of progress.

    Returns:
        uint8, (N, C, S, S), C-contiguous; C is 1 if all images are gray, else 3.

    Raises:
        UserError: images are unreadable, too large, or of unsuitable sizes; the first few are named.
    """
    say(f"Decoding {len(images):,} images of {where}.")
    with _bombs_are_errors():
        return _decoded(images, image_size, where)


def _decoded(images: Sequence[Encoded], image_size: int | None, where: str) -> np.ndarray:
    side = image_size or _side_of_first(images)
    # Space for colour; what is gray throughout is cut down in the end. No image is decoded twice to find out.
    out = np.empty((len(images), 3, side or 0, side or 0), dtype=np.uint8)

    def decode_chunk(start: int) -> _Findings:
        findings = _Findings()
        for index in range(start, min(start + _CHUNK, len(images))):
            _decode_into(out[index], images[index], image_size is not None, findings)
        return findings

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        chunks = list(pool.map(decode_chunk, range(0, len(images), _CHUNK)))
    _raise_findings(chunks, len(images), side, where)
    if any(chunk.colour for chunk in chunks):
        return out
    return np.ascontiguousarray(out[:, :1])


def read_image(file: Path, channels: int) -> np.ndarray:
    """One image file at its own size.

    Args:
        file: any format that Pillow reads.
        channels: 1 for gray, into which colour is turned, or 3 for RGB.

    Returns:
        uint8, (H, W, channels).

    Raises:
        UserError: there is no such file, or it is no image, or one of more than MOST_PIXELS.
    """
    from PIL import UnidentifiedImageError

    try:
        with _bombs_are_errors(), _own_words(), _open(Encoded(file, str(file))) as opened:
            pixels = np.asarray(_gray_or_rgb(opened).convert("L" if channels == 1 else "RGB"))
    except TooManyPixelsError as error:
        raise UserError(
            f"The image '{file}' has {error} pixels, but at most {MOST_PIXELS / 1e6:g} million are decoded; make it "
            "smaller first, or give another file."
        ) from None
    except UnidentifiedImageError:
        raise UserError(f"'{file}' is not an image; give a PNG, JPEG or other image file.") from None
    except Exception as error:
        # Pillow's decoders fail in many ways (OSError, SyntaxError, ValueError, struct.error, ...).
        raise UserError(f"The image '{file}' can't be read ({cause_of(error)}); give another file.") from None
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels))


def resize_images(images: np.ndarray, image_size: int | None) -> np.ndarray:
    """Resize decoded images as `decode_images` does; None leaves them as they are.

    Args:
        images: uint8, (N, C, S, S), C is 1 or 3.
        image_size: new side in pixels.

    Returns:
        uint8, (N, C, image_size, image_size), C-contiguous.
    """
    from PIL import Image

    if image_size is None or images.shape[-1] == image_size:
        return np.ascontiguousarray(images)
    out = np.empty((*images.shape[:2], image_size, image_size), dtype=np.uint8)
    for source, target in zip(images, out, strict=True):
        pixels = source[0] if len(source) == 1 else source.transpose(1, 2, 0)
        _fill(target, _resized(Image.fromarray(np.ascontiguousarray(pixels)), image_size))
    return out


def _side_of_first(images: Sequence[Encoded]) -> int | None:
    """Side of the first image that can be opened; None if it is not square or not between the limits."""
    for image in images:
        try:
            with _open(image) as opened:
                width, height = opened.size
        except Exception:  # named when it is decoded
            continue
        return width if width == height and SMALLEST <= width <= LARGEST else None
    return None


def _open(image: Encoded) -> Image.Image:
    """The image with its header read, and none of its pixels.

    Raises:
        TooManyPixelsError: it declares more than MOST_PIXELS.
        Exception: it can't be read, or Pillow's own bound is lower.
    """
    from PIL import Image

    if image.content is None:
        raise ValueError("it is empty")
    source = image.content if isinstance(image.content, Path) else io.BytesIO(image.content)
    opened = Image.open(source)
    if opened.width * opened.height > MOST_PIXELS:
        opened.close()
        raise TooManyPixelsError(f"{opened.width}×{opened.height}")
    if opened.format == "EPS":
        opened.close()
        raise ValueError("it is PostScript, a program that would have to be run")
    return opened


@contextlib.contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """What Pillow would only warn of is an error, in this thread and in those that it starts."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextlib.contextmanager
def _own_words() -> Iterator[None]:
    """Pillow's own bounds, which it also holds against parts of a file as it decodes them, are told as ours are."""
    from PIL import Image

    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        told = re.search(r"\d+", str(error))
        raise TooManyPixelsError("too many" if told is None else f"{int(told[0]):,}") from None


def _decode_into(target: np.ndarray, image: Encoded, resize: bool, findings: _Findings) -> None:
    """Fill `target`, uint8 (3, S, S), with an image, or note in `findings` why not."""
    from PIL import UnidentifiedImageError

    side = target.shape[-1]
    try:
        with _own_words(), _open(image) as opened:
            if not resize and (side == 0 or opened.size != (side, side)):
                findings.odd_sizes.append(f"{image.where} ({opened.width}×{opened.height})")
                return
            pixels = _gray_or_rgb(opened)
            _fill(target, _resized(pixels, side))
        findings.colour |= pixels.mode == "RGB"
    except TooManyPixelsError as error:
        findings.too_large.append(f"{image.where} ({error} pixels)")
    except UnidentifiedImageError:
        findings.unreadable.append(f"{image.where} (not an image)")
    except Exception as error:
        # Pillow's decoders fail in many ways (OSError, SyntaxError, ValueError, struct.error, ...).
        findings.unreadable.append(f"{image.where} ({cause_of(error)})")


def _gray_or_rgb(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB, upright, without alpha."""
    from PIL import Image, ImageOps

    gray = image.mode in _GRAY_MODES
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known")
    if image.mode.startswith("I"):
        # 16 bits; mode I has room for 32, but Pillow fills it with 16 when it reads files.
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    # RGB with equal channels becomes exactly that gray.
    return image.convert("RGB").convert("L") if gray else image.convert("RGB")


def _resized(image: Image.Image, side: int) -> Image.Image:
    from PIL import Image

    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)


def _fill(target: np.ndarray, image: Image.Image) -> None:
    pixels = np.asarray(image)
    target[:] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _raise_findings(chunks: Sequence[_Findings], total: int, side: int | None, where: str) -> None:
    unreadable = [text for chunk in chunks for text in chunk.unreadable]
    too_large = [text for chunk in chunks for text in chunk.too_large]
    odd_sizes = [text for chunk in chunks for text in chunk.odd_sizes]
    problems = []
    if unreadable:
        problems.append(
            f"{len(unreadable):,} of {total:,} images of {where} can't be decoded: {first_few(unreadable)}; "
            "replace or remove them."
        )
    if too_large:
        problems.append(
            f"{len(too_large):,} of {total:,} images of {where} have more than {MOST_PIXELS / 1e6:g} million pixels "
            f"and are not decoded: {first_few(too_large)}; make them smaller first, or remove them."
        )
    if odd_sizes and side is not None:
        problems.append(
            f"{len(odd_sizes):,} of {total:,} images of {where} are not {side}×{side} like the first: "
            f"{first_few(odd_sizes)}; {_REMEDY}."
        )
    elif odd_sizes:
        problems.append(
            f"Images must be square, with {SMALLEST} to {LARGEST} pixels a side, but the first of {where} is "
            f"not: {first_few(odd_sizes)}; {_REMEDY}."
        )
    raise_all(problems)
