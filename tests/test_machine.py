"""Cores by control groups, read from made files."""

import os
import time

import pytest

from dfd_tune import machine
from dfd_tune.machine import multiplies_bf16, this_process, usable_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


@pytest.fixture
def cores(tmp_path):
    """Usable cores where the process's /proc/self/cgroup and the files below the mount are these."""

    def count(membership, files):
        for name, content in files.items():
            (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "mount" / name).write_text(content)
        (tmp_path / "cgroup").write_text(membership)
        return usable_cores(tmp_path / "cgroup", tmp_path / "mount")

    return count


V2 = {"cgroup.controllers": "cpu memory\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 16),
        ({"cpu.max": "300000 100000\n", "a/cpu.max": "max 100000\n", "a/b/cpu.max": "700000 100000\n"}, 3),
        ({"a/cpu.max": "500000 100000\n", "a/b/cpu.max": "max 100000\n"}, 5),
        ({"a/b/cpu.max": "600000 100000\n"}, 6),
        ({"c/cpu.max": "100000 100000\n"}, 16),
        ({"a/b/cpu.max": "nonsense\n"}, 16),
        ({"a/b/cpu.max": "100000 0\n"}, 16),
    ],
)
def test_quotas_of_version_2_from_the_group_up(cores, files, expected):
    assert cores("0::/a/b\n", V2 | files) == expected


@pytest.mark.parametrize(
    ("folder", "expected"), [("cpu,cpuacct/docker/x", 3), ("cpu,cpuacct", 3), ("cpu/docker", 3), ("memory/docker", 16)]
)
def test_quotas_of_version_1(cores, folder, expected):
    files = {f"{folder}/cpu.cfs_quota_us": "300000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    assert cores("4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n", files) == expected


def test_no_quota_in_version_1_is_minus_one(cores):
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert cores("3:cpu:/\n", files) == 16


def test_version_2_beside_version_1(cores):
    assert cores("3:memory:/\n0::/a\n", {"unified/a/cpu.max": "200000 100000\n"}) == 2


def test_a_group_whose_path_is_that_outside_of_the_container(cores):
    assert cores("0::/kubepods/pod1/x\n", V2 | {"cpu.max": "200000 100000\n"}) == 2


def test_affinity_counts_and_there_is_always_a_core(cores, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 9})
    assert cores("0::/\n", V2 | {"cpu.max": "800000 100000\n"}) == 3
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 3
    assert cores("garbage\n", {}) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set())
    assert cores("0::/\n", V2) == 1


def test_this_process(monkeypatch):
    process = this_process()
    assert process.pid == os.getpid()
    assert 0 < time.time() - process.started < 3600 * 24

    def nobody():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(machine.getpass, "getuser", nobody)
    assert this_process().user == str(os.getuid())


@pytest.mark.parametrize(
    ("line", "multiplies"),
    [
        ("flags\t\t: fpu sse2 avx512f avx512_bf16 amx_tile", True),
        ("flags\t\t: fpu sse2 amx_bf16 amx_tile", True),
        ("flags\t\t: fpu sse2 avx2 avx512f", False),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("Features\t: fp asimd", False),
        ("model name\t: bf16", False),
    ],
)
def test_a_cpu_multiplies_bf16_if_linux_says_so(tmp_path, line, multiplies):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\n{line}\nbogomips\t: 5\n")
    assert multiplies_bf16(file) == multiplies
    assert not multiplies_bf16(tmp_path / "none")
