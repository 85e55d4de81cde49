"""Views: which crop and which flip an image gets in an epoch, and cutting them out.

A view is a pure function of (augment_seed, epoch, image index): never of batch order, number of workers or
resume point. So a pair's two images get the same view, and a teacher's features of a view can be kept.
Not for: how a low-resolution image is made (degradation.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ViewSpace:
    """All views that random crops after `crop_padding` pixels of padding, and flips, can give.

    A view's id is (top * offsets + left) * flips + flipped, with offsets = 2 * crop_padding + 1.
    """

    crop_padding: int
    flip: bool

    @property
    def count(self) -> int:
        """How many views there are: 162 for 4 pixels of padding and flips."""
        return self._offsets**2 * self._flips

    @property
    def identity(self) -> int:
        """The id of the view that is the image itself."""
        return (self.crop_padding * self._offsets + self.crop_padding) * self._flips

    def draw(self, augment_seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
        """The view ids, int64 (B,), of the images `indices`, int64 (B,), in `epoch` (from 0)."""
        bits = _mix(_mix(_mix(np.uint64(augment_seed)) ^ np.uint64(epoch)) ^ indices.astype(np.uint64))
        return (bits % np.uint64(self.count)).astype(np.int64)

    def cut(self, images: Tensor, indices: Tensor, ids: Tensor) -> Tensor:
        """The views `ids` of the images `indices`, both int64 (B,): uint8 (B, C, S, S).

        Args:
            images: uint8 (N, C, S, S); only those that are asked for are padded, with black pixels, so that all of them
                can stay in a file's pages.
            indices: which images.
            ids: which view of each.
        """
        size, places = images.shape[-1], torch.arange(len(indices), device=images.device)
        # An id counts through flips, then columns, then rows: (top · offsets + left) · flips + flipped.
        flipped = ids % self._flips
        top, left = ids // self._flips // self._offsets, ids // self._flips % self._offsets
        padded = F.pad(images[indices], (self.crop_padding,) * 4)
        # All windows of each padded image, as strided views without a copy, of which one an image is gathered.
        crops = padded.unfold(2, size, 1).unfold(3, size, 1)[places, :, top, left]
        if not self.flip:
            return crops
        return torch.where(flipped.bool()[:, None, None, None], crops.flip(-1), crops)

    @property
    def _offsets(self) -> int:
        return 2 * self.crop_padding + 1

    @property
    def _flips(self) -> int:
        return 2 if self.flip else 1


def _mix(value: np.ndarray | np.uint64) -> np.ndarray:
    """A well-mixed 64-bit hash: the output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = np.asarray(value, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
