"""What a model costs: counted by hand, and a median by a clock of the test's."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from dfd_tune.models.cost import REPEATS, latencies, latency, latency_of, multiply_adds, parameters_of


class Tiny(nn.Module):
    """3 x 8 x 8 -> 4 x 4 x 4 -> 6 x 4 x 4, in two groups -> mean -> 5."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(4, 6, 1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Linear(6, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.second(self.first(images))).mean((2, 3)))


# 4·4·4 outputs of 3·3·3 products; 6·4·4 of 2; 5 of 6.
BY_HAND = 64 * 27 + 96 * 2 + 30


@pytest.mark.parametrize("count", [1, 3])
def test_multiply_adds_of_a_tiny_network_are_those_counted_by_hand(count):
    assert multiply_adds(Tiny().eval(), torch.zeros(count, 3, 8, 8)) == BY_HAND == 1950


def test_counting_leaves_no_hook_behind():
    model = Tiny().eval()
    multiply_adds(model, torch.zeros(1, 3, 8, 8))
    assert not any(layer._forward_hooks for layer in model.modules())


def test_parameters_are_what_is_learned():
    # Batch norm's running statistics are not.
    assert parameters_of(Tiny()) == 4 * 27 + (6 * 2 + 6) + 12 + (30 + 5)


def test_latency_is_the_median_after_a_run_that_warms_up():
    # When patience began, then beginning and end of three runs, of 1, 9 and 2 hundredths; then it is over.
    times = iter([0.0, 0.0, 0.01, 0.01, 0.02, 0.11, 0.12, 0.19, 0.21, 0.3])
    assert latency(lambda: None, clock=lambda: next(times)) == pytest.approx(0.02)
    runs: list[None] = []
    assert latency(lambda: runs.append(None), clock=lambda: 0.0) == 0.0
    assert len(runs) == 1 + REPEATS


def test_what_is_compared_is_measured_in_turn():
    order: list[str] = []
    spent = {"a": 1.0, "b": 3.0}
    found = latencies(
        [lambda: order.append("a"), lambda: order.append("b")],
        repeats=2,
        patience=100.0,
        clock=lambda: sum(spent[name] for name in order),
    )
    assert found == (1.0, 3.0)
    assert order == ["a", "b"] * 3  # a round that warms up


def test_a_slow_model_is_measured_once():
    now = itertools.count()
    runs: list[None] = []
    assert latency(lambda: runs.append(None), clock=lambda: float(next(now))) == 1.0
    assert len(runs) == 2


def test_measuring_leaves_the_number_of_threads():
    before = torch.get_num_threads()
    assert latency_of(Tiny().eval(), torch.zeros(1, 3, 8, 8)) > 0
    assert torch.get_num_threads() == before
