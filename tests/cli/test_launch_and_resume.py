"""`launch` and `resume` as far as the command line goes: what is handed to the search, and what is said of its end."""

import dataclasses
import datetime
import json

import pytest

from dfd_tune.cli.entry import main
from dfd_tune.confirm import Confirm
from dfd_tune.frozen_request import request_as_json
from dfd_tune.record import find_search, load_search, save_search
from dfd_tune.search import begin
from dfd_tune.search.launch import Outcome
from dfd_tune.search.options import LaunchOptions
from dfd_tune.store import open_store
from tests.report.searches import make_request, make_search
from tests.samples import request_for


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("DFD_TUNE_STORE", raising=False)
    return open_store(tmp_path / "store")


@pytest.fixture
def handed(monkeypatch):
    """What the command line hands to the search, in the place of running it."""
    seen = []

    def run(request, store, options, console, signals):
        seen.append((request, options))
        return Outcome(find_search(store, options.name), {}, None, "sqlite:////x", [])

    monkeypatch.setattr(begin, "launch", run)
    return seen


def dfd_tune(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["dfd-tune", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def recorded(store, name, request, **options):
    """A search as its first launch leaves it."""
    made = make_request({"lambda_": [0, 1]})
    search = dataclasses.replace(make_search(made, {}, search=name), request=request_as_json(request), options=options)
    save_search(store, search)


OPTIONS = {
    "mlflow_uri": None,
    "cpus_per_worker": 2.0,
    "gpus_per_worker": 0.0,
    "bank_budget": 5,
    "device": "cpu",
    "checkpoint_seconds": 0.5,
    "max_failures": 7,
    "deterministic": True,
}


def test_resume_goes_on_with_the_frozen_request_and_options(store, handed, monkeypatch):
    request = request_for("tpe_all", "epochs=2", trials=4, seed=3)
    recorded(store, "mine", request, **OPTIONS, retry_failed=True, of_another_version=1)
    assert dfd_tune(monkeypatch, "resume", "mine", "--store", store.root) == 0
    prepared = load_search(store, "mine").dataset["prepared"]
    assert handed == [(request, LaunchOptions(name="mine", **OPTIONS, prepared=prepared))]
    assert dfd_tune(monkeypatch, "resume", "mine", "--store", store.root, "--retry-failed") == 0
    assert handed[1][1].retry_failed


def test_a_password_is_asked_for_and_taken(store, handed, monkeypatch, capsys):
    recorded(
        store, "mine", request_for("lambda_grid"), **OPTIONS | {"mlflow_uri": "http://host", "mlflow_password": True}
    )
    assert dfd_tune(monkeypatch, "resume", "mine", "--store", store.root) == 2
    assert "--mlflow-uri" in capsys.readouterr().err
    assert dfd_tune(monkeypatch, "resume", "mine", "--store", store.root, "--mlflow-uri", "http://me:pw@host") == 0
    assert [options.mlflow_uri for _, options in handed] == ["http://me:pw@host"]


def test_options_of_a_launch_reach_the_search(store, handed, monkeypatch, tmp_path):
    recorded(store, "mine", request_for("lambda_grid"))
    given = ("--device", "cpu", "--checkpoint-seconds", "0", "--max-failures", "0", "--retry-failed", "--bank-gb", "1")
    given += ("--deterministic",)
    monkeypatch.chdir(tmp_path)
    launch = ("launch", "--space", "lambda_grid", "--name", "mine", "--store", store.root, "--data", "here")
    anew = ("--confirm-seeds", "2", "--confirm-cells", "all", "--replicate", "pipeline", "--controls", "longer")
    assert dfd_tune(monkeypatch, *launch, *given, *anew) == 0
    ((request, options),) = handed
    assert options == LaunchOptions(
        name="mine",
        mlflow_uri=None,
        cpus_per_worker=None,
        gpus_per_worker=None,
        bank_budget=10**9,
        device="cpu",
        checkpoint_seconds=0.0,
        max_failures=0,
        retry_failed=True,
        deterministic=True,
    )
    assert request.dataset.data == str(tmp_path / "here")  # `resume` may be typed elsewhere
    assert request.confirm == Confirm(seeds=2, cells="all", replicate="pipeline", controls=("longer",))


def test_a_teachers_file_is_found_from_everywhere_and_its_name_in_the_store_is_no_path(
    store, handed, monkeypatch, tmp_path
):
    recorded(store, "mine", request_for("lambda_grid"))
    monkeypatch.chdir(tmp_path)
    known = "logits-d10-s8-0123456789abcdef"
    for given in ("cat.pt2", known):
        launch = ("launch", "--space", "lambda_grid", "--dataset", "digits", "--name", "mine", "--store", store.root)
        assert dfd_tune(monkeypatch, *launch, "--teacher", given) == 0
    found = [(request.settings["teacher_file"], request.origins["teacher_file"]) for request, _ in handed]
    assert found == [(str(tmp_path / "cat.pt2"), "--teacher"), (known, "--teacher")]


def test_who_names_no_dataset_is_told_of_the_embedded_one(store, handed, monkeypatch, capsys):
    recorded(store, "mine", request_for("lambda_grid"))
    launch = ("launch", "--space", "lambda_grid", "--name", "mine", "--store", store.root)
    assert dfd_tune(monkeypatch, *launch) == 0
    assert "Using the embedded dataset letters" in capsys.readouterr().out
    assert dfd_tune(monkeypatch, *launch, "--dataset", "digits") == 0
    assert "embedded" not in capsys.readouterr().out
    assert [request.dataset.dataset for request, _ in handed] == ["letters", "digits"]


@pytest.mark.parametrize(
    "given",
    [
        ("--checkpoint-seconds", "-1"),
        ("--checkpoint-seconds", "nan"),
        ("--bank-gb", "inf"),
        ("--cpus-per-worker", "nan"),
        ("--max-failures", "-1"),
        ("--max-failures", "1.5"),
        ("--device", "gpu"),
    ],
)
def test_an_option_out_of_range_is_refused(store, handed, monkeypatch, capsys, given):
    assert dfd_tune(monkeypatch, "launch", "--space", "lambda_grid", "--store", store.root, *given) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not handed


def stopping(monkeypatch, before=lambda: None):
    def run(*_):
        before()
        raise KeyboardInterrupt

    monkeypatch.setattr(begin, "launch", run)


def test_a_stopped_search_says_how_to_go_on_by_its_name(store, monkeypatch, capsys):
    name = f"lambda_grid-letters-{datetime.date.today().isoformat()}"
    stopping(monkeypatch, lambda: recorded(store, name, request_for("lambda_grid")))
    assert dfd_tune(monkeypatch, "launch", "--space", "lambda_grid", "--store", store.root) == 130
    assert capsys.readouterr().err.strip().endswith(f"dfd-tune resume {name} --store {store.root}")


def test_one_stopped_before_it_has_a_record_names_itself_too(store, monkeypatch, capsys):
    stopping(monkeypatch)
    address = "postgresql://me:secret@host/db"
    arguments = ("launch", "--space", "lambda_grid", "--store", store.root, "--mlflow-uri", address)
    assert dfd_tune(monkeypatch, *arguments) == 130
    said = capsys.readouterr().err
    assert f"--name lambda_grid-letters-{datetime.date.today().isoformat()}" in said
    assert "secret" not in said


def test_the_default_name_of_a_file_with_blanks_may_be_a_folder(store, handed, monkeypatch, tmp_path):
    file = tmp_path / ".my space (2) λ.yaml"
    file.write_text("explore: {lambda_: [0, 1]}\n")
    today = datetime.date.today().isoformat()
    recorded(store, f"my-space-2-digits-{today}", request_for("lambda_grid"))
    assert dfd_tune(monkeypatch, "launch", "--space", file, "--dataset", "digits", "--store", store.root) == 0
    assert handed[0][1].name == f"my-space-2-digits-{today}"


def test_resume_of_what_can_not_be_gone_on_with(store, monkeypatch, capsys):
    assert dfd_tune(monkeypatch, "resume", "mine", "--store", store.root) == 2
    assert "Unknown search" in capsys.readouterr().err
    recorded(store, "mine", request_for("lambda_grid"))
    file = store.path("searches", "mine", "search.json")
    record = {name: value for name, value in json.loads(file.read_text()).items() if name != "seal"}
    file.write_text(json.dumps(record | {"request": {}}))
    assert dfd_tune(monkeypatch, "resume", "mine", "--store", store.root) == 2
    assert "no request" in capsys.readouterr().err
