"""Super-resolution front ends: trained once on the training pairs before the search, kept by key like a teacher.

VDSR and ESPCN minimise the squared error; SRGAN does so for the first half of its epochs, then content and adversarial
loss. Not for: the networks (models/super_resolution.py), or the student behind one (student.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dfd_tune.data.degradation import resize
from dfd_tune.data.prepared import Dataset
from dfd_tune.distill import kept
from dfd_tune.distill.checkpoints import Checkpoints
from dfd_tune.distill.networks import load_weights
from dfd_tune.distill.process import Process
from dfd_tune.distill.resume import Resumable, Trainee
from dfd_tune.distill.training import DivergedError, batches
from dfd_tune.errors import UserError, cause_of
from dfd_tune.models import Network, super_resolution
from dfd_tune.models.super_resolution import FrontEnd, build_frontend, seeded
from dfd_tune.parts import FrontendConfig, PretrainedConfig
from dfd_tune.store import Store

ADVERSARIAL_WEIGHT = 1e-3
"""Ledig et al. 2017, Eq. 3."""
VGG_SCALE = 1 / 12.75
"""Ledig et al. 2017, section 3.2: VGG's maps are scaled so that their squared error is comparable to that of pixels; it
becomes 0.006 of itself."""
VGG19_FILE = "vgg19-dcbb9e9d.pth"
"""Torchvision's weights, trained on ImageNet."""
RESTORED_AT_ONCE = 1000
"""Images; more would only take more memory."""
SSIM_WINDOW = 7
MOST_PSNR = 100.0
"""In dB; that of images without any error, as flat ones, is infinite."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(restored, true), float (N, C, S, S) in 0..1 -> a scalar."""


@dataclass(frozen=True)
class TrainedFrontend:
    """A frozen front end in evaluation mode, and what is known of it."""

    key: str
    config: FrontendConfig
    network: FrontEnd
    psnr: float
    """In dB, of the validation images taken together."""
    ssim: float
    bicubic_psnr: float
    """Of plain bicubic enlargement; likewise `bicubic_ssim`."""
    bicubic_ssim: float
    content: str | None
    """Whose features SRGAN compared: "vgg19" or "teacher BACKBONE"; None for the others."""
    history: list[dict[str, float]]

    @torch.no_grad()
    def restore(self, images: Tensor) -> Tensor:
        """uint8 (N, C, r, r) -> uint8 (N, C, 2r, 2r), on the device of the images."""
        device = next(self.network.parameters()).device
        parts = [self.network.restore(part.to(device)).to(images.device) for part in images.split(RESTORED_AT_ONCE)]
        return torch.cat(parts)


def find_frontend(store: Store, config: FrontendConfig, dataset: Dataset) -> TrainedFrontend | None:
    """The front end from the store; None if it is not there, another one, or damaged."""
    return kept.find(store, _place(config, dataset), partial(_frozen, config, dataset))


def ensure_frontend(
    store: Store,
    config: FrontendConfig,
    dataset: Dataset,
    *,
    low: tuple[np.ndarray, np.ndarray],
    high: tuple[np.ndarray, np.ndarray],
    content: Network | None,
    process: Process,
    checkpoints: Checkpoints | None = None,
) -> tuple[TrainedFrontend, bool]:
    """The front end from the store or, where it is not there, trained now and kept; and whether it was trained now.

    Args:
        store: where front ends are kept.
        config: which one.
        dataset: whose images they are.
        low: training and validation images as the camera sees them, uint8 (N, C, r, r).
        high: the same images at twice that side, uint8 (N, C, 2r, 2r).
        content: the teacher, where `config.content` is one.
        process: a single process.
        checkpoints: of this training; None keeps none.

    Raises:
        DivergedError: a loss was not finite.
        FileNotFoundError: `config.content` asks for VGG-19, whose weights are not at hand.
        UserError: the file of these weights does not hold them.
    """

    def train() -> tuple[FrontEnd, kept.Facts]:
        with seeded(config.seed):
            network = build_frontend(config.kind, channels=dataset.channels, size=config.size, seed=config.seed)
            loss = content_loss(store, config, dataset, content, process.device)
            history = train_frontend(network.to(process.device), config, low[0], high[0], loss, process, checkpoints)
        network.cpu().eval()
        return network, {
            "content": _content_name(config),
            "history": history,
            **_quality(network, low[1], high[1]),
        }

    return kept.ensure(store, _place(config, dataset), partial(_frozen, config, dataset), train, checkpoints)


