"""Whether a chosen λ lies at an end of what was tried, so that the best may lie beyond it."""

import pytest

from dfd_tune.analysis.choice import edge_of
from tests.report.searches import make_request, make_search


def edge(axis, lambda_, sampler="grid"):
    request = make_request({"lambda_": axis}, sampler, None if sampler == "grid" else 9)
    return edge_of(make_search(request, {}), lambda_)


@pytest.mark.parametrize(("lambda_", "wanted"), [(0.5, "smallest"), (1.0, None), (2.0, None), (5.0, "largest")])
@pytest.mark.parametrize("values", [[0, 0.5, 1, 2, 5], [5, 1, 0.5, 2, 0], [0.5, 1, 2, 5]])
def test_the_ends_of_a_list_are_its_edges_in_whatever_order_and_zero_is_none(values, lambda_, wanted):
    assert edge(values, lambda_) == wanted


def test_a_single_value_has_no_edge():
    assert edge([0, 2], 2.0) is None
    assert edge([2], 2.0) is None
    assert edge([0, 1, 2], 1.0) == "smallest"


@pytest.mark.parametrize(
    ("lambda_", "wanted"),
    [
        (0.1, "smallest"),
        (0.12, "smallest"),
        (0.13, None),
        (1.0, None),
        (7.9, None),
        (8.0, "largest"),
        (10.0, "largest"),
    ],
)
def test_a_logarithmic_ranges_edges_are_a_twentieth_of_its_decades(lambda_, wanted):
    # Two decades: a twentieth is a tenth of a decade, 0.1 to 0.1259 and 7.943 to 10.
    assert edge({"low": 0.1, "high": 10, "log": True}, lambda_, "random") == wanted


@pytest.mark.parametrize(("lambda_", "wanted"), [(0.4, "smallest"), (0.6, None), (9.4, None), (9.6, "largest")])
def test_a_linear_ranges_edges_are_a_twentieth_of_it(lambda_, wanted):
    assert edge({"low": 0, "high": 10}, lambda_, "random") == wanted


def test_without_lambda_among_the_axes_there_is_none():
    request = make_request({"learning_rate": [0.1, 0.2]})
    assert edge_of(make_search(request, {}), 1.0) is None
