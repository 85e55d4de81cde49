"""How this machine reaches a cluster: through the SSH of its file, or at the address of its job port.

Not for: starting and ending clusters (up.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_tune.cluster.files import ClusterFile, read_cluster
from dfd_tune.cluster.jobs import Jobs, connect
from dfd_tune.cluster.tunnel import job_port, rsync_up
from dfd_tune.errors import UserError, raise_all
from dfd_tune.store import BucketStore, Store, open_store, read_json, write_json
from dfd_tune.store.bucket import is_address
from dfd_tune.store.bucket import problem_with as problem_with_address

EXTRA = ("aiohttp", "aiohttp_cors", "requests", "opencensus")
"""Modules of ray[default] by which its presence is told."""


@dataclass(frozen=True)
class Target:
    """A cluster, and the store on it."""

    cluster: ClusterFile | None
    """None for one that is known by its address."""
    address: str | None
    store: str
    """A folder that all nodes see, or a bucket's address."""

    @property
    def option(self) -> str:
        """How a command names the cluster."""
        return f"--cluster {self.cluster.path}" if self.cluster is not None else f"--address {self.address}"

    def __str__(self) -> str:
        return f"cluster '{self.cluster.name}'" if self.cluster is not None else f"cluster at {self.address}"

    @property
    def in_bucket(self) -> bool:
        """Whether the store is in a bucket, which each node reaches by itself."""
        return is_address(self.store)

    @contextlib.contextmanager
    def reached(self, log: Path) -> Iterator[Jobs]:
        """Its jobs, for the length of the block.

        Args:
            log: takes what Ray and SSH have to say.

        Raises:
            UserError: it does not answer.
        """
        if self.cluster is None:
            assert self.address is not None
            yield connect(self.address)
            return
        with job_port(self.cluster, log) as address:
            yield connect(address)

    def copy_up(self, log: Path) -> Callable[[Path, str], None]:
        """What copies a file or folder to an absolute path on the head node, over SSH."""
        assert self.cluster is not None
        cluster = self.cluster
        return lambda source, target: rsync_up(cluster, source, target, log)


def require_extra() -> None:
    """Refuse to go on without what reaches clusters.

    Raises:
        UserError: the extra is not installed.
    """
    import importlib.util

    if any(importlib.util.find_spec(module) is None for module in EXTRA):
        raise UserError("Clusters need more than is installed here; install it with `pip install 'dfd-tune[cluster]'`.")


def target_of(cluster: str | None, address: str | None, cluster_store: str | None) -> Target:
    """The cluster that a command names.

    Args:
        cluster: path of a cluster file.
        address: of a job port.
        cluster_store: the store's folder on the nodes, or its bucket's address.

    Raises:
        UserError: both or none is named, the store is not, or the file is none that Ray takes.
    """
    problems = []
    if (cluster is None) == (address is None):
        problems.append("Give one of --cluster FILE and --address http://HOST:8265.")
    if cluster_store is None:
        problems.append(
            "--cluster-store names the store of the cluster: a bucket, as s3://BUCKET/PREFIX, or a folder that all "
            "nodes mount, as /shared/dfd_runs; give it, set DFD_TUNE_CLUSTER_STORE, or have --store itself be a bucket."
        )
    elif is_address(cluster_store):
        wrong = problem_with_address(cluster_store)
        problems += [] if wrong is None else [wrong.replace("--store", "--cluster-store", 1)]
    elif not cluster_store.startswith("/"):
        problems.append(
            f"--cluster-store is '{cluster_store}', but must be an absolute path on the nodes, or a bucket."
        )
    file = None
    if cluster is not None:
        try:
            file = read_cluster(cluster)
        except UserError as error:
            problems += error.problems
    raise_all(problems)
    assert cluster_store is not None
    place, mark, options = cluster_store.partition("?")  # of a bucket's address
    return Target(file, address, (place.rstrip("/") or "/") + mark + options)


def store_from_here(target: Target, own: Store, say: Callable[[str], None] | None = None) -> Store | None:
    """The store of a cluster, if it is in a bucket that this machine reaches with its own credentials; else None.

    Args:
        target: the cluster.
        own: this machine's store, which may be that one.
        say: is told why a bucket is not reached.
    """
    if not target.in_bucket:
        return None
    if target.store == own.location:
        return own
    try:
        there = open_store(target.store)
    except UserError as error:
        if say is not None:
            say(f"{str(error).rstrip('.')}. So what is sent there from this machine goes through the head node.")
        return None
    # One bucket may have several addresses, as with and without its region.
    return own if isinstance(own, BucketStore) and own.identity() == there.identity() else there


def remember(store: Store, name: str, target: Target, job: str) -> None:
    """Write down where a search runs, so that later commands need not be told its store."""
    cluster = None if target.cluster is None else str(target.cluster.path)
    write_json(_file(store, name), {"cluster": cluster, "address": target.address, "store": target.store, "job": job})


def remembered(store: Store, name: str) -> dict[str, Any]:
    """What `remember` wrote of a search; nothing if it did not run on a cluster from here."""
    if Path(name).name != name:
        return {}
    try:
        return read_json(_file(store, name)) or {}
    except (OSError, ValueError, AssertionError):
        return {}


def _file(store: Store, name: str) -> Path:
    return store.path("jobs", f"{name}.json")