def vgg19_at_hand(store: Store) -> Path | None:
    """The file of VGG-19's weights: in torch's own cache or the store's downloads, from a bucket's of which it is
    brought here; None if it is in neither."""
    return _vgg19_here(store) or store.file("downloads", VGG19_FILE)


def has_vgg19(store: Store) -> bool:
    """Whether there are VGG-19's weights, which need not be brought here to know."""
    return _vgg19_here(store) is not None or store.changed("downloads", VGG19_FILE) is not None


def _vgg19_here(store: Store) -> Path | None:
    places = (store.path("downloads"), Path(torch.hub.get_dir()) / "checkpoints")
    return next((place / VGG19_FILE for place in places if (place / VGG19_FILE).is_file()), None)


def _place(config: FrontendConfig, dataset: Dataset) -> kept.Place:
    return kept.Place("frontends", config.key(dataset.digest), config.identity(), dataset.digest)


def _frozen(config: FrontendConfig, dataset: Dataset, weights: kept.Weights, facts: kept.Facts) -> TrainedFrontend:
    network = build_frontend(config.kind, channels=dataset.channels, size=config.size, seed=config.seed)
    load_weights(network, weights)
    network.eval().requires_grad_(False)
    names = ("psnr", "ssim", "bicubic_psnr", "bicubic_ssim", "content", "history")
    key = config.key(dataset.digest)
    return TrainedFrontend(key, config, network, **{name: facts[name] for name in names})


def train_frontend(
    network: FrontEnd,
    config: FrontendConfig,
    low: np.ndarray,
    high: np.ndarray,
    content: Loss | None,
    process: Process,
    checkpoints: Checkpoints | None,
) -> list[dict[str, float]]:
    """Train in place by Adam, whose rate falls along a cosine; returns each epoch's losses.

    Args:
        network: on the process's device.
        config: how it is trained.
        low: what it sees, uint8 (N, C, r, r).
        high: what it is to give, uint8 (N, C, 2r, 2r).
        content: SRGAN's content loss, for the second half of the epochs; None for the others.
        process: a single process.
        checkpoints: of this training; None keeps none.

    Raises:
        DivergedError: a loss was not finite.
    """
    device = process.device
    inputs, targets = (torch.tensor(images).to(device) for images in (low, high))
    steps = math.ceil(len(inputs) / config.batch_size)
    alone = config.epochs if content is None else config.epochs // 2
    generator = _by_adam(network, config, steps * config.epochs)
    parts = {"generator": generator}
    adversary = None
    if content is not None:
        adversary = _Discriminator(config, inputs.shape[1], steps * (config.epochs - alone), device)
        parts["adversary"] = adversary.trainee
    run = Resumable(checkpoints, parts, process, epochs=config.epochs, clock=time.perf_counter, draws=False)
    history = run.resume()
    network.train()
    for epoch in range(len(history), config.epochs):
        taught_by = adversary if epoch >= alone else None
        mean = _train_epoch(generator, taught_by, content, inputs, targets, config, epoch)
        if not math.isfinite(mean):
            raise DivergedError(
                f"The loss of the front end {config.kind} is not finite in epoch {epoch + 1}: frontend_learning_rate "
                f"{config.learning_rate:g} is too high for it; lower it.",
                epoch + 1,
            )
        history.append({"epoch": epoch + 1, "loss": mean, "adversarial": float(taught_by is not None)})
        run.epoch_done(history)
    return history


def _train_epoch(
    generator: Trainee,
    discriminator: _Discriminator | None,
    content: Loss | None,
    inputs: Tensor,
    targets: Tensor,
    config: FrontendConfig,
    epoch: int,
) -> float:
    """The epoch's loss, a mean per image; without a discriminator, the squared error."""
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    for batch in batches(len(inputs), config.batch_size, config.seed, epoch):
        where = torch.from_numpy(batch).to(inputs.device)
        restored, true = generator.module(inputs[where].float() / 255), targets[where].float() / 255
        if discriminator is None or content is None:
            loss = F.mse_loss(restored, true)
        else:
            discriminator.learn(restored.detach(), true)
            loss = content(restored, true) + ADVERSARIAL_WEIGHT * discriminator.generator_loss(restored)
        generator.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        generator.optimizer.step()
        generator.schedule.step()
        total += loss.detach().double() * len(batch)
    return (total / len(inputs)).item()


