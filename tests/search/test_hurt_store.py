"""Whole searches whose store fills up in their midst, or is damaged after their end: one sentence, and the same results
once they go on."""

import json
import shutil
import time

import pytest

from dfd_tune.record import best_file
from dfd_tune.store import FolderStore
from tests.conftest import fill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SPACE = """
description: plain and distilled
confirm: {seeds: 0}
explore: {lambda_: [0, 2]}
settings: {backbone: alexnet, batch_norm: false, reduction: mean, batch_size: 25}
"""
QUICK = ("--set", "train_images=100", "--set", "test_images=60", "--set", "width=0.125", "--checkpoint-seconds", "0.2")
CLOCKS = ("seconds", "images_per_second", "device_hours", "peak_memory_bytes", "image_seconds")


def found_in(run_process, store, name):
    """What a search says of its trials and tests, but for readings of clocks."""
    done = run_process("results", name, "--format", "json", "--store", store)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    trials = {
        trial["key"]: {name: value for name, value in trial["metrics"].items() if name not in CLOCKS}
        for trial in told["trials"]
    }
    return trials, told["teachers"], told["tested"], told["best"]["key"], told["state"]["how"]


def launch_of(space, store, epochs):
    words = ("--set", f"epochs={epochs}", "--set", f"teacher_epochs={epochs}")
    return ("launch", "--dataset", "digits", "--space", space, "--name", "s", "--store", store, *QUICK, *words)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    file = tmp_path_factory.mktemp("spaces") / "hurt.yaml"
    file.write_text(SPACE)
    return file


def test_a_store_that_fills_up_stops_the_search_in_one_sentence_and_resume_goes_on(
    space, small_disk, start_cli, run_process, tmp_path
):
    disk, epochs = small_disk(200 << 20), 60
    store = FolderStore(disk / "store")
    process = start_cli(*launch_of(space, store.root, epochs))
    try:
        end = time.monotonic() + 240
        while not list(store.root.glob("checkpoints/trials-*/[0-9]*")):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < end, "no trial has a checkpoint"
            time.sleep(0.05)
        filler = fill(disk)
        said = process.communicate(timeout=240)[0]
    finally:
        process.kill()
    assert process.returncode == 2, said
    assert "Traceback" not in said
    sentences = [line for line in said.splitlines() if line.startswith("dfd-tune: ")]
    assert len(sentences) == 1, said
    assert f"The disk of '{store.root}" in sentences[0]
    assert "is full" in sentences[0]
    filler.unlink()
    done = run_process("resume", "s", "--store", store.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    alone = run_process(*launch_of(space, tmp_path / "alone", epochs))
    assert alone.returncode == 0, alone.stderr
    assert found_in(run_process, store.root, "s") == found_in(run_process, tmp_path / "alone", "s")


@pytest.mark.long
def test_a_search_whose_records_and_best_student_are_damaged_comes_out_the_same_when_it_goes_on(
    space, run_process, tmp_path
):
    store = FolderStore(tmp_path / "store")
    arguments = launch_of(space, store.root, 2)
    assert run_process(*arguments).returncode == 0
    expected = found_in(run_process, store.root, "s")
    folder = store.path("searches", "s")
    trials, tests = (sorted((folder / name).glob("*.json")) for name in ("trials", "tests"))
    trials[0].write_bytes(b"")
    tests[0].write_bytes(tests[0].read_bytes()[:50])
    student = folder / "best" / "student.safetensors"
    content = bytearray(student.read_bytes())
    content[-20] ^= 1
    student.write_bytes(content)
    assert best_file(store, "s", student.name) is None
    done = run_process("predict", "--model", "s", "--store", store.root, tmp_path / "none.png")
    assert (done.returncode, "damaged" in done.stderr) == (2, True)
    (folder / "run.json").write_text("{")
    done = run_process("resume", "s", "--store", store.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found_in(run_process, store.root, "s") == expected
    assert best_file(store, "s", student.name) == student
    record = folder / "search.json"
    record.write_bytes(record.read_bytes()[:-100])
    for words in (arguments, ("resume", "s", "--store", store.root)):
        done = run_process(*words)
        assert (done.returncode, "search.json' is damaged" in done.stderr) == (2, True)
        assert "Traceback" not in done.stderr
    record.unlink()  # as that sentence says
    assert run_process(*arguments).returncode == 0
    assert found_in(run_process, store.root, "s") == expected
    shutil.rmtree(store.root)
