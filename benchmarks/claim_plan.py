"""What a claim's run trains, in which order, which settings validation images choose in it, and what it compares.

A plan is settled before any of its students meets a test image. Its trainings are named, and known ahead but for the
settings that are chosen by trainings of its own. Not for: training (claim_queue.py), or what follows (claim_report.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dfd_tune.errors import UserError

Stage = Literal["teacher", "selection", "confirming"]
Settings = Mapping[str, Any]
Results = Mapping[str, Mapping[str, Any]]
"""What finished trainings left, by name."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting that validation images choose, with one training for each value; the test images do not see these."""

    name: str
    setting: str
    values: tuple[float, ...]
    backbone: str
    settings: Settings = field(default_factory=dict)
    """Of its trainings, over those that the whole plan shares."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to train, with a network for each confirming seed; all of these meet the test images, once."""

    name: str
    backbone: str
    settings: Settings = field(default_factory=dict)
    """Over those that the whole plan shares."""
    choices: tuple[str, ...] = ()
    """Names of the choices whose values it takes."""


@dataclass(frozen=True)
class Contrast:
    """A planned comparison: a row less another one of the same backbone, in pairs of equal seeds."""

    backbone: str
    row: str
    than: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """One network to train."""

    name: str
    """Also that of its file."""
    stage: Stage
    row: str
    """Of a confirming one; of others, the choice or the teacher."""
    backbone: str
    seed: int
    settings: Settings
    """Of the student or, of a teacher, of a student that would have it; but for those that are chosen."""
    choices: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    """Names of trainings that must be finished before."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole run. Rows and choices are trained in the order given; the rows of an equal `round` seed by seed."""

    dataset: Settings
    """DatasetConfig's settings, but for `data`."""
    settings: Settings
    """TrialConfig's settings that all trainings share."""
    choices: tuple[Choice, ...]
    rounds: tuple[tuple[Row, ...], ...]
    contrasts: tuple[Contrast, ...]
    seeds: Mapping[str, tuple[int, ...]]
    """By backbone, those of the confirming trainings."""
    selection_seed: int = 0
    implied: Settings = field(default_factory=dict)
    """What a training's file that does not name these settings was trained with."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, in the order in which they are trained."""
        return tuple(row for round_ in self.rounds for row in round_)

    def trainings(self) -> tuple[Training, ...]:
        """All of them, each once, in the order in which they are to be done."""
        found: dict[str, Training] = {}
        for round_ in self.rounds:
            for row in round_:
                for training in self._before(row):
                    found.setdefault(training.name, training)
            longest = max(len(self.seeds[row.backbone]) for row in round_)
            for place in range(longest):
                for row in round_:
                    if place < len(self.seeds[row.backbone]):
                        training = self._confirming(row, self.seeds[row.backbone][place])
                        found[training.name] = training
        return tuple(found.values())

    def row(self, backbone: str, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if (row.backbone, row.name) == (backbone, name))

    def confirming(self, backbone: str, row: str) -> dict[int, str]:
        """By seed, the names of a row's trainings."""
        return {seed: f"{backbone}-{row}-{seed}" for seed in self.seeds[backbone]}

    def selecting(self, choice: Choice) -> dict[float, str]:
        """By value, the names of a choice's trainings."""
        return {value: f"{choice.name}-{value:g}" for value in choice.values}

    def chosen(self, name: str, results: Results) -> float | None:
        """The value with the best validation accuracy, the smaller one of equals; None until all are trained.

        Raises:
            UserError: the training of every value diverged.
        """
        (choice,) = (choice for choice in self.choices if choice.name == name)
        accuracies = {}
        for value, training in self.selecting(choice).items():
            if training not in results:
                return None
            if results[training]["status"] == "FINISHED":
                accuracies[value] = results[training]["val_accuracy"]
        if not accuracies:
            raise UserError(f"The training of every value of '{name}' diverged, so that none can be chosen.")
        return max(accuracies, key=lambda value: (accuracies[value], -value))

    def resolved(self, training: Training, results: Results) -> dict[str, Any]:
        """All settings of a training, once what it comes after is finished."""
        chosen = {}
        for name in training.choices:
            (choice,) = (choice for choice in self.choices if choice.name == name)
            value = self.chosen(name, results)
            assert value is not None, f"{training.name} comes after {name}"
            chosen[choice.setting] = value
        return {**training.settings, **chosen}

    def _before(self, row: Row) -> Iterator[Training]:
        """What must be trained before a row: its networks, and the trainings of its choices with theirs."""
        for choice in (choice for choice in self.choices if choice.name in row.choices):
            settings = self._settings(choice.backbone, choice.settings, self.selection_seed)
            networks = self._networks(settings)
            yield from networks
            for value, name in self.selecting(choice).items():
                yield Training(
                    name=name,
                    stage="selection",
                    row=choice.name,
                    backbone=choice.backbone,
                    seed=self.selection_seed,
                    settings=settings | {choice.setting: value},
                    after=tuple(network.name for network in networks),
                )
        yield from self._networks(self._settings(row.backbone, row.settings, self.selection_seed))

    def _networks(self, settings: dict[str, Any]) -> list[Training]:
        """The teacher that trainings of these settings look at or start from, or both."""
        looks = "lambda_" not in settings or settings["lambda_"] > 0
        kinds = {settings.get("teacher_sees", "high_res")} if looks else set()
        if settings["student_start"] == "teacher":
            kinds.add("high_res")
        return [
            Training(
                name=f"{settings['backbone']}-teacher{'' if kind == 'high_res' else '-low_res'}",
                stage="teacher",
                row="teacher" if kind == "high_res" else "teacher on low resolution",
                backbone=settings["backbone"],
                seed=settings["teacher_seed"],
                # λ and start say which of its networks the student would need; its own recipe does not matter.
                settings=self._settings(settings["backbone"], {}, self.selection_seed)
                | {"lambda_": 1.0, "student_start": "scratch"}
                | ({} if kind == "high_res" else {"teacher_sees": kind}),
            )
            for kind in sorted(kinds)
        ]

    def _confirming(self, row: Row, seed: int) -> Training:
        settings = self._settings(row.backbone, row.settings, seed)
        of_choices = [
            name for choice in self.choices if choice.name in row.choices for name in self.selecting(choice).values()
        ]
        return Training(
            name=self.confirming(row.backbone, row.name)[seed],
            stage="confirming",
            row=row.name,
            backbone=row.backbone,
            seed=seed,
            settings=settings,
            choices=row.choices,
            after=(*of_choices, *(network.name for network in self._networks(settings))),
        )

    def _settings(self, backbone: str, settings: Settings, seed: int) -> dict[str, Any]:
        return {**self.settings, "backbone": backbone, **settings, "seed": seed}
