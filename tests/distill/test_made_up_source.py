"""A dataset is one module and one row: a made-up one is prepared, and a student trained on it."""

import sys
import types

import numpy as np
import torch
from tiny import banded_images, trial

from dfd_tune.config import DatasetConfig
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.data.recipes import DIGITS
from dfd_tune.data.sources import SOURCES, Source
from dfd_tune.data.sources.raw import RawDataset
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import train_student
from dfd_tune.distill.workbench import Workbench
from dfd_tune.store import open_store

CLASSES = ("high", "middle", "low")


def bands() -> types.ModuleType:
    module = types.ModuleType("dfd_tune.data.sources.bands")
    module.fingerprint = lambda data: {"version": 1}
    module.load = lambda data, image_size, cache, say: RawDataset(
        *banded_images(60, seed=0), *banded_images(30, seed=1), classes=CLASSES
    )
    return module


def test_a_dataset_is_a_module_and_a_row(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dfd_tune.data.sources.bands", bands())
    row = Source(name="bands", summary="bands", recipe=DIGITS, data_holds=None, needs_data=False)
    monkeypatch.setitem(SOURCES, "bands", row)
    store = open_store(tmp_path)
    dataset = prepare_dataset(DatasetConfig(dataset="bands", validation_fraction=0.2), store, lambda line: None)
    assert (dataset.classes, len(dataset.train.labels), len(dataset.validation.labels)) == (CLASSES, 48, 12)
    assert np.array_equal(np.bincount(dataset.test.labels), [10, 10, 10])
    bench = Workbench(store, dataset.folder.name, {}, torch.device("cpu"))
    config = trial(epochs=12)
    for needed in config.pretrained():
        bench.prepare(needed, SingleProcess())
    _, result = train_student(config, bench, SingleProcess())
    assert result.dataset == dataset.digest
    assert result.history[-1]["loss"] < result.history[0]["loss"]
