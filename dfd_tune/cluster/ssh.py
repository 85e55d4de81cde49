"""SSH to the hosts of a cluster on premises: whether they can be reached, and scripts on many of them at once.

Ray's launcher waits minutes for a host that does not answer, and never looks at the workers itself. Not for: machines
of a cloud, whose addresses and keys only Ray's launcher knows (launcher.py).
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.cluster.launcher import Described

CONNECT_SECONDS = 6
AT_ONCE = 8
"""Servers of SSH begin to drop connections beyond ten at once that have not logged in."""
NO_CONNECTION = 255
"""The exit code of ssh itself."""


@dataclass(frozen=True)
class Answer:
    """What a host made of a script."""

    host: str
    code: int
    out: str
    err: str

    @property
    def reached(self) -> bool:
        """Whether the script ran there at all."""
        return self.code != NO_CONNECTION


def is_on_premises(file: Described) -> bool:
    """Whether the file itself says which hosts the cluster has."""
    provider = file.config["provider"]
    return provider["type"] == "local" and "head_ip" in provider


def head_of(file: Described) -> str:
    """The head's address as its workers know it."""
    return str(file.config["provider"]["head_ip"])


def workers_of(file: Described) -> list[str]:
    """The other hosts."""
    return [str(address) for address in file.config["provider"].get("worker_ips") or []]


def key_of(file: Described) -> Path | None:
    """The private key that the file names; None if it leaves that to SSH."""
    key = (file.config.get("auth") or {}).get("ssh_private_key")
    return Path(key).expanduser() if key else None


def ssh_command(file: Described, host: str, *options: str, through_head: bool = False) -> list[str]:
    """`ssh` to a host as Ray's launcher would call it, but that it asks for nothing and does not wait long.

    Args:
        file: of the cluster.
        host: the head's address or a worker's.
        options: further ones.
        through_head: by way of the head, as to workers that only it can reach.
    """
    auth, provider = file.config.get("auth") or {}, file.config["provider"]
    user, key = auth.get("ssh_user"), key_of(file)
    # As with Ray: hosts of a cluster come and go, and their host keys change.
    settings = {
        "BatchMode": "yes",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "IdentitiesOnly": "yes",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
    }
    address = host
    if through_head:
        settings["ProxyCommand"] = shlex.join(ssh_command(file, head_of(file), "-W", "%h:%p"))
    elif auth.get("ssh_proxy_command"):
        settings["ProxyCommand"] = auth["ssh_proxy_command"]
    if host == head_of(file):
        address = str(provider.get("external_head_ip") or host)
    named = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    identity = [] if key is None else ["-i", str(key)]
    return ["ssh", *identity, *named, *options, address if user is None else f"{user}@{address}"]


def on(file: Described, host: str, script: str, *, seconds: float = 60) -> Answer:
    """Run a shell script on a host. Never raises: a host that can't be reached answers with code 255.

    Args:
        file: of the cluster.
        host: the head's address or a worker's.
        script: is read from standard input there, so that it is not seen among the processes.
        seconds: it is given so long.
    """
    outside = "external_head_ip" in file.config["provider"]
    routes = [False] if host == head_of(file) else [True] if outside else [False, True]
    answer = Answer(host, NO_CONNECTION, "", "it was not tried")
    for through_head in routes:
        command = [*ssh_command(file, host, through_head=through_head), "bash", "-s"]
        try:
            done = subprocess.run(
                command, input=script, capture_output=True, text=True, timeout=seconds, start_new_session=True
            )
        except subprocess.TimeoutExpired:
            return Answer(host, NO_CONNECTION, "", f"it did not answer within {seconds:.0f} s")
        except FileNotFoundError:
            return Answer(host, NO_CONNECTION, "", "there is no `ssh` on this machine")
        again = Answer(host, done.returncode, done.stdout, done.stderr)
        # What is said of the way through the head tells less than what is said of the direct one.
        answer = again if again.reached or not through_head or outside else answer
        if answer.reached or "Permission denied" in answer.err:
            break
    return answer


def on_all(file: Described, hosts: Sequence[str], script: str, *, seconds: float = 60) -> list[Answer]:
    """Run a shell script on many hosts at once; answers in the order of the hosts."""
    if not hosts:
        return []
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return list(pool.map(lambda host: on(file, host, script, seconds=seconds), hosts))


def as_ray_runs_it(command: str) -> str:
    """A line for a script that runs a command as Ray's launcher does: where `~/.bashrc` has put things on PATH."""
    inner = f"source ~/.bashrc; {command}"
    return f"bash --login -c -i {shlex.quote(inner)} </dev/null 2>&1"


REASONS: Mapping[str, str] = {
    r"Permission denied": "refuses {key} for the user '{user}'",
    r"Connection refused": "refuses SSH: nothing listens on its port 22",
    r"Could not resolve hostname|Name or service not known": "is a name that this machine does not know",
    r"timed out|No route to host|unreachable|did not answer": "can't be reached over the network",
    r"UNPROTECTED PRIVATE KEY": "was not asked: {key} may be read by others, so SSH does not use it (chmod 600)",
}


def why_not(file: Described, answer: Answer) -> str:
    """Why a host was not reached, as the end of a sentence that begins with its name."""
    key = key_of(file)
    words = {
        "key": "the keys of this machine" if key is None else f"the key {key}",
        "user": (file.config.get("auth") or {}).get("ssh_user"),
    }
    for pattern, reason in REASONS.items():
        if re.search(pattern, answer.err):
            return reason.format(**words)
    lines = [line.strip() for line in answer.err.splitlines() if line.strip()]
    return f"can't be reached by SSH ({lines[-1] if lines else 'it says nothing'})"
