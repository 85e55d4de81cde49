"""A cluster's store in a bucket: what nodes say of it, what is sent there, what is brought from there."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from dfd_tune.cluster import fetch as fetching
from dfd_tune.cluster.incoming import adopt
from dfd_tune.cluster.launch import submission_of
from dfd_tune.cluster.probe import PROBES, NodeFacts, _marked, look_around, problems_of
from dfd_tune.cluster.reach import store_from_here, target_of
from dfd_tune.cluster.remote import _has
from dfd_tune.cluster.send import cut_into_pieces, files_of_entry, files_to_send, publish_into, send_over_ssh
from dfd_tune.distill.frontends import VGG19_FILE, has_vgg19, vgg19_at_hand
from dfd_tune.errors import UserError
from dfd_tune.liveness import running
from dfd_tune.record import load_search, save_search
from dfd_tune.search.options import LaunchOptions
from dfd_tune.store import open_store
from tests.cluster.s3 import CREDENTIALS, VARIABLES, address, serving
from tests.cluster.test_sending import contents, copy
from tests.tracking.records import search_record

ENTRIES = ["datasets/key", "downloads/weights.pth"]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def there(options, tmp_path, monkeypatch):
    """The address of a new store in the bucket, with credentials and a cache in this process's environment."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DFD_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return address(tmp_path.name.replace("_", "-"), options)


@pytest.fixture
def here(tmp_path):
    """A laptop's store with an entry and a file of weights."""
    store = open_store(tmp_path / "here")
    with store.publish("datasets", "key") as draft:
        (draft / "train.arrow").write_bytes(bytes(range(256)) * 5)
        (draft / "dataset.json").write_text("{}")
    store.path("downloads").mkdir()
    store.path("downloads", "weights.pth").write_bytes(b"weights")
    return store


def held(store):
    """The files of the entries that are sent, from wherever the store has them."""
    found = {name: file.read_bytes() for entry in ENTRIES for name, file in files_of_entry(store, entry).items()}
    return {name: content for name, content in found.items() if not name.endswith("manifest.json")}


def seen(location, token="token", copies=None):
    return NodeFacts.from_json(look_around(location, token, None, copies, 0.0))


def test_a_node_that_reaches_the_bucket_and_has_a_cache_is_fit(there, tmp_path):
    store = open_store(there)
    with _marked(store) as token:
        assert seen(there, token).store is None
        assert seen(there, token, str(tmp_path / "of-its-own")).store is None
        assert (tmp_path / "of-its-own" / "buckets").is_dir()
        assert seen(there, "another").store == "is another bucket than on the head node"
    assert store.bucket.files(PROBES) == {}


def test_what_keeps_a_node_from_it_is_one_sentence_without_credentials(there, options, tmp_path, monkeypatch):
    other = there.replace("cluster-tests", "no-such-bucket")
    (problem,) = problems_of([_good(store=seen(other).store)], store=other, device="cpu", data=None)
    assert "no-such-bucket" in problem
    assert "credentials of its own" in problem
    monkeypatch.setenv("DFD_TUNE_CACHE", "/proc/cache")
    assert "DFD_TUNE_CACHE" in seen(there).store
    for text in (problem, seen(there).store):
        assert not any(value in text for value in CREDENTIALS.values())


def _good(**changes):
    from tests.cluster.test_probe import GOOD

    return dataclasses.replace(GOOD, **changes)


def test_from_here_entries_are_published_into_the_bucket(there, here):
    store = open_store(there)
    assert not any(_has(store, *entry.split("/")) for entry in ENTRIES)
    publish_into(store, here, files_to_send(here, ENTRIES))
    assert all(_has(store, *entry.split("/")) for entry in ENTRIES)
    assert held(store) == held(here)


@pytest.mark.parametrize("way", ["ssh", "pieces"])
def test_through_the_head_they_arrive_as_well(there, here, way, tmp_path, monkeypatch):
    store, files = open_store(there), files_to_send(here, ENTRIES)
    if way == "ssh":
        incoming = send_over_ssh(copy, here, files, there)
    else:
        incoming, folders = cut_into_pieces(here, files, tmp_path / "pieces", 500)
        assert len(folders) > 1
        monkeypatch.syspath_prepend(str(tmp_path / "pieces"))
    adopt(store, incoming)
    assert held(store) == held(here)
    assert incoming["place"] is None or not Path(incoming["place"]).exists()
    shutil.rmtree(store.root)  # nothing of it was on this node alone
    assert held(open_store(there)) == held(here)


