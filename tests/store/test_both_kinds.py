"""What a store promises, in a folder and in a bucket."""

import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dfd_tune.errors import UserError
from dfd_tune.locks import HeldError
from dfd_tune.store import BucketStore, existing_store, whole
from dfd_tune.store.store import STORE_FILE

FILES = {"one.json": b'{"one": 1}', "sub/two.bin": b"2" * 3000}


def publish(store, key="k", files=FILES):
    with store.publish("things", key) as draft:
        for name, content in files.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_bytes(content)


def read(store, key="k"):
    """All files of an entry as a reader finds them; None if it is not whole."""
    with store.near("things", key) as folder:
        if not whole(folder):
            return None
        return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


def test_an_entry_is_there_whole_for_everybody(either, opened_anew):
    assert not either.whole("things", "k")
    assert read(either) is None
    publish(either)
    for store in (either, opened_anew(either)):
        assert store.whole("things", "k")
        assert read(store) == FILES
        assert store.content("things", "k", "sub/two.bin") == FILES["sub/two.bin"]
        assert store.facts("things", "k", "one.json") == {"one": 1}
        assert store.content("things", "k", "none") is None
        assert store.has("things", "k", "one.json")
        assert not store.has("things", "k", "none")
        assert store.entries("things") == ["k"]
        assert store.entries("nothing") == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing(either, error, opened_anew):
    def fill_and_fail():
        with either.publish("things", "k") as draft:
            (draft / "one.json").write_text("{}")
            raise error

    with pytest.raises(error):
        fill_and_fail()
    assert not opened_anew(either).whole("things", "k")
    assert either.entries("things") == []


def test_of_two_publishers_the_first_to_end_is_kept(either, opened_anew):
    with either.publish("things", "k") as slow:
        (slow / "one.json").write_bytes(b'"slow"')
        publish(either, files={"one.json": b'"quick"'})
    assert either.content("things", "k", "one.json") == b'"quick"'
    assert read(opened_anew(either)) == {"one.json": b'"quick"'}


def test_a_discarded_entry_is_gone_and_others_stay(either):
    for key in ("k", "kept"):
        publish(either, key)
    either.discard("things", "k")
    either.discard("things", "never-there")
    assert either.entries("things") == ["kept"]
    assert read(either) is None
    assert read(either, "kept") == FILES


def test_what_is_set_aside_gives_way_to_another(either):
    publish(either)
    assert either.set_aside("things", "k")
    assert not either.set_aside("things", "never-there")
    assert not either.whole("things", "k")
    publish(either, files={"one.json": b"[]"})
    assert read(either) == {"one.json": b"[]"}


def ensured(store, made, content=b"{}", say=None):
    def opens(folder):
        return (folder / "one.json").read_bytes() if whole(folder) else None

    def make(folder):
        made.append(1)
        (folder / "one.json").write_bytes(content)

    return store.ensure("things", "k", opens, make, say)


def test_what_is_not_there_is_made_once(either, opened_anew):
    made = []
    assert ensured(either, made) == (b"{}", True)
    assert ensured(either, made) == (b"{}", False)
    assert ensured(opened_anew(either), made) == (b"{}", False)
    assert len(made) == 1


def test_what_several_want_at_once_is_made_once(either):
    made, together = [], threading.Barrier(3)

    def ask(_):
        together.wait(10)
        return ensured(either, made)[0]

    with ThreadPoolExecutor(3) as people:
        assert list(people.map(ask, range(3))) == [b"{}"] * 3
    assert len(made) == 1


def test_what_was_damaged_is_made_anew_and_that_is_said(either):
    publish(either, files={"one.json": b"1234"})
    if not isinstance(either, BucketStore):
        either.path("things", "k", "one.json").write_bytes(b"123")
    else:
        (name,) = [name for name in either.bucket.files("things", "k") if name.endswith("/one.json")]
        either.bucket.write(b"1235", "things", "k", name)
        for copy in either.copies.root.glob("things-*"):
            shutil.rmtree(copy)
    made, said = [], []
    assert ensured(either, made, b"anew", said.append) == (b"anew", True)
    assert read(either) == {"one.json": b"anew"}
    assert [line for line in said if "things/k" in line and "damaged" in line]


