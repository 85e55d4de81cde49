"""What a training changes, taken at the end of an epoch and put back bit by bit: weights, optimiser, schedule, random
states of every process.

Of several processes, rank 0 decides when a checkpoint is due, writes it, and chooses the one from which all go on. Not
for: where checkpoints lie and which of them count (checkpoints.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from dfd_tune.distill.checkpoints import Checkpoints, Snapshot
from dfd_tune.distill.process import EpochMetrics, Process


class MisfitError(Exception):
    """A checkpoint is of another training than the one that is to go on from it."""


@dataclass(frozen=True)
class Trainee:
    """A module under training, and what trains it."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler

    def state(self) -> dict[str, Tensor]:
        """All that training changes, on the CPU; for use at once, as it may share memory with the module."""
        found = {f"weights.{name}": tensor for name, tensor in self.module.state_dict().items()}
        for index, parameter in enumerate(self._parameters()):
            for slot, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"optimizer.{index}.{slot}"] = value
        found["schedule.steps"] = torch.tensor(self.schedule.last_epoch)
        found["schedule.learning_rate"] = torch.tensor(self.optimizer.param_groups[0]["lr"], dtype=torch.float64)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Whether a state is one of this module.

        Raises:
            MisfitError: names or shapes differ.
        """
        shapes = {f"weights.{name}": tensor.shape for name, tensor in self.module.state_dict().items()}
        shapes |= dict.fromkeys(("schedule.steps", "schedule.learning_rate"), torch.Size())
        slots: dict[int, set[str]] = {index: set() for index in range(len(self._parameters()))}
        for name, tensor in state.items():
            if name.startswith("optimizer."):
                _, index, slot = name.split(".", 2)
                slots.setdefault(int(index), set()).add(slot)
                if int(index) < len(self._parameters()) and tensor.shape:  # without a shape: Adam's count of steps
                    shapes[name] = self._parameters()[int(index)].shape
                else:
                    shapes[name] = torch.Size()
        if (
            shapes != {name: tensor.shape for name, tensor in state.items()}
            or len(set(map(frozenset, slots.values()))) > 1
        ):
            raise MisfitError("its networks are of another architecture")

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put a state back that `check` has let pass."""
        weights = "weights."
        self.module.load_state_dict(
            {name.removeprefix(weights): tensor for name, tensor in state.items() if name.startswith(weights)}
        )
        parameters = self._parameters()
        self.optimizer.state.clear()
        for name, tensor in state.items():
            if name.startswith("optimizer."):
                _, index, slot = name.split(".", 2)
                parameter = parameters[int(index)]
                # In the layout of the parameter, as the optimiser makes it: another one would round otherwise.
                value = torch.empty_like(parameter).copy_(tensor) if tensor.shape else tensor.clone()
                self.optimizer.state[parameter][slot] = value.detach()
        steps, rate = int(state["schedule.steps"]), state["schedule.learning_rate"].item()
        self.schedule.load_state_dict({"last_epoch": steps, "_step_count": steps + 1, "_last_lr": [rate]})
        self.optimizer.param_groups[0]["lr"] = rate

    def _parameters(self) -> list[nn.Parameter]:
        (group,) = self.optimizer.param_groups
        parameters: list[nn.Parameter] = group["params"]
        return parameters


