"""Starting and ending a cluster: around `ray up` and `ray down`, with what they leave undone on premises.

On premises, Ray's launcher waits minutes for a host that does not answer, says nothing of workers that fail, starts one
worker too few by its newer autoscaler, and ends the head alone. Not for: reaching a cluster that is up (tunnel.py).
"""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_tune.cluster.credentials import refuse_without_credentials
from dfd_tune.cluster.launcher import Described, cause_in, name_of, plain, provider_of, ray
from dfd_tune.cluster.ssh import (
    Answer,
    as_ray_runs_it,
    head_of,
    is_on_premises,
    on,
    on_all,
    why_not,
    workers_of,
)
from dfd_tune.cluster.tunnel import NotUpError, get_json, job_port, refuse_without
from dfd_tune.errors import UserError, raise_all

Say = Callable[[str], None]

JOIN_SECONDS = 1800.0
"""Workers that have not joined by then do not: machines of a cloud start slowly, and setup commands install much."""
PORT_SECONDS = 60.0
"""A head that has just started may take so long to open its port."""
OLDER_AUTOSCALER = {"RAY_UP_enable_autoscaler_v2": "0"}
"""Ray's newer autoscaler counts the head among the workers of a cluster on premises."""


@dataclass(frozen=True)
class Node:
    """A machine of a cluster that is up."""

    ip: str
    is_head: bool
    cpus: float
    gpus: float
    accelerator: str | None
    """The GPUs' kind, as Ray names it."""


def up(file: Described, log: Path, say: Say, *, join_seconds: float = JOIN_SECONDS) -> list[Node]:
    """Start a cluster that is not up, and wait until its least number of nodes is there: on premises, all of them.

    Args:
        file: of the cluster.
        log: takes what Ray's launcher has to say, and the head's log of workers that failed.
        say: is told how it goes on.
        join_seconds: workers have so long to join.

    Returns:
        The nodes that are there.

    Raises:
        UserError: it can't be started. Machines that were started are ended again, as by a KeyboardInterrupt.
    """
    refuse_without("ssh", "rsync")
    _refuse_missing_files(file)
    if is_on_premises(file):
        _refuse_unreachable(file)
    else:
        refuse_without_credentials(file)
    say(f"Starting the cluster '{name_of(file)}' ({provider_of(file)}); Ray's words are in {log}.")
    try:
        ray("up", file, "--yes", log=log, variables=OLDER_AUTOSCALER if is_on_premises(file) else {})
        with job_port(file, log, refused_seconds=PORT_SECONDS) as address:
            return _joined(file, address, log, say, join_seconds)
    except BaseException as error:
        say("Ending what was started.")
        try:
            down(file, log, lambda line: None)
        except UserError as second:
            if not isinstance(error, UserError):
                for problem in second.problems:
                    say(problem)
                raise error from None
            raise UserError(*error.problems, *second.problems) from None
        raise


def is_up(file: Described, log: Path) -> bool:
    """Whether a cluster runs there, be its token ours or not.

    Raises:
        UserError: its head can't be reached.
    """
    if not is_on_premises(file):
        refuse_without_credentials(file)
    try:
        with job_port(file, log):
            return True
    except NotUpError:
        return False


def nodes_at(address: str) -> list[Node]:
    """The living nodes of the cluster whose job port is at `address`, the head first.

    Raises:
        UserError: it does not answer, or refuses.
    """
    rows = get_json(address, "/api/v0/nodes?detail=1&limit=10000")["data"]["result"]["result"]
    alive = [_node(row) for row in rows if row["state"] == "ALIVE"]
    return sorted(alive, key=lambda node: (not node.is_head, node.ip))


def nodes(file: Described, log: Path) -> list[Node]:
    """The living nodes of a cluster that is up, the head first.

    Raises:
        UserError: it is not up, can't be reached, or refuses.
    """
    with job_port(file, log) as address:
        return nodes_at(address)


