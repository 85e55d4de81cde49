"""A search's records, emptied, cut short or with a bit flipped: refused or left out, and never believed."""

import logging
import os

import numpy as np
import pytest

from dfd_tune.cli.entry import main
from dfd_tune.errors import UserError
from dfd_tune.liveness import State, running, state_of
from dfd_tune.record import find_search, known_search, load_search, load_trials, save_search, save_test, save_trial
from dfd_tune.record import test_record as record_of
from dfd_tune.store import Store, existing_store, open_store
from tests.report.searches import make_request, make_search, make_trial

REQUEST = make_request({"lambda_": [0, 1]})
TRIALS = sorted(
    (make_trial(REQUEST, {"lambda_": value}, 0.8 + value / 10, history=[0.5, 0.8]) for value in (0, 1)),
    key=lambda trial: trial.key,
)
STEP = 7
"""Of so many bytes, one is flipped in the larger files."""


@pytest.fixture
def store(tmp_path) -> Store:
    made = open_store(tmp_path / "store")
    made.identity()
    with running(made, "mine", print):
        save_search(made, make_search(REQUEST, {}, search="mine"))
        for trial in TRIALS:
            save_trial(made, "mine", trial)
            save_test(made, "mine", record_of(trial.key, np.array([True, False])))
    return made


def damaged(file, step=STEP):
    """Put damaged content into a file again and again; it is whole afterwards."""
    content = file.read_bytes()
    yield from _each(file, [content[:length] for length in (0, 1, len(content) // 2, len(content) - 2)])
    for place in range(0, len(content), step):
        flip = bytes([content[place] ^ 1 << place % 8])
        yield from _each(file, [content[:place] + flip + content[place + 1 :]])
    file.write_bytes(content)


def _each(file, contents):
    for content in contents:
        file.write_bytes(content)
        yield content


def test_a_search_whose_own_record_is_damaged_is_refused_by_its_files_name(store):
    file = store.path("searches", "mine", "search.json")
    whole = load_search(store, "mine")
    for _ in damaged(file):
        for ask in (load_search, known_search):
            with pytest.raises(UserError, match=r"search\.json' is damaged"):
                ask(store, "mine")
        assert find_search(store, "mine") is None
    assert load_search(store, "mine") == whole


def test_a_command_says_so_and_ends_with_2(store, monkeypatch, capsys):
    store.path("searches", "mine", "search.json").write_text("")
    monkeypatch.setattr("sys.argv", ["dfd-tune", "results", "mine", "--store", str(store.root)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "search.json' is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["trials", "tests"])
def test_a_damaged_record_of_a_trial_is_left_out_and_named(store, folder, caplog):
    search = load_search(store, "mine")
    file = store.path("searches", "mine", folder, f"{TRIALS[0].key}.json")
    for _ in damaged(file):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = load_trials(store, search) if folder == "trials" else list(load_search(store, "mine").tests)
        assert found == (TRIALS[1:] if folder == "trials" else [TRIALS[1].key])
        assert [str(file) in line for line in caplog.messages] == [True]
    assert load_trials(store, search) == TRIALS


def test_how_a_search_stands_is_not_known_where_its_file_is_damaged(store):
    known = state_of(store, "mine")
    assert known.how == "finished"
    for _ in damaged(store.path("searches", "mine", "run.json"), 1):
        found = state_of(store, "mine")
        assert found in (known, State("never"))
        assert str(found)


def test_a_stores_identity_is_what_was_written_or_refused(store):
    identity = store.identity()
    for content in damaged(store.path("store.json"), 1):
        try:
            assert open_store(store.root).identity() == identity
        except UserError as error:
            (sentence,) = error.problems
            assert "store.json" in sentence or "format" in sentence
        assert store.path("store.json").read_bytes() == content
    assert open_store(store.root).identity() == identity


@pytest.mark.parametrize("opened", [open_store, existing_store])
def test_a_store_of_another_format_is_refused_and_told_who_reads_it(tmp_path, opened):
    store = open_store(tmp_path)
    store.write_json({"id": "0" * 32, "format": 2, "release": "7.1.0"}, "store.json")
    with pytest.raises(UserError) as caught:
        opened(tmp_path)
    (sentence,) = caught.value.problems
    assert "format 2" in sentence
    assert "dfd-tune 7.1.0" in sentence
    assert str(tmp_path) in sentence
    store.write_json({"id": "0" * 32, "format": 1, "release": "0.1.0"}, "store.json")
    assert opened(tmp_path).identity() == "0" * 32
    store.write_json({"id": "0" * 32}, "store.json")  # before stores said their format
    assert opened(tmp_path).identity() == "0" * 32


def test_records_of_older_versions_which_have_no_seal_are_read(store):
    import json

    search = load_search(store, "mine")
    for file in store.path("searches", "mine").rglob("*.json"):
        value = json.loads(file.read_text())
        del value["seal"]
        file.write_text(json.dumps(value))
    assert load_search(store, "mine") == search
    assert load_trials(store, search) == TRIALS


@pytest.mark.parametrize("number", [5, 116, 13])
def test_a_disk_that_can_not_be_read_just_now_is_an_error_and_not_a_search_without_trials(store, monkeypatch, number):
    search = load_search(store, "mine")

    def failing(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("dfd_tune.store.files.STALE_PAUSES", (0.0,))
    monkeypatch.setattr("pathlib.Path.read_text", failing)
    for ask in (
        lambda: load_search(store, "mine"),
        lambda: load_trials(store, search),
        lambda: state_of(store, "mine"),
    ):
        with pytest.raises(OSError, match=os.strerror(number)):
            ask()
    monkeypatch.undo()
    monkeypatch.setattr(os, "listdir", failing)
    with pytest.raises(OSError, match=os.strerror(number)):
        load_trials(store, search)
