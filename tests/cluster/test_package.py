"""What goes along with a job: the code that is here, an order, and credentials that only its owner can read."""

import json
import os
import stat
import subprocess
import sys

from dfd_tune.cluster.package import CREDENTIALS_FILE, ORDER_FILE, credentials_here, make_package
from dfd_tune.cluster.probe import NEEDED
from dfd_tune.space import shipped_spaces
from tests.cluster.test_cluster_files import PROJECT


def test_the_code_that_goes_along_runs_without_the_checkout(tmp_path):
    package = make_package(tmp_path, {"verb": "probe"}, {})
    (code,) = package.modules
    script = (
        "import dfd_tune, dfd_tune.cluster.remote; from dfd_tune.space import shipped_spaces; "
        "from dfd_tune.report.page import *; print(dfd_tune.__file__); print(sorted(shipped_spaces()))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=environment | {"PYTHONPATH": str(code.parent)},
        cwd=package.order,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert told == [str(code / "__init__.py"), str(sorted(shipped_spaces()))]
    assert not list(code.rglob("__pycache__/*.py"))


def test_credentials_are_for_their_owner_alone_and_stand_nowhere_else(tmp_path):
    secret = "hunter2-of-mlflow"
    given = {"MLFLOW_TRACKING_PASSWORD": secret, "MLFLOW_TRACKING_USERNAME": "me", "PATH": "/bin", "MY_SECRET": "x"}
    credentials = credentials_here(given)
    assert credentials == {"MLFLOW_TRACKING_PASSWORD": secret, "MLFLOW_TRACKING_USERNAME": "me"}
    package = make_package(tmp_path, {"verb": "launch", "search": "a"}, credentials)
    file = package.order / CREDENTIALS_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads((package.order / ORDER_FILE).read_text()) == {"verb": "launch", "search": "a"}
    files = [found for found in tmp_path.rglob("*") if found.is_file()]
    assert [found for found in files if secret in found.read_text(errors="replace")] == [file]


def test_all_that_dfd_tune_depends_on_is_looked_for_on_the_nodes():
    declared = {requirement.split(">")[0].split("[")[0] for requirement in PROJECT["dependencies"]}
    assert set(NEEDED) == declared
