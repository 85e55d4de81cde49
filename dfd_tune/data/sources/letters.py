"""Capital letters drawn at preparation with the fonts that matplotlib brings; nothing is downloaded.

Every image has its own font, size, turn, shear, place, greys of ink and ground, and noise: what a camera far from a
plate, a meter or a label sees. Image n of a split is a function of the side, the split and n alone.
Not for: text of more than one letter, or a benchmark that others have published on.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfd_tune.data.sources.raw import RawDataset, first_few
from dfd_tune.errors import UserError, cause_of

if TYPE_CHECKING:
    from PIL import Image

CLASSES = tuple(string.ascii_uppercase)
SIDE = 16
"""Side of the images in pixels where none is asked for; others are drawn anew, not resized."""
PER_CLASS = {"train": 200, "test": 200}
"""Images of each letter."""
FONTS = (
    *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "Italic", "BolIta")),
    *(f"cm{style}10.ttf" for style in ("b", "r", "ss", "ti", "tt")),
)
"""Those of matplotlib's fonts that hold letters to read; the others hold symbols."""

CAP_HEIGHT = (0.55, 0.8)
"""Height of a capital, as a share of the side."""
TURN = 10.0
"""Largest turn to either side, in degrees."""
SHEAR = 0.15
"""Largest shear to either side."""
SHIFT = 0.06
"""Largest way from the middle, down and across, as a share of the side."""
CONTRAST = (100.0, 220.0)
"""By how many grey values the ink is darker than the ground."""
NOISE = (0.0, 16.0)
"""Standard deviation of Gaussian noise in grey values."""

_FORMAT = 1
"""Raised by hand when the same image would be drawn differently, so that old entries are not reused."""
_SEED = 1126
_FINER = 4
"""Letters are drawn on a canvas so many times finer than the image, and averaged."""
_WIDEST = 0.9
"""Widest letter, as a share of the side: wider ones are drawn smaller."""


def fingerprint(data: Path | None) -> dict[str, Any]:
    """The versions of what draws: fonts, FreeType, Pillow, NumPy's random numbers and this module."""
    from importlib.metadata import version

    from PIL import features

    drawn_by = {name: version(name) for name in ("matplotlib", "pillow", "numpy")}
    return {**drawn_by, "freetype": features.version_module("freetype2"), "format": _FORMAT}


def load(data: Path | None, image_size: int | None, cache: Path, say: Callable[[str], None]) -> RawDataset:
    """The letters as uint8 (N, 1, S, S), in the order A to Z, A to Z, and so on.

    Raises:
        UserError: a font is missing or can't be read.
    """
    side = image_size or SIDE
    say(f"Drawing {len(CLASSES) * sum(PER_CLASS.values()):,} letters of {side}×{side} pixels.")
    glyphs = [[_glyph(font, letter) for letter in CLASSES] for font in _fonts(side)]
    (train_images, train_labels), (test_images, test_labels) = (
        _draw_split(glyphs, side, number, len(CLASSES) * count) for number, count in enumerate(PER_CLASS.values())
    )
    return RawDataset(train_images, train_labels, test_images, test_labels, CLASSES)


@dataclass(frozen=True)
class _Glyph:
    """A letter of a font, upright."""

    mask: Image.Image
    """Coverage, mode L, cut to the letter."""
    cap_height: int
    """Of the font's capitals, in pixels of the mask."""


def _fonts(side: int) -> list[Any]:
    """The fonts, in a size at which capitals are about as high as they get on the canvas."""
    import matplotlib
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    missing = [name for name in FONTS if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"The fonts to draw letters with are missing in '{folder}': {first_few(missing)}; reinstall matplotlib."
        )
    size = round(CAP_HEIGHT[1] * side * _FINER / 0.7)  # capitals have about 0.7 of a font's size
    try:
        # The basic layout: the other depends on a library that may or may not be there.
        return [ImageFont.truetype(folder / name, size, layout_engine=ImageFont.Layout.BASIC) for name in FONTS]
    except (OSError, ImportError) as error:
        raise UserError(f"A font in '{folder}' can't be read ({cause_of(error)}); reinstall matplotlib.") from None


def _glyph(font: Any, letter: str) -> _Glyph:
    from PIL import Image, ImageDraw

    left, top, right, bottom = font.getbbox(letter)
    mask = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(mask).text((-left, -top), letter, fill=255, font=font)
    _, cap_top, _, cap_bottom = font.getbbox("H")
    return _Glyph(mask, cap_bottom - cap_top)


def _draw_split(glyphs: list[list[_Glyph]], side: int, number: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (count, 1, side, side), and labels, int64 (count,), of split `number`."""
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    images = np.empty((count, 1, side, side), dtype=np.uint8)
    for index, label in enumerate(labels):
        random = np.random.Generator(np.random.PCG64([_SEED, number, index]))
        font = glyphs[int(random.integers(len(glyphs)))]
        images[index, 0] = _draw(font[label], side, random)
    return images, labels


def _draw(glyph: _Glyph, side: int, random: np.random.Generator) -> np.ndarray:
    """One image, uint8 (side, side)."""
    from PIL import Image

    canvas = side * _FINER
    scale = random.uniform(*CAP_HEIGHT) * canvas / glyph.cap_height
    scale = min(scale, _WIDEST * canvas / glyph.mask.width)
    turn = math.radians(random.uniform(-TURN, TURN))
    shear = random.uniform(-SHEAR, SHEAR)
    middle = canvas * (0.5 + random.uniform(-SHIFT, SHIFT, size=2))
    cos, sin = math.cos(turn), math.sin(turn)
    # From the canvas back to the mask, as Pillow wants it.
    back = np.linalg.inv(scale * np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, shear], [0.0, 1.0]]))
    offset = np.array(glyph.mask.size) / 2 - back @ middle
    data = (*back[0], offset[0], *back[1], offset[1])
    drawn = glyph.mask.transform((canvas, canvas), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    coverage = np.asarray(drawn.reduce(_FINER), dtype=np.float64) / 255
    contrast = random.uniform(*CONTRAST)
    ground = random.uniform(contrast, 255)
    levels = ground - contrast * coverage + random.uniform(*NOISE) * random.standard_normal((side, side))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
