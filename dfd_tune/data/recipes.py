"""The settings that each kind of dataset recommends: plain values, read without importing anything heavy.

A recipe holds TrialConfig's settings, `validation_fraction` and perhaps more of DatasetConfig's; a search space or
`--set` overrides them.
Not for: what a setting means or allows (config.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Settings = Mapping[str, Any]

_COMMON: dict[str, Any] = {
    "backbone": "resnet18",
    "schedule": "one_cycle",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "lambda_": 0.5,  # where a space does not explore it; on the scale of sum
    "reduction": "sum",  # as Eq. 1 is written, so that λ is on the paper's scale
}

DIGITS: Settings = MappingProxyType(
    _COMMON
    | {
        "resolution": 4,
        "width": 0.25,
        "dropout": 0.0,
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": 0.05,
        "student_start": "scratch",
        "frontend_size": 0.25,
        "frontend_epochs": 20,
        "crop_padding": 1,
        "flip": False,  # a mirrored digit is no digit
        "validation_fraction": 0.2,
    }
)
"""Small enough for one CPU core: 8×8 digits seen at 4×4 by a network of a quarter of the width."""

LETTERS: Settings = MappingProxyType(
    _COMMON
    | {
        "train_images": 520,  # 10 of each letter to train on and 10 to choose by
        "validation_fraction": 0.5,
        "test_images": 2600,
        "resolution": 5,
        "width": 0.125,
        "dropout": 0.0,
        "epochs": 60,
        "batch_size": 32,
        "learning_rate": 0.1,
        "evaluate_every": 5,  # as many images to look at as to train on
        "student_start": "scratch",
        "frontend_size": 0.25,
        "frontend_epochs": 20,
        "crop_padding": 1,
        "flip": False,  # a mirrored letter is another letter, or none
    }
)
"""Few labelled images, trained to convergence on one CPU core: 16×16 letters seen at 5×5 by a network of an eighth of
the width. Set with plain training and teachers alone: docs/results.md."""

PAPER: Settings = MappingProxyType(
    _COMMON
    | {
        "resolution": 8,
        "width": 1.0,
        "dropout": 0.5,
        "epochs": 100,
        "batch_size": 128,
        # The paper gives neither the rate nor its schedule.
        "learning_rate": 0.05,
        "lambda_": 1.0,
        "student_start": "teacher",  # worth a point where nothing is distilled, no loss where it is: docs/results.md
        "frontend_epochs": 100,
        "crop_padding": 4,
        "flip": True,
        "validation_fraction": 0.1,
    }
)
"""The paper's protocol for 32×32 photographs. Where mirrored images mean something else, as
digits and text do, set `flip=false`."""

SVHN: Settings = MappingProxyType(
    {
        **PAPER,
        "flip": False,  # a mirrored digit is no digit
    }
)
"""The paper's protocol, for 32×32 photographs of digits."""
