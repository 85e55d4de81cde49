"""A Ray cluster file: what it says of a cluster, before anything is started.

It is Ray's own kind of file, with no key of ours in it, so that `ray up` takes it as it is. Not for: what is wrong with
one (checks.py), or starting what it describes (up.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dfd_tune.cluster.checks import (
    FILLS_RESOURCES,
    is_token,
    prepared_by_ray,
    problems_of_local_files,
    problems_of_shape,
    problems_unfilled,
)
from dfd_tune.errors import UserError, raise_all, unknown_name
from dfd_tune.yaml_file import YamlFile, read_yaml

ACCELERATOR = "accelerator_type:"
"""How the resources of a node type say which kind of GPU it has."""
ACCELERATOR_LABEL = "ray.io/accelerator-type"
MACHINE_KEYS = (("InstanceType",), ("machineType",), ("azure_arm_parameters", "vmSize"))
"""Where the clouds' node types name their machine."""


@dataclass(frozen=True)
class NodeKind:
    """A node type of a cluster file."""

    name: str
    cpus: float | None
    """None where the file does not say."""
    gpus: float | None
    min_workers: int
    max_workers: int
    machine: str | None = None
    """The cloud's name for it."""
    accelerator: str | None = None
    """What kind of GPU it has, where the file says so."""


@dataclass(frozen=True)
class ClusterFile:
    """What a cluster file says. Make one with `read_cluster`."""

    path: Path
    name: str
    """Of the cluster."""
    provider: str
    """Ray's name for what runs the machines: aws, gcp, azure, local, and others."""
    config: Mapping[str, Any] = field(repr=False)
    """The file's content as it stands."""
    kinds: tuple[NodeKind, ...]
    head_kind: str
    most_nodes: int
    """With the head."""
    idle_minutes: float
    """So long after its last work a worker is ended by the autoscaler, down to each kind's smallest number."""
    ssh_user: str | None
    ssh_private_key: Path | None
    """None where Ray makes a key itself, or SSH finds its own."""
    head_ip: str | None = None
    """Of provider local."""
    worker_ips: tuple[str, ...] = ()
    """Of provider local."""
    token_file: Path | None = None
    """What the file copies to where the nodes look for the cluster's token."""

    @property
    def device(self) -> Literal["cuda", "cpu"] | None:
        """What its nodes train on; None if the file does not say, as that of hosts which are what they are."""
        kinds = [kind for kind in self.kinds if kind.max_workers > 0 or kind.name == self.head_kind]
        if any(kind.gpus for kind in kinds):
            return "cuda"
        return "cpu" if all(kind.gpus is not None for kind in kinds) else None

    @property
    def accelerator(self) -> str | None:
        """The kinds of GPU that its nodes have, or else the clouds' names of the machines that have them."""
        names = [kind.accelerator or kind.machine for kind in self.kinds if kind.gpus]
        return ", ".join(dict.fromkeys(name for name in names if name is not None)) or None


def shipped_clusters() -> dict[str, Path]:
    """The files that come with the package, by name: Ray cluster files, and those that other programs take."""
    package = Path(__file__).parent.parent
    # In a wheel the folder lies inside the package, in a checkout beside it.
    folder = next(place for place in (package / "clusters", package.parent / "clusters") if place.is_dir())
    return {file.stem: file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")}


def read_cluster(name: str) -> ClusterFile:
    """Read a Ray cluster file by its path, or a shipped one by its name.

    Raises:
        UserError: there is no such file, it is no YAML, Ray does not take it, its placeholders are not filled in, or a
            key or another file that it names is not there; all problems are named, with their lines.
    """
    file = read_yaml(_path_of(name), "cluster file")
    _refuse_other_kinds(file)
    problems = problems_of_shape(file)
    prepared: dict[str, Any] = {}
    if not problems:
        prepared, problems = prepared_by_ray(file)
    raise_all([*problems, *problems_unfilled(file), *problems_of_local_files(file)])
    return _cluster_from(file, prepared)


def _path_of(name: str) -> Path:
    shipped = shipped_clusters()
    files = {stem: path for stem, path in shipped.items() if path.suffix == ".yaml"}
    path = Path(name).expanduser()
    if name in files:
        return files[name]
    if name in shipped:
        raise UserError(f"{shipped[name].name} is no Ray cluster file; its first lines say what takes it.")
    if path.exists():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise UserError(
            f"There is no cluster file '{name}'; print one to start from with `dfd-tune cluster example NAME`, where "
            f"NAME is one of {', '.join(files)}."
        )
    raise UserError(unknown_name("cluster", name, files) + " Or give the path of a .yaml file.")


def _refuse_other_kinds(file: YamlFile) -> None:
    if not isinstance(file.content, dict):
        raise UserError(
            f"{file.path}: a Ray cluster file is a mapping with the keys `cluster_name` and `provider`; this file "
            "holds none."
        )
    if "apiVersion" in file.content:
        raise UserError(
            f"{file.path}: this is for Kubernetes, no Ray cluster file; apply it with kubectl, and reach its cluster "
            "with --address."
        )


def _cluster_from(file: YamlFile, prepared: Mapping[str, Any]) -> ClusterFile:
    """What a file says, from Ray's reading of it, in which all defaults are filled in."""
    content, provider = file.content, file.content["provider"]
    auth, mounts = content.get("auth") or {}, content.get("file_mounts") or {}
    kinds = tuple(_kind(name, node, provider["type"]) for name, node in prepared["available_node_types"].items())
    key = auth.get("ssh_private_key")
    tokens = [Path(source).expanduser() for target, source in mounts.items() if is_token(str(target))]
    workers = sum(kind.max_workers for kind in kinds)
    return ClusterFile(
        path=file.path,
        name=content["cluster_name"],
        provider=provider["type"],
        config=content,
        kinds=kinds,
        head_kind=prepared["head_node_type"],
        most_nodes=1 + min(workers, prepared["max_workers"]),
        idle_minutes=prepared["idle_timeout_minutes"],
        ssh_user=auth.get("ssh_user"),
        ssh_private_key=None if key is None else Path(key).expanduser(),
        head_ip=provider.get("head_ip"),
        worker_ips=tuple(provider.get("worker_ips", ())),
        token_file=tokens[0] if tokens else None,
    )


def _kind(name: str, node: Mapping[str, Any], provider: str) -> NodeKind:
    resources, config = node.get("resources") or {}, node.get("node_config") or {}
    gpus = resources.get("GPU")
    if gpus is None and "CPU" in resources and provider not in FILLS_RESOURCES:
        gpus = 0
    return NodeKind(
        name=name,
        cpus=resources.get("CPU"),
        gpus=gpus,
        min_workers=node.get("min_workers", 0),
        max_workers=node.get("max_workers", 0),
        machine=_machine(config),
        accelerator=_accelerator(resources, node.get("labels") or {}, config),
    )


def _machine(config: Mapping[str, Any]) -> str | None:
    for keys in MACHINE_KEYS:
        value: Any = config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            return value.rpartition("/")[2]
    return None


def _accelerator(resources: Mapping[str, Any], labels: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    named = [resource.removeprefix(ACCELERATOR) for resource in resources if str(resource).startswith(ACCELERATOR)]
    if ACCELERATOR_LABEL in labels:
        named.append(labels[ACCELERATOR_LABEL])
    for guest in config.get("guestAccelerators") or []:
        if isinstance(guest, dict) and isinstance(guest.get("acceleratorType"), str):
            named.append(guest["acceleratorType"].rpartition("/")[2])
    return named[0] if named else None
