"""What nodes say of themselves, and what of it stands against a search."""

import dataclasses

import pytest

from dfd_tune.cluster.jobs import Told
from dfd_tune.cluster.probe import NodeFacts, look_around, problems_of
from dfd_tune.errors import UserError
from dfd_tune.locks import holding
from dfd_tune.store import open_store

GOOD = NodeFacts(
    host="a",
    python="3.11.7",
    ray="2.60.0",
    torch="2.9",
    missing=(),
    gpus=0,
    cuda=False,
    store=None,
    copies=None,
    data=True,
)


def problems(*nodes, device="cpu", data=None):
    return problems_of(nodes, store="/shared/runs", device=device, data=data)


def test_good_nodes_have_none():
    assert problems(GOOD, dataclasses.replace(GOOD, host="b")) == []
    gpu = dataclasses.replace(GOOD, gpus=2.0, cuda=True)
    assert problems(GOOD, gpu, device="cuda") == []


@pytest.mark.parametrize(
    ("change", "device", "told"),
    [
        ({"ray": "2.59.0"}, "cpu", ["2.59.0 on b", "2.60.0 on a"]),
        ({"python": "3.12.1"}, "cpu", ["3.12.1 on b"]),
        ({"torch": "2.8"}, "cpu", ["2.8 on b"]),
        ({"missing": ("optuna", "torch"), "torch": None}, "cpu", ["b: optuna, torch"]),
        ({"store": "is not there"}, "cpu", ["b: the store '/shared/runs' is not there"]),
        ({}, "cuda", ["No node has a GPU"]),
        ({"gpus": 1.0}, "cuda", ["b: Ray counts a GPU"]),
        ({"copies": "The folder '/c' can't be used."}, "cpu", ["b: The folder '/c'", "--node-copies"]),
        ({"data": False}, "cpu", ["on b"]),
    ],
)
def test_each_is_told_once_with_the_hosts(change, device, told):
    (problem,) = problems(GOOD, dataclasses.replace(GOOD, host="b", **change), device=device, data="/data")
    assert all(part in problem for part in told)


def test_a_store_is_looked_at_as_it_is(tmp_path):
    shared, other = open_store(tmp_path / "shared"), open_store(tmp_path / "other")
    shared.path("token").write_text("token")

    def seen(store):
        return NodeFacts.from_json(look_around(store.location, "token", None, str(tmp_path / "copies"), 0.0)).store

    with holding(shared.path("token.lock")):
        assert seen(shared) is None
        assert seen(other) == "is another folder than on the head node"
        assert seen(open_store(tmp_path / "x")).startswith("is another")
        (tmp_path / "x").rmdir()
        assert (
            NodeFacts.from_json(look_around(str(tmp_path / "x"), "token", None, str(tmp_path / "copies"), 0.0)).store
            == "is not there"
        )
    # Locks that another node's process does not see are none.
    assert "locks" in seen(shared)


def test_what_a_job_told_is_a_refusal_a_value_or_an_internal_error():
    assert Told("SUCCEEDED", {"probe": 1}).value("probe") == 1
    with pytest.raises(UserError) as refused:
        Told("FAILED", {"refused": ["One.", "Two."]}).value("probe")
    assert refused.value.problems == ("One.", "Two.")
    failed = Told("FAILED")
    failed.raw.append("ZeroDivisionError: division by zero")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        failed.value("probe")
