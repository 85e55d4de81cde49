"""A whole search whose processes read from copies: worker groups too, with equal results, and the store as ever."""

import json
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import ROOT, environment
from tests.search.conftest import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LAUNCH = """
    import json, sys
    from rich.console import Console
    from dfd_tune.search.begin import launch
    from dfd_tune.search.options import LaunchOptions
    from dfd_tune.search.screen import Terminal
    from dfd_tune.signals import Signals
    from dfd_tune.store import open_store
    from tests.samples import request_for

    space, store, copies, workers, assignments = json.loads(sys.argv[1])
    options = LaunchOptions(
        name="copies", mlflow_uri=None, cpus_per_worker=1 / workers, gpus_per_worker=None, bank_budget=10**9,
        node_copies=copies,
    )
    request = request_for(space, f"workers={workers}", *assignments)
    with Signals() as signals:
        launch(request, open_store(store), options, Terminal(Console()), signals)
"""


@pytest.fixture
def trials_of(tmp_path):
    """Launch a space with copies in a new store; what it found, by backbone and λ."""

    def trials_of(space, workers=1):
        store, copies = tmp_path / "store", tmp_path / "node" / "copies"
        arguments = json.dumps([str(space), str(store), str(copies), workers, [word for word in TINY if "=" in word]])
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(LAUNCH), arguments],
            cwd=tmp_path,
            env=environment(tmp_path, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return by_point(json.loads(file.read_text()) for file in store.glob("searches/copies/trials/[!.]*.json"))

    return trials_of


def by_point(trials):
    return {(trial["config"]["backbone"], trial["config"]["lambda_"]): trial for trial in trials}


def copied(tmp_path):
    """Which entries have a copy, as KIND/KEY; of each kind one is enough to be looked at."""
    notes = [json.loads(file.read_text()) for file in tmp_path.glob("node/copies/*/copy.json")]
    return {note["entry"].removeprefix(f"{tmp_path / 'store'}/") for note in notes}


def test_a_search_that_reads_from_copies_finds_what_one_without_finds(trials_of, results_of, search, tmp_path):
    ours = trials_of(search.arguments[search.arguments.index("--space") + 1])
    theirs = by_point(results_of(search.name)["trials"])
    assert ours.keys() == theirs.keys()
    for point, trial in ours.items():
        assert trial["status"] == "FINISHED"
        expected = theirs[point]["metrics"]
        for name in ("loss", "val_accuracy", "val_loss", "distillation"):
            assert trial["metrics"][name] == expected[name]
    store = tmp_path / "store"
    read = {f"{kind}/{folder.name}" for kind in ("datasets", "low_res") for folder in store.joinpath(kind).iterdir()}
    assert read <= copied(tmp_path)
    assert {f"pretrained/{folder.name}" for folder in store.joinpath("pretrained").iterdir()} <= copied(tmp_path)


@pytest.mark.long
def test_workers_of_a_group_read_from_copies(trials_of, tmp_path):
    space = tmp_path / "group.yaml"
    space.write_text("confirm: {seeds: 0}\nexplore:\n  lambda_: [0]\nsettings: {backbone: alexnet, batch_size: 25}\n")
    (trial,) = trials_of(space, workers=2).values()
    assert trial["status"] == "FINISHED"
    assert {entry.partition("/")[0] for entry in copied(tmp_path)} == {"datasets", "low_res"}
