"""A search in a bucket, looked at as one in a folder. Not tests."""

import shutil
from pathlib import Path

from benchmarks.processes import Search
from dfd_tune.record import load_search
from dfd_tune.store import existing_store


def as_folder(address: str, name: str, into: Path) -> Search:
    """What a store in a bucket holds of trials and networks, and of a search, laid out as in a folder."""
    store = existing_store(address)
    for kind in ("trials", "pretrained"):
        for key in store.entries(kind):
            with store.near(kind, key) as folder:
                shutil.copytree(folder, into / kind / key)
    load_search(store, name)
    shutil.copytree(store.path("searches", name), into / "searches" / name)
    return Search(into, name)
