"""`launch --dry-run` as a user types it."""

import pytest

from tests.search.conftest import TINY

LAUNCH = ("launch", "--space", "lambda_grid", "--set", "backbone=[resnet18]", "--set", "lambda_=[0,2]", *TINY)
PREPARED = {"datasets", "leases", "downloads", "low_res"}


def test_a_dry_run_says_what_a_launch_would_cost_and_leaves_prepared_images_alone(run_cli, tmp_path):
    done = run_cli(*LAUNCH, "--name", "mine", "--store", tmp_path, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    last = done.stdout.splitlines()[-1]
    assert "core-hours" in last
    assert "MB in the store" in last
    assert done.stdout.count("by a probe") >= 3  # the teacher, the plain and the distilled trials
    assert {entry.name for entry in tmp_path.iterdir()} <= PREPARED
    assert list((tmp_path / "datasets").iterdir())


def test_a_dry_run_refuses_what_a_launch_would_refuse(run_cli, tmp_path):
    done = run_cli(*LAUNCH, "--store", tmp_path, "--dry-run", "--set", "resolution=16")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    too_many = run_cli(*LAUNCH, "--store", tmp_path, "--dry-run", "--cpus-per-worker", "5000")
    assert too_many.returncode == 2
    assert "--cpus-per-worker" in too_many.stderr


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_for_a_cluster_it_asks_nobody_and_earlier_trials_alone_tell(run_cli, tmp_path, device):
    there = ("--address", "http://127.0.0.1:9", "--cluster-store", "/shared", "--device", device)
    done = run_cli(*LAUNCH, "--store", tmp_path, "--dry-run", *there)
    assert (done.returncode, done.stderr) == (0, "")
    assert "earlier trials alone tell" in done.stdout
    assert "by a probe" not in done.stdout
    assert {entry.name for entry in tmp_path.iterdir()} <= PREPARED
