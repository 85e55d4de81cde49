"""A search in a bucket, looked at as one in a folder.

Not for: the bucket's server (s3.py), or what is done to the search.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Search
from dfd_tune.record import load_search
from dfd_tune.store import MANIFEST_FILE, BucketStore, Copies, open_store


@dataclass(frozen=True)
class SearchInBucket(Search):
    """A search as the machine on which it is launched sees it; `store` is that machine's own folder for the bucket."""

    bucket: BucketStore

    @classmethod
    def at(cls, address: str, name: str, cache: Path) -> SearchInBucket:
        """The search of that name, by the machine that has its copies in `cache`."""
        store = open_store(address, Copies(cache))
        assert isinstance(store, BucketStore)
        return cls(store.root, name, store)

    def checkpointed(self, kind: str) -> str | None:
        """As of a folder."""
        found = self.bucket.bucket.files("checkpoints")
        whole = {
            known.changed: name for name, known in found.items() if name.startswith(f"{kind}-") and is_manifest(name)
        }
        return whole[max(whole)].partition("/")[0].removeprefix(f"{kind}-") if whole else None

    def as_folder(self, into: Path) -> Search:
        """What the bucket holds of trials, networks and checkpoints, and of the search, laid out as in a folder, by
        another machine.

        Args:
            into: an empty folder.
        """
        other = SearchInBucket.at(self.bucket.location, self.name, into / "cache")
        for kind in ("trials", "pretrained"):
            for key in other.bucket.entries(kind):
                with other.bucket.near(kind, key) as folder:
                    shutil.copytree(folder, into / kind / key)
        for name in other.bucket.bucket.files("checkpoints"):
            if is_manifest(name):
                (into / "checkpoints" / name).parent.mkdir(parents=True)
        load_search(other.bucket, self.name)
        shutil.copytree(other.folder, into / "searches" / self.name)
        return Search(into, self.name)


def is_manifest(name: str) -> bool:
    """Whether an object is an entry's manifest."""
    return name.rpartition("/")[2] == MANIFEST_FILE
