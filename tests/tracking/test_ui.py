"""The pages of a search, wherever it was recorded."""

from __future__ import annotations

from urllib.parse import unquote

from dfd_tune.tracking import compare_url


def test_the_comparison_page_names_runs_and_experiment() -> None:
    url = compare_url("http://host:5000/", "7", ["r1", "r2"])
    assert unquote(url) == 'http://host:5000/#/compare-runs?runs=["r1","r2"]&experiments=["7"]'
    assert not set(url) & set('[]" ')