def test_files_that_change_are_whole_at_any_time(either, opened_anew):
    assert either.read_json("searches", "mine", "search.json") is None
    assert either.changed("searches", "mine", "search.json") is None
    assert either.names("searches") == []
    either.write_json({"λ": 1}, "searches", "mine", "search.json")
    either.write_text("long and old", "searches", "mine", "text")
    either.write_text("new", "searches", "mine", "text")
    for store in (either, opened_anew(either)):
        assert store.read_json("searches", "mine", "search.json") == {"λ": 1}
        assert store.read_text("searches", "mine", "text") == "new"
        assert store.changed("searches", "mine", "text") > 0
        assert store.names("searches") == ["mine"]
        store.pull("searches", "mine")
        assert store.path("searches", "mine", "text").read_text() == "new"
    either.remove("searches", "mine", "text")
    either.remove("searches", "mine", "text")
    assert opened_anew(either).read_text("searches", "mine", "text") is None


def test_files_that_were_written_here_reach_others_when_they_are_sent(either, opened_anew):
    either.path("searches", "mine", "logs").mkdir(parents=True)
    either.path("searches", "mine", "logs", "a.log").write_text("one\n")
    either.path("searches", "mine", "logs", ".draft").write_text("no")
    either.push("searches", "mine", "logs")
    other = opened_anew(either)
    other.pull("searches", "mine")
    assert other.path("searches", "mine", "logs", "a.log").read_text() == "one\n"
    either.path("searches", "mine", "logs", "a.log").write_text("one\ntwo\n")
    either.push("searches", "mine", "logs", "a.log")
    other.bring("searches", "mine", "logs", "a.log")
    assert other.path("searches", "mine", "logs", "a.log").read_text() == "one\ntwo\n"


def test_a_claim_is_refused_while_another_holds_it_and_free_after(either):
    with either.claim("mine", patience=0):
        with pytest.raises(HeldError), either.claim("mine", patience=0):
            pass
        with either.claim("another", patience=0):
            pass
    with pytest.raises(KeyboardInterrupt), either.claim("mine", patience=0):
        raise KeyboardInterrupt
    with either.claim("mine", patience=0):
        pass


def test_all_who_ask_get_one_identity(either, opened_anew):
    with ThreadPoolExecutor(4) as people:
        found = set(people.map(lambda _: either.identity(), range(4)))
    assert found == {opened_anew(either).identity()}


def test_another_format_is_refused_in_one_sentence(either):
    either.write_json({"id": "x" * 32, "format": 999, "release": "9.8.7"}, "store.json")
    with pytest.raises(UserError, match=r"format 999.*9\.8\.7") as caught:
        existing_store(either.location)
    assert len(caught.value.problems) == 1


def test_a_store_can_be_sent_to_another_process(either):
    publish(either)
    sent = pickle.loads(pickle.dumps(either))
    assert sent == either
    assert read(sent) == FILES


def test_a_store_whose_own_file_is_damaged_is_opened_by_readers_and_refused_where_that_matters(either):
    either.identity()
    either.write_text("{", STORE_FILE)
    found = existing_store(either.location)
    with pytest.raises(UserError, match=STORE_FILE):
        found.identity()


def test_a_file_that_was_let_go_of_by_half_goes_all_the_same(either):
    publish(either, files={"one.json": b"1", "two.json": b"22"})
    manifest = "manifest.json"
    if isinstance(either, BucketStore):
        before = either.bucket.read("things", "k", manifest)
        (name,) = [name for name in either.bucket.files("things", "k") if name.endswith("/two.json")]
        assert either.let_go("things", "k", "two.json") == 2
        after = either.bucket.read("things", "k", manifest)
        assert after != before
        either.bucket.write(b"22", "things", "k", name)
        assert either.let_go("things", "k", "two.json") == 2
        assert name not in either.bucket.files("things", "k")
    else:
        assert either.let_go("things", "k", "two.json") == 2
        either.path("things", "k", "two.json").write_bytes(b"22")
        assert either.let_go("things", "k", "two.json") == 2
        assert not either.path("things", "k", "two.json").exists()
    assert either.let_go("things", "k", "two.json") == 0
    assert either.content("things", "k", "one.json") == b"1"
