"""Clusters on SSH hosts made of namespaces: started, reached, ended; and what is said where that fails."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from dfd_tune.cluster.tunnel import NotUpError, job_port, rsync_down, rsync_up
from dfd_tune.cluster.up import down, is_up, nodes, nodes_at, up
from dfd_tune.errors import UserError
from tests.cluster.hosts import Host, Hosts, what_is_missing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing())),
    pytest.mark.xdist_group("hosts"),
]
TOKEN = "0123456789abcdef" * 4


@dataclass(frozen=True)
class File:
    path: Path
    config: dict[str, Any]


@dataclass
class Place:
    """Hosts, a laptop whose environment is this process's, and the cluster file that it has."""

    hosts: Hosts
    file: File
    log: Path

    def changed(self, **keys: Any) -> File:
        """The file with other values."""
        return replace(self.file, config=self.file.config | keys)

    def written(self, **keys: Any) -> File:
        """The same as a file of its own."""
        file = File(self.file.path.with_name("changed.yaml"), self.file.config | keys)
        file.path.write_text(yaml.safe_dump(file.config, width=1000))
        return file


@contextlib.contextmanager
def _place(folder: Path, count: int) -> Iterator[Place]:
    with Hosts(folder, count) as hosts:
        path = hosts.write_cluster_file(folder / "cluster.yaml", "three")
        with mock.patch.dict(os.environ, hosts.laptop(token=TOKEN), clear=True):
            yield Place(hosts, File(path, yaml.safe_load(path.read_text())), folder / "log")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    with _place(tmp_path_factory.mktemp("hosts"), 3) as place:
        yield place


@pytest.fixture(scope="class")
def started(place) -> Iterator[list[str]]:
    """The cluster, up; what was said as it started."""
    said: list[str] = []
    up(place.file, place.log, said.append)
    yield said
    if place.hosts.ray_processes(place.hosts.head):
        down(place.file, place.log, said.append)


def _links() -> set[str]:
    return {entry["ifname"] for entry in json.loads(subprocess.check_output(["ip", "-json", "link"]))}


def _answers(host: Host, *, seconds: float = 1) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host.ip, 22), timeout=seconds):
        return True
    return False


def _eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False


def _pids(host: Host) -> list[str]:
    """All processes in the namespace of a host's first one, seen from outside."""
    space = os.readlink(f"/proc/{host.pid}/ns/pid")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(process / "ns" / "pid") == space:
                found.append(process.name)
    return found


class TestHosts:
    def test_they_leave_nothing_behind_also_where_a_test_fails(self, tmp_path):
        before, pids = _links(), []

        def fail() -> None:
            with Hosts(tmp_path / "a", 2) as hosts, Hosts(tmp_path / "b", 1) as others:
                all_of_them = [*hosts.all, *others.all]
                assert len({host.ip for host in all_of_them}) == 3
                assert len(_links() - before) == 2
                pids.extend(pid for host in all_of_them for pid in _pids(host))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert len(pids) >= 6
        assert _links() == before
        assert not any(Path("/proc", pid).exists() for pid in pids)

    def test_they_end_with_the_process_that_made_them(self, tmp_path):
        script = (
            "import sys, time; from pathlib import Path; from tests.cluster.hosts import Hosts\n"
            "with Hosts(Path(sys.argv[1]), 1) as hosts: print(hosts.head.ip, flush=True); time.sleep(60)"
        )
        before = _links()
        maker = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "a")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        host = Host("h1", maker.stdout.readline().strip(), 0)
        assert _answers(host)
        maker.kill()
        maker.communicate()
        assert _eventually(lambda: _links() == before)

    def test_each_has_its_own_home_and_processes_and_all_one_folder(self, place):
        first, second = place.hosts.all[:2]
        place.hosts.run(first, "touch", "/root/mine", "/tmp/mine", place.hosts.shared / "ours")
        assert place.hosts.run(second, "ls", place.hosts.shared).stdout == "ours\n"
        assert place.hosts.run(second, "ls", "/root", "/tmp/mine").stdout == "/root:\n"
        assert place.hosts.run(second, "hostname").stdout == f"{second.name}\n"
        sleeper = subprocess.Popen(["sleep", "60"])
        try:
            assert place.hosts.processes(second) == []
        finally:
            sleeper.kill()
            sleeper.wait()
        imported = place.hosts.run(second, "python", "-c", "import yaml, sys; print(sys.prefix)")
        assert imported.stdout == f"{sys.prefix}\n"

    def test_one_is_added_cut_off_healed_and_killed(self, place):
        host = place.hosts.add()
        assert _answers(host)
        place.hosts.cut(host)
        assert not _answers(host)
        assert place.hosts.run(host, "hostname").stdout == f"{host.name}\n"
        place.hosts.heal(host)
        assert _answers(host, seconds=10)
        place.hosts.kill(host)
        assert not _answers(host)
        assert host not in place.hosts.all
        assert not Path("/proc", str(host.pid)).exists()


