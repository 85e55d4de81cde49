"""The shape of the house: the core runs without Ray, Optuna and MLflow, and imports point one way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "dfd_tune"
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted((ROOT / PACKAGE).rglob("*.py"))
}

FLOORS = (
    ("errors", "digest", "disk", "signals", "machine", "defaults"),
    ("locks", "yaml_file"),
    ("rules", "store"),
    ("criteria",),
    ("backbones", "own_backbones", "methods", "samplers", "schedulers", "objectives", "teacher_file"),
    ("parts",),
    ("config",),
    ("axes",),
    ("data",),
    ("models",),
    ("distill",),
    ("confirm",),
    ("space", "settings", "frozen_request", "show_config", "record"),
    ("anew", "bring", "fit"),
    ("plan", "predict", "export", "forecast", "tracking", "liveness"),
    ("analysis",),
    ("report", "upkeep"),
    ("search",),
    ("cluster",),
    ("api",),
    ("cli",),
)
"""From the ground up: what stands on a floor may import its own floor and those below."""

VOCABULARY = {
    "confirm": {"backbones", "config", "errors", "rules"},
    "axes": {"config", "errors", "rules", "samplers"},
    "space": {
        "axes",
        "config",
        "confirm",
        "criteria",
        "errors",
        "objectives",
        "rules",
        "samplers",
        "schedulers",
        "yaml_file",
    },
    "settings": {
        *("axes", "config", "confirm", "criteria", "errors", "objectives", "own_backbones", "rules", "schedulers"),
        "space",
        *("data", "data.sources"),
    },
    "record": {"axes", "confirm", "criteria", "errors", "objectives", "store"},
    "analysis": {"analysis", "axes", "config", "confirm", "criteria", "objectives", "record"},
}
"""What the words of a search and the rules by which its results are read are made of: none of how anything is trained,
sent or drawn."""

OWNERS = {
    "mlflow": {"tracking"},
    "ray": {"search", "cluster", "schedulers"},
    "optuna": {"search", "analysis", "samplers"},
    "click": {"cli"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "matplotlib": {"report", "data"},  # data asks it where its fonts are
}
"""Packages that these parts of the house alone may import."""

WITHOUT = """
import importlib, sys

class Missing:
    names = {"ray", "optuna", "mlflow", "click", "rich"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Missing())
sys.path[:0] = sys.argv[1].split(":")
for name in sys.argv[3:]:
    importlib.import_module(name)

from pathlib import Path
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import find_result, save_result, student_file, train_student
from dfd_tune.distill.testing import accuracy_on_test_images as accuracy_of
from dfd_tune.distill.workbench import BankPlan
from tiny import fresh_store, trial, workbench

store, config = fresh_store(Path(sys.argv[2])), trial()
dataset = workbench(store).dataset
bench = workbench(store, {config.teacher().key(dataset.digest): BankPlan("views", config.epochs)})
assert bench.prepare(config.teacher(), SingleProcess())[1:] == (True, True)
process = SingleProcess()
student, result = train_student(config, bench, process)
save_result(student, result, config, bench)
assert find_result(store, result.key) == result
assert len(process.reported) == config.epochs
assert 0 <= accuracy_of(student_file(store, result.key), config, bench) <= 1
assert not Missing.names & {name.partition(".")[0] for name in sys.modules}
print("done")
"""


def part_of(module: str) -> str:
    """The file or folder of the package that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def imports_of(file: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; `from a import b` counts as a and, if a module, a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            assert node.module is not None
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
    return names


def test_the_core_runs_a_trial_without_ray_optuna_mlflow_and_the_command_line(tmp_path):
    core = [name for name in MODULES if part_of(name) in ("config", "data", "models", "distill")]
    assert len(core) > 25
    path = f"{ROOT}:{ROOT / 'tests' / 'distill'}"
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT, path, tmp_path / "store", *core],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip().endswith("done")


def test_every_part_has_its_floor():
    parts = {part_of(name) for name in MODULES} - {""}
    assert parts == {part for floor in FLOORS for part in floor}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    level = {part: number for number, floor in enumerate(FLOORS) for part in floor}
    ours = part_of(module)
    imported = {part_of(name) for name in imports_of(MODULES[module]) if name.startswith(f"{PACKAGE}.")}
    if not ours:
        assert imported == {"api"}, "and that for type checkers alone: see below"
        return
    above = {part for part in imported if level[part] > level[ours]}
    assert not above, f"{module} imports {above}, which stands on it"


def test_importing_the_package_loads_nothing_else_of_it_until_it_is_asked_for():
    script = """
import sys
import dfd_tune
assert not [name for name in sys.modules if name.startswith("dfd_tune.")]
assert {"launch", "load", "Search"} <= set(dir(dfd_tune))
assert callable(dfd_tune.launch)
assert not {"torch", "ray", "mlflow", "optuna", "pandas"} & sys.modules.keys()
try:
    dfd_tune.nothing
except AttributeError:
    print("done")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("part", VOCABULARY)
def test_the_vocabulary_of_a_search_knows_nothing_of_training(part):
    imported = {name.removeprefix(f"{PACKAGE}.") for name in imports_of(MODULES[f"{PACKAGE}.{part}"])}
    ours = {name for name in imported if f"{PACKAGE}.{name}" in MODULES}
    assert ours <= VOCABULARY[part]


def test_parts_of_a_floor_do_not_import_in_circles():
    parts = {
        ours: {part_of(name) for module in MODULES if part_of(module) == ours for name in imports_of(MODULES[module])}
        for floor in FLOORS
        for ours in floor
    }
    for floor in FLOORS:
        for one in floor:
            for other in set(floor) - {one}:
                assert not (other in parts[one] and one in parts[other]), f"{one} and {other} import each other"


@pytest.mark.parametrize(("package", "owners"), OWNERS.items())
def test_a_heavy_package_is_imported_by_its_owners_alone(package, owners):
    importers = {
        part_of(module)
        for module, file in MODULES.items()
        if any(name.partition(".")[0] == package for name in imports_of(file))
    }
    assert importers == owners


@pytest.mark.parametrize("module", [name for name, file in MODULES.items() if file.name != "__init__.py"])
def test_every_module_says_what_it_is_not_for(module):
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8"))) or ""
    text = " ".join(docstring.split())
    assert "Not for" in text or "nothing else" in text, f"{module} lacks 'Not for' in its docstring"
