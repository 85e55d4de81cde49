"""Whose images a launch takes where a rescan has found others."""

import os
from types import SimpleNamespace

import numpy as np
from PIL import Image

from dfd_tune.config import DatasetConfig
from dfd_tune.search.launch import dataset_of
from dfd_tune.search.options import LaunchOptions
from dfd_tune.store import open_store


def paint(file, pixels):
    """Write a picture; one that was there before keeps its size and time."""
    before = file.stat() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    if before is not None:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_search_keeps_its_images_and_a_new_one_takes_those_of_the_last_rescan(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (21, 8, 8), dtype=np.uint8)
    for number, pixels in enumerate(pictures[:20]):
        paint(tmp_path / "data" / str(number % 2) / f"{number}.bmp", pixels)
    store = open_store(tmp_path / "store")
    request = SimpleNamespace(dataset=DatasetConfig(dataset="folder", data=str(tmp_path / "data")))

    def taken(known=None, **options):
        return dataset_of(request, LaunchOptions(name="x", **options), known, store, lambda line: None)

    first = taken()
    search = SimpleNamespace(dataset={"prepared": first.folder.name})
    paint(tmp_path / "data" / "0" / "0.bmp", pictures[20])
    second = taken(rescan=True)
    assert second.digest != first.digest
    assert taken().digest == second.digest
    assert taken(search).digest == first.digest
    # Unless it is asked to look again: then it is another search, and refused as such.
    assert taken(search, rescan=True).digest == second.digest
    # A job on a cluster is told which images were prepared, wherever their files are.
    assert taken(prepared=first.folder.name).digest == first.digest
