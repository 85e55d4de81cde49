"""Confirmation: what is trained anew, with seeds that no choice has seen, and what it is held against.

The best of many noisy scores is flattered by its noise. So what a cell chose is trained again beside plain training and
whatever else is asked for, each of these an arm, in pairs of equal fresh seeds; only these students meet the test
images, and only they make a verdict. Not for: which cells and points are chosen (analysis/), nor for running anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dfd_tune.backbones import has_dropout
from dfd_tune.config import LARGEST_SEED, TrialConfig
from dfd_tune.errors import unknown_name
from dfd_tune.rules import problems_in, setting

Arm = Literal["student", "plain", "half_longer", "longer", "low_res_teacher", "tuned_base"]
"""What is trained with each fresh seed: the chosen student, its λ = 0 twin, and controls."""
Control = Literal["half_longer", "longer", "low_res_teacher", "tuned_base"]
CONTROLS: Mapping[Control, str] = {
    "half_longer": "plain training for half as many epochs again",
    "longer": "plain training for the student's and the teacher's epochs together",
    "low_res_teacher": "the student of a teacher that was trained on low-resolution images",
    "tuned_base": "plain training whose own settings were searched with as many trials",
}
"""Each asks whether something simpler than a high-resolution teacher would have done as well."""
AWAY = 1000
"""The first fresh seed lies so far from the search's own."""
TUNED_LEARNING_RATES = (0.1, 10.0)
"""Of plain training's search: from and to how many times the chosen student's."""
TUNED_WEIGHT_DECAYS = (1e-5, 1e-2)
TUNED_DROPOUTS = (0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class Confirm:
    """What a search trains anew once it has chosen."""

    seeds: int = setting("fresh seeds for each arm; 0 gives no verdict", low=0, high=1000, default=5)
    cells: Literal["best", "all"] = setting("which cells: the one with the best point, or each", default="best")
    replicate: Literal["student", "pipeline"] = setting(
        "what each seed makes anew: the student alone, or its teacher, start and views as well", default="student"
    )
    controls: tuple[Control, ...] = ()
    """In the order in which reports show them."""


DEFAULT, NOTHING_ANEW = Confirm(), Confirm(seeds=0)


def parse_confirm(confirm: Any, controls: Any) -> tuple[Confirm, list[tuple[str, str]]]:
    """What the keys `confirm` and `controls` of a space say; None where one is not there.

    Returns:
        The confirmation, and what is wrong as pairs of a key and a sentence.
    """
    problems: list[tuple[str, str]] = []
    given: dict[str, Any] = {}
    if isinstance(confirm, dict):
        given = {str(name): value for name, value in confirm.items()}
    elif confirm is not None:
        problems.append(("confirm", "`confirm` must be a mapping, as in {seeds: 5, cells: all}."))
    names = [name for name in given if name not in SETTINGS]
    problems += [("confirm", unknown_name("key of `confirm`", name, SETTINGS)) for name in names]
    known = {name: value for name, value in given.items() if name in SETTINGS}
    problems += [("confirm", problem) for problem in problems_in(Confirm, known)]
    wanted, wrong = parse_controls(controls)
    problems += [("controls", problem) for problem in wrong]
    if wanted and not problems and known.get("seeds") == 0:
        problems.append(("controls", "controls need fresh seeds, but `confirm` has 0; give it at least 1."))
    return (Confirm() if problems else Confirm(**known, controls=wanted)), problems


SETTINGS = ("seeds", "cells", "replicate")
"""The keys of `confirm`; `controls` has one of its own."""


def parse_controls(value: Any) -> tuple[tuple[Control, ...], list[str]]:
    """The controls that a list names, and what is wrong with it, one sentence a problem."""
    if value is None:
        return (), []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return (), [f"controls must be a list, as in [longer], of {', '.join(CONTROLS)}."]
    problems = [unknown_name("control", name, CONTROLS) for name in value if name not in CONTROLS]
    return tuple(name for name in get_args(Control) if name in value), problems


def confirm_as_json(confirm: Confirm) -> dict[str, Any]:
    """The confirmation as a JSON object, from which `confirm_from_json` makes an equal one."""
    return dataclasses.asdict(confirm) | {"controls": list(confirm.controls)}


def confirm_from_json(value: Mapping[str, Any]) -> Confirm:
    """The confirmation that `confirm_as_json` gave `value` for."""
    return Confirm(**{**value, "controls": tuple(value["controls"])})


def fresh_seeds(count: int, first: int, seen: Iterable[int]) -> list[int]:
    """Seeds that no choice has seen.

    Args:
        count: how many.
        first: the search's own seed; another one gives other fresh seeds.
        seen: seeds of the trials that were chosen from.
    """
    known, seed = set(seen), first + AWAY
    found: list[int] = []
    while len(found) < count:
        seed %= LARGEST_SEED + 1
        if seed not in known:
            found.append(seed)
        seed += 1
    return found


def twin_of(config: TrialConfig) -> TrialConfig:
    """The trial that differs from `config` in λ alone, which is 0: what distillation is to be measured against."""
    return dataclasses.replace(config, lambda_=0.0)


def arms_of(student: TrialConfig, controls: Sequence[Control], tuned: TrialConfig | None) -> dict[Arm, TrialConfig]:
    """The arms beside a chosen student, with its seed; of a plain one, itself alone.

    Args:
        student: what was chosen.
        controls: those asked for.
        tuned: plain training with its best settings; None where these are not known yet.
    """
    plain = twin_of(student)
    if not student.distills:
        return {"plain": plain}
    found: dict[Arm, TrialConfig | None] = {
        "student": student,
        "plain": plain,
        "half_longer": dataclasses.replace(plain, epochs=math.ceil(1.5 * plain.epochs)),
        "longer": dataclasses.replace(plain, epochs=plain.epochs + plain.teacher_epochs),
        "low_res_teacher": dataclasses.replace(student, teacher_sees="low_res"),
        "tuned_base": tuned,
    }
    return {
        arm: config
        for arm, config in found.items()
        if config is not None and (arm in ("student", "plain") or arm in controls)
    }


def with_seed(config: TrialConfig, seed: int, replicate: str) -> TrialConfig:
    """`config` with a fresh seed, of the student alone or of everything that is trained for it."""
    if replicate == "student":
        return dataclasses.replace(config, seed=seed)
    return dataclasses.replace(config, seed=seed, teacher_seed=seed, augment_seed=seed, frontend_seed=seed)


def tuning_of(plain: TrialConfig, count: int) -> list[TrialConfig]:
    """Plain training with `count` settings of its own: the student's first, then others spread over their ranges.

    Learning rate, weight decay and, where the backbone has it, dropout, by a Halton sequence with a fixed seed.
    """
    from scipy.stats import qmc

    tunes_dropout = has_dropout(plain.backbone)
    rates = [min(100.0, factor * plain.learning_rate) for factor in TUNED_LEARNING_RATES]
    found = [plain]
    for place in qmc.Halton(3, seed=0).random(max(0, count - 1)):
        dropout = TUNED_DROPOUTS[0] + float(place[2]) * (TUNED_DROPOUTS[1] - TUNED_DROPOUTS[0])
        found.append(
            dataclasses.replace(
                plain,
                learning_rate=_between(rates, float(place[0])),
                weight_decay=_between(TUNED_WEIGHT_DECAYS, float(place[1])),
                dropout=round(dropout, 3) if tunes_dropout else plain.dropout,
            )
        )
    return found


def _between(ends: Sequence[float], place: float) -> float:
    """The number that lies so far, a share in 0..1, from one end to the other on a logarithmic scale; three digits."""
    return float(f"{ends[0] * (ends[1] / ends[0]) ** place:.3g}")
