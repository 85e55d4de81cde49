"""What this process is and what its machine lets it have: name, cores, and whether these multiply bf16.

Not for: memory or GPUs, which Ray counts.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from dataclasses import dataclass
from pathlib import Path

CGROUP_FILE = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
CPU_FILE = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""By which Linux names what multiplies bf16 on x86-64, and, the last one, on Arm."""


@dataclass(frozen=True)
class Process:
    """A process, so that a person can find it."""

    host: str
    pid: int
    user: str
    started: float | None
    """Seconds since 1970; None where the machine does not say."""

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}"


def this_process() -> Process:
    """This one."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # as in a container whose user has no name
        user = str(os.getuid())
    return Process(socket.gethostname(), os.getpid(), user, _started())


def usable_cores(cgroup_file: Path = CGROUP_FILE, cgroups: Path = CGROUPS) -> int:
    """Whole cores that this process may use: by its affinity and by the CPU quotas of its containers; at least 1.

    Args:
        cgroup_file: says which control group the process is in.
        cgroups: where control groups are mounted.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        for line in cgroup_file.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            for share in _shares(controllers, group, cgroups):
                cores = min(cores, int(share))
    return max(1, cores)


def multiplies_bf16(cpu_file: Path = CPU_FILE) -> bool:
    """Whether the CPU multiplies bf16 itself; one that does not emulates it, many times slower than float32.

    Args:
        cpu_file: where Linux lists what CPUs can do; elsewhere than on Linux, none is known to.
    """
    with contextlib.suppress(OSError):
        for line in cpu_file.read_text().splitlines():
            name, _, flags = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return not BF16_FLAGS.isdisjoint(flags.split())
    return False


def _shares(controllers: str, group: str, cgroups: Path) -> list[float]:
    """The quotas, in cores, of a control group and of all groups that it is in, where they have any.

    The path of a group may be that outside of the container, where its own end of the tree is what is mounted: what
    is not there is passed over, up to the mount.
    """
    if not controllers:
        mount = cgroups
        if not (mount / "cgroup.controllers").exists() and (mount / "unified").is_dir():
            mount /= "unified"  # version 2 beside version 1
    elif "cpu" in controllers.split(","):
        mount = next((place for place in (cgroups / controllers, cgroups / "cpu") if place.is_dir()), cgroups)
    else:
        return []
    folder = mount / group.strip("/")
    shares = []
    for place in (folder, *folder.parents):
        quota = _quota_v1(place) if controllers else _quota_v2(place)
        if quota is not None:
            shares.append(quota)
        if place == mount:
            break
    return shares


def _quota_v2(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else float(quota) / float(period)
    return None


def _quota_v1(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota = float((folder / "cpu.cfs_quota_us").read_text())
        return quota / float((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    return None


def _started() -> float | None:
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        # Field 22 of stat, in clock ticks since the machine started; the name before it may hold blanks.
        ticks = int(Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return float(int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK"))
    return None
