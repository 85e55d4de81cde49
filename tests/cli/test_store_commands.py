"""`dfd-tune store …`: what is shown, asked and refused, and exit codes."""

import io
import json

import pytest

from dfd_tune.cli.entry import main
from dfd_tune.cli.store import size
from dfd_tune.liveness import running
from dfd_tune.record import search_names
from dfd_tune.store import open_store
from dfd_tune.upkeep import inventory
from tests.upkeep.made_up import made_up, publish, publish_all, save, write_records


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DFD_TUNE_STORE", str(tmp_path / "store"))
    opened = open_store(tmp_path / "store")
    record, trials = made_up()
    save(opened, record, trials)
    publish_all(opened, record, trials)
    return opened


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command with this on its standard input; its exit code and output."""

    def run(*arguments, stdin=""):
        monkeypatch.setattr("sys.argv", ["dfd-tune", *arguments])
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def test_ls_as_table_and_json_agree(store, run):
    code, table, _ = run("store", "ls")
    assert code == 0
    code, text, _ = run("store", "ls", "--format", "json")
    assert code == 0
    told = json.loads(text)
    assert told["store"] == str(store.root)
    (search,) = told["searches"]
    assert (search["name"], search["state"]["how"], search["trials"]) == ("made-up", "finished", 6)
    kinds = {one["kind"]: one for one in told["kinds"]}
    assert kinds["trials"]["entries"] == 6
    assert told["bytes"] == search["bytes"] + sum(one["bytes"] for one in told["kinds"])
    for row in (*kinds, "made-up", "finished", size(told["bytes"])):
        assert row in table


def test_verify_names_each_damage_and_changes_nothing_unless_it_is_told_to(store, run):
    assert run("store", "verify")[0] == 0
    keys = store.entries("pretrained")
    for key in keys:
        store.path("pretrained", key, "network.safetensors").write_bytes(b"other")
    code, out, err = run("store", "verify")
    assert code == 1
    assert [line.split()[1] for line in out.splitlines() if line.startswith("DAMAGED")] == [
        f"pretrained/{key}:" for key in keys
    ]
    assert "--set-aside" in err
    assert store.entries("pretrained") == keys
    assert run("store", "verify", "--set-aside")[0] == 1
    assert store.entries("pretrained") == []
    code, out, _ = run("store", "verify")
    assert code == 0
    assert out.count("LEFT") == len(keys)


def test_gc_shows_asks_and_removes(store, run):
    for number in range(25):
        publish(store, "datasets", f"stray{number:02}")
    code, out, err = run("store", "gc", stdin="n\n")
    assert (code, err) == (2, "dfd-tune: Nothing was removed.\n")
    assert "datasets/stray00" in out
    assert "datasets: 5 more" in out
    assert len(store.entries("datasets")) == 26
    code, out, _ = run("store", "gc", "--yes")
    assert code == 0
    assert "Removed 27 of 27" in out  # two students are spare
    assert len(store.entries("datasets")) == 1
    code, out, _ = run("store", "gc")
    assert code == 0
    assert "nothing" in out


def test_rm_asks_removes_a_search_and_leaves_its_trials(store, run):
    code, _, err = run("store", "rm", "made-up", stdin="n\n")
    assert (code, err) == (2, "dfd-tune: Nothing was removed.\n")
    assert search_names(store) == ["made-up"]
    code, out, _ = run("store", "rm", "made-up", stdin="y\n")
    assert code == 0
    assert "dfd-tune store gc" in out
    assert search_names(store) == []
    assert len(store.entries("trials")) == 6
    assert run("store", "gc", "--yes")[0] == 0
    assert store.entries("trials") == []


@pytest.mark.parametrize("name", ["made-upp", "../made-up", ".", "made-up/trials"])
def test_rm_of_what_is_no_search_is_refused(store, run, name):
    code, _, err = run("store", "rm", name, "--yes")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "Unknown search" in err
    assert search_names(store) == ["made-up"]


def test_a_running_search_is_not_removed(store, run):
    record, trials = made_up("runs")
    with running(store, "runs", lambda line: None):
        write_records(store, record, trials)
        code, _, err = run("store", "rm", "runs", "--yes")
    assert code == 2
    assert "dfd-tune stop runs" in err
    assert "runs" in search_names(store)


def test_gc_that_can_not_tell_what_is_needed_says_so(store, run):
    store.path("searches", "made-up", "search.json").write_text("{")
    publish(store, "trials", "stray")
    code, _, err = run("store", "gc", "--yes")
    assert code == 2
    assert "made-up" in err
    assert "stray" in store.entries("trials")


@pytest.mark.parametrize("command", [("ls",), ("verify",), ("gc",), ("rm", "x")])
def test_a_store_that_is_not_there_is_not_made(tmp_path, run, command):
    code, _, err = run("store", *command, "--store", str(tmp_path / "none"))
    assert code == 2
    assert "There is no store" in err
    assert not (tmp_path / "none").exists()


def test_a_disk_that_can_not_be_read_is_one_sentence(store, run, monkeypatch):
    def failing(*arguments):
        raise OSError(5, "Input/output error", str(store.root))

    monkeypatch.setattr(inventory, "listing", failing)
    code, _, err = run("store", "ls")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "Input/output error" in err


@pytest.mark.parametrize(
    ("bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (45_300_000, "45.3 MB"), (2e15, "2 PB")],
)
def test_sizes_have_three_digits(bytes, text):
    assert size(bytes) == text
