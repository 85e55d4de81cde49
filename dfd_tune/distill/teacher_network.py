"""A teacher file as a network: its weights in their backbone, or a program, with the classes in the dataset's order.

Either is made a `Network` that takes what other teachers take, but for the scale of the images, and gives what they
give. Not for: what has to be declared of it (declared.py), what of a program is refused (models/program.py), or where
files are kept (imported.py).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from dfd_tune.data.prepared import Dataset
from dfd_tune.distill.declared import (
    OF_BACKBONE,
    Declared,
    Facts,
    completed,
    declared_by_card,
    declared_by_hand,
    declared_by_store,
    order_of,
)
from dfd_tune.errors import UserError, cause_of
from dfd_tune.models import Network, build_network
from dfd_tune.models.deployed import CARD_KEY
from dfd_tune.models.program import Program, load_program

NOMINAL_CHANNELS = {"alexnet": 384, "vgg16": 512, "resnet18": 512}
"""Of the widest convolution at width 1."""
TOLERANCE = 1e-3
"""Of a program's outputs, as a share of the largest: batches of another size are summed in another order."""


def declared_of(file: Path, dataset: Dataset) -> Declared:
    """What is declared of a teacher file that is to look at images of `dataset`, complete.

    Raises:
        UserError: it can't be read, or something is lacking or can't be meant; all is named.
    """
    return _declared_of_program(file, dataset) if _is_zip(file) else _declared_of_weights(file, dataset)


def network_from(file: Path, declared: Declared, dataset: Dataset, device: torch.device | None) -> Network:
    """The teacher in a file, frozen, in evaluation mode, its logits in the order of the dataset's classes.

    Raises:
        ValueError: it does not fit its declaration or the dataset; the message is a phrase that goes on with "it".
    """
    order = None if declared.classes is None else order_of(declared.classes, dataset)
    if declared.gives == "network":
        assert order is not None
        network = _backbone_from(file, declared, dataset, order)
    else:
        network = _around_program(load_program(file, device), declared, dataset, order)
    return network.eval().requires_grad_(False)


def check(network: Network, dataset: Dataset) -> None:
    """Whether what a teacher gives of an image is a function of that image alone.

    Raises:
        ValueError: it is not, or is not finite.
    """
    images = _examples(dataset, 5)
    whole, part = _outputs_of(network.features, images), _outputs_of(network.features, images[:3])
    if not whole.isfinite().all():
        raise ValueError("gives numbers that are not finite")
    if (whole[:3] - part).abs().max() > TOLERANCE * whole.abs().max().clamp(min=1e-6):
        raise ValueError(
            "gives other numbers of an image in another batch, as batch norm and dropout in training do; export it "
            "after model.eval()"
        )


class Resize(nn.Module):
    """Images, float (B, C, S, S), to another side: bilinear, anti-aliased."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Float (B, C, side, side)."""
        size = (self.side, self.side)
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


class Reorder(nn.Module):
    """Logits (B, K) in the order of the dataset's classes."""

    order: Tensor

    def __init__(self, order: list[int]):
        super().__init__()
        self.register_buffer("order", torch.tensor(order))

    def forward(self, logits: Tensor) -> Tensor:
        """The same logits, reordered."""
        return logits[:, self.order]


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _declared_of_program(file: Path, dataset: Dataset) -> Declared:
    facts = declared_by_hand(file, dataset)
    if wrong := [name for name in OF_BACKBONE if name in facts]:
        raise UserError(f"The teacher '{file}' is a program, so that nothing is to declare of {', '.join(wrong)}.")
    return completed(file, None, facts)


def _declared_of_weights(file: Path, dataset: Dataset) -> Declared:
    facts = declared_by_hand(file, dataset)
    if "gives" in facts:
        raise UserError(f"The teacher '{file}' is weights of a backbone, so that nothing is to declare of gives.")
    text, weights = _read_weights(file)
    try:
        read = declared_by_store(file, dataset) if text is None else declared_by_card(text)
    except ValueError as error:
        raise UserError(f"The teacher '{file}' can't be used: {cause_of(error)}.") from None
    side = (read | facts).get("image_size", dataset.image_size)
    return completed(file, "network", _architecture_of(weights, side) | read | facts)


def _read_weights(file: Path) -> tuple[str | None, dict[str, Tensor]]:
    """The card's text, None if there is none, and the tensors."""
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get(CARD_KEY)
            return text, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The teacher '{file}' is neither safetensors nor a .pt2 program ({cause_of(error)}); write the weights "
            "with safetensors.torch.save_file, or the network with torch.export.save."
        ) from None


