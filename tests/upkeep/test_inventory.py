"""What lies in a store, counted."""

from dfd_tune.liveness import running
from dfd_tune.store import listing
from dfd_tune.upkeep.inventory import inventory
from tests.upkeep.made_up import checkpoint, made_up, publish, write_records


def test_all_of_a_store_is_counted_once(filled, search):
    record, trials = search
    checkpoint(filled, f"trials-{trials[0].key}", 3)
    checkpoint(filled, f"trials-{trials[0].key}", 4)
    publish(filled, "banks", "more")
    filled.path("mlflow.db").write_bytes(b"12345")
    found = inventory(filled)
    (line,) = found.searches
    assert (line.name, line.trials, line.state.how) == (record.search, len(trials), "finished")
    kinds = {line.kind: line for line in found.kinds}
    assert kinds["trials"].entries == len(trials)
    assert kinds["banks"].entries == len(record.teachers) + 1
    assert kinds["checkpoints"].entries == 1
    assert kinds["mlflow.db"].bytes == 5
    assert "downloads" not in kinds
    everything = sum(
        known.bytes
        for name, known in listing(filled).items()
        if not name.startswith(("leases/", "store.json")) and name != "mlflow.db"
    )
    assert found.bytes == everything + 5


def test_searches_that_run_are_told_apart(folder):
    record, trials = made_up("runs")
    with running(folder, "runs", lambda line: None):
        write_records(folder, record, trials)
        assert [line.state.kind for line in inventory(folder).searches] == ["running"]


def test_an_empty_store_holds_nothing(folder):
    found = inventory(folder)
    assert (found.searches, found.kinds, found.bytes) == ((), (), 0)
