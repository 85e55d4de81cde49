"""Ray clusters of several nodes on this machine, with an autoscaler or without, apart from all others that run here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
START_SECONDS = 60
STORE_BYTES = 80_000_000
MOST_WORKERS = 4
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass
class LocalCluster:
    """A head and its nodes, each a process group of its own."""

    address: str
    folder: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    job_address: str = ""

    def add_node(self, cpus: int) -> subprocess.Popen[bytes]:
        """Another node; returns the process that keeps it, for `remove_node`."""
        node = _ray_start(self.folder, {}, "--address", self.address, "--num-cpus", str(cpus))
        self.nodes.append(node)
        return node

    def remove_node(self, node: subprocess.Popen[bytes]) -> None:
        """End a node by SIGKILL, with all that runs on it."""
        _kill_family(node.pid)
        node.wait()


@contextlib.contextmanager
def local_cluster(
    cpus: int,
    *,
    worker_types: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = NOTHING,
    job_port: bool = False,
) -> Iterator[LocalCluster]:
    """A head with so many CPUs.

    Args:
        cpus: of the head.
        worker_types: with these, an autoscaler makes nodes of them on demand.
        environment: variables of the head, as RAY_AUTH_MODE.
        job_port: whether it takes jobs, at the cluster's `job_address`.
    """
    # Ray's sockets need a short path.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    port, dashboard = _free_port(), _free_port()
    more, environment = [f"--include-dashboard={job_port}"], dict(environment)
    if job_port:
        # Jobs are started by an agent, whose usual port another cluster of this machine may have.
        agent = [f"--dashboard-agent-listen-port={_free_port()}", f"--dashboard-agent-grpc-port={_free_port()}"]
        more += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", *agent]
    if worker_types is not None:
        config = folder / "autoscaler.json"
        config.write_text(json.dumps(_autoscaler(port, cpus, worker_types)))
        more += ["--autoscaling-config", str(config)]
        environment |= {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "0"}
    head = _ray_start(folder, environment, "--head", "--port", str(port), "--num-cpus", str(cpus), *more)
    cluster = LocalCluster(f"127.0.0.1:{port}", folder, [head], f"http://127.0.0.1:{dashboard}")
    try:
        _wait_for_port(port, head)
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            _kill_family(node.pid)
        for node in cluster.nodes:
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _ray_start(folder: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    command = [RAY, "start", "--block", "--object-store-memory", str(STORE_BYTES), *arguments]
    if "--head" in arguments:
        command += ["--temp-dir", str(folder / "r")]
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # a token of the user's would turn it on
    with (folder / f"{time.monotonic_ns()}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            env=known | quiet | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, head: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert head.poll() is None, "the head has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise AssertionError("no head")


def _kill_family(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


def _autoscaler(port: int, cpus: int, worker_types: Mapping[str, Any]) -> dict[str, Any]:
    head = {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0}
    empty_lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    empty_lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
    empty_lists += ("rsync_exclude", "rsync_filter")
    return {
        "cluster_name": "fake_multinode",
        "max_workers": MOST_WORKERS,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": f"127.0.0.1:{port}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {**worker_types, "ray.head.default": head},
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
    } | {name: [] for name in empty_lists}
