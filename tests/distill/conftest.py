from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny import fresh_store, trial, workbench
from two_processes import group

from dfd_tune.config import TrialConfig
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.workbench import Workbench
from dfd_tune.store import Store


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Networks this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def two_processes() -> Iterator[Callable[..., list[Any]]]:
    """Call `task(number, *arguments)` in two other processes at once; starting them takes seconds."""
    with group(2) as call:
        yield call


@pytest.fixture
def store(tmp_path) -> Store:
    """A store with the tiny dataset and nothing else."""
    return fresh_store(tmp_path / "store")


@pytest.fixture
def config() -> TrialConfig:
    return trial()


@pytest.fixture
def bench(store: Store, config: TrialConfig) -> Workbench:
    """A workbench, without banks, whose store holds the teacher of `config`."""
    made = workbench(store)
    made.prepare(config.teacher(), SingleProcess())
    return made
