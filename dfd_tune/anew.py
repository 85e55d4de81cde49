"""What a search will train anew once all is chosen, as far as that is known before it has begun.

What stands for a cell's choice is its first trial that distils. Not for: what is trained anew after the choice
(confirm.py, analysis/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dfd_tune.axes import Choice
from dfd_tune.config import TrialConfig
from dfd_tune.confirm import arms_of, fresh_seeds, tuning_of, twin_of, with_seed
from dfd_tune.settings import Request


@dataclass(frozen=True)
class Anew:
    """What is trained anew, of a cell or of several."""

    arms: tuple[TrialConfig, ...]
    """What stands for each arm; trained with every fresh seed."""
    tuning: tuple[TrialConfig, ...]
    """The search of plain training's own settings; trained once each."""
    seeds: tuple[int, ...]
    """The fresh ones."""
    replicate: Literal["student", "pipeline"]

    def __len__(self) -> int:
        return len(self.arms) * len(self.seeds) + len(self.tuning)

    def with_fresh_seeds(self) -> Iterator[TrialConfig]:
        """Each arm with each seed."""
        for config in self.arms:
            yield from (with_seed(config, seed, self.replicate) for seed in self.seeds)

    def trials(self) -> Iterator[TrialConfig]:
        """What stands for each trial that is trained anew."""
        yield from self.with_fresh_seeds()
        yield from self.tuning


NOTHING = Anew((), (), (), "student")


def cells_anew(request: Request, trials: Sequence[TrialConfig], num_trials: int) -> list[Anew]:
    """What may be trained anew, for each cell of the space, those that distil first; of others plain training.

    Args:
        request: what is asked for.
        trials: its trials, or what stands for them.
        num_trials: how many there will be.
    """
    confirm = request.confirm
    if not confirm.seeds:
        return []
    explored = request.explore.get("seed")
    seen = explored.values if isinstance(explored, Choice) else (request.settings.get("seed", request.seed),)
    seeds = tuple(fresh_seeds(confirm.seeds, request.seed, seen))
    groups: dict[frozenset[tuple[str, Any]], list[TrialConfig]] = {}
    for config in trials:
        rest = {name: value for name, value in vars(config).items() if name not in ("lambda_", "seed")}
        groups.setdefault(frozenset(rest.items()), []).append(config)
    run = {config.key("") for config in trials} if request.space.sampler == "grid" else set()
    cells, plain = [], []
    for group in groups.values():
        student = next((config for config in group if config.distills), None)
        if student is None:
            plain.append(Anew((group[0],), (), seeds, confirm.replicate))
            continue
        points = len({config.lambda_ for config in group}) if request.space.sampler == "grid" else num_trials
        tuning = tuning_of(twin_of(student), points) if "tuned_base" in confirm.controls else []
        # Which one will be best is not known; the second is the same for all cells that share their plain training.
        tuned = next(iter(tuning[1:] or tuning), None)
        arms = tuple(arms_of(student, confirm.controls, tuned).values())
        left = tuple(config for config in tuning if config.key("") not in run)
        cells.append(Anew(arms, left, seeds, confirm.replicate))
    return [*cells, *plain]


def together(cells: Sequence[Anew]) -> Anew:
    """Several cells' in one; what they share, as plain training of all methods, once."""
    if not cells:
        return NOTHING
    arms = {config.key(""): config for cell in cells for config in cell.arms}
    tuning = {config.key(""): config for cell in cells for config in cell.tuning}
    return Anew(tuple(arms.values()), tuple(tuning.values()), cells[0].seeds, cells[0].replicate)
