"""What is read out of a job's log: which epochs were trained, which were kept, and what a kill may have cost."""

from pathlib import Path

from benchmarks.processes import JobLog


def read(folder: Path, *lines: str) -> JobLog:
    file = folder / "job.log"
    file.write_text("".join(f"{line}\n" for line in lines))
    return JobLog.read(file)


FIRST, SECOND = (f"--- 2026-01-01 00:00:00 attempt {n} on host, process {10 * n}" for n in (1, 2))


def test_each_epoch_of_an_undisturbed_training_counts_once(tmp_path):
    log = read(tmp_path, FIRST, "epoch 1: loss 1", "epoch 2: loss 1", "checkpoint of epoch 2 kept", "epoch 3: loss 1")
    assert log.trained == {1: 1, 2: 1, 3: 1}
    assert (log.processes, log.repeated, log.allowed, log.problems) == ([10], 0, 0, [])


def test_epochs_since_the_last_checkpoint_may_be_trained_again(tmp_path):
    before = [FIRST, "epoch 1: a", "checkpoint of epoch 1 kept", "epoch 2: a", "epoch 3: a"]
    log = read(tmp_path, *before, SECOND, "going on after epoch 1", "epoch 2: a", "epoch 3: a", "epoch 4: a")
    assert log.trained == {1: 1, 2: 2, 3: 2, 4: 1}
    assert (log.repeated, log.allowed, log.problems) == (2, 2, [])


def test_an_epoch_of_which_only_its_checkpoint_outlived_the_kill_counts(tmp_path):
    told = read(tmp_path, FIRST, "epoch 1: a", "checkpoint of epoch 2 kept", SECOND, "going on after epoch 2")
    assert set(told.trained) == {1, 2}
    untold = read(tmp_path, FIRST, "epoch 1: a", SECOND, "going on after epoch 2", "epoch 3: a")
    assert set(untold.trained) == {1, 2, 3}
    assert (untold.repeated, untold.problems) == (0, [])


def test_a_training_that_begins_before_its_checkpoint_is_a_problem(tmp_path):
    kept = [FIRST, "epoch 1: a", "epoch 2: a", "checkpoint of epoch 2 kept"]
    assert read(tmp_path, *kept, SECOND, "going on after epoch 1", "epoch 2: a").problems
    assert read(tmp_path, *kept, SECOND, "epoch 1: a").problems
