"""Ray's own cluster launcher as a child process: `ray up`, `down`, `rsync-up` and the like, with their words in a log.

Not for: what is done around it (up.py, tunnel.py), or SSH of our own (ssh.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from dfd_tune.errors import UserError

NOTHING: Mapping[str, str] = MappingProxyType({})


class Described(Protocol):
    """A cluster as far as is needed to start it and reach it."""

    @property
    def path(self) -> Path:
        """Its Ray cluster file."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What the file says."""


def name_of(file: Described) -> str:
    """The cluster's name."""
    return str(file.config.get("cluster_name", "default"))


def provider_of(file: Described) -> str:
    """Where its machines come from: "local" (on premises), "aws", "gcp" and so on."""
    return str(file.config["provider"]["type"])


def ray_command(verb: str, file: Described, *arguments: str) -> list[str]:
    """`ray VERB FILE ARGUMENTS...` of this very environment."""
    return [sys.executable, "-m", "ray.scripts.scripts", verb, str(file.path), *arguments]


def ray(verb: str, file: Described, *arguments: str, log: Path, variables: Mapping[str, str] = NOTHING) -> str:
    """Run `ray VERB FILE ARGUMENTS...` to its end. What it prints goes to the log, and never to the terminal.

    Args:
        verb: "up", "down" and so on.
        file: of the cluster.
        arguments: further ones.
        log: is appended to.
        variables: environment variables beside this process's.

    Returns:
        What it printed.

    Raises:
        UserError: it failed.
    """
    code, text = run_logged(ray_command(verb, file, *arguments), log, variables)
    if code != 0:
        raise UserError(f"`ray {verb} {file.path}` failed: {cause_in(text)} The whole log is {log}.")
    return text


def run_logged(command: Sequence[str], log: Path, variables: Mapping[str, str] = NOTHING) -> tuple[int, str]:
    """Run a command in a session of its own, so that a terminal's Ctrl-C is for this process alone to act on.

    Returns:
        Its exit code, and what it printed, which the log has as well.
    """
    with started(command, log, variables) as (process, position):
        process.wait()
    return process.returncode, words_since(log, position)


@contextlib.contextmanager
def started(
    command: Sequence[str], log: Path, variables: Mapping[str, str] = NOTHING, *, stdin: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A child in a session of its own; whatever is left of it at the end of the block is killed.

    Yields:
        The child, and where in the log its words begin.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        stream.write(f"$ {' '.join(command)}\n".encode())
        stream.flush()
        position = stream.tell()
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    try:
        yield process, position
    finally:
        # Whoever is left in its group, as the ssh that `ray dashboard` has started, is killed with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def words_since(log: Path, position: int) -> str:
    """What a log holds from a position on, without a terminal's colours and carriage returns."""
    with log.open("rb") as stream:
        stream.seek(position)
        return plain(stream.read().decode(errors="replace"))


def plain(text: str) -> str:
    """Text without a terminal's colours and carriage returns."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n").replace("\r", "\n")


CAUSES = (
    (
        r"AuthFailure|InvalidClientTokenId|UnrecognizedClientException|SignatureDoesNotMatch|InvalidAccessKeyId",
        "the cloud does not accept the credentials of this machine; see that they are those of this account.",
    ),
    (r"ExpiredToken|RequestExpired|RefreshError|invalid_grant", "the cloud's credentials have expired; log in anew."),
    (
        r"UnauthorizedOperation|AccessDenied|PERMISSION_DENIED|HttpError 403",
        "the account may not do that; it needs the rights to make machines, networks and roles.",
    ),
    (
        r"InsufficientInstanceCapacity|ZONE_RESOURCE_POOL_EXHAUSTED|STOCKOUT",
        "the cloud has no machine of that kind left in this zone; try another zone or kind, or later.",
    ),
    (
        r"VcpuLimitExceeded|InstanceLimitExceeded|MaxSpotInstanceCountExceeded|Quota '?\S* ?exceeded|QUOTA_EXCEEDED",
        "the account's quota of such machines is used up; ask the cloud for more, or take fewer.",
    ),
    (r"NoCredentialsError|DefaultCredentialsError", "there are no credentials of the cloud on this machine."),
    (r"rsync: command not found|rsync: not found", "there is no rsync on the node; install it there."),
    (
        r"ray: command not found|No module named '?ray",
        "there is no `ray` on the node; install Ray there, or have the file's setup_commands do it.",
    ),
    (r"Head node of cluster \(.*\) not found", "this machine knows of no such cluster that runs."),
    (r"Permission denied \(publickey", "the node refuses the SSH key of the file."),
    (r"Head node fetch timed out", "the cloud did not hand out a head node in time."),
)
"""What is found in the launcher's words -> what it means, the likeliest first."""


def cause_in(text: str, host: str | None = None) -> str:
    """What went wrong, as a sentence, as far as the words of Ray's launcher tell.

    Args:
        text: what it said.
        host: which of the nodes that it speaks of has failed; None if it speaks of one alone.
    """
    command, said = failed_command(text, host)
    for pattern, meaning in CAUSES:
        if re.search(pattern, text):
            return meaning if command is None else f"{meaning} It was to run `{command}`."
    if command is not None:
        return f"the command `{command}` failed on the node{f', which said: {said}' if said else ''}."
    lines = [line.strip() for line in text.splitlines() if line.strip(" !\t")]
    telling = [line for line in lines if re.search(r"[Ee]rror|[Ff]ail|denied|refused|timed out", line)]
    return f"{(telling or lines or ['it said nothing'])[-1].rstrip('.')}."


def failed_command(text: str, host: str | None = None) -> tuple[str | None, str]:
    """Which command failed on a node, and the last line it printed there; None if none did, or that is not told."""
    end = "New status: update-failed" if host is None else f"NodeUpdater: {re.escape(host)}: [^\n]*failed"
    failed = re.search(end, text)
    begun = text[: failed.start()] if failed else ""
    # Several nodes are set up at once, and only SSH's own arguments tell whose command it is.
    pattern = r" -- (?:Full command is `(ssh .+?)|Running `(rsync .+?))`$"
    orders = list(re.finditer(pattern, begun, re.DOTALL | re.MULTILINE))
    found = [order for order in orders if host is not None and f"@{host}" in order[0]] or orders
    if not found:
        return None, ""
    # Not the words of log lines, which begin with a date, and of SSH.
    ours = re.compile(r"\d{4}-\d\d-\d\d |Shared connection to |Warning: Permanently added |\s*$")
    said = [line.strip() for line in begun[found[-1].end() :].splitlines() if not ours.match(line)]
    return _inner(found[-1][1]) if found[-1][1] else "rsync", said[-1].rstrip(".") if said else ""


def _inner(order: str) -> str:
    """The file's own command inside of what Ray's launcher makes of it."""
    inner = re.search(r"PYTHONWARNINGS=ignore && \((.*)\)'?$", order, flags=re.DOTALL)
    command = order if inner is None else inner[1].replace("""'"'"'""", "'")
    return re.sub(r"^(export RAY_\w+=[^;]*;\s*)+", "", command)
