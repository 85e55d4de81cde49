"""What a cluster's nodes say before a search is submitted to them: versions, GPUs, and whether they share the store.

A store in a folder must be mounted by all of them, with locks that reach from one to another; one in a bucket must be
reached by each, with credentials of its own environment, and each needs a folder for copies. Everything is looked at
from a worker's process on each node, as that is where trials run. Not for: what the cluster file says of them
(files.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_tune.errors import UserError, cause_of
from dfd_tune.locks import holding, is_held
from dfd_tune.store import BucketStore, Copies, Store, open_store
from dfd_tune.store.bucket import is_address
from dfd_tune.store.copies import check_copies

NEEDED = {
    "click": "click",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "mlflow": "mlflow",
    "numpy": "numpy",
    "optuna": "optuna",
    "pillow": "PIL",
    "pyarrow": "pyarrow",
    "pyyaml": "yaml",
    "ray": "ray",
    "rich": "rich",
    "safetensors": "safetensors",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "torch": "torch",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
}
"""What dfd-tune depends on -> the module by which its presence is told."""
EQUAL = ("python", "ray", "torch")
"""Versions that all nodes must have in common."""
ANSWER_SECONDS = 120.0
"""How long a node may take to start a worker's process and look around."""
PROBES = ".probe"
"""How names begin in a store by which nodes know each other's."""
GPU_SECONDS = 900.0
"""How long a node with a GPU may take to come."""


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """What one node says."""

    host: str
    python: str
    ray: str
    torch: str | None
    missing: tuple[str, ...]
    """Names of packages that are not installed."""
    gpus: float
    """As Ray counts them."""
    cuda: bool
    """Whether torch can use one."""
    store: str | None
    """What is wrong with the store as seen from there; None if nothing is."""
    copies: str | None
    """What is wrong with the folder for the node's copies; None if nothing is."""
    data: bool
    """Whether the images' folder is there."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> NodeFacts:
        """What `dataclasses.asdict` gave `value` for."""
        return cls(**{**value, "missing": tuple(value["missing"])})


def look_from_all(
    store: Store,
    data: str | None,
    copies: str | None,
    say: Callable[[str], None],
    *,
    wait_for_gpu: bool,
    gpu_seconds: float = GPU_SECONDS,
) -> list[NodeFacts]:
    """Look around on every node of the Ray cluster that this process is connected to.

    Args:
        store: where it is on the nodes.
        data: a folder of images that is to be on the nodes; None if none is.
        copies: a folder for copies, on each node; None where each node's own environment says.
        say: told what is waited for.
        wait_for_gpu: whether a node with a GPU is waited for if none is there.
        gpu_seconds: for how long.

    Raises:
        UserError: no node with a GPU comes, or a node does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if wait_for_gpu and not any(node["Resources"].get("GPU") for node in ray.nodes() if node["Alive"]):
        say("Waiting for a node with a GPU to come.")
        _wait_for_gpu(gpu_seconds)
    look = ray.remote(num_cpus=0, max_retries=0)(look_around)
    with _marked(store) as token:
        asked = {
            look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            ).remote(store.location, token, data, copies, node["Resources"].get("GPU", 0.0)): node[
                "NodeManagerHostname"
            ]
            for node in ray.nodes()
            if node["Alive"]
        }
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    if silent:
        hosts = ", ".join(sorted(asked[one] for one in silent))
        raise UserError(
            f"No worker's process starts on {hosts} within {ANSWER_SECONDS:.0f} s; see Ray's logs there, or take it "
            "out of the cluster."
        )
    return sorted((NodeFacts.from_json(ray.get(one)) for one in answered), key=lambda node: node.host)


@contextlib.contextmanager
def _marked(store: Store) -> Iterator[str]:
    """A token by which other nodes know this store: a name in it and, in a folder, a lock of that name with `.lock`."""
    token = f"{PROBES}-{uuid.uuid4().hex}"
    if isinstance(store, BucketStore):
        try:
            store.bucket.write(b"", PROBES, token)
            yield token
        finally:
            with contextlib.suppress(OSError):
                for name in store.bucket.files(PROBES):
                    if name.startswith(token):
                        store.bucket.remove(PROBES, name)
        return
    try:
        store.path(token).write_text(token)
        with holding(store.path(f"{token}.lock")):
            yield token
    finally:
        for file in store.root.glob(f"{token}*"):
            file.unlink(missing_ok=True)


def copies_on_node(location: str, folder: str | None, budget: int | None = None) -> Copies | None:
    """Where a process on a node keeps what it brings from a bucket, as a launch says; None where the node's environment
    says, and of a store in a folder, from which it brings what trainings read alone."""
    return None if folder is None or not is_address(location) else Copies(Path(folder), budget)


