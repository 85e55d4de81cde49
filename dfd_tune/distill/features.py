"""A teacher's features of training views: computed live, or read from a feature bank that was filled once; and their
means over classes.

λ, learning rate, seed and, unless the teacher looks at low-resolution images itself, resolution leave its features as
they are, and a view is a pure function of (augment_seed, epoch, image), so a bank is exact up to float16. It is bound
to the teacher's weights, the dataset, the side of the pair that it looks at, and the views; one that does not belong is
never used. Not for: whether a bank pays (plan.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from dfd_tune.data.pairs import Draw, TrainingImages
from dfd_tune.digest import digest_json
from dfd_tune.distill.networks import computed_in
from dfd_tune.models import Network
from dfd_tune.parts import LowRes, Precision
from dfd_tune.store import read_whole_json, whole, write_json
from dfd_tune.store.arrays import mapped_array, new_array

BankLayout = Literal["views", "epochs"]
FILL_BATCH = 512
SPOT_CHECK_IMAGES = 8
SHARE_OF_GPU_MEMORY = 0.25
"""Of what is free of a GPU's memory, so much may be a bank's; a larger one is read from its file."""


class BankMismatchError(Exception):
    """The bank on disk is not the one that was asked for: other teacher, data, views or layout, or damaged."""


@dataclass(frozen=True, kw_only=True)
class BankIdentity:
    """All that a bank's numbers depend on."""

    teacher_weights: str
    precision: Precision
    """In which the teacher is run; the features are kept as float16 in any case."""
    dataset: str
    low_res: str | None
    """Digest of what the teacher looks at, where these are low-resolution images; None for those of high resolution."""
    layer: str
    crop_padding: int
    flip: bool
    layout: BankLayout
    augment_seed: int | None
    """Of the layout `epochs`; a bank by `views` serves every seed."""
    slots: int
    """Number of views, or of epochs."""
    images: int
    feature_dim: int

    @property
    def key(self) -> str:
        """The name of the bank in the store."""
        return digest_json(asdict(self))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slots, images, feature_dim) of the float16 array."""
        return (self.slots, self.images, self.feature_dim)


def bank_identity(
    layout: BankLayout, live: LiveFeatures, *, weights: str, dataset: str, low_res: LowRes | None, epochs: int
) -> BankIdentity:
    """The bank of a teacher, whose weights have the digest `weights`, for images of the dataset `dataset`.

    Args:
        layout: one slot for each view there is, or one for each epoch of the trials.
        live: the teacher, and the training images that it looks at.
        weights: digest of the teacher's weights.
        dataset: the dataset's digest.
        low_res: how these images come about; None for those of high resolution.
        epochs: of the longest trial; what a bank by views holds does not depend on it.
    """
    images = live.images
    return BankIdentity(
        teacher_weights=weights,
        precision=live.precision,
        dataset=dataset,
        low_res=None if low_res is None else digest_json(low_res.identity()),
        layer="features",
        crop_padding=images.space.crop_padding,
        flip=images.space.flip,
        layout=layout,
        augment_seed=images.augment_seed if layout == "epochs" else None,
        slots=images.space.count if layout == "views" else epochs,
        images=len(images),
        feature_dim=live.teacher.feature_dim,
    )


@dataclass(frozen=True)
class LiveFeatures:
    """The teacher looks at every view anew."""

    teacher: Network
    images: TrainingImages
    precision: Precision

    @torch.no_grad()
    def __call__(self, draw: Draw) -> Tensor:
        """Features, float32 (B, D), of what a draw sees."""
        assert not self.teacher.training, "a teacher in training mode changes its features and itself"
        inputs = self.images.views(draw)
        with computed_in(self.precision, inputs.device):
            return self.teacher.features(inputs).float()


@dataclass(frozen=True)
class LiveMaps:
    """A middle layer's maps, always computed anew: a bank of maps would be too large."""

    live: LiveFeatures
    layer: str

    @torch.no_grad()
    def __call__(self, draw: Draw) -> Tensor:
        """Maps, float32 (B, C, H, W), of what a draw sees."""
        teacher = self.live.teacher
        assert not teacher.training, "a teacher in training mode changes its maps and itself"
        inputs = self.live.images.views(draw)
        with computed_in(self.live.precision, inputs.device):
            return teacher.maps(inputs, self.layer).float()


@dataclass(frozen=True)
class BankedFeatures:
    """Features read from a bank."""

    identity: BankIdentity
    features: Tensor
    """float16 (slots, images, feature_dim): on the GPU if it has room for them, else the file's own pages."""

    def __call__(self, draw: Draw) -> Tensor:
        """Features, float32 (B, D), of what a draw sees, on its device."""
        assert draw.mixed is None, "a bank holds no features of mixed images"
        here = self.features.device == draw.indices.device
        indices, ids = (draw.indices, draw.ids) if here else map(torch.from_numpy, (draw.host_indices, draw.host_ids))
        rows = self.features[ids, indices] if self.identity.layout == "views" else self.features[draw.epoch, indices]
        return rows.to(draw.indices.device, torch.float32)


