"""What one process keeps at hand from trial to trial: images on the device, teachers and their features.

Everything is keyed by what it depends on and bounded in number, so a reused process gives the same results as a
fresh one. Not for: anything that a trial changes (weights, optimiser, random state).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dfd_tune.config import TrialConfig
from dfd_tune.data.cameras import camera_images
from dfd_tune.data.degradation import enlarge_array, resize
from dfd_tune.data.pairs import EvaluationImages, TrainingImages, as_tensor, evaluation_images, training_images
from dfd_tune.data.prepared import Dataset, open_dataset
from dfd_tune.data.views import ViewSpace
from dfd_tune.distill.checkpoints import Checkpoints, training_name
from dfd_tune.distill.distillation import TargetSource
from dfd_tune.distill.features import (
    BankIdentity,
    BankLayout,
    ClassMeans,
    LiveFeatures,
    bank_identity,
    bank_in,
    class_means,
    fill_bank,
    open_bank,
)
from dfd_tune.distill.frontends import TrainedFrontend, ensure_frontend, find_frontend
from dfd_tune.distill.imported import ensure_imported, find_imported, imported
from dfd_tune.distill.pretrained import Pretrained, ensure_pretrained, find_pretrained
from dfd_tune.distill.process import Process
from dfd_tune.parts import FrontendConfig, Guide, ImportedConfig, LowRes, PretrainedConfig
from dfd_tune.store import Store

Images = TypeVar("Images", TrainingImages, EvaluationImages)

KEPT = 4
"""How many image sets, networks and banks of each kind are kept; a set on the device can be large."""


class NotInStoreError(FileNotFoundError):
    """What is made before the search is not in the store, or damaged there; the next launch makes it."""


@dataclass(frozen=True)
class BankPlan:
    """How a teacher's bank is laid out, and for how many epochs."""

    layout: BankLayout
    epochs: int


