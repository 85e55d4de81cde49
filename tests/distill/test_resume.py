"""A training that is killed and resumed gives, bit for bit, what an undisturbed one gives.

So does one that is not killed but keeps checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import DEVICE, bits, fresh_store, network, trial, without_times
from two_processes import KilledAfter, KilledError, Rank, group, train_and_resume

from dfd_tune.distill.checkpoints import Checkpoints
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.resume import Resumable, Trainee
from dfd_tune.distill.student import save_result, train_student
from dfd_tune.distill.training import learning_rate_schedule
from dfd_tune.distill.workbench import Workbench
from dfd_tune.parts import Recipe
from dfd_tune.store import Store

RECIPE = Recipe(
    epochs=4,
    batch_size=13,
    learning_rate=0.02,
    schedule="one_cycle",
    momentum=0.9,
    weight_decay=5e-4,
    seed=3,
    precision="float32",
)


def workbench(store: Store, seconds: float | None = 0.0, said: list[str] | None = None) -> Workbench:
    """Keeps a checkpoint at the end of each epoch but the last."""
    say = None if said is None else said.append

    def checkpoints(key):
        return Checkpoints(store, key, every_seconds=seconds, say=say)

    return Workbench(store, "tiny", {}, DEVICE, checkpoints=None if seconds is None else checkpoints)


@contextlib.contextmanager
def killed_after(epoch: int):
    """The block ends as by a kill once the checkpoint of that epoch is kept."""
    save = Checkpoints.save

    def save_and_die(self, snapshot):
        save(self, snapshot)
        if snapshot.epoch == epoch:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_die)
        try:
            yield
        except KilledError:
            return
    pytest.fail("it was not killed")


def disturb() -> None:
    """What a reused process, or another one, may have drawn before."""
    torch.manual_seed(np.random.randint(1000))
    torch.rand(5)


def train(config, bench: Workbench, process: SingleProcess | None = None):
    disturb()
    checkpoints = bench.checkpoints_of("trials", config.key(bench.dataset.digest))
    return train_student(config, bench, process or SingleProcess(), checkpoints)


def outcome(student, result):
    metrics = {name: value for name, value in result.metrics.items() if name not in ("seconds", "images_per_second")}
    return metrics, without_times(result.history), bits(student)


# Students.

STUDENTS = {
    "distilled, with dropout and an adapter": {"method": "fitnets", "dropout": 0.5, "schedule": "cosine"},
    "below its teacher's classifier": {"method": "simkd", "dropout": 0.5, "schedule": "cosine"},
    "plain": {"lambda_": 0.0, "schedule": "one_cycle", "dropout": 0.3},
    "of mixed images": {"mixup": 0.4, "method": "kd", "schedule": "cosine"},
    "of two teachers, projected": {"teachers": "alexnet+resnet18", "backbone": "resnet18", "schedule": "step"},
    "without momentum": {"momentum": 0.0, "schedule": "constant"},
    "in bf16": {"precision": "bf16", "dropout": 0.5, "schedule": "cosine"},
    "vgg16": {"backbone": "vgg16", "dropout": 0.5, "lambda_": 0.0, "schedule": "cosine"},
}


@pytest.mark.parametrize("settings", STUDENTS.values(), ids=STUDENTS)
def test_a_student_that_is_killed_twice_ends_as_an_undisturbed_one(settings, store):
    config = trial(epochs=5, batch_size=13, **settings)
    for needed in config.pretrained():
        workbench(store, None).prepare(needed, SingleProcess())
    expected = outcome(*train(config, workbench(store, None)))
    checkpointed = workbench(store)
    assert outcome(*train(config, checkpointed)) == expected
    checkpointed.checkpoints_of("trials", config.key(checkpointed.dataset.digest)).clear()

    with killed_after(2):
        train(config, workbench(store))
    again = SingleProcess()
    with killed_after(3):
        train(config, workbench(store), again)
    assert without_times(again.restored) == expected[1][:2]
    last = SingleProcess()
    assert outcome(*train(config, workbench(store), last)) == expected
    # What an earlier attempt reported is told once, and not reported again.
    assert without_times(last.restored) == expected[1][:3]
    assert without_times(last.reported) == expected[1][3:]


SCRIPT = """
    import os, signal, sys
    from pathlib import Path
    from dfd_tune.distill.process import SingleProcess
    from test_resume import KILLED, train, workbench
    from dfd_tune.store import FolderStore

    class Killed(SingleProcess):
        def report(self, metrics):
            if metrics["epoch"] == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    import torch
    torch.set_num_threads(1)
    train(KILLED, workbench(FolderStore(Path(sys.argv[1]))), Killed())