class TestRefused:
    """What is said before anything is started."""

    def test_hosts_that_do_not_answer_are_named_with_the_reason_each(self, place):
        cut, silent = place.hosts.add(), place.hosts.add()
        place.hosts.cut(cut)
        place.hosts.run(silent, "pkill", "-f", "sshd -D")
        provider = place.file.config["provider"] | {"worker_ips": [cut.ip, silent.ip]}
        try:
            with pytest.raises(UserError) as raised:
                up(place.changed(provider=provider), place.log, print)
        finally:
            place.hosts.kill(cut)
            place.hosts.kill(silent)
        of_cut, of_silent = raised.value.problems
        assert cut.ip in of_cut
        assert "network" in of_cut
        assert silent.ip in of_silent
        assert "refuses SSH" in of_silent

    def test_a_key_that_the_hosts_do_not_know(self, place, tmp_path):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
        auth = {"ssh_user": "root", "ssh_private_key": str(tmp_path / "key")}
        with pytest.raises(UserError) as raised:
            up(place.changed(auth=auth), place.log, print)
        assert len(raised.value.problems) == 3
        assert all("key" in problem and "'root'" in problem for problem in raised.value.problems)

    def test_files_that_are_not_here(self, place, tmp_path):
        auth = {"ssh_user": "root", "ssh_private_key": str(tmp_path / "no_key")}
        mounts = {"~/.ray/auth_token": str(tmp_path / "auth_token")}
        with pytest.raises(UserError) as raised:
            up(place.changed(auth=auth, file_mounts=mounts), place.log, print)
        assert ["no_key" in raised.value.problems[0], "--generate" in raised.value.problems[1]] == [True, True]

    @pytest.mark.parametrize("tool", ["rsync", "ray"])
    def test_a_host_without_what_rays_launcher_needs(self, place, tool):
        host = place.hosts.add()
        binary = f"{sys.prefix}/bin/ray" if tool == "ray" else "/usr/bin/rsync"
        assert place.hosts.run(host, "mount", "--bind", "/dev/null", binary).returncode == 0
        provider = place.file.config["provider"] | {"worker_ips": [host.ip]}
        try:
            with pytest.raises(UserError) as raised:
                up(place.changed(provider=provider), place.log, print)
        finally:
            place.hosts.kill(host)
        assert len(raised.value.problems) == 1
        assert host.ip in str(raised.value)
        assert tool in str(raised.value)

    def test_a_cluster_that_is_not_up(self, place):
        assert not is_up(place.file, place.log)
        with pytest.raises(UserError, match="not up"):
            nodes(place.file, place.log)

    def test_a_head_that_does_not_answer(self, place):
        provider = place.file.config["provider"] | {"head_ip": place.hosts.head.ip.rpartition(".")[0] + ".250"}
        with pytest.raises(UserError, match="network"):
            is_up(place.changed(provider=provider), place.log)


SPREAD = """
import socket, sys
import ray

ray.init(log_to_driver=False)
group = ray.util.placement_group([{"CPU": 1}] * int(sys.argv[1]), strategy="STRICT_SPREAD")
ray.get(group.ready())
where = ray.remote(num_cpus=1)(lambda: ray.util.get_node_ip_address())
tasks = [
    where.options(
        scheduling_strategy=ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, index)
    ).remote()
    for index in range(int(sys.argv[1]))
]
print("ran on", *sorted(ray.get(tasks)))
"""
"""A job that runs a task on each of so many hosts."""


def _request(address: str, path: str, body: dict[str, Any] | None = None, token: str | None = TOKEN) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(urllib.request.Request(address + path, data, headers), timeout=60) as response:
        return json.load(response)