def _by_adam(module: nn.Module, config: FrontendConfig, steps: int) -> Trainee:
    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate)
    return Trainee(module, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps))


class _Discriminator:
    """SRGAN's discriminator with its optimiser: Ledig et al. 2017, Eq. 2 and 5."""

    def __init__(self, config: FrontendConfig, channels: int, steps: int, device: torch.device):
        with seeded(config.seed + 1):
            network = super_resolution.discriminator(channels=channels, size=config.size).to(device)
        self.trainee = _by_adam(network, config, steps)

    def learn(self, restored: Tensor, true: Tensor) -> None:
        """One step towards telling restored images from true ones."""
        told = self.trainee.module
        loss = F.softplus(told(restored)).mean() + F.softplus(-told(true)).mean()
        self.trainee.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.trainee.optimizer.step()
        self.trainee.schedule.step()

    def generator_loss(self, restored: Tensor) -> Tensor:
        """−log D(restored), averaged: what the generator lowers."""
        return F.softplus(-self.trainee.module(restored)).mean()


def _content_name(config: FrontendConfig) -> str | None:
    if isinstance(config.content, PretrainedConfig):
        return f"teacher {config.content.network.backbone}"
    return config.content


def content_loss(
    store: Store, config: FrontendConfig, dataset: Dataset, teacher: Network | None, device: torch.device
) -> Loss | None:
    """SRGAN's content loss, the squared error of features (Ledig et al. 2017, Eq. 5); None for the others."""
    if config.content is None:
        return None
    if config.content == "vgg19":
        file = vgg19_at_hand(store)
        if file is None:
            raise FileNotFoundError(f"{VGG19_FILE} is neither in the store's downloads nor in torch's cache")
        features = _vgg22(file).to(device)
        return lambda restored, true: F.mse_loss(features(restored), features(true))
    assert teacher is not None, "the teacher comes before the front end"
    looked_at: Network = teacher.to(device)
    mean, std = (torch.tensor(values, device=device).reshape(1, -1, 1, 1) for values in (dataset.mean, dataset.std))

    def maps(images: Tensor) -> Tensor:
        enlarged = F.interpolate(images, size=(dataset.image_size,) * 2, mode="bilinear", align_corners=False)
        return looked_at.maps((enlarged - mean) / std, "middle")

    return lambda restored, true: F.mse_loss(maps(restored), maps(true).detach())


class _Vgg22(nn.Module):
    """VGG-19 up to the second convolution before its second max-pool, for images in 0..1, grey or RGB.

    Ledig et al. 2017, section 3.2: φ_2,2, with the statistics of ImageNet that torchvision's weights were trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 64), (64, 64), (64, 128), (128, 128)):
            if len(layers) == 4:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        colours = images.expand(-1, 3, -1, -1)
        maps: Tensor = self.features((colours - self.mean) / self.std)
        return VGG_SCALE * maps


def _vgg22(file: Path) -> _Vgg22:
    network = _Vgg22()
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
    except Exception as error:
        # Foreign bytes fail in any way there is: UnpicklingError, RuntimeError, KeyError, EOFError, ...
        raise UserError(
            f"'{file}' does not hold torchvision's weights of VGG-19 ({cause_of(error)}); get it again, or set "
            "frontend_content=teacher."
        ) from None
    network.eval().requires_grad_(False)
    return network


@torch.no_grad()
def _quality(network: FrontEnd, low: np.ndarray, high: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM of the network's and of bicubic enlargement's images, against the true ones."""
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    true = torch.tensor(high)
    pictures = torch.tensor(low)
    restored = torch.cat([network.restore(part) for part in pictures.split(RESTORED_AT_ONCE)])
    bicubic = resize(pictures, true.shape[-1], "bicubic", antialias=False)
    found = {}
    for prefix, images in (("", restored), ("bicubic_", bicubic)):
        ours, theirs = images.float(), true.float()
        found[f"{prefix}psnr"] = min(MOST_PSNR, peak_signal_noise_ratio(ours, theirs, data_range=255.0).item())
        found[f"{prefix}ssim"] = structural_similarity_index_measure(
            ours, theirs, gaussian_kernel=False, kernel_size=SSIM_WINDOW, data_range=255.0
        ).item()
    return found
