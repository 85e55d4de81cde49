"""Networks that a user's own Python file makes: its text is run, and what its function returns is cut in two.

Not for: which text that is, or whether it may be run (own_backbones.py).
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dfd_tune.errors import cause_of
from dfd_tune.models.cut import Anatomy, CutNetwork, examine
from dfd_tune.own_backbones import text_of


def problem_with(name: str, *, width: float, batch_norm: bool, channels: int, image_size: int) -> str | None:
    """Why a file's network can't be a backbone for such images, as a sentence; None if it can.

    Args:
        name: of a backbone whose file was read.
        width: multiplier on the number of channels, of which the file knows nothing.
        batch_norm: whether there is to be batch norm.
        channels: 1 or 3.
        image_size: side of the images in pixels.
    """
    found = anatomy_of(name, channels=channels, image_size=image_size)
    if isinstance(found, str):
        return f"{name} can't be a backbone for images of {image_size}×{image_size} pixels: {found}; mend its file."
    if width != 1:
        return f"width is {width:g}, but {name} is as wide as its file makes it; set width=1."
    if not batch_norm and found.batch_norm:
        return f"batch_norm is false, but the file of {name} has it; set batch_norm=true."
    return None


def anatomy_of(name: str, *, channels: int, image_size: int) -> Anatomy | str:
    """The anatomy of what a file's function makes for such images; a phrase that says why, if it has none."""
    text = text_of(name)
    return (
        "its source is not at hand, or may not be run" if text is None else _anatomy(name, text, channels, image_size)
    )


@lru_cache(maxsize=64)
def _anatomy(name: str, text: str, channels: int, image_size: int) -> Anatomy | str:
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            module = _made(name, text, channels, image_size, num_classes=2)
        return examine(module, channels=channels, image_size=image_size, num_classes=2)
    except ValueError as error:
        return str(error)


def lay_out(name: str, *, dropout: float, channels: int, image_size: int, num_classes: int) -> CutNetwork:
    """The network, with the weights that its file gives it, which draws them from torch's random state.

    Args:
        name: one with which there is no problem, see `problem_with`.
        dropout: before the classifier, beside what the file has.
        channels: 1 or 3.
        image_size: side of the images in pixels.
        num_classes: number of logits.
    """
    text, anatomy = text_of(name), anatomy_of(name, channels=channels, image_size=image_size)
    assert text is not None
    assert isinstance(anatomy, Anatomy)
    return CutNetwork(_made(name, text, channels, image_size, num_classes), anatomy, dropout)


def _made(name: str, text: str, channels: int, image_size: int, num_classes: int) -> nn.Module:
    function = name.split(":")[1]
    try:
        made = getattr(_run(name, text), function)(channels, image_size, num_classes)
    except Exception as error:
        # The user's own code: whatever it raises is told, and where it was raised is theirs to find out.
        raise ValueError(f"{function} raises {type(error).__name__}, {cause_of(error)}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"{function} returns {type(made).__name__}, but must return a torch module")
    return made


@lru_cache(maxsize=16)
def _run(name: str, text: str) -> Any:
    module = ModuleType(name.partition(".py:")[0])
    exec(compile(text, name, "exec"), module.__dict__)
    return module