def _run_job(address: str, entrypoint: str) -> str:
    """Run a job to its end; returns its log."""
    job = _request(address, "/api/jobs/", {"entrypoint": entrypoint})["submission_id"]
    for _ in range(240):
        if _request(address, f"/api/jobs/{job}")["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
            break
        time.sleep(0.25)
    return _request(address, f"/api/jobs/{job}/logs")["logs"]


@pytest.mark.timeout(240)
class TestUp:
    """One cluster on three hosts, in this order."""

    def test_all_hosts_join_and_are_listed(self, place, started):
        ips = [host.ip for host in place.hosts.all]
        there = nodes(place.file, place.log)
        assert [(node.ip, node.is_head, node.cpus, node.gpus) for node in there] == [
            (ip, index == 0, 2.0, 0.0) for index, ip in enumerate(ips)
        ]
        assert started[-1].startswith("3 of 3")
        assert is_up(place.file, place.log)

    def test_a_job_through_the_tunnel_runs_on_all_hosts(self, place, started):
        script = place.hosts.shared / "spread.py"
        script.write_text(SPREAD)
        with job_port(place.file, place.log) as address:
            told = _run_job(address, f"python {script} 3")
        assert " ".join(["ran on", *(host.ip for host in place.hosts.all)]) in told

    @pytest.mark.parametrize("token", [None, "wrong" * 10])
    def test_without_the_right_token_nobody_gets_in(self, place, started, token):
        with job_port(place.file, place.log) as address:
            with pytest.raises(urllib.error.HTTPError) as raised:
                _request(address, "/api/jobs/", {"entrypoint": "true"}, token)
            with mock.patch.dict(os.environ, place.hosts.laptop("stranger", token=token), clear=True):
                assert is_up(place.file, place.log)
                with pytest.raises(UserError, match="token"):
                    nodes_at(address)
        assert raised.value.code in (401, 403)

    def test_the_job_port_is_open_to_the_head_alone(self, place, started):
        head = place.hosts.head
        assert _answers(head)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((head.ip, 8265), timeout=5)
        mode = place.hosts.run(place.hosts.all[1], "stat", "-c", "%a", "/root/.ray/auth_token").stdout
        assert mode == "600\n"

    def test_a_tunnel_that_dies_comes_back_at_the_same_address_and_ends_with_its_block(self, place, started):
        def forwarding() -> list[int]:
            lines = subprocess.check_output(["pgrep", "-f", f"ssh .*-L 127.0.0.1:{port}:"], text=True)
            return [int(pid) for pid in lines.split()]

        with job_port(place.file, place.log) as address:
            port = address.rpartition(":")[2]
            (first,) = forwarding()
            os.kill(first, signal.SIGKILL)
            assert _eventually(lambda: _is_there(address))
            assert forwarding() != [first]
        with pytest.raises(subprocess.CalledProcessError):  # pgrep finds none
            forwarding()

    def test_files_and_folders_are_copied_there_and_back(self, place, started, tmp_path):
        folder = tmp_path / "folder"
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_text("content")
        rsync_up(place.file, folder, "/root/new/place", place.log)
        rsync_up(place.file, folder / "deep" / "file", "/root/other/name", place.log)
        found = place.hosts.run(place.hosts.head, "cat", "/root/new/place/deep/file", "/root/other/name").stdout
        assert found == "contentcontent"
        rsync_down(place.file, "/root/new/place/", tmp_path / "back", place.log)
        assert (tmp_path / "back" / "deep" / "file").read_text() == "content"
        with pytest.raises(UserError, match="nowhere"):
            rsync_down(place.file, "/root/nowhere", tmp_path / "none", place.log)

    def test_a_cluster_whose_hosts_only_rays_launcher_knows_is_reached_through_it(self, place, started, tmp_path):
        (tmp_path / "file").write_text("content")
        unknown = place.changed(cluster_name="unknown")
        unknown = replace(unknown, path=place.file.path.with_name("unknown.yaml"))
        unknown.path.write_text(yaml.safe_dump(unknown.config, width=1000))
        with mock.patch("dfd_tune.cluster.tunnel.is_on_premises", return_value=False):
            with job_port(place.file, place.log) as address:
                assert len(nodes_at(address)) == 3
            # Nobody is left in the child's session; a connection of SSH's own stays for some seconds and is used again.
            children = subprocess.run(["pgrep", "-f", f"scripts dashboard {place.file.path}"], capture_output=True)
            assert children.stdout == b""
            rsync_up(place.file, tmp_path / "file", "/root/by/ray", place.log)
            rsync_down(place.file, "/root/by/ray", tmp_path / "back", place.log)
            with pytest.raises(NotUpError), job_port(unknown, place.log):
                pass
        assert (tmp_path / "back").read_text() == "content"

    def test_down_leaves_nothing_of_ray_on_any_host_and_names_one_that_is_lost(self, place, started):
        lost = place.hosts.add()
        provider = place.file.config["provider"]
        file = place.written(provider=provider | {"worker_ips": [*provider["worker_ips"], lost.ip]})
        place.hosts.kill(lost)
        assert all(place.hosts.ray_processes(host) for host in place.hosts.all)
        with pytest.raises(UserError) as raised:
            down(file, place.log, print)
        assert [lost.ip in problem for problem in raised.value.problems] == [True]
        assert [place.hosts.ray_processes(host) for host in place.hosts.all] == [[], [], []]
        assert not is_up(place.file, place.log)


def _is_there(address: str) -> bool:
    with contextlib.suppress(OSError):
        return "ray_version" in _request(address, "/api/version")
    return False


@pytest.mark.timeout(240)
class TestFailsOnTheWay:
    """What is started ends again, and what failed is named."""

    @pytest.mark.parametrize("keys", ["setup_commands", "worker_setup_commands"])
    def test_a_setup_command_that_fails(self, place, keys):
        with pytest.raises(UserError) as raised:
            up(place.written(**{keys: ["true", "cat /no/such/file", "echo never"]}), place.log, print)
        assert "`cat /no/such/file`" in str(raised.value)
        assert str(place.log) in str(raised.value)
        assert [place.hosts.ray_processes(host) for host in place.hosts.all] == [[], [], []]

    def test_ctrl_c_while_rays_launcher_is_at_work(self, place):
        file = place.written(setup_commands=["sleep 61"])
        head = place.hosts.head

        def press() -> None:
            if _eventually(lambda: "sleep 61" in place.hosts.processes(head)):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=press)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            up(file, place.log, print)
        thread.join()
        assert _eventually(lambda: "sleep 61" not in place.hosts.processes(head))
        launchers = subprocess.run(["pgrep", "-f", f"ray.scripts.scripts .*{file.path}"], capture_output=True)
        assert launchers.stdout == b""