class Resumable:
    """A training that can go on from its checkpoints; each of several processes has one, and calls it alike.

    Args:
        checkpoints: where they are; None keeps none.
        parts: what is trained, by names of one's own.
        process: one of those that train together.
        epochs: of the whole training.
        clock: seconds that only grow.
        draws: whether the training draws from torch's global random state, which then belongs to it.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        parts: Mapping[str, Trainee],
        process: Process,
        *,
        epochs: int,
        clock: Callable[[], float],
        draws: bool,
    ):
        self._checkpoints = checkpoints
        self._parts = parts
        self._process = process
        self._epochs = epochs
        self._clock = clock
        self._draws = draws
        self._earlier = 0.0
        self._started = clock()

    def resume(self, warm_up: Callable[[], None] = lambda: None) -> list[EpochMetrics]:
        """Put back the latest checkpoint, if there is one; returns the metrics of the epochs that are done by it.

        Args:
            warm_up: called before anything is put back; may change all that is.

        Raises:
            OSError: a process does not see the checkpoint that rank 0 has chosen, or the disk can't be read just now.
        """
        if self._checkpoints is None:
            return []
        found = self._fitting(self._checkpoints) if self._process.rank == 0 else None
        epoch = self._told(0 if found is None else found.epoch)
        if epoch == 0:
            return []
        snapshot = found or self._checkpoints.at(epoch)
        self._check(snapshot)
        warm_up()
        for name, part in self._parts.items():
            part.restore(_below(name, snapshot.tensors))
        if self._draws:
            _set_random_state(_below("random", snapshot.tensors), self._process)
        self._checkpoints.earlier_seconds = self._earlier = snapshot.seconds
        return list(snapshot.history)

    def epoch_done(self, history: list[EpochMetrics]) -> None:
        """Keep a checkpoint if one is due; after the last epoch none is."""
        if self._checkpoints is not None and self._agreed(history, self._checkpoints.due):
            self._keep(history, self._checkpoints)

    def reported(self, history: list[EpochMetrics]) -> None:
        """Likewise if, of the epoch that was just reported, it came back that the training is to stop."""
        if self._checkpoints is not None and self._agreed(history, self._checkpoints.stop_asked):
            self._keep(history, self._checkpoints)

    def _agreed(self, history: list[EpochMetrics], asked: Callable[[], bool]) -> bool:
        """Whether rank 0 says so, where there are epochs left."""
        return len(history) < self._epochs and bool(self._told(int(self._process.rank == 0 and asked())))

    def _keep(self, history: list[EpochMetrics], checkpoints: Checkpoints) -> None:
        tensors = {f"{name}.{key}": value for name, part in self._parts.items() for key, value in part.state().items()}
        if self._draws:
            tensors |= {f"random.{key}": value for key, value in _random_states(self._process).items()}
        if self._process.rank == 0:
            seconds = self._earlier + self._clock() - self._started
            checkpoints.save(Snapshot(len(history), tensors, list(history), seconds))

    def _fitting(self, checkpoints: Checkpoints) -> Snapshot | None:
        """The latest checkpoint; one that does not fit is removed with all others, as it would hide those to come."""
        snapshot = checkpoints.latest()
        if snapshot is None:
            return None
        try:
            self._check(snapshot)
        except MisfitError as error:
            checkpoints.say(f"The checkpoint of {checkpoints.key} can't be used ({error}); training begins anew.")
            checkpoints.clear()
            return None
        return snapshot

    def _check(self, snapshot: Snapshot) -> None:
        names = {*self._parts, *(["random"] if self._draws else [])}
        if {name.partition(".")[0] for name in snapshot.tensors} != names:
            raise MisfitError("it is of another kind of training")
        for name, part in self._parts.items():
            part.check(_below(name, snapshot.tensors))
        processes = {name for name in _below("random", snapshot.tensors) if name.startswith("cpu.")}
        if self._draws and processes != {f"cpu.{rank}" for rank in range(self._process.world_size)}:
            raise MisfitError("it is of another number of processes")
        if not 0 < snapshot.epoch == len(snapshot.history) < self._epochs:
            raise MisfitError("it is of another number of epochs")

    def _told(self, number: int) -> int:
        """Rank 0's number, told to all."""
        if self._process.world_size == 1:
            return number
        shared = torch.tensor(number, device=self._process.device)
        torch.distributed.broadcast(shared, src=0)
        return int(shared.item())


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")
    }


def _random_states(process: Process) -> dict[str, Tensor]:
    """The random states of every process, as bytes, on all of them."""
    mine = {"cpu": torch.get_rng_state()}
    if process.device.type == "cuda":
        mine["cuda"] = torch.cuda.get_rng_state(process.device)
    if process.world_size == 1:
        return {f"{kind}.0": state for kind, state in mine.items()}
    found: dict[str, Tensor] = {}
    for kind, state in mine.items():
        ours = state.to(process.device)
        every = [torch.empty_like(ours) for _ in range(process.world_size)]
        torch.distributed.all_gather(every, ours)
        found |= {f"{kind}.{rank}": other.cpu() for rank, other in enumerate(every)}
    return found


def _set_random_state(states: Mapping[str, Tensor], process: Process) -> None:
    torch.set_rng_state(states[f"cpu.{process.rank}"])
    if process.device.type == "cuda" and f"cuda.{process.rank}" in states:
        torch.cuda.set_rng_state(states[f"cuda.{process.rank}"], process.device)
