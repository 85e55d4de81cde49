"""Several stores that hold searches of one name and share an MLflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfd_tune.record import save_search
from dfd_tune.store import FolderStore, open_store
from dfd_tune.tracking import Tracker, open_tracker, serve_ui
from dfd_tune.tracking.view import runs_url
from tests.tracking.conftest import QUICK
from tests.tracking.records import complaints_in, history_of, runs_of, search_record, trial_record
from tests.tracking.students import EXAMPLE, student

SEARCH = search_record("shared")


@pytest.fixture(scope="module", params=["database", "server"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address that stores share; more of them with every test."""
    if request.param == "server":
        return request.getfixturevalue("server")
    return f"sqlite:///{tmp_path_factory.mktemp('shared')}/shared.db"


@pytest.fixture
def pair(shared: str, tmp_path: Path) -> Iterator[tuple[Tracker, Tracker]]:
    trackers = [open_tracker(open_store(tmp_path / name / "runs"), shared, pauses=QUICK) for name in ("one", "two")]
    yield trackers[0], trackers[1]
    for tracker in trackers:
        tracker.close()


def again(tracker: Tracker) -> Tracker:
    """As a later launch, which knows the store and the address alone."""
    return open_tracker(tracker._store, tracker.address, pauses=QUICK)


def name_of(tracker: Tracker) -> str:
    return str(tracker._client.get_experiment(tracker.experiment_id(SEARCH)).name)


def test_their_runs_are_kept_apart_on_every_relaunch(pair: tuple[Tracker, Tracker]) -> None:
    key = "a" * 16
    for _ in range(2):
        for tracker, epochs in zip(pair, (1, 2), strict=True):
            later = again(tracker)
            assert later.sync(SEARCH, [trial_record(key, epochs=epochs)]) == []
            assert later.close() == []
    first, second = pair
    assert first.experiment_id(SEARCH) != second.experiment_id(SEARCH)
    for tracker, epochs in ((first, 1), (second, 2)):
        [run] = runs_of(tracker, "shared")
        assert history_of(tracker, run.info.run_id, "loss") == [(epoch, float(epoch)) for epoch in range(1, epochs + 1)]
    assert name_of(second) == f"shared (runs {second._store.identity()[:8]})"


def test_an_experiment_is_found_again_after_somebody_renamed_it_and_another_took_the_name(
    pair: tuple[Tracker, Tracker],
) -> None:
    first, second = pair
    mine = first.experiment_id(SEARCH)
    taken = name_of(first)
    first._client.rename_experiment(mine, f"my favourite {mine}")
    other = second._client.create_experiment(taken)
    theirs = second.experiment_id(SEARCH)
    assert again(first).experiment_id(SEARCH) == mine
    assert len({mine, theirs, other}) == 3


def test_their_models_are_kept_apart(pair: tuple[Tracker, Tracker]) -> None:
    addresses = []
    for tracker, key in zip(pair, "12", strict=True):
        for launch in (tracker, again(tracker)):
            address = launch.register_best(SEARCH, trial_record(key * 16, epochs=1), student(), EXAMPLE, "shared")
        addresses.append(address)
    assert len(set(addresses)) == 2
    for tracker, key, address in zip(pair, "12", addresses, strict=True):
        name = address.removeprefix("models:/").removesuffix("@best")
        assert name.startswith("shared")
        [version] = tracker._client.search_model_versions(f"name = '{name}'")
        assert version.tags["dfd.trial_key"] == key * 16


def test_one_registered_by_hand_is_left_alone(pair: tuple[Tracker, Tracker]) -> None:
    tracker = pair[0]
    name = f"by-hand-{tracker._store.identity()[:4]}"
    tracker._client.create_registered_model(name)
    address = tracker.register_best(SEARCH, trial_record("3" * 16, epochs=1), student(), EXAMPLE, name)
    assert address == f"models:/{name}-{tracker._store.identity()[:8]}@best"
    assert list(tracker._client.search_model_versions(f"name = '{name}'")) == []


def test_the_pages_named_are_those_of_the_stores_own_search(server: str, tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        store = open_store(tmp_path / name)
        tracker = open_tracker(store, server, pauses=QUICK)
        save_search(store, search_record("paged", mlflow=tracker.recorded_address))
        assert tracker.sync(search_record("paged"), [trial_record("a" * 16, epochs=1)]) == []
        said: list[str] = []
        serve_ui(store, 5000, said.append, search="paged")  # returns, as nothing is served here
        assert said[1].endswith(runs_url(server, tracker.experiment_id(search_record("paged"))))
        assert tracker.runs(search_record("paged"))["a" * 16] in said[2]
        pages.append(said[1])
        assert tracker.close() == []
    assert len(set(pages)) == 2


AT_ONCE = """
import os, sys, time
import mlflow.store.tracking.sqlalchemy_store  # once, for all: the import takes seconds
from dfd_tune.store import open_store
from dfd_tune.tracking import open_tracker
from tests.tracking.records import search_record, trial_record

folder, address, begin = sys.argv[1], sys.argv[2], time.time() + 1

def launch(name, key):
    tracker = open_tracker(open_store(os.path.join(folder, name)), address)
    time.sleep(max(0, begin - time.time()))
    problems = tracker.sync(search_record("at-once"), [trial_record(key * 16, epochs=1)])
    os._exit(len(problems + tracker.close()))

def child(*arguments):
    try:
        launch(*arguments)
    finally:
        os._exit(99)

pairs = [(name, key) for name in ("one", "two") for key in "ab"]
children = [os.fork() or child(*pair) for pair in pairs]
print([os.waitpid(pid, 0)[1] for pid in children])
"""


def test_launches_of_two_stores_at_once_end_up_in_two_experiments(shared: str, tmp_path: Path) -> None:
    open_tracker(open_store(tmp_path / "zero"), shared).close()  # makes the database
    command = [sys.executable, "-c", AT_ONCE, str(tmp_path), shared]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (ended.stdout, complaints_in(ended.stderr)) == ("[0, 0, 0, 0]\n", [])
    trackers = [open_tracker(FolderStore(tmp_path / name), shared) for name in ("one", "two")]
    for tracker in trackers:
        assert sorted(tracker.runs(search_record("at-once"))) == ["a" * 16, "b" * 16]
        assert len(runs_of(tracker, "at-once")) == 2
    assert trackers[0].experiment_id(search_record("at-once")) != trackers[1].experiment_id(search_record("at-once"))
