"""A cluster's job port and files through SSH: nothing of a cluster is open to the world.

Not for: what is said through the port (jobs.py), or clusters that are known by an address.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfd_tune.cluster.launcher import Described, cause_in, name_of, ray, ray_command, run_logged, started, words_since
from dfd_tune.cluster.ssh import head_of, is_on_premises, on, ssh_command, why_not
from dfd_tune.errors import UserError, cause_of

REFUSED_SECONDS = 1.5
"""A head whose port refuses for so long, over an SSH connection that stands, runs no cluster."""
ANSWER_SECONDS = 90.0
"""So long may it take to connect, and a port that does not refuse to answer."""
AGAIN_SECONDS = 1.0
DASHBOARD_PORT = 8265


class NotUpError(UserError):
    """The head can be reached, but no cluster answers there."""


@contextlib.contextmanager
def job_port(file: Described, log: Path, *, refused_seconds: float = REFUSED_SECONDS) -> Iterator[str]:
    """The address of a cluster's job port on this machine, as http://127.0.0.1:PORT, for the length of the block.

    Should the connection be lost, it is made again, at the same address. Whether the token is right is not asked.

    Args:
        file: of the cluster.
        log: takes what SSH and Ray's launcher have to say.
        refused_seconds: a cluster may take so long to open its port.

    Raises:
        NotUpError: no cluster runs there.
        UserError: the head can't be reached, or what should be the job port does not answer.
    """
    refuse_without("ssh")
    tunnel = _Tunnel(file, log)
    try:
        tunnel.wait(refused_seconds)
        yield tunnel.address
    finally:
        tunnel.end()


class _Tunnel:
    """A child that forwards a port, and a thread that starts it again whenever it ends."""

    def __init__(self, file: Described, log: Path):
        port = _free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._file, self._log, self._port = file, log, port
        self._command = _forwarding(file, port)
        self._over = threading.Event()
        self._ended = threading.Event()
        self._position = log.stat().st_size if log.exists() else 0
        self._thread = threading.Thread(target=self._keep, name="tunnel", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._over.is_set():
            # The other end of its standard input is held by this process alone: it does not outlive it.
            with started(self._command, self._log, stdin=subprocess.PIPE) as (child, _):
                while child.poll() is None and not self._over.wait(0.1):
                    pass
            self._ended.set()
            self._over.wait(AGAIN_SECONDS)

    def wait(self, refused_seconds: float) -> None:
        """Wait until the job port answers."""
        deadline, refused_since = time.monotonic() + ANSWER_SECONDS, None
        while True:
            status = _status(self.address)
            if status in (200, 401, 403):
                return
            now = time.monotonic()
            if self._ended.is_set():
                raise self._why_no_connection()
            if status is None and refused_since is None and _listens(self._port):
                refused_since = now
            if refused_since is not None and now - refused_since > refused_seconds:
                raise NotUpError(_not_up(self._file))
            if now > deadline:
                raise UserError(
                    f"The job port of the cluster '{name_of(self._file)}' does not answer within {ANSWER_SECONDS:.0f} "
                    f"s; what SSH said is in {self._log}."
                )
            time.sleep(0.1)

    def end(self) -> None:
        """Close it."""
        self._over.set()
        self._thread.join()

    def _why_no_connection(self) -> UserError:
        text = words_since(self._log, self._position)
        if is_on_premises(self._file):
            answer = on(self._file, head_of(self._file), "true")
            if not answer.reached:
                return UserError(f"The head {head_of(self._file)} {why_not(self._file, answer)}.")
        elif "not found!" in text:
            return NotUpError(_not_up(self._file))
        return UserError(
            f"No connection to the head of the cluster '{name_of(self._file)}': {cause_in(text)} The whole "
            f"log is {self._log}."
        )


def get_json(address: str, path: str) -> Any:
    """What a cluster's job port answers to a GET request.

    Raises:
        UserError: it refuses, or does not answer.
    """
    try:
        with _open(address + path, seconds=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise UserError(
                "The cluster refuses this machine: its token is missing or wrong; put the cluster's token into "
                "~/.ray/auth_token or RAY_AUTH_TOKEN."
            ) from None
        raise UserError(f"The cluster's job port answers {path} with the error {error.code}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"The cluster's job port does not answer: {cause_of(error)}.") from None


def token_here() -> str | None:
    """Ray's token of this machine, from where Ray looks for it; None if there is none."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    place = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    with contextlib.suppress(OSError):
        return place.read_text().strip() or None
    return None


