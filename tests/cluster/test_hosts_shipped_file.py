"""clusters/onprem.yaml as it is shipped, its hosts filled in, on SSH hosts made of namespaces."""

import os
from unittest import mock

import pytest

from dfd_tune.cluster.files import read_cluster, shipped_clusters
from dfd_tune.cluster.up import down, up
from tests.cluster.hosts import Hosts, what_is_missing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing())),
    pytest.mark.xdist_group("hosts"),
]


@pytest.fixture
def hosts(tmp_path):
    """Three hosts, and a laptop of which this process is the user."""
    with Hosts(tmp_path / "hosts") as hosts, mock.patch.dict(os.environ, hosts.laptop(token="0123" * 16), clear=True):
        yield hosts


def filled_in(hosts):
    """The file's text for these hosts. They share the environment of the tests, so that nothing is installed."""
    text = shipped_clusters()["onprem"].read_text()
    begin, end = (
        text.index('  - >-\n    export PATH="$HOME/.local/bin'),
        text.index("  - >-\n    grep -qs dfd-tune-env"),
    )
    text = text[:begin] + text[end:]
    head, first, second = hosts.all
    for placeholder, value in {
        "FILL_IN_HEAD_HOST": head.ip,
        "FILL_IN_WORKER_1_HOST": first.ip,
        "FILL_IN_WORKER_2_HOST": second.ip,
        "FILL_IN_USER": "root",
        # SSH, which gets it as it stands, takes ~ for the home of the account, not for HOME.
        "ssh_private_key: ~/.ssh/dfd-cluster": f"ssh_private_key: {os.environ['HOME']}/.ssh/id_ed25519",
    }.items():
        text = text.replace(placeholder, value)
    return text


def test_the_shipped_file_starts_all_hosts_closed_to_the_world_and_ends_them(hosts, tmp_path):
    (tmp_path / "mine.yaml").write_text(filled_in(hosts))
    cluster = read_cluster(str(tmp_path / "mine.yaml"))
    nodes = up(cluster, tmp_path / "log", lambda line: None)
    try:
        assert {node.ip for node in nodes} == {host.ip for host in hosts.all}
        assert [node.ip for node in nodes if node.is_head] == [cluster.head_ip]
        for host in hosts.all:
            assert hosts.run(host, "stat", "-c", "%a", "/root/.ray/auth_token").stdout == "600\n"
        listening = hosts.run(hosts.head, "ss", "-Hltn", "sport = :8265").stdout.split()
        assert [place for place in listening if place.endswith(":8265")] == ["127.0.0.1:8265"]
    finally:
        down(cluster, tmp_path / "log", lambda line: None)
    assert [line for host in hosts.all for line in hosts.ray_processes(host)] == []
