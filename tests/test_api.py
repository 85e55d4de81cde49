"""Searches from Python: what the documentation shows runs, and what can't be meant is refused as by the command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dfd_tune
from dfd_tune.api import _as_typed
from dfd_tune.data.sources import SOURCES
from dfd_tune.errors import UserError
from dfd_tune.record import save_search, save_trial
from dfd_tune.settings import resolve
from dfd_tune.space import read_space
from dfd_tune.store import open_store
from tests.report.searches import grid_trials, make_request, make_search

ROOT = Path(__file__).parent.parent


def test_all_problems_of_a_call_are_named(tmp_path):
    with pytest.raises(UserError) as raised:
        dfd_tune.launch("lambda_gird", dataset="digit", name="a/b", store=tmp_path / "store")
    assert len(raised.value.problems) == 3
    with pytest.raises(UserError, match="epochs"):
        dfd_tune.launch("lambda_grid", settings={"epochs": 0}, store=tmp_path / "store")
    with pytest.raises(TypeError):
        dfd_tune.launch("lambda_grid", store=tmp_path / "store", device_="cpu")
    assert not (tmp_path / "store" / "searches").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 3), ("flip", True), ("lambda_", [0, 0.5, 1e-6]), ("backbone", "vgg16"), ("jpeg_quality", None)],
)
def test_settings_are_as_if_typed(name, value):
    recipe = SOURCES["digits"].recipe
    request = resolve(
        read_space("lambda_grid"),
        dataset="digits",
        data=None,
        recipe=recipe,
        assignments=[f"{name}={_as_typed(value)}"],
    )
    if isinstance(value, list):
        assert list(request.explore[name].values) == value
    else:
        assert request.settings[name] == value


def test_a_search_is_read_as_it_is(tmp_path):
    store = open_store(tmp_path)
    request = make_request({"lambda_": [0, 1]})
    trials = grid_trials(request, lambda point: 0.5 + point["lambda_"] / 10)
    save_search(store, make_search(request, {}, search="known"))
    for trial in trials:
        save_trial(store, "known", trial)
    search = dfd_tune.load("known", store=tmp_path)
    rows = search.trials()
    assert {(row["lambda_"], row["status"], row["val_accuracy"]) for row in rows} == {
        (0.0, "FINISHED", 0.5),
        (1.0, "FINISHED", 0.6),
    }
    assert {"key", "stage", "backbone", "seconds"} <= rows[0].keys()
    assert search.best is None
    with pytest.raises(UserError, match="best student"):
        search.student()
    with pytest.raises(UserError, match="known"):
        dfd_tune.load("knwn", store=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_documentation_shows_runs(home, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    script = tmp_path / "shown.py"
    # A second launch in the same process as well, as notebooks do; it finds everything finished.
    script.write_text("\n".join([*blocks, blocks[0].replace("[0, 0.5, 2]", "[0, 0.5, 3]").replace("from-python", "b")]))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch.Size([2, 10])" in done.stdout
    assert (tmp_path / "dfd_runs" / "searches" / "b" / "report" / "report.html").is_file()