def rsync_up(file: Described, source: Path, target: str, log: Path) -> None:
    """Copy a file or a folder to the head, whose file or folder `target` it then is.

    Args:
        file: of the cluster.
        source: here.
        target: an absolute path there; folders above it are made.
        log: takes what rsync has to say.

    Raises:
        UserError: it failed.
    """
    slash = "/" if source.is_dir() else ""
    _make_folder(file, target if slash else os.path.dirname(target), log)
    _rsync(file, f"{source}{slash}", f"{target}{slash}", log, up=True)


def rsync_down(file: Described, source: str, target: Path, log: Path) -> None:
    """Copy a file from the head, or what a folder holds if `source` ends with a slash.

    Args:
        file: of the cluster.
        source: an absolute path there.
        target: here; folders above it are made.
        log: takes what rsync has to say.

    Raises:
        UserError: it failed.
    """
    slash = "/" if source.endswith("/") else ""
    (target if slash else target.parent).mkdir(parents=True, exist_ok=True)
    _rsync(file, source, f"{target}{slash}", log, up=False)


def refuse_without(*programs: str) -> None:
    """Raise UserError if one of the programs is not installed on this machine."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise UserError(f"Clusters are reached by {' and '.join(missing)}, which this machine lacks; install it.")


def _rsync(file: Described, source: str, target: str, log: Path, *, up: bool) -> None:
    refuse_without("ssh", "rsync")
    if not _by_our_ssh(file):
        ray("rsync-up" if up else "rsync-down", file, source, target, log=log)
        return
    head = head_of(file)
    *shell, host = ssh_command(file, head)
    ends = [source, f"{host}:{target}"] if up else [f"{host}:{source}", target]
    code, text = run_logged(["rsync", "--archive", "--compress", "--rsh", shlex.join(shell), *ends], log)
    if code != 0:
        raise UserError(
            f"Copying {source} {'to' if up else 'from'} the head {head} failed: {cause_in(text)} The whole log "
            f"is {log}."
        )


def _make_folder(file: Described, folder: str, log: Path) -> None:
    command = f"mkdir -p {shlex.quote(folder)}"
    if not _by_our_ssh(file):
        ray("exec", file, command, log=log)
        return
    answer = on(file, head_of(file), command)
    if not answer.reached:
        raise UserError(f"The head {head_of(file)} {why_not(file, answer)}.")
    if answer.code != 0:
        raise UserError(f"The folder {folder} can't be made on the head {head_of(file)}: {answer.err.strip()}.")


def _by_our_ssh(file: Described) -> bool:
    """Whether files can be copied without Ray's launcher, which starts slowly and knows its own clusters only."""
    return is_on_premises(file) and not file.config.get("docker")


def _forwarding(file: Described, port: int) -> list[str]:
    remote = _dashboard_port(file)
    if not is_on_premises(file):
        return ray_command("dashboard", file, "--port", str(port), "--remote-port", str(remote))
    options = ("-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{remote}")
    # `cat` ends with its input, and with it the connection.
    return [*ssh_command(file, head_of(file), *options), "cat"]


def _dashboard_port(file: Described) -> int:
    commands = " ".join(file.config.get("head_start_ray_commands") or [])
    found = re.search(r"--dashboard-port[= ](\d+)", commands)
    return int(found[1]) if found else DASHBOARD_PORT


def _not_up(file: Described) -> str:
    return (
        f"The cluster '{name_of(file)}' is not up; start it with `dfd-tune cluster up {file.path}`, or launch a search "
        "on it, which does so."
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _status(address: str) -> int | None:
    """The HTTP status with which a job port tells its version; None where nothing answers, 0 where it takes long."""
    try:
        with _open(f"{address}/api/version", seconds=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except TimeoutError:
        return 0
    except urllib.error.URLError as error:
        return 0 if isinstance(error.reason, TimeoutError) else None
    except OSError:
        return None


def _open(url: str, *, seconds: float) -> Any:
    token = token_here()
    request = urllib.request.Request(url, headers={} if token is None else {"Authorization": f"Bearer {token}"})
    # A proxy for the world outside knows nothing of this machine's ports.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=seconds)
