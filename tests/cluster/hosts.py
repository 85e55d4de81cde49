"""SSH hosts made of Linux namespaces on this machine, and a laptop that reaches them.

A host has a network, processes, a name, a home, temporary folders and an SSH server of its own; it shares the kernel,
the cores, the clock, the Python environment of the tests and one folder. Its network can be cut and healed, it can be
killed, and all vanish with the process that made them, however that ends. Needs root and a few of Debian's packages.
Not for: memory limits, slow networks, GPUs, several users on a host.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

ROOT = Path(__file__).parents[2]
PRIVATE = (Path("/root"), Path("/tmp"), Path("/run"))
"""Every host has its own of these."""
TOOLS = {
    "/usr/sbin/sshd": "openssh-server",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "rsync": "rsync",
    "unshare": "util-linux",
}
DETECTION = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
    "grpc_client_keepalive_time_ms": 10000,
    "grpc_client_keepalive_timeout_ms": 5000,
}
"""With these of Ray's settings, the head gives a host that is cut off up within 12 seconds."""
SECONDS = 20.0
"""A host that has not come up by then has failed."""


def what_is_missing() -> str | None:
    """Why no host can be made here, as a reason to skip a test; None if they can be."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts are made of namespaces, which takes Linux and root"
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        return f"hosts need Debian's {', '.join(missing)}"
    made = subprocess.run(["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"], check=False)
    return "this machine lets nobody make namespaces, as in a container" if made.returncode != 0 else None


@dataclass(frozen=True)
class Host:
    """One host."""

    name: str
    ip: str
    pid: int
    """Of its first process, as seen from outside."""


class Hosts:
    """While entered, `count` hosts; afterwards nothing of them.

    Args:
        folder: made if need be; every host sees it at the same path. Also holds the keys and the laptop's home.
        count: so many hosts at the beginning.
        shm: size of each host's shared memory.
    """

    def __init__(self, folder: Path, count: int = 3, *, shm: str = "512m"):
        self.folder = folder.resolve()
        self.shared = self.folder / "shared"
        """A folder for what all hosts and the laptop see, as a store."""
        self.all: list[Host] = []
        """Those that live."""
        self._count, self._shm = count, shm
        self._started = itertools.count(1)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._laptops: list[dict[str, str]] = []

    def __enter__(self) -> Self:
        self.shared.mkdir(parents=True, exist_ok=True)
        for name in ("user", "host"):
            key = self.folder / "keys" / name
            key.parent.mkdir(exist_ok=True)
            if not key.exists():
                _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key)
        with contextlib.ExitStack() as stack:
            stack.callback(self.end)
            self._make_network()
            for _ in range(self._count):
                self.add()
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def head(self) -> Host:
        """The first one."""
        return self.all[0]

    def add(self) -> Host:
        """One more host."""
        number = next(self._started)
        name, address = f"h{number}", str(self._subnet[10 + number])
        variables = {
            "NAME": name,
            "ADDRESS": address,
            "GATEWAY": str(self._subnet[1]),
            "KEYS": str(self.folder / "keys"),
            "KEPT": "\n".join(str(path) for path in _kept([self.folder, ROOT, *_places_of_python()])),
            "BIN": str(Path(sys.prefix) / "bin"),
            "SHM": self._shm,
            "PATH": os.environ["PATH"],
        }
        kinds = ("--net", "--mount", "--pid", "--uts", "--ipc", "--mount-proc")
        script = Path(__file__).parent / "host_init.sh"
        process = self._start(name, ["unshare", *kinds, "--fork", "--kill-child", str(script)], variables)
        host = Host(name, address, _child_of(process))
        self.all.append(host)
        _call("ip", "link", "add", "eth0", "netns", host.pid, "type", "veth", "peer", "name", name, "netns", self._net)
        self._switch("link", "set", name, "master", "switch", "up")
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died; its log says why
            process.stdin.write(b"go\n")
            process.stdin.flush()
        self._wait_for(host, process)
        return host

    def kill(self, host: Host) -> None:
        """Take a host's power away: all its processes die at once."""
        self.all.remove(host)
        _end(host.pid, self._processes.pop(host.name))

    def cut(self, host: Host) -> None:
        """Pull a host's network plug; its processes go on."""
        self._switch("link", "set", host.name, "down")

    def heal(self, host: Host) -> None:
        """Put the plug back."""
        self._switch("link", "set", host.name, "up")

    def run(self, host: Host, *command: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command on a host as its root, not over its network; `~/.bashrc` is not read."""
        entered = ("nsenter", "--target", str(host.pid), "--all", "--wd=/root", "env", "-i", "HOME=/root")
        path = f"PATH={sys.prefix}/bin:{os.environ['PATH']}"
        order = [*entered, path, *map(str, command)]
        return subprocess.run(order, capture_output=True, text=True, timeout=timeout)

    def processes(self, host: Host) -> list[str]:
        """The command lines of a host's processes, but for the SSH server's and those that make it a host."""
        lines = self.run(host, "ps", "-eo", "args", "--no-headers").stdout.splitlines()
        ours = ("/bin/bash ", "sshd: ", "/usr/sbin/sshd", "ps -eo")
        return [line for line in lines if not line.startswith(ours)]

    def ray_processes(self, host: Host) -> list[str]:
        """Those of Ray among a host's processes."""
        return [line for line in self.processes(host) if "/ray/" in line or line.startswith("ray::")]

    def laptop(self, name: str = "laptop", token: str | None = None) -> dict[str, str]:
        """Environment variables of a user elsewhere: a home of its own with the key of the hosts and Ray's token.

        Args:
            name: that of its home.
            token: content of `~/.ray/auth_token`; None for no such file.
        """
        home = self.folder / name
        for folder in (home / ".ssh", home / ".ray", home / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / "keys" / "user", home / ".ssh" / "id_ed25519")
        if token is not None:
            file = home / ".ray" / "auth_token"
            file.touch(mode=0o600)
            file.write_text(token)
        tied = ("DFD_TUNE_", "RAY_", "MLFLOW_", "AWS_", "GOOGLE_", "OMP_NUM_THREADS", "PYTHONPATH")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(tied)}
        variables = kept | {
            "HOME": str(home),
            # Ray's sockets of SSH are in a folder named after the user: those of two tests must not be mixed up.
            "LOGNAME": f"{name}-{self._link}-{os.getpid()}",
            "TMPDIR": str(home / "tmp"),
            "RAY_TMPDIR": str(home / "tmp"),
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "PYTHONPATH": str(ROOT),
        }
        self._laptops.append(variables)
        return variables

    def cluster_config(self, name: str, workers: Sequence[Host] | None = None, *, cpus: int = 2) -> dict[str, Any]:
        """A Ray cluster file's content: the first host is the head.

        Args:
            name: of the cluster.
            workers: the other hosts; None for all there are.
            cpus: what each says it has.
        """
        workers = self.all[1:] if workers is None else workers
        size = f"--num-cpus={cpus} --memory=3000000000 --object-store-memory=200000000"
        return {
            "cluster_name": name,
            "provider": {"type": "local", "head_ip": self.head.ip, "worker_ips": [host.ip for host in workers]},
            "auth": {"ssh_user": "root", "ssh_private_key": str(self.folder / "keys" / "user")},
            "file_mounts": {"~/.ray/auth_token": "~/.ray/auth_token"},
            "head_start_ray_commands": [
                "ray stop",
                "export RAY_AUTH_MODE=token; ray start --head --port=6379 --dashboard-host=127.0.0.1 "
                f"--autoscaling-config=~/ray_bootstrap_config.yaml {size} --system-config='{json.dumps(DETECTION)}'",
            ],
            "worker_start_ray_commands": [
                "ray stop",
                f"export RAY_AUTH_MODE=token; ray start --address=$RAY_HEAD_IP:6379 {size}",
            ],
        }

    def write_cluster_file(
        self, path: Path, name: str, workers: Sequence[Host] | None = None, *, cpus: int = 2
    ) -> Path:
        """Write such a file; returns its path."""
        path.write_text(yaml.safe_dump(self.cluster_config(name, workers, cpus=cpus), sort_keys=False, width=1000))
        return path

    def end(self) -> None:
        """End all; may be repeated."""
        for variables in self._laptops:
            _close_connections(variables["LOGNAME"])
        self._laptops.clear()
        for host in list(self.all):
            self.kill(host)
        for process in self._processes.values():
            _end(process.pid, process)
        self._processes.clear()
        # The kernel takes a network away a moment after its last process; the next one may want the same name.
        deadline = time.monotonic() + SECONDS
        while hasattr(self, "_link") and self._link in _links() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _make_network(self) -> None:
        """A switch in a network of its own, with one plug outside: all of it goes when its one process does."""
        process = self._start("switch", ["unshare", "--net", "sh", "-c", "read _; read _"], dict(os.environ))
        self._net = process.pid
        for subnet in _free_subnets():
            self._link, self._subnet = f"dfd-{str(subnet[0]).replace('.', '-')[3:-2]}", subnet
            with contextlib.suppress(subprocess.CalledProcessError):  # the name is taken by others in this moment
                _call("ip", "link", "add", self._link, "type", "veth", "peer", "name", "outside", "netns", self._net)
                break
        else:
            raise RuntimeError("no free subnet in 10.77.0.0/16")
        _call("ip", "address", "add", f"{subnet[1]}/24", "dev", self._link)
        _call("ip", "link", "set", self._link, "up")
        self._switch("link", "add", "switch", "type", "bridge")
        self._switch("link", "set", "switch", "up")
        self._switch("link", "set", "outside", "master", "switch", "up")

    def _switch(self, *arguments: object) -> None:
        """`ip ARGUMENTS` where the switch is."""
        _call("nsenter", "--target", self._net, "--net", "ip", *arguments)

    def _start(self, name: str, command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                command, env=variables, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        self._processes[name] = process
        if name == "switch":
            _wait_until(lambda: _namespace(process.pid) != _namespace(os.getpid()), "the switch has no network")
        return process

    def _wait_for(self, host: Host, process: subprocess.Popen[bytes]) -> None:
        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{host.name} has ended: {self._log(host.name).read_text()}")
            with contextlib.suppress(OSError), socket.create_connection((host.ip, 22), timeout=1):
                return True
            return False

        _wait_until(answers, f"{host.name} does not answer")

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def _call(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def _end(pid: int, process: subprocess.Popen[bytes]) -> None:
    """Kill a host's first process, which takes the others along, and wait for the one of ours that waits for it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _wait_until(true: Any, otherwise: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.02)


def _child_of(process: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _wait_until(lambda: children.read_text().split(), "the host has no process")
    return int(children.read_text().split()[0])


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _links() -> set[str]:
    return {entry["ifname"] for entry in json.loads(_call("ip", "-json", "link"))}


def _free_subnets() -> Iterator[ipaddress.IPv4Network]:
    """Networks of 256 addresses that nothing here has a route to."""
    routes = [entry["dst"] for entry in json.loads(_call("ip", "-json", "-4", "route")) if entry["dst"] != "default"]
    taken = [ipaddress.ip_network(route, strict=False) for route in routes]
    for number in range(256):
        subnet = ipaddress.IPv4Network(f"10.77.{(number + os.getpid()) % 256}.0/24")
        if not any(subnet.overlaps(other) for other in taken):
            yield subnet


def _places_of_python() -> Iterator[Path]:
    """Where the interpreter of the tests and its libraries are: a virtual environment may be links of links."""
    yield Path(sys.prefix)
    yield Path(sys.base_prefix)
    interpreter = Path(sys.executable)
    while interpreter.is_symlink():
        yield interpreter.parent.parent
        interpreter = interpreter.parent / interpreter.readlink()
    yield interpreter.parent.parent


def _kept(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that a host's private folders would hide, without those that lie in others of them."""
    hidden: list[Path] = []
    for path in sorted({Path(os.path.normpath(path)) for path in paths}):
        if any(private in path.parents for private in PRIVATE) and not any(top in path.parents for top in hidden):
            hidden.append(path)
    return hidden


def _close_connections(user: str) -> None:
    """End the connections that Ray's launcher keeps for a while; a host that is cut off would hold them for longer."""
    folder = Path("/tmp") / f"ray_ssh_{hashlib.sha256(user.encode()).hexdigest()[:10]}"
    for control in folder.glob("*/*"):
        subprocess.run(["ssh", "-o", f"ControlPath={control}", "-O", "exit", "any"], capture_output=True, timeout=20)
    shutil.rmtree(folder, ignore_errors=True)
