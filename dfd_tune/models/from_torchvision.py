"""Networks of torchvision's list, made for small images: their stem halves nothing, their weights are untrained.

docs/models.md has the rules. Not for: weights trained on ImageNet, nor networks that do something else than classify
images. Imports torchvision when it is asked.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from dfd_tune.errors import unknown_name
from dfd_tune.models.cut import Anatomy, CutNetwork, examine

WITH_MULTIPLIER = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
"""Those that take a multiplier of channels, as `width_mult`."""
WITH_AUXILIARY = ("googlenet", "inception_v3")
"""Those that have further classifiers, which are left out here."""
MOMENTUM = 0.1
"""Of batch norm's running statistics: torch's own, as what some networks have would take tens of thousands of steps."""


def problem_with(name: str, *, width: float, batch_norm: bool, channels: int, image_size: int) -> str | None:
    """Why torchvision's `name` can't be a backbone for such images, as a sentence; None if it can.

    Args:
        name: as in torchvision's list.
        width: multiplier on the number of channels.
        batch_norm: whether there is to be batch norm.
        channels: 1 or 3.
        image_size: side of the images in pixels.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        return unknown_name("backbone of torchvision", name, known)
    found = anatomy_of(name, width=width if name in WITH_MULTIPLIER else 1.0, channels=channels, image_size=image_size)
    if isinstance(found, str):
        return (
            f"torchvision/{name} can't be a backbone for images of {image_size}×{image_size} pixels: {found}; take "
            "another backbone or, where these are too small, larger images (image_size)."
        )
    if width != 1 and name not in WITH_MULTIPLIER:
        return (
            f"width is {width:g}, but torchvision/{name} has no multiplier of its channels; set width=1, or take a "
            f"backbone that has: dfd-tune's own, {', '.join(WITH_MULTIPLIER)}."
        )
    if not batch_norm and found.batch_norm:
        return f"batch_norm is false, but torchvision/{name} is made with it; set batch_norm=true."
    return None


@lru_cache(maxsize=64)
def anatomy_of(name: str, *, width: float, channels: int, image_size: int) -> Anatomy | str:
    """The anatomy of one that is on the list, for images of that side; a phrase that says why, if it has none."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        module = _made(name, width, channels, num_classes=2)
    try:
        return examine(module, channels=channels, image_size=image_size, num_classes=2)
    except ValueError as error:
        return str(error)


def lay_out(name: str, *, width: float, dropout: float, channels: int, image_size: int, num_classes: int) -> CutNetwork:
    """The network, with weights drawn as torchvision draws them, from torch's random state.

    Args:
        name: one with which there is no problem, see `problem_with`.
        width: multiplier on the number of channels.
        dropout: before the classifier; there is none elsewhere.
        channels: 1 or 3.
        image_size: side of the images in pixels.
        num_classes: number of logits.
    """
    anatomy = anatomy_of(name, width=width, channels=channels, image_size=image_size)
    assert isinstance(anatomy, Anatomy)
    return CutNetwork(_made(name, width, channels, num_classes), anatomy, dropout)


def _made(name: str, width: float, channels: int, num_classes: int) -> nn.Module:
    from torchvision.models import get_model

    keywords: dict[str, object] = {"width_mult": width} if name in WITH_MULTIPLIER else {}
    if name in WITH_AUXILIARY:
        keywords |= {"aux_logits": False, "init_weights": True}
    module: nn.Module = get_model(name, weights=None, num_classes=num_classes, **keywords)
    _fit_stem(module, channels)
    _settle(module)
    return module


def _fit_stem(module: nn.Module, channels: int) -> None:
    """Stride 1 in the first convolution, no max-pool right after it, and as many input channels as images have."""
    parts = [(name, part) for name, part in module.named_modules() if isinstance(part, (nn.Conv2d, nn.MaxPool2d))]
    (_, first), *others = parts
    assert isinstance(first, nn.Conv2d)
    first.stride = (1, 1)
    if channels != first.in_channels:
        # What it makes of a grey image is what it would make of that image in three equal channels.
        first.weight = nn.Parameter(first.weight.detach().sum(dim=1, keepdim=True))
        first.in_channels = 1
    if others and isinstance(others[0][1], nn.MaxPool2d):
        module.set_submodule(others[0][0], nn.Identity())


def _settle(module: nn.Module) -> None:
    """Nothing random on the way to the features; maps stay as a layer gave them; batch norm as elsewhere here."""
    from torchvision.ops import StochasticDepth

    for part in module.modules():
        if isinstance(part, (nn.Dropout, StochasticDepth)):
            part.p = 0.0
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = MOMENTUM
        if hasattr(part, "inplace"):
            setattr(part, "inplace", False)  # noqa: B010 -- for mypy, a module's attribute may be a tensor
    if type(module)._load_from_state_dict is not nn.Module._load_from_state_dict:
        # MNASNet's asks for the version of a pickled file, which files of weights alone don't have.
        module._load_from_state_dict = nn.Module._load_from_state_dict.__get__(module)  # type: ignore[method-assign]
