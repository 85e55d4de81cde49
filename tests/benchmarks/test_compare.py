"""Which sides are measured, in which turns and layouts; the command on its own. Not for: how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.baselines.running import CommandFailedError, Layout, layouts, together
from benchmarks.compare import FOUR, FOURTEEN, NAMES, in_turns, main, rows_for, table

ROOT = Path(__file__).parent.parent.parent


def test_the_full_comparison_has_a_row_for_each_target():
    assert [row.name for row in rows_for(NAMES, 2, full=True)] == [
        "training/float32/plain",
        "training/bf16/plain",
        "training/float32/torchdistill",
        "training/float32/strong",
        "search4/plain",
        "search14/plain",
        "search4/ray",
    ]
    assert (len(set(FOUR)), len(set(FOURTEEN))) == (4, 14)


def test_both_sides_of_a_row_train_the_same_trials():
    for row in rows_for(NAMES, 2, full=True):
        assert row.ours.trials == row.theirs.trials
        assert (row.ours.who, row.ours.what) == ("ours", row.theirs.what)


def test_each_side_is_measured_once_a_repeat_and_first_in_turn():
    rows = rows_for(NAMES, 2, full=True)
    turns = [in_turns(rows, repeat) for repeat in range(20)]
    assert all(len(turn) == len(set(turn)) and set(turn) == set(turns[0]) for turn in turns)
    assert {turn[0] for turn in turns} == set(turns[0])


def test_layouts_use_all_cores_and_no_more():
    for cores in (1, 2, 16):
        for layout in layouts(cores, 2, loads=True):
            assert layout.at_once * layout.threads == cores
    assert Layout(2, 1) in layouts(2, 2, loads=False)
    assert Layout(1, 2) in layouts(2, 2, loads=False)


def test_losses_too_far_apart_are_marked_in_the_table():
    result = {"name": "one", "ours_s": 1.0, "theirs_s": 2.0, "ratio": 2.0, "low": 1.9, "high": 2.1, "repeats": 5}
    far, near = ({**result, "losses_apart": 0.2, "losses_agree": agree} for agree in (False, True))
    assert "too far" in table([far])[-1]
    assert "too far" not in table([near])[-1]


def test_a_script_that_fails_is_told_with_what_it_wrote(tmp_path):
    with pytest.raises(CommandFailedError, match=r"work\.json"):
        together([["strong_script", "--work", tmp_path]], 1)


@pytest.mark.parametrize("arguments", [["--quick", "--repeats", "0"], ["--quick", "--rows", "nothing"], []])
def test_bad_input_ends_with_2(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("compare.py: error: ")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_measures_what_it_names():
    words = ["--quick", "--rows", "training", "--repeats", "1", "--epochs", "1", "--train-images", "260", "--json"]
    done = subprocess.run([sys.executable, "benchmarks/compare.py", *words], cwd=ROOT, capture_output=True, text=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["name"] for result in results] == ["training/float32/plain", "training/float32/strong"], done.stderr
    for result in results:
        assert {"ours_s", "theirs_s", "ratio", "low", "high", "repeats"} < result.keys()
        assert result["ratio"] == pytest.approx(result["theirs_s"] / result["ours_s"])