def _architecture_of(weights: dict[str, Tensor], side: int) -> Facts:
    """Backbone, width and batch norm of a network with such weights; nothing, if it is none of the backbones."""
    convolutions = [tensor for tensor in weights.values() if tensor.ndim == 4]
    outputs = [len(tensor) for name, tensor in weights.items() if name.startswith("classifier.") and tensor.ndim == 2]
    if not convolutions or not outputs:
        return {}
    batch_norm = any(name.endswith("running_mean") for name in weights)
    for backbone, channels in NOMINAL_CHANNELS.items():
        width = max(len(tensor) for tensor in convolutions) / channels
        network = _built(backbone, width, batch_norm, _channels_of(weights), side, outputs[-1])
        if network is not None and _shapes(network.state_dict()) == _shapes(weights):
            return {"backbone": backbone, "width": width, "batch_norm": batch_norm}
    return {}


def _channels_of(weights: dict[str, Tensor]) -> int:
    """Of the images that a backbone with such weights takes: all layers but the first take more."""
    return min((tensor.shape[1] for tensor in weights.values() if tensor.ndim == 4), default=0)


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def _built(backbone: str, width: float, batch_norm: bool, channels: int, side: int, classes: int) -> Network | None:
    """An untrained network; None if there is none such."""
    try:
        return build_network(
            backbone,
            width=width,
            dropout=0.0,
            batch_norm=batch_norm,
            channels=channels,
            image_size=side,
            num_classes=classes,
            seed=0,
        )
    except UserError:
        return None


def _backbone_from(file: Path, declared: Declared, dataset: Dataset, order: list[int]) -> Network:
    _, weights = _read_weights(file)
    channels, side = _channels_of(weights), declared.image_size
    _refuse_channels(channels, dataset)
    assert declared.backbone is not None
    assert declared.width is not None
    batch_norm = declared.batch_norm is not False
    network = _built(declared.backbone, declared.width, batch_norm, channels, side, len(order))
    if network is None or _shapes(network.state_dict()) != _shapes(weights):
        raise ValueError(
            f"does not hold the weights of {declared.backbone} of width {declared.width:g} "
            f"{'with' if batch_norm else 'without'} batch norm, for {len(order)} classes and images of {side} pixels; "
            "mend its declaration"
        )
    network.load_state_dict(weights)
    last = [module for module in network.classifier.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(last.weight[order].clone())
        last.bias.copy_(last.bias[order].clone())
    if side == dataset.image_size:
        return network
    return Network(
        nn.Sequential(Resize(side), *network.features),
        network.classifier,
        network.feature_dim,
        layers={name: depth + 1 for name, depth in network.layers.items()},
        middle=network.middle,
    )


def _around_program(program: Program, declared: Declared, dataset: Dataset, order: list[int] | None) -> Network:
    _refuse_channels(program.channels, dataset)
    side = declared.image_size
    if program.side not in (None, side):
        raise ValueError(f"takes images of {program.side} pixels, but image_size is declared as {side}")
    resize = [] if side == dataset.image_size else [Resize(side)]
    features = nn.Sequential(*resize, program)
    dim = _outputs_of(features, _examples(dataset, 2)).shape[1]
    if order is not None and dim != len(order):
        raise ValueError(f"gives {dim} logits, but {len(order)} classes are declared")
    return Network(features, nn.Identity() if order is None else Reorder(order), dim, layers={}, middle="")


def _refuse_channels(channels: int | None, dataset: Dataset) -> None:
    if channels not in (None, dataset.channels):
        raise ValueError(
            f"takes images of {channels} channels, but those of dataset '{dataset.name}' have {dataset.channels}"
        )


def _examples(dataset: Dataset, count: int) -> Tensor:
    """Noise in the place of standardised images, float32 (count, C, S, S); always the same."""
    shape = (count, dataset.channels, dataset.image_size, dataset.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _outputs_of(network: nn.Module, images: Tensor) -> Tensor:
    """What it gives, float32 (B, D).

    Raises:
        ValueError: it can't be run, or gives something else.
    """
    device = next((tensor.device for tensor in network.state_dict().values()), images.device)
    try:
        found = network(images.to(device))
    except Exception as error:
        raise ValueError(
            f"can't be run on {len(images)} images of {images.shape[-1]} pixels of the dataset, resized to its "
            f"image_size ({cause_of(error)}); see to its image_size, and that its first dimension is dynamic"
        ) from None
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images) or not found.is_floating_point():
        raise ValueError(f"gives {shape} for {len(images)} images, but must give one row of numbers for each")
    return found.float()