@dataclass(frozen=True)
class ClassMeans:
    """By class, the mean of a teacher's features over its training images as they are, neither moved nor flipped."""

    means: Tensor
    """float32 (K, D)."""
    images: TrainingImages

    def __call__(self, draw: Draw) -> Tensor:
        """The means of the classes of a draw's images, mixed as these are: float32 (B, D)."""
        means = self.means[self.images.labels_of(draw)]
        return means if draw.mixed is None else draw.mixed.of(means, self(draw.mixed.others))


def class_means(live: LiveFeatures) -> ClassMeans:
    """Compute them: one pass over the training images."""
    images = live.images
    classes = int(images.labels.max()) + 1
    sums = torch.zeros(classes, live.teacher.feature_dim, dtype=torch.float64, device=images.labels.device)
    for indices in np.split(np.arange(len(images)), range(FILL_BATCH, len(images), FILL_BATCH)):
        (draw,) = images.draws_of_views(0, [indices], np.full(len(indices), images.space.identity, dtype=np.int64))
        sums += sums_by_class(live(draw), images.labels_of(draw), classes)
    counts = torch.bincount(images.labels, minlength=classes).clamp(min=1)
    return ClassMeans((sums / counts[:, None]).float(), images)


def sums_by_class(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The sums over each class of features, float (N, D), of images with labels, int64 (N,): float64 (K, D)."""
    # A product, as sums by index are not deterministic on a GPU.
    return one_hot(labels, classes).double().T @ features.double()


def fill_bank(folder: Path, identity: BankIdentity, live: LiveFeatures) -> None:
    """Compute a bank, into a folder.

    Raises:
        OverflowError: a feature does not fit into float16.
        OSError: ENOSPC where there is too little room for all of it; nothing was computed then.
    """
    array = new_array(folder / "features.npy", np.float16, identity.shape)
    for slot in range(identity.slots):
        for indices in np.split(np.arange(identity.images), range(FILL_BATCH, identity.images, FILL_BATCH)):
            features = live(_draw_of_slot(identity, live.images, slot, indices))
            array[slot, indices] = features.cpu().numpy().astype(np.float16)
        if not np.isfinite(array[slot]).all():
            raise OverflowError("the teacher's features do not fit into float16; train it with less learning_rate")
    array.flush()
    write_json(folder / "bank.json", asdict(identity))


def bank_in(folder: Path, identity: BankIdentity, live: LiveFeatures) -> BankedFeatures | None:
    """The bank in `folder`, as `open_bank`; None if it is not that bank, or not whole."""
    try:
        return open_bank(folder, identity, live)
    except BankMismatchError:
        return None


def open_bank(folder: Path, identity: BankIdentity, live: LiveFeatures) -> BankedFeatures:
    """Open the bank in `folder`, and hold a few of its rows against the live teacher.

    Raises:
        BankMismatchError: it is missing, damaged, or not the bank of `identity`.
        OSError: the disk can't be read just now.
    """
    if not whole(folder):
        raise BankMismatchError(f"the bank in {folder} is not there or not whole")
    recorded: dict[str, Any] | None = read_whole_json(folder, "bank.json")
    # Mapped copy-on-write, and never written to: torch takes no array that is read-only.
    features = mapped_array(folder / "features.npy", writable=True)
    if features is None:
        raise BankMismatchError(f"the bank in {folder} can't be read: its file holds no array")
    if recorded != asdict(identity):
        raise BankMismatchError(f"the bank in {folder} belongs to another teacher, dataset or set of views")
    if features.dtype != np.float16 or features.shape != identity.shape:
        raise BankMismatchError(f"the bank in {folder} has {features.dtype} {features.shape}")
    bank = BankedFeatures(identity, _placed(torch.from_numpy(features), live.images.images.device))
    _spot_check(bank, live, folder)
    return bank


def _placed(features: Tensor, device: torch.device) -> Tensor:
    """A bank on the device that asks it, if that has room for it."""
    if device.type != "cuda":
        return features
    free, _ = torch.cuda.mem_get_info(device)
    return features.to(device) if features.nbytes <= SHARE_OF_GPU_MEMORY * free else features


def _spot_check(bank: BankedFeatures, live: LiveFeatures, folder: Path) -> None:
    indices = np.unique(np.linspace(0, bank.identity.images - 1, SPOT_CHECK_IMAGES).astype(np.int64))
    draw = live.images.draw(bank.identity.slots - 1 if bank.identity.layout == "epochs" else 0, indices)
    kept, fresh = bank(draw), live(draw)
    # Half-precision rounding is 2^-11 relative; a bank may have been filled on another kind of device.
    scale = fresh.abs().max().clamp(min=1e-3)
    # Put so that NaN, which damaged bytes are full of, does not pass.
    if not (kept - fresh).abs().max() <= 0.03 * scale:
        raise BankMismatchError(f"the bank in {folder} does not hold this teacher's features")


def _draw_of_slot(identity: BankIdentity, images: TrainingImages, slot: int, indices: np.ndarray) -> Draw:
    if identity.layout == "views":
        return images.draws_of_views(0, [indices], np.full(len(indices), slot, dtype=np.int64))[0]
    return images.draw(slot, indices)