def down(file: Described, log: Path, say: Say) -> None:
    """End a cluster, all of its nodes, and what runs there. One that is not up is no error.

    Args:
        file: of the cluster.
        log: takes what Ray's launcher has to say.
        say: is told how it goes on.

    Raises:
        UserError: something of it may still run.
    """
    say(f"Ending the cluster '{name_of(file)}'; Ray's words are in {log}.")
    if not is_on_premises(file):
        refuse_without_credentials(file)
        ray("down", file, "--yes", log=log)
        say("All of its machines are ended.")
        return
    workers = workers_of(file)
    with ThreadPoolExecutor(max_workers=1) as pool:
        # Ray's launcher remembers that the cluster runs until it has ended it itself. It would wait minutes for a head
        # that is lost.
        reached = on(file, head_of(file), "true").reached
        itself = pool.submit(ray, "down", file, "--yes", log=log) if reached else None
        # The head goes before its workers: it would start Ray there again.
        answers = [on(file, head_of(file), _ending(file)), *on_all(file, workers, _ending(file))]
    _note(log, *answers)
    problems = _what_is_left(answers, file)
    if itself is not None and (error := itself.exception()) is not None:
        if not isinstance(error, UserError):
            raise error
        problems += error.problems
    raise_all(problems)
    say(f"Nothing of Ray runs on its {1 + len(workers)} host(s) any more.")


def _joined(file: Described, address: str, log: Path, say: Say, join_seconds: float) -> list[Node]:
    """Wait for the workers.

    Raises:
        UserError: one has failed, or they take too long.
    """
    least, begun, seen, looked = _least_nodes(file), time.monotonic(), -1, time.monotonic()
    while True:
        there = nodes_at(address)
        if len(there) != seen:
            seen = len(there)
            say(f"{seen} of {least} node(s) are there.")
        if seen >= least:
            return there
        now = time.monotonic()
        if is_on_premises(file) and now - looked > 3:
            looked = now
            _refuse_failed(file, log)
        if now - begun > join_seconds:
            raise UserError(_who_is_missing(file, there, join_seconds, log))
        time.sleep(0.5)


def _least_nodes(file: Described) -> int:
    """How many nodes the file asks for at the least, the head among them."""
    config = file.config
    if is_on_premises(file):
        workers = len(workers_of(file))
        return 1 + min(workers, config.get("min_workers", workers), config.get("max_workers", workers))
    types = (config.get("available_node_types") or {}).values()
    return 1 + sum(kind.get("min_workers") or 0 for kind in types)


def _who_is_missing(file: Described, there: Sequence[Node], seconds: float, log: Path) -> str:
    least = _least_nodes(file)
    if not is_on_premises(file):
        return (
            f"{len(there)} of {least} nodes of the cluster '{name_of(file)}' are there after {seconds:.0f} s; `ray "
            f"monitor {file.path}` shows what its autoscaler says of the others."
        )
    _note(log, on(file, head_of(file), MONITOR_LOG))
    known = {node.ip for node in there}
    missing = [host for host in workers_of(file) if known.isdisjoint({host, _address_of(host)})] or ["Some workers"]
    return f"{', '.join(missing)} did not join the cluster '{name_of(file)}' within {seconds:.0f} s; see {log}."


def _address_of(host: str) -> str | None:
    """The address that a host's name stands for here."""
    with contextlib.suppress(OSError):
        return socket.gethostbyname(host)
    return None


MONITOR_LOG = """
cat "${RAY_TMPDIR:-/tmp}"/ray/session_latest/logs/monitor.{out,err,log} 2>/dev/null | tail -n 400
"""
"""What the head's autoscaler has said of the workers that it sets up."""


def _refuse_failed(file: Described, log: Path) -> None:
    """Look into the head's book of its workers whether one could not be set up.

    Raises:
        UserError: one failed.
    """
    book = f"${{RAY_TMPDIR:-/tmp}}/ray/cluster-{name_of(file)}.state"
    answer = on(file, head_of(file), f'cat "{book}"')
    with contextlib.suppress(ValueError, AttributeError):
        states = {host: row["tags"].get("ray-node-status") for host, row in json.loads(answer.out).items()}
        failed = [host for host, state in states.items() if state == "update-failed"]
        if failed:
            said = on(file, head_of(file), MONITOR_LOG)
            _note(log, said)
            cause = cause_in(plain(said.out), failed[0])
            raise UserError(f"The worker {failed[0]} could not be set up: {cause} The whole log is {log}.")


def _refuse_missing_files(file: Described) -> None:
    """Refuse a file that names a key or files to copy that are not here.

    Raises:
        UserError: with all that are missing.
    """
    problems = []
    key = (file.config.get("auth") or {}).get("ssh_private_key")
    if key and not Path(key).expanduser().is_file():
        problems.append(f"{file.path}: the key {key} of auth.ssh_private_key is not on this machine.")
    for target, source in (file.config.get("file_mounts") or {}).items():
        if Path(source).expanduser().exists():
            continue
        remedy = ""
        if Path(source).name == "auth_token":
            remedy = "; make a token with `ray get-auth-token --generate`, and have no one else read it (chmod 600)"
        problems.append(f"{file.path}: file_mounts copies {source} to {target}, but there is no such file{remedy}.")
    raise_all(problems)