"""
KILLED = trial(epochs=4, lambda_=0.0, dropout=0.5, schedule="one_cycle")


def test_a_student_goes_on_in_another_process_after_a_real_kill(store):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(store.root)]
    here = str(Path(__file__).parent)
    killed = subprocess.run(command, cwd=here, env=_environment(here), timeout=120)
    assert killed.returncode == -signal.SIGKILL
    process = SingleProcess()
    found = outcome(*train(KILLED, workbench(store), process))
    assert [metrics["epoch"] for metrics in process.restored] == [1, 2, 3]
    assert found == outcome(*train(KILLED, workbench(store, None)))


def _environment(folder: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([folder, *sys.path])}


def test_seconds_are_those_of_all_attempts(store):
    now = 0.0

    class Slow(SingleProcess):
        def report(self, metrics):
            nonlocal now
            now += 10.0

    config, bench = trial(epochs=5, lambda_=0.0), workbench(store)

    def attempt():
        checkpoints = bench.checkpoints_of("trials", "key")
        return train_student(config, bench, Slow(), checkpoints, clock=lambda: now)[1]

    for epoch in (2, 4):
        with killed_after(epoch):
            attempt()
        now += 1000.0  # nobody trains
    # 10 for the report of epoch 1, 10 for that of 3, 10 for that of 5; 2 and 4 died before theirs.
    assert attempt().metrics["seconds"] == 30.0


def test_short_trainings_write_nothing_and_none_does_after_its_last_epoch(store):
    config = trial(epochs=2, lambda_=0.0)
    train(config, workbench(store, 60.0))
    assert not store.path("checkpoints").exists()
    train(trial(epochs=1, lambda_=0.0), workbench(store))
    assert not store.path("checkpoints").exists()


def test_a_checkpoint_is_kept_at_most_every_so_many_seconds(store, monkeypatch):
    saved = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, snapshot: saved.append(snapshot.epoch))
    ticks = itertools.count(step=20)  # one at the start, and one at each epoch's end
    kept = Checkpoints(store, "key", every_seconds=60.0, clock=lambda: next(ticks))
    train_student(trial(epochs=6, lambda_=0.0), workbench(store), SingleProcess(), kept)
    assert saved == [3, 4, 5]  # a `save` that was not made resets nothing


def test_nothing_is_left_once_the_result_is_published(store):
    config, bench = trial(epochs=3, lambda_=0.0), workbench(store)
    student, result = train(config, bench)
    assert len(list(store.path("checkpoints", f"trials-{result.key}").iterdir())) == 1
    save_result(student, result, config, bench, bench.checkpoints_of("trials", result.key))
    assert list(store.path("checkpoints").iterdir()) == []


OTHERS = {
    "another width": {"width": 0.25},
    "more epochs": {"epochs": 3},
    "another method": {"method": "fitnets"},
}


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_that_does_not_fit_is_left_out_with_a_line(settings, store):
    config, said = trial(epochs=2, lambda_=1.0, dropout=0.5), []
    other = trial(**{"epochs": 2, "lambda_": 1.0} | settings)
    bench = workbench(store, said=said)
    for needed in (*config.pretrained(), *other.pretrained()):
        bench.prepare(needed, SingleProcess())
    disturb()
    with contextlib.suppress(KilledError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(SingleProcess, "report", KilledAfter(0, epochs=other.epochs - 1).report)
        train_student(other, bench, SingleProcess(), bench.checkpoints_of("trials", config.key(bench.dataset.digest)))
    process = SingleProcess()
    with killed_after(1):
        train(config, bench, process)
    assert process.restored == []
    (refusal,) = [line for line in said if not line.endswith("kept")]
    assert config.key(bench.dataset.digest) in refusal
    # The one of its own is used, though the other's was of a later epoch or the same.
    found = outcome(*train(config, bench, process))
    assert len(process.restored) == 1
    assert [line for line in said if not line.endswith("kept")] == [refusal]
    assert found == outcome(*train(config, workbench(store, None)))


# Networks that come before the search.


@pytest.mark.parametrize("role", ["teacher", "base"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "constant"])
def test_a_network_that_is_killed_ends_as_an_undisturbed_one(role, schedule, store, tmp_path):
    config = getattr(trial(teacher_epochs=4, teacher_dropout=0.5, teacher_schedule=schedule), role)()
    expected, *_ = workbench(fresh_store(tmp_path / "other"), None).prepare(config, SingleProcess())
    with killed_after(2):
        workbench(store).prepare(config, SingleProcess())
    assert not store.path("pretrained", expected.key).exists()
    disturb()
    process = SingleProcess()
    found, trained, _ = workbench(store).prepare(config, process)
    assert trained
    assert [metrics["epoch"] for metrics in process.reported] == [3, 4]
    assert bits(found.network) == bits(expected.network)
    assert without_times(found.history) == without_times(expected.history)
    assert found.val_accuracy == expected.val_accuracy
    assert list(store.path("checkpoints").iterdir()) == []


def test_checkpoints_left_by_a_kill_after_publishing_are_removed(store):
    config = trial(teacher_epochs=3).teacher()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "clear", lambda self: None)
        workbench(store).prepare(config, SingleProcess())
    assert len(list(store.path("checkpoints").iterdir())) == 1
    assert workbench(store).prepare(config, SingleProcess())[1] is False
    assert list(store.path("checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "epoch"),
    [
        pytest.param("espcn", 2, id="espcn"),
        pytest.param("srgan", 1, id="srgan, alone"),
        pytest.param("srgan", 3, id="srgan, at the last moment alone"),
        pytest.param("srgan", 4, id="srgan, with its adversary"),
    ],
)
def test_a_front_end_that_is_killed_ends_as_an_undisturbed_one(kind, epoch, store, tmp_path):
    settings = trial(
        frontend=kind,
        frontend_size=0.1,
        frontend_epochs=6,
        frontend_batch_size=9,
        frontend_learning_rate=2e-3,
        frontend_content="teacher",
    )
    config = settings.low_res.frontend
    undisturbed = workbench(fresh_store(tmp_path / "other"), None)
    for bench in (undisturbed, workbench(store, None)):
        bench.prepare(settings.teacher(), SingleProcess())
    expected, _ = undisturbed.prepare_frontend(config, SingleProcess())
    with killed_after(epoch):
        workbench(store).prepare_frontend(config, SingleProcess())
    disturb()
    before = torch.get_rng_state()
    found, trained = workbench(store).prepare_frontend(config, SingleProcess())
    assert trained
    assert bits(found.network) == bits(expected.network)
    assert dataclasses.replace(found, network=expected.network) == expected
    assert list(store.path("checkpoints").iterdir()) == []
    assert torch.equal(torch.get_rng_state(), before)


# Several processes.


def same_bits(ours, theirs) -> bool:
    return all(np.array_equal(ours["weights"][name], theirs["weights"][name]) for name in theirs["weights"])


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_go_on_together(size, two_processes, store, tmp_path):
    # From three processes on, the order of a sum over them matters.
    with contextlib.ExitStack() as stack:
        call = two_processes if size == 2 else stack.enter_context(group(3))
        ranks = call(train_and_resume, size, store.root, tmp_path / "meeting", RECIPE)
    for undisturbed, resumed in ranks:
        assert resumed["history"] == undisturbed["history"]
        assert same_bits(resumed, undisturbed)
        assert resumed["restored"] == undisturbed["history"][:2]
        assert resumed["reported"] == undisturbed["history"][2:]


def test_a_process_that_does_not_see_the_chosen_checkpoint_is_told_apart(store, monkeypatch):
    def rank_0_chose_3(shared, src):
        shared.fill_(3)

    monkeypatch.setattr(torch.distributed, "broadcast", rank_0_chose_3)
    monkeypatch.setattr(Checkpoints, "at", partialmethod(Checkpoints.at, patience=0.1))
    kept = Checkpoints(store, "key", every_seconds=0.0)
    run = Resumable(kept, {}, Rank(rank=1), epochs=9, clock=lambda: 0.0, draws=True)
    with pytest.raises(OSError, match="epoch 3"):
        run.resume()


# Its parts.


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, momentum=0.9), torch.optim.Adam])
def test_what_an_optimiser_remembers_keeps_its_layout_in_memory(optimizer):
    """Vectors of another order may be rounded otherwise."""

    def trainee(seed):
        module = network(seed=seed, backbone="vgg16").to(memory_format=torch.channels_last)
        made = optimizer(module.parameters(), lr=0.1)
        return Trainee(module, made, torch.optim.lr_scheduler.ConstantLR(made, factor=1.0))

    first, second = trainee(1), trainee(2)
    first.module(torch.rand(4, 1, 8, 8)).sum().backward()
    first.optimizer.step()
    second.restore(first.state())
    layouts = [
        {
            (index, name): (value.stride(), value.dtype)
            for index, slots in one.optimizer.state_dict()["state"].items()
            for name, value in slots.items()
        }
        for one in (first, second)
    ]
    assert layouts[0] == layouts[1]
    assert any(stride and stride[1] == 1 for stride, _ in layouts[0].values())
    assert bits(second.module) == bits(first.module)
    for name, value in first.state().items():
        assert torch.equal(second.state()[name], value)


# Schedules.


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("done", [1, 5, 6, 11])
def test_a_schedule_goes_on_where_it_was(schedule, done):
    def trainee():
        module = network()
        optimizer = torch.optim.SGD(module.parameters(), lr=3.0, momentum=0.9)
        recipe = dataclasses.replace(RECIPE, schedule=schedule, learning_rate=3.0)
        return Trainee(module, optimizer, learning_rate_schedule(optimizer, recipe, total_steps=12))

    def rates(made, steps):
        used = []
        for _ in range(steps):
            used.append(made.optimizer.param_groups[0]["lr"])
            made.optimizer.step()
            made.schedule.step()
        return used

    whole, first, second = trainee(), trainee(), trainee()
    every = rates(whole, 12)
    assert rates(first, done) == every[:done]
    state = first.state()
    second.check(state)
    second.restore(state)
    assert rates(second, 12 - done) == every[done:]