class Workbench:
    """One dataset on one device.

    Args:
        store: holds the dataset, the teachers and the banks.
        dataset_key: name of the prepared dataset's folder in the store.
        banks: by teacher key, the banks that the plan asks for; a teacher without one runs live.
        device: where images and networks are put.
        checkpoints: those of a network's training, by a key that no two networks share; None keeps none.
        patience: seconds to wait for what another node has made, if this one does not see it yet.
    """

    def __init__(
        self,
        store: Store,
        dataset_key: str,
        banks: Mapping[str, BankPlan],
        device: torch.device,
        *,
        checkpoints: Callable[[str], Checkpoints] | None = None,
        patience: float = 0.0,
    ):
        self.store = store
        self._checkpoints = checkpoints
        self._patience = patience
        store.seen("datasets", dataset_key, patience=patience)
        with store.near("datasets", dataset_key) as folder:
            self.dataset: Dataset = open_dataset(folder)
        self.banks = banks
        self.device = device
        self.training_images = lru_cache(KEPT)(self._training_images)
        self.validation_images = lru_cache(KEPT)(self._validation_images)
        self.frontend = lru_cache(KEPT)(self._frontend)
        self.pretrained = lru_cache(KEPT)(self._pretrained)
        self.features = lru_cache(KEPT)(self._features)
        self.class_means = lru_cache(KEPT)(self._class_means)

    def checkpoints_of(self, kind: str, key: str) -> Checkpoints | None:
        """The checkpoints of a training (`training_name`), if this workbench keeps any."""
        return None if self._checkpoints is None else self._checkpoints(training_name(kind, key))

    def images_for(self, config: TrialConfig | Guide) -> TrainingImages:
        """The training images of the side, in the views and on the scale, that `config` asks for."""
        space = ViewSpace(config.crop_padding, config.flip)
        return self._scaled(self.training_images(config.low_res, space, config.augment_seed), config)

    def validation_for(self, config: Guide) -> EvaluationImages:
        """Likewise the validation images."""
        return self._scaled(self.validation_images(config.low_res), config)

    def test_images_for(self, config: Guide) -> EvaluationImages:
        """Likewise the test images."""
        return self._scaled(self.test_images(config.low_res), config)

    def prepare(self, config: Guide, process: Process) -> tuple[Pretrained, bool, bool]:
        """Have a network trained, or measured if it came in a file, and its bank filled; returns it, and whether either
        had to be done now."""
        images, validation = self.images_for(config), self.validation_for(config)
        if isinstance(config, ImportedConfig):
            found, trained = ensure_imported(self.store, config, self.dataset, images, validation)
        else:
            checkpoints = self.checkpoints_of("pretrained", config.key(self.dataset.digest))
            found, trained = ensure_pretrained(
                self.store, config, self.dataset, images, validation, process, checkpoints
            )
        filled = False
        if found.key in self.banks:
            live, identity = self._live(config)
            _, filled = self.store.ensure(
                "banks",
                identity.key,
                lambda folder: bank_in(folder, identity, live),
                lambda folder: fill_bank(folder, identity, live),
            )
        return found, trained, filled

    def prepare_frontend(self, config: FrontendConfig, process: Process) -> tuple[TrainedFrontend, bool]:
        """Have a front end trained; returns it, and whether that had to be done now.

        A teacher whose features it is trained with must be in the store.
        """
        sides = []
        for name in ("train", "validation"):
            low = camera_images(self.store, self.dataset, config.camera, name)
            images = torch.tensor(getattr(self.dataset, name).images)
            sides.append((low, resize(images, config.resolution, config.camera.downsample).numpy()))
        (low_train, high_train), (low_validation, high_validation) = sides
        content = self.pretrained(config.content).network if isinstance(config.content, PretrainedConfig) else None
        return ensure_frontend(
            self.store,
            config,
            self.dataset,
            low=(low_train, low_validation),
            high=(high_train, high_validation),
            content=content,
            process=process,
            checkpoints=self.checkpoints_of("frontends", config.key(self.dataset.digest)),
        )

    def pictures(self, split: str, low_res: LowRes) -> np.ndarray:
        """The images of a split as the camera or, where there is one, the front end gives them: uint8 (N, C, r, r)."""
        pictures = camera_images(self.store, self.dataset, low_res.camera, split)
        if low_res.frontend is None:
            return pictures
        return self.frontend(low_res.frontend).restore(torch.tensor(pictures)).numpy()

    def test_images(self, low_res: LowRes | None) -> EvaluationImages:
        """The test split at low resolution or, with None, at high resolution."""
        return evaluation_images(self.dataset, self.dataset.test, self._side("test", low_res), self.device)

    def live(self, config: Guide) -> LiveFeatures:
        """A teacher that looks at every view anew."""
        return LiveFeatures(self.pretrained(config).network, self.images_for(config), config.precision)

    def _scaled(self, images: Images, config: TrialConfig | Guide) -> Images:
        """The same images with the mean and deviation that a teacher file was trained with."""
        if not isinstance(config, ImportedConfig):
            return images
        declared = imported(self.store, config.file).declared
        mean, std = (torch.tensor(values, device=self.device) for values in (declared.mean, declared.std))
        return replace(images, mean=mean, std=std)

    def _training_images(self, low_res: LowRes | None, space: ViewSpace, augment_seed: int) -> TrainingImages:
        return training_images(self.dataset, self._side("train", low_res), space, augment_seed, self.device)

    def _validation_images(self, low_res: LowRes | None) -> EvaluationImages:
        side = self._side("validation", low_res)
        return evaluation_images(self.dataset, self.dataset.validation, side, self.device)

    def _side(self, split: str, low_res: LowRes | None) -> Tensor:
        """The images of a split, uint8 (N, C, S, S): a camera's, perhaps through a front end, enlarged; or, with None,
        those of high resolution."""
        if low_res is None:
            return as_tensor(getattr(self.dataset, split).images)
        pictures = camera_images(self.store, self.dataset, low_res.camera, split)
        restore = None if low_res.frontend is None else self.frontend(low_res.frontend).restore
        return enlarge_array(pictures, self.dataset.image_size, low_res.upsample, restore)

    def _frontend(self, config: FrontendConfig) -> TrainedFrontend:
        self.store.seen("frontends", config.key(self.dataset.digest), patience=self._patience)
        found = find_frontend(self.store, config, self.dataset)
        if found is None:
            raise NotInStoreError(
                f"front end {config.kind} {config.key(self.dataset.digest)} is not in the store; it is made before the "
                "search"
            )
        found.network.to(self.device)
        return found

    def _pretrained(self, config: Guide) -> Pretrained:
        self.store.seen("pretrained", config.key(self.dataset.digest), patience=self._patience)
        if isinstance(config, ImportedConfig):
            found = find_imported(self.store, config, self.dataset, self.device)
        else:
            found = find_pretrained(self.store, config, self.dataset)
        if found is None:
            raise NotInStoreError(
                f"{config.role} {config.key(self.dataset.digest)} is not in the store; it is made before the search"
            )
        found.network.to(self.device).to(memory_format=torch.channels_last)
        return found

    def _features(self, config: Guide) -> TargetSource:
        live, identity = self._live(config)
        if config.key(self.dataset.digest) not in self.banks:
            return live
        self.store.seen("banks", identity.key, patience=self._patience)
        with self.store.near("banks", identity.key) as folder:
            return open_bank(folder, identity, live)

    def _class_means(self, config: Guide) -> ClassMeans:
        return class_means(self.live(config))

    def _live(self, config: Guide) -> tuple[LiveFeatures, BankIdentity]:
        teacher = self.pretrained(config)
        live = self.live(config)
        plan = self.banks.get(teacher.key, BankPlan("views", 1))
        identity = bank_identity(
            plan.layout,
            live,
            weights=teacher.weights_digest,
            dataset=self.dataset.digest,
            low_res=config.low_res,
            epochs=plan.epochs,
        )
        return live, identity
