"""A backbone is one new file and one line that names it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from torch import nn

from dfd_tune.backbones import BACKBONES, Backbone, has_dropout
from dfd_tune.config import TrialConfig
from dfd_tune.errors import UserError
from dfd_tune.models import Network, build_network, layer_problem
from dfd_tune.models.network import GlobalAveragePool, convolution, scaled
from dfd_tune.rules import broken_rule
from tests.distill.tiny import fresh_store, prepared, run, trial


def lonely(
    *, width: float, dropout: float, batch_norm: bool, channels: int, image_size: int, num_classes: int
) -> Network:
    """One convolution."""
    count = scaled(64, width)
    layers = [*convolution(channels, count, 3, batch_norm=batch_norm), nn.ReLU()]
    features = nn.Sequential(*layers, GlobalAveragePool())
    return Network(features, nn.Linear(count, num_classes), count, layers={"only": 3}, middle="only")


@pytest.fixture
def _one_more(monkeypatch):
    file = ModuleType("dfd_tune.models.lonely")
    file.lonely, file.LAYERS = lonely, ("only",)
    monkeypatch.setitem(sys.modules, file.__name__, file)
    monkeypatch.setitem(BACKBONES, "lonely", Backbone(dropout=False))


@pytest.mark.usefixtures("_one_more")
def test_a_backbone_is_a_file_and_a_row(tmp_path):
    assert broken_rule(TrialConfig, "backbone", "lonely") is None
    assert broken_rule(TrialConfig, "teachers", "lonely+vgg16") is None
    assert layer_problem("lonely", "only") is None
    assert layer_problem("lonely", "conv1") is not None
    assert not has_dropout("lonely")
    config = trial(backbone="lonely", teachers="alexnet+lonely", method="attention", batch_norm=False, width=0.125)
    student, result = run(config, prepared(fresh_store(tmp_path / "store"), config))
    assert student.feature_dim == 8
    assert [network.network.backbone for network in config.guides()] == ["alexnet", "lonely"]
    assert result.history[-1]["distillation"] >= 0


def test_what_is_neither_a_row_nor_of_the_form_of_others_is_refused():
    assert "torchvision/NAME" in broken_rule(TrialConfig, "backbone", "lonely")
    assert broken_rule(TrialConfig, "backbone", "torchvision/resnet34") is None
    assert broken_rule(TrialConfig, "teachers", "torchvision/resnet34+vgg16") is None
    for name in ("torchvision/", "torchvision/Resnet 34", "torchvision/../x", "torchvision/resnet34+vgg16", "", 3):
        assert broken_rule(TrialConfig, "backbone", name) is not None
    with pytest.raises(UserError, match="Unknown backbone 'lonely'"):
        build_network("lonely", width=1, dropout=0, channels=1, image_size=8, num_classes=2, seed=0)
