"""A backbone from a user's own file: named by what the file says, and run only where somebody said so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dfd_tune import own_backbones
from dfd_tune.config import TrialConfig
from dfd_tune.distill.probe import kind_of_trial, probe
from dfd_tune.distill.student import save_result, student_file
from dfd_tune.errors import UserError
from dfd_tune.frozen_request import request_as_json, request_from_json
from dfd_tune.models import build_network, layer_problem, network_problem
from dfd_tune.models.card import card_from_json
from dfd_tune.models.deployed import load_deployed
from dfd_tune.own_backbones import entry_of, may_run, read_backbone, run_those_of, text_of
from dfd_tune.plan import make_plan
from dfd_tune.predict import predict_files
from dfd_tune.rules import broken_rule
from dfd_tune.settings import read_backbones
from tests.distill.tiny import fresh_store, prepared, run, trial
from tests.samples import request_for, tiny_dataset

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
[EXAMPLE] = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
SIZES = {"channels": 1, "image_size": 8}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    """As in a process that begins."""
    monkeypatch.setattr(own_backbones, "_texts", {})
    monkeypatch.setattr(own_backbones, "_stores", [])


@pytest.fixture
def file(tmp_path):
    place = tmp_path / "net.py"
    place.write_text(EXAMPLE)
    return place


def in_another_process(monkeypatch):
    monkeypatch.setattr(own_backbones, "_texts", {})
    monkeypatch.setattr(own_backbones, "_stores", [])


def network(name: str, seed: int = 0, **changes: float):
    return build_network(name, **{"width": 1, "dropout": 0.0, "num_classes": 3, **SIZES, **changes}, seed=seed)


def test_the_documented_file_is_a_backbone(file):
    assert len(EXAMPLE.strip().splitlines()) <= 12
    name = read_backbone(f"{file}:small")
    assert re.fullmatch(r"net\.py:small:[0-9a-f]{16}", name)
    assert read_backbone(name) == name
    assert read_backbone("resnet18") == "resnet18"
    model = network(name, dropout=0.5).eval()
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        features, maps = model.features_and_maps(images, "1")
        assert torch.equal(model(images), model.classifier(features))
    assert (features.shape, maps.shape) == ((2, 128), (2, 64, 2, 2))
    assert model.classifier[0].p == 0.5
    assert [model.channels_of(layer) for layer in model.layers] == [32, 64, 128]
    assert layer_problem(name, "middle") is layer_problem(name, "2") is None
    assert layer_problem(name, "3") is not None
    first, again, other = (network(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["features.0.0.0.weight"], other["features.0.0.0.weight"])


def test_what_the_file_says_is_in_the_name(file):
    before = read_backbone(f"{file}:small")
    file.write_text(EXAMPLE + "\n")
    assert read_backbone(f"{file}:small") != before
    file.write_text(EXAMPLE)
    (file.parent / "elsewhere").mkdir()
    moved = file.rename(file.parent / "elsewhere" / "net.py")
    assert read_backbone(f"{moved}:small") == before
    keys = {trial(backbone=name, batch_norm=True, width=1.0).key("d") for name in (before, read_backbone("resnet18"))}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def small(:", "SyntaxError"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("def big(*given): pass", "AttributeError"),
        ("def small(channels): pass", "TypeError"),
        ("def small(*given): return 3", "returns int, but must return a torch module"),
        ("from torch import nn\ndef small(*given): return nn.Sequential(nn.Flatten())", "no linear layer"),
        ("from torch import nn\ndef small(c, s, k): return nn.Linear(s, k)", "no linear layer"),
        (
            "from torch import nn\ndef small(c, s, k): return nn.Sequential(nn.Conv2d(c, 4, 1), nn.Linear(s, k))",
            "does not read one row of features",
        ),
        (EXAMPLE.replace("nn.Linear(128, num_classes)", "nn.Linear(128, 10)"), "of 2 classes"),
    ],
)
def test_a_file_that_makes_no_backbone_is_refused_in_a_sentence(file, text, said):
    file.write_text(text)
    problem = network_problem(read_backbone(f"{file}:small"), width=1, batch_norm=True, **SIZES)
    assert said in problem
    assert problem.endswith("mend its file.")
    assert "\n" not in problem


def test_width_and_batch_norm_are_the_files(file):
    name = read_backbone(f"{file}:small")
    assert "width is 0.5" in network_problem(name, width=0.5, batch_norm=True, **SIZES)
    assert "batch_norm is false" in network_problem(name, width=1, batch_norm=False, **SIZES)


def test_files_that_cannot_be_read_are_named_together(tmp_path):
    (tmp_path / "né t.py").write_text(EXAMPLE)
    with pytest.raises(UserError) as caught:
        read_backbones(
            request_for(
                "lambda_grid", f"backbone=['{tmp_path}/no.py:small', '{tmp_path}/né t.py:small', resnet18]", "width=1"
            )
        )
    assert len(caught.value.problems) == 2
    assert "no such file" in caught.value.problems[0].lower()
    assert "rename it" in caught.value.problems[1]


def test_a_request_is_of_what_the_files_said_and_is_planned_without_them(file, tmp_path, monkeypatch):
    request = read_backbones(
        request_for("lambda_grid", f"backbone=['{file}:small', resnet18]", f"teachers={file}:small", "width=1")
    )
    [name, _] = request.explore["backbone"].values
    assert request.settings["teachers"] == name
    assert request.backbones() == [name, "resnet18"]
    assert all(broken_rule(TrialConfig, "backbone", given) is None for given in (name, f"{file}:small"))
    store = fresh_store(tmp_path / "store")
    run_those_of(store, request.backbones())
    assert store.path(*entry_of(name).split("/")).read_text() == EXAMPLE
    file.unlink()
    in_another_process(monkeypatch)
    again = request_from_json(json.loads(json.dumps(request_as_json(request))), search="s")
    with pytest.raises(UserError, match="may not be run"):
        make_plan(again, tiny_dataset(), bank_budget=0)
    run_those_of(store, again.backbones())
    plan = make_plan(again, tiny_dataset(), bank_budget=0)
    assert {config.backbone for config in plan.trials.values()} == {name, "resnet18"}


def test_a_text_that_is_not_at_hand_or_was_changed_is_not_run(file, tmp_path, monkeypatch):
    name = read_backbone(f"{file}:small")
    store = fresh_store(tmp_path / "store")
    run_those_of(store, [name])
    store.path(*entry_of(name).split("/")).write_text("raise SystemExit")
    in_another_process(monkeypatch)
    with pytest.raises(UserError, match=r"is not in the store .*; put the file there, as it was"):
        run_those_of(store, [name])
    assert text_of(name) is None
    with pytest.raises(ValueError, match="not the one that its backbone"):
        may_run(name, "raise SystemExit")


def test_two_files_that_say_the_same_are_one_value(file, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "net.py").write_text(EXAMPLE)
    request = request_for("lambda_grid", f"backbone=['{file}:small', '{other}/net.py:small']", "width=1")
    with pytest.raises(UserError, match="say the same"):
        read_backbones(request)


def test_a_stored_student_runs_its_text_only_if_that_is_said(file, tmp_path, monkeypatch):
    store = fresh_store(tmp_path / "store")
    config = trial(backbone=read_backbone(f"{file}:small"), batch_norm=True, width=1.0, epochs=1)
    bench = prepared(store, config)
    student, result = run(config, bench)
    save_result(student, result, config, bench)
    stored = student_file(store, result.key)
    deployed, card = load_deployed(stored)
    assert card.source == EXAMPLE
    assert card_from_json(card.to_json()) == card
    file.unlink()
    in_another_process(monkeypatch)
    for refused in (lambda: load_deployed(stored), lambda: predict_files(stored, [])):
        with pytest.raises(UserError, match="if you trust it, say --run-code"):
            refused()
    again, _ = load_deployed(stored, run_code=True)
    images = torch.zeros(2, 9, 9, 1, dtype=torch.uint8)
    assert torch.equal(again(images), deployed(images))
    assert isinstance(again.network.classifier[1], nn.Linear)


def test_a_training_of_it_is_timed_in_other_processes(file, tmp_path):
    store = fresh_store(tmp_path / "store")
    config = trial(backbone=read_backbone(f"{file}:small"), batch_norm=True, width=1.0, lambda_=0.0)
    run_those_of(store, [config.backbone])
    dataset = prepared(store).dataset
    [timing] = probe(store, dataset, [(kind_of_trial(config, {}, dataset.digest, threads=1), 1)], "cpu", 0.1)
    assert timing.training > 0


def test_a_card_holds_a_source_if_and_only_if_its_backbone_is_of_a_file(file):
    plain = {
        "width": 1.0, "dropout": 0.0, "batch_norm": True, "channels": 1, "image_size": 8, "classes": ["a", "b"],
        "mean": [0.5], "std": [0.2], "resolution": 4, "downsample": "area", "upsample": "area",
    }  # fmt: skip
    for wrong in (
        {"backbone": "resnet18", "source": EXAMPLE},
        {"backbone": read_backbone(f"{file}:small")},
        {"backbone": read_backbone(f"{file}:small"), "source": 3},
    ):
        with pytest.raises(ValueError, match="source must be there, as text"):
            card_from_json(json.dumps(plain | wrong))
    assert "source" not in card_from_json(json.dumps(plain | {"backbone": "resnet18"})).to_json()
