"""How torch computes: what is asked for is set, whatever was before, and equal trainings are equal."""

import os

import pytest
import torch
from tiny import bits, prepared, run, trial, without_times

from dfd_tune.distill.arithmetic import (
    CONVOLUTION_PRECISION,
    CUBLAS_VARIABLE,
    DETERMINISTIC_WORKSPACES,
    MATMUL_PRECISION,
    LateError,
    compute,
)


def switches():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


DETERMINISTIC, FAST = (True, False, True, False), (False, False, False, True)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """Every test begins without the variable, and leaves torch as it found it."""
    monkeypatch.setenv(CUBLAS_VARIABLE, "")  # so that it is put back, whatever a test does
    monkeypatch.delenv(CUBLAS_VARIABLE)
    enabled, warn_only, deterministic, benchmark = switches()
    yield
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark


def test_each_call_puts_the_process_into_the_asked_state_whatever_was_before():
    torch.use_deterministic_algorithms(True, warn_only=True)
    for asked, expected in ((True, DETERMINISTIC), (False, FAST), (False, FAST), (True, DETERMINISTIC)):
        compute(deterministic=asked)
        assert switches() == expected


def test_the_arithmetic_of_float32_is_set_in_both_states():
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    for deterministic in (True, False):
        matmul.fp32_precision, convolution.fp32_precision = "tf32", "ieee"
        compute(deterministic=deterministic)
        assert (matmul.fp32_precision, convolution.fp32_precision) == (MATMUL_PRECISION, CONVOLUTION_PRECISION)
        # What reads the older switches is told the same.
        assert (matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, True)


def test_cublas_is_told_only_where_determinism_is_asked_for():
    compute(deterministic=False)
    assert CUBLAS_VARIABLE not in os.environ
    compute(deterministic=True)
    assert os.environ[CUBLAS_VARIABLE] == DETERMINISTIC_WORKSPACES[0]


@pytest.mark.parametrize(("given", "kept"), [(":16:8", True), (":4096:8", True), (":4096:2:16:8", False), ("", False)])
def test_a_value_of_the_users_is_kept_if_it_serves(monkeypatch, given, kept):
    monkeypatch.setenv(CUBLAS_VARIABLE, given)
    compute(deterministic=True)
    assert os.environ[CUBLAS_VARIABLE] == (given if kept else DETERMINISTIC_WORKSPACES[0])


def test_once_cuda_has_begun_it_is_too_late(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    before = switches()
    with pytest.raises(LateError, match=CUBLAS_VARIABLE):
        compute(deterministic=True)
    assert switches() == before
    monkeypatch.setenv(CUBLAS_VARIABLE, ":16:8")
    compute(deterministic=True)  # a process that began with it
    assert switches() == DETERMINISTIC


@pytest.mark.parametrize("settings", [{"backbone": "resnet18", "dropout": 0.5}, {"method": "fitnets"}])
def test_every_operation_of_a_training_has_a_deterministic_version_and_equal_ones_are_equal(store, settings):
    compute(deterministic=True)
    config = trial(**settings)
    found = [run(config, prepared(store, config)) for _ in range(2)]
    (first, one), (second, other) = found
    assert without_times(one.history) == without_times(other.history)
    assert bits(first) == bits(second)