def _refuse_unreachable(file: Described) -> None:
    """Refuse hosts that can't be reached, or lack what Ray's launcher needs there.

    Raises:
        UserError: with all of them.
    """
    lines = ['test -x "$(command -v rsync)" || echo no rsync']
    if _ray_must_be_there(file):
        lines.append(as_ray_runs_it('test -x "$(command -v ray)" && echo ray is there'))
    problems = []
    for answer in on_all(file, [head_of(file), *workers_of(file)], "\n".join(lines), seconds=30):
        role = "head" if answer.host == head_of(file) else "worker"
        if not answer.reached:
            problems.append(f"The {role} {answer.host} {why_not(file, answer)}.")
        if "no rsync" in answer.out:
            problems.append(f"The {role} {answer.host} has no rsync, by which Ray copies files; install it there.")
        if answer.reached and _ray_must_be_there(file) and "ray is there" not in answer.out:
            problems.append(
                f"The {role} {answer.host} has no `ray` on the PATH of its ~/.bashrc; install Ray there, or have the "
                "file's setup_commands do it."
            )
    raise_all(problems)


def _ray_must_be_there(file: Described) -> bool:
    """Whether nothing in the file could bring Ray to the hosts, or put it on PATH for a start command."""
    config = file.config
    kinds = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "docker")
    starts = [*(config.get("head_start_ray_commands") or []), *(config.get("worker_start_ray_commands") or [])]
    return not any(config.get(kind) for kind in kinds) and starts[:1] in ([], ["ray stop"])


ENDED = """
left() {
    for file in /proc/[0-9]*/cmdline; do
        words=$(tr '\\0' ' ' <"$file" 2>/dev/null)
        case $words in
            */ray/core/src/ray/*|*/ray/_private/log_monitor.py*|*/ray/dashboard/*|*/ray/_private/runtime_env/agent/*| \\
            */ray/autoscaler/_private/monitor.py*|*/ray/autoscaler/v2/monitor.py*|*/ray/_private/workers/*|ray::*)
                echo "left: $words" ;;
        esac
    done
}
for i in 1 2 3 4 5 6 7 8; do
    [ -z "$(left)" ] && exit 0
    sleep 0.5
done
left
exit 0
"""
"""Waits until none of Ray's processes is left on a host, and lists those that stay."""


def _ending(file: Described) -> str:
    """A script that ends Ray on a host, and lists what is left."""
    commands = file.config.get("worker_start_ray_commands") or []
    # The file may say how `ray` is found there, as in an environment that is activated first.
    stops = [command for command in commands if "ray stop" in command and "ray start" not in command]
    # Asked kindly, a worker without a head takes long and is killed in the end.
    stop = (stops[0] if stops else "ray stop").replace("ray stop", "ray stop --force")
    if file.config.get("docker"):
        stop = f"docker stop {shlex.quote(str(file.config['docker'].get('container_name')))}"
    return as_ray_runs_it(stop) + "\n" + ENDED


def _left(answer: Answer) -> list[str]:
    return [line for line in answer.out.splitlines() if line.startswith("left: ")]


def _what_is_left(answers: Sequence[Answer], file: Described) -> list[str]:
    problems = []
    for answer in answers:
        if not answer.reached:
            problems.append(f"{answer.host} {why_not(file, answer)}; Ray may still run there.")
        elif _left(answer):
            problems.append(
                f"Ray still runs on {answer.host}, as {len(_left(answer))} process(es), the first of them: "
                f"{_left(answer)[0][len('left: ') :][:120]}; end it there with `ray stop --force`."
            )
    return problems


def _note(log: Path, *answers: Answer) -> None:
    """Append what hosts said to the log."""
    with log.open("a") as stream:
        for answer in answers:
            stream.write(f"# {answer.host}\n{answer.out}{answer.err}\n")


def _node(row: dict[str, Any]) -> Node:
    resources = row.get("resources_total") or {}
    kinds = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    return Node(
        ip=row["node_ip"],
        is_head=bool(row["is_head_node"]),
        cpus=float(resources.get("CPU", 0)),
        gpus=float(resources.get("GPU", 0)),
        accelerator=kinds[0] if kinds else None,
    )