def test_from_a_bucket_they_are_sent_to_a_folder_too(there, here, tmp_path):
    store, folder = open_store(there), open_store(tmp_path / "folder")
    publish_into(store, here, files_to_send(here, ENTRIES))
    adopt(folder, send_over_ssh(copy, store, files_to_send(store, ENTRIES), str(folder.root)))
    assert contents(folder) == contents(here)


def test_weights_in_the_bucket_are_brought_where_they_are_needed(there, tmp_path, monkeypatch):
    store = open_store(there)
    assert not has_vgg19(store)
    assert vgg19_at_hand(store) is None
    store.path("downloads").mkdir()
    store.path("downloads", VGG19_FILE).write_bytes(b"weights")
    store.push("downloads", VGG19_FILE)
    monkeypatch.setenv("DFD_TUNE_CACHE", str(tmp_path / "another-node"))
    other = open_store(there)
    assert has_vgg19(other)
    assert not other.path("downloads", VGG19_FILE).exists()
    assert vgg19_at_hand(other).read_bytes() == b"weights"


def test_a_search_is_brought_straight_from_the_bucket(there, here, tmp_path):
    store = open_store(there)
    publish_into(store, here, files_to_send(here, ["datasets/key"]))
    search = search_record("mine")
    search = dataclasses.replace(search, dataset=search.dataset | {"prepared": "key"}, frontends=[])
    with running(store, "mine", lambda line: None):
        save_search(store, search)
        target = target_of(None, "http://127.0.0.1:8265", there)
        laptop = open_store(tmp_path / "laptop")
        assert fetching.copy(store_from_here(target, laptop), laptop, "mine").kind == "running"
    assert load_search(laptop, "mine").dataset == search.dataset
    assert laptop.whole("datasets", "key")
    assert fetching.copy(store, laptop, "mine").how == "finished"


def test_a_target_in_a_bucket_keeps_its_address_and_leaves_caches_to_the_nodes(there, options):
    target = target_of(None, "http://127.0.0.1:8265", address("runs/", options))
    assert target.store == address("runs", options)
    asked = submission_of(target, None, LaunchOptions(name="x"), {}, follow=True, down_after=False)
    assert asked.options.node_copies is None
    folder = target_of(None, "http://127.0.0.1:8265", "/shared/")
    assert folder.store == "/shared"
    assert submission_of(folder, None, LaunchOptions(name="x"), {}, follow=True, down_after=False).options.node_copies


@pytest.mark.parametrize("wrong", ["s3://someone:hunter2@bucket/x", "s3://bucket", "ftp://bucket/x", "runs"])
def test_what_is_no_address_is_refused_by_the_name_of_its_option(wrong):
    with pytest.raises(UserError, match="--cluster-store") as caught:
        target_of(None, "http://127.0.0.1:8265", wrong)
    assert "hunter2" not in str(caught.value)


def test_a_machine_that_does_not_reach_the_bucket_says_why(there, here):
    target = target_of(None, "http://127.0.0.1:8265", there)
    assert store_from_here(target, here).location == there
    said = []
    nowhere = target_of(None, "http://127.0.0.1:8265", address("x", "?endpoint_override=127.0.0.1:9&scheme=http"))
    assert store_from_here(nowhere, here, said.append) is None
    assert "through the head node" in said[0]
    assert store_from_here(target_of(None, "http://127.0.0.1:8265", "/shared"), here, said.append) is None
    assert len(said) == 1


def test_a_search_that_runs_here_is_not_replaced(there, here):
    store, search = open_store(there), search_record("mine")
    search = dataclasses.replace(search, dataset=search.dataset | {"prepared": "key"}, frontends=[])
    with running(store, "mine", lambda line: None):
        save_search(store, search)
    with running(here, "mine", lambda line: None):
        save_search(here, dataclasses.replace(search, seed=77))
        with pytest.raises(UserError, match="is being run"):
            fetching.copy(store, here, "mine")
    assert load_search(here, "mine").seed == 77


def test_a_bucket_by_another_address_is_the_same_store(there):
    own = open_store(there)
    assert store_from_here(target_of(None, "http://127.0.0.1:8265", f"{there}&region=us-east-1"), own) is own
