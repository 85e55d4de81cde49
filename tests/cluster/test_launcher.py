"""What is made of the words of Ray's launcher, and of an environment without credentials."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from benchmarks.processes import wait_for
from dfd_tune.cluster.credentials import refuse_without_credentials
from dfd_tune.cluster.launcher import cause_in, failed_command, run_logged, started
from dfd_tune.cluster.ssh import Answer, why_not
from dfd_tune.errors import UserError

OPTIONS = "-o ConnectTimeout=120s"


def _order(host: str, command: str) -> str:
    """What Ray's launcher logs of a command on a node."""
    shell = "bash --login -c -i 'source ~/.bashrc; export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore && "
    return (
        f"2026-01-01 00:00:00,000\tVVINFO command_runner.py:401 -- Full command is `ssh -tt {OPTIONS} root@{host} "
        f"{shell}(export RAY_HEAD_IP=10.0.0.1; {command})'`\n"
    )


@dataclass(frozen=True)
class File:
    path: Path
    config: dict[str, Any]


def test_of_several_nodes_the_command_of_the_one_that_failed_is_told():
    text = (
        _order("10.0.0.12", "true")
        + _order("10.0.0.13", "echo one\necho two")
        + _order("10.0.0.12", "pip install ray")
        + "ERROR: No matching distribution found for ray.\nShared connection to 10.0.0.12 closed.\n"
        + "2026-01-01 00:00:00,000\tINFO log_timer.py:25 -- NodeUpdater: 10.0.0.12: Setup failed [LogTimer=9ms]\n"
        + "2026-01-01 00:00:00,000\tERR updater.py:177 -- New status: update-failed\n"
        + _order("10.0.0.12", "uptime")
    )
    said = "ERROR: No matching distribution found for ray"
    assert failed_command(text, "10.0.0.12") == ("pip install ray", said)
    assert failed_command(text) == ("pip install ray", said)
    assert failed_command(_order("10.0.0.12", "uptime")) == (None, "")
    assert "`pip install ray`" in cause_in(text, "10.0.0.12")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("botocore.exceptions.ClientError: An error occurred (AuthFailure) when calling the DescribeImages", "accept"),
        ("An error occurred (ExpiredToken) when calling the GetRole operation", "expired"),
        ("An error occurred (UnauthorizedOperation) when calling the RunInstances operation", "rights"),
        ("An error occurred (InsufficientInstanceCapacity) when calling the RunInstances", "zone"),
        ("bash: line 1: rsync: command not found", "rsync"),
        ("bash: ray: command not found", "`ray`"),
        ("RuntimeError: Head node of cluster (three) not found!", "knows of no such cluster"),
        ("some lines\nFatal error: the moon is full\nmore lines", "the moon is full"),
        ("", "nothing"),
    ],
)
def test_each_cause_is_one_sentence(text, word):
    cause = cause_in(text)
    assert word in cause
    assert cause.endswith(".")
    assert "\n" not in cause


@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_a_cloud_without_credentials_is_refused_before_it_is_called(tmp_path, provider):
    file = File(Path("cluster.yaml"), {"provider": {"type": provider}})
    nothing = {"HOME": str(tmp_path), "PATH": "", "AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true"}
    with mock.patch.dict(os.environ, nothing, clear=True), pytest.raises(UserError, match="no credentials"):
        refuse_without_credentials(file)


def test_a_provider_that_needs_no_credentials_passes():
    refuse_without_credentials(File(Path("cluster.yaml"), {"provider": {"type": "local"}}))


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("root@h: Permission denied (publickey).", "key"),
        ("ssh: connect to host h port 22: Connection refused", "refuses SSH"),
        ("ssh: connect to host h port 22: No route to host", "network"),
        ("ssh: Could not resolve hostname h: Name or service not known", "name"),
        ("kex_exchange_identification: something new", "something new"),
    ],
)
def test_why_a_host_was_not_reached(said, word):
    file = File(Path("cluster.yaml"), {"provider": {"type": "local"}, "auth": {"ssh_user": "root"}})
    assert word in why_not(file, Answer("h", 255, "", said))


def test_what_a_child_prints_is_in_the_log_and_its_children_end_with_it(tmp_path, capfd):
    log = tmp_path / "deep" / "log"
    assert run_logged(
        ["sh", "-c", "printf '\\033[31mred\\033[0m\\n'; echo $THERE >&2; exit 3"], log, {"THERE": "here"}
    ) == (
        3,
        "red\nhere\n",
    )
    assert capfd.readouterr() == ("", "")
    with started(["sh", "-c", "sleep 77 & echo $!; wait"], log) as (_, position):
        while not (pid := log.read_bytes()[position:].strip()):
            pass
    stat = Path("/proc", pid.decode(), "stat")
    # It was killed; the kernel takes it away in its own time.
    wait_for(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z", "its end")
