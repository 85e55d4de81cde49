"""clusters/slurm.sh with stand-ins for Slurm, Ray and dfd-tune: what it does near the wall time, by what exit codes."""

import os
import shutil
import signal
import stat
import subprocess
import time

import pytest

from dfd_tune.cluster.files import shipped_clusters

STAND_INS = {
    # What is left of the arguments once the options are gone is the command.
    "srun": 'while [[ $1 == -* ]]; do shift; done; exec "$@"',
    "scontrol": 'echo "$@" >> "$ROOM/scontrol"',
    "ray": """
if [ "$1" = get-auth-token ]; then
    mkdir -p ~/.ray && echo secret > ~/.ray/auth_token && chmod 644 ~/.ray/auth_token
else
    echo "$@" > "$ROOM/ray"
    while [ "$1" != -- ]; do shift; done
    shift
    exec "$@"
fi
""",
    # A launch that ends as told, or when it is stopped, with 130; one that is killed has nothing to say.
    "dfd-tune": """
verb=$1; shift
if [ "$verb" = stop ]; then
    echo "$@" > "$ROOM/stop"
    exit "$STOP_CODE"
fi
env > "$ROOM/environment"
echo "$@" > "$ROOM/launch"
[ -n "$LAUNCH_CODE" ] && exit "$LAUNCH_CODE"
until [ -e "$ROOM/stop" ] && [ "$STOP_CODE" = 0 ]; do sleep 0.05; done
exit 130
""",
}


@pytest.fixture
def room(tmp_path):
    """A folder in which the stand-ins write down what they were asked."""
    binaries = tmp_path / "environment_of_python" / "bin"
    binaries.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (binaries / name).write_text(f"#!/bin/bash\n{text}\n")
        (binaries / name).chmod(0o755)
    return tmp_path


def start(room, launch_code="", stop_code="0"):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(room),
        "USER": "me",
        "ROOM": str(room),
        "NAME": "mine",
        "STORE": str(room / "store"),
        "VENV": str(room / "environment_of_python"),
        "HEAD_IP": "10.0.0.1",
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_CPUS_ON_NODE": "16",
        "SLURM_GPUS_ON_NODE": "2",
        "LAUNCH_CODE": launch_code,
        "STOP_CODE": stop_code,
    }
    script = shipped_clusters()["slurm"]
    return subprocess.Popen(["bash", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ended(process):
    out, _ = process.communicate(timeout=60)
    return process.returncode, out.decode()


def with_time_up(room, **told):
    """The script's end, if the time is nearly up while the launch runs."""
    process = start(room, **told)
    end = time.monotonic() + 60
    while not (room / "launch").exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    return ended(process)


def test_the_search_runs_on_all_nodes_with_a_token(room):
    assert ended(start(room, "0")) == (0, "")
    ray = (room / "ray").read_text()
    assert ray.startswith("symmetric-run --address 10.0.0.1:22345 --min-nodes 4 --num-cpus=16 --num-gpus=2 ")
    environment = dict(line.split("=", 1) for line in (room / "environment").read_text().splitlines() if "=" in line)
    assert environment["RAY_ADDRESS"] == "10.0.0.1:22345"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert stat.S_IMODE((room / ".ray/auth_token").stat().st_mode) == 0o600
    assert f"--name mine --store {room / 'store'} " in (room / "launch").read_text()
    assert not (room / "scontrol").exists()


@pytest.mark.parametrize("code", [1, 2, 130])
def test_what_ends_by_itself_is_not_queued_again(room, code):
    assert ended(start(room, str(code)))[0] == code
    assert not (room / "scontrol").exists()


def test_near_the_end_of_its_time_it_is_stopped_and_queued_again(room):
    code, said = with_time_up(room)
    assert code == 0
    assert (room / "stop").read_text() == f"mine --store {room / 'store'} --wait 420\n"
    assert (room / "scontrol").read_text() == "requeue 12345\n"
    assert "goes on when the job's turn comes again" in said


def test_what_does_not_stop_is_killed_and_queued_again(room):
    assert with_time_up(room, stop_code="1")[0] == 0
    assert (room / "scontrol").read_text() == "requeue 12345\n"


def test_slurm_gives_the_signal_in_time_and_may_queue_the_job_again():
    script = shipped_clusters()["slurm"].read_text()
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in script.splitlines() if "#SBATCH" in line
    )
    kind, _, seconds = options["signal"].partition("@")
    assert kind == "B:USR1"  # to the script, not to the search
    assert int(seconds) >= 420 + 60  # the stop, and Ray's nodes after it
    assert "requeue" in options
    assert options["ntasks-per-node"] == "1"
    assert shutil.which("bash")