def look_around(location: str, token: str, data: str | None, copies: str | None, gpus: float) -> dict[str, Any]:
    """What this process's node has to say, JSON-able.

    Args:
        location: of the store.
        token: of `_marked`; while this looks, another node holds its lock, where there are locks.
        data: a folder of images that is to be here; None if none is.
        copies: a folder for copies; None where the environment says.
        gpus: so many Ray counts here.
    """
    missing = tuple(name for name, module in NEEDED.items() if importlib.util.find_spec(module) is None)
    return dataclasses.asdict(
        NodeFacts(
            host=platform.node(),
            python=platform.python_version(),
            ray=importlib.metadata.version("ray"),
            torch=None if "torch" in missing else importlib.metadata.version("torch"),
            missing=missing,
            gpus=gpus,
            cuda="torch" not in missing and gpus > 0 and _cuda(),
            store=(
                _problem_with_bucket(location, token, copies)
                if is_address(location)
                else _problem_with_store(Path(location), token)
            ),
            copies=None if copies is None else _problem_with_copies(copies),
            data=data is None or Path(data).is_dir(),
        )
    )


def problems_of(nodes: Sequence[NodeFacts], *, store: str, device: str, data: str | None) -> list[str]:
    """What stands against a search on these nodes, a sentence each.

    Args:
        nodes: what they say.
        store: as it was asked for.
        device: cpu or cuda.
        data: the images' folder, if it is to be on the nodes.
    """
    problems = []
    for name in EQUAL:
        versions = {getattr(node, name): node.host for node in nodes if getattr(node, name) is not None}
        if len(versions) > 1:
            told = ", ".join(f"{version} on {host}" for version, host in sorted(versions.items()))
            problems.append(f"The nodes have different versions of {name} ({told}); install the same on all of them.")
    for missing, hosts in _by(nodes, lambda node: ", ".join(node.missing)).items():
        problems.append(
            f"{hosts}: {missing} not installed there; install dfd-tune by the cluster file's setup commands or the "
            "image (its own code goes along with each search, what it needs does not)."
        )
    for problem, hosts in _by(nodes, lambda node: node.store or "").items():
        remedy = (
            "each node must reach it, with credentials of its own (an instance profile, a service account, or "
            "variables where `ray start` runs)"
            if is_address(store)
            else "--cluster-store must be a folder that all nodes mount and can write"
        )
        problems.append(f"{hosts}: the store '{store}' {problem}; {remedy}.")
    for problem, hosts in _by(nodes, lambda node: node.copies or "").items():
        problems.append(f"{hosts}: {problem} (It is set by --node-copies.)")
    if device == "cuda":
        if not any(node.gpus for node in nodes):
            problems.append("No node has a GPU; take --device cpu, or a cluster that has.")
        blind = [node.host for node in nodes if node.gpus and not node.cuda]
        if blind:
            problems.append(
                f"{', '.join(blind)}: Ray counts a GPU there, but torch can't use it; mend driver or torch."
            )
    absent = [node.host for node in nodes if not node.data]
    if absent:
        problems.append(
            f"--data '{data}' is neither a folder here nor on {', '.join(absent)}; name one that is on either side."
        )
    return problems


def _by(nodes: Sequence[NodeFacts], key: Callable[[NodeFacts], str]) -> dict[str, str]:
    """What `key` says, unless it is nothing, and of which hosts."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        if key(node):
            found.setdefault(key(node), []).append(node.host)
    return {what: ", ".join(hosts) for what, hosts in found.items()}


def _cuda() -> bool:
    """Whether torch finds a GPU in a process that Ray lets see all of them."""
    import os
    import subprocess
    import sys

    # Ray hides GPUs from a task that asks for none; the answer must not depend on this process having been told so.
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-c", "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def _problem_with_store(root: Path, token: str) -> str | None:
    """How the store's folder differs from one that is shared and can be written, to end a sentence."""
    try:
        if not root.is_dir():
            return "is not there"
        if not (root / token).is_file():
            return "is another folder than on the head node"
        store = open_store(root)
        store.path(f"{token}-{uuid.uuid4().hex}").write_text("")
        if not is_held(store.path(f"{token}.lock")):
            return "has locks that do not reach from node to node"
    except UserError as error:
        return f"can't be used ({error})"
    except OSError as error:
        return f"can't be written ({cause_of(error)})"
    return None


def _problem_with_bucket(address: str, token: str, copies: str | None) -> str | None:
    """How a bucket differs from one that can be read and written from here, to end a sentence."""
    try:
        store = open_store(address, copies_on_node(address, copies))
        assert isinstance(store, BucketStore)
        if store.bucket.known(PROBES, token) is None:
            return "is another bucket than on the head node"
        store.bucket.write(b"", PROBES, f"{token}-{uuid.uuid4().hex}")
        check_copies(store.copies)
    except UserError as error:
        return f"can't be used ({str(error).rstrip('.')})"
    except OSError as error:
        return f"can't be written ({cause_of(error)})"
    return None


def _problem_with_copies(folder: str) -> str | None:
    try:
        check_copies(Copies(Path(folder)))
    except UserError as error:
        return str(error)
    return None


def _wait_for_gpu(seconds: float) -> None:
    import ray

    began = time.monotonic()
    come = ray.remote(num_cpus=0, num_gpus=1)(platform.node).remote()
    try:
        ray.get(come, timeout=seconds)
    except ray.exceptions.GetTimeoutError:
        waited = time.monotonic() - began
        raise UserError(
            f"No node with a GPU has come within {waited / 60:.0f} minutes; see `dfd-tune cluster status`, raise the "
            "limits of the cluster file, or take --device cpu."
        ) from None
    finally:
        ray.cancel(come, force=True)
