import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dfd_tune.errors import UserError
from dfd_tune.store import (
    MANIFEST_FILE,
    existing_store,
    open_store,
    problem_with_name,
    read_json,
    read_whole_json,
    whole,
    write_json,
    write_manifest,
    write_text,
)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_an_entry_appears_whole_when_the_block_ends(store):
    with store.publish("trials", "k") as draft:
        (draft / "one.txt").write_text("one")
        (draft / "sub").mkdir()
        assert not store.path("trials", "k").exists()
    assert everything_in(store.root) == [
        "trials",
        "trials/k",
        "trials/k/manifest.json",
        "trials/k/one.txt",
        "trials/k/sub",
    ]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing(store, error):
    def fill_and_fail():
        with store.publish("trials", "k") as draft:
            (draft / "one.txt").write_text("one")
            raise error

    with pytest.raises(error):
        fill_and_fail()
    assert everything_in(store.root) == ["trials"]


def test_of_two_publishers_the_first_to_end_is_kept(store):
    with store.publish("trials", "k") as slow:
        (slow / "who.txt").write_text("slow")
        with store.publish("trials", "k") as quick:
            (quick / "who.txt").write_text("quick")
    assert store.path("trials", "k", "who.txt").read_text() == "quick"
    assert everything_in(store.root) == ["trials", "trials/k", "trials/k/manifest.json", "trials/k/who.txt"]


def test_a_file_in_the_place_of_an_entry_is_an_error(store):
    write_text(store.path("trials", "k"), "a file")
    with pytest.raises(OSError, match="k"), store.publish("trials", "k"):
        pass
    assert everything_in(store.root) == ["trials", "trials/k"]


def test_what_a_killed_process_leaves_is_no_entry(store):
    script = """
        import os, sys
        from dfd_tune.store import open_store
        with open_store(sys.argv[1]).publish("trials", "k") as draft:
            (draft / "half.txt").write_text("half")
            os._exit(9)
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(store.root)], timeout=60)
    assert process.returncode == 9
    assert not store.path("trials", "k").exists()
    assert all(path.name.startswith(".") for path in store.path("trials").iterdir())
    with store.publish("trials", "k") as draft:
        (draft / "whole.txt").write_text("whole")
    assert {path.name for path in store.path("trials", "k").iterdir()} == {"whole.txt", MANIFEST_FILE}


def test_entries_can_be_read_by_others(store):
    with store.publish("trials", "k") as draft:
        write_text(draft / "one.txt", "one")
    assert store.path("trials", "k").stat().st_mode & 0o777 == 0o755
    assert store.path("trials", "k", "one.txt").stat().st_mode & 0o777 == 0o644


def test_a_discarded_entry_is_gone_and_others_stay(store):
    for key in ("k", "kept"):
        with store.publish("trials", key) as draft:
            (draft / "one.txt").write_text("one")
    store.discard("trials", "k")
    store.discard("trials", "never-there")
    assert everything_in(store.root) == ["trials", "trials/kept", "trials/kept/manifest.json", "trials/kept/one.txt"]


# Manifests.


@pytest.fixture
def entry(store):
    """The folder of an entry with two files, one of them in a folder of its own."""
    with store.publish("trials", "k") as draft:
        (draft / "one.json").write_text('{"one": 1}')
        (draft / "sub").mkdir()
        (draft / "sub" / "two.bin").write_bytes(b"two")
    return store.path("trials", "k")


def test_a_manifest_holds_sizes_and_digests(entry):
    digests = {"one.json": hashlib.sha256(b'{"one": 1}').hexdigest(), "sub/two.bin": hashlib.sha256(b"two").hexdigest()}
    assert read_json(entry / MANIFEST_FILE) == {
        "files": {
            "one.json": {"bytes": 10, "sha256": digests["one.json"]},
            "sub/two.bin": {"bytes": 3, "sha256": digests["sub/two.bin"]},
        }
    }


def test_the_manifest_is_written_when_everything_else_is_there(store, monkeypatch):
    """And it goes to the disk after it, before the entry gets its name."""
    synced: list[str] = []
    sync = os.fsync

    def watched(handle):
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("names of open files are looked up in /proc")
    monkeypatch.setattr(os, "fsync", watched)
    with store.publish("trials", "k") as draft:
        name = draft.name
        (draft / "one.json").write_text("{}")
        (draft / "sub").mkdir()
    assert set(synced[:2]) == {"one.json", "sub"}
    manifest, *rest = synced[2:]
    assert manifest.startswith(f".{MANIFEST_FILE}.")
    assert rest == [name, "trials"]


def cut_short(entry):
    (entry / "sub" / "two.bin").write_bytes(b"tw")


def grown(entry):
    (entry / "sub" / "two.bin").write_bytes(b"two!")


def missing(entry):
    (entry / "sub" / "two.bin").unlink()


def a_folder_in_its_place(entry):
    missing(entry)
    (entry / "sub" / "two.bin").mkdir()


def no_manifest(entry):
    (entry / MANIFEST_FILE).unlink()


def an_empty_manifest(entry):
    (entry / MANIFEST_FILE).write_text("")


def half_a_manifest(entry):
    text = (entry / MANIFEST_FILE).read_text()
    (entry / MANIFEST_FILE).write_text(text[: len(text) // 2])


def a_manifest_of_a_list(entry):
    (entry / MANIFEST_FILE).write_text('{"files": ["one.json"]}')


def a_manifest_without_digests(entry):
    (entry / MANIFEST_FILE).write_text('{"files": {"one.json": {"bytes": 10}}}')


def no_folder(entry):
    shutil.rmtree(entry)


DAMAGES = (
    cut_short,
    grown,
    missing,
    a_folder_in_its_place,
    no_manifest,
    an_empty_manifest,
    half_a_manifest,
    a_manifest_of_a_list,
    a_manifest_without_digests,
    no_folder,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_an_entry_that_does_not_match_its_manifest_is_not_whole_and_gives_way(damage, store, entry):
    assert store.whole("trials", "k")
    damage(entry)
    assert not store.whole("trials", "k")
    with store.publish("trials", "k") as draft:
        (draft / "anew.txt").write_text("anew")
    assert store.whole("trials", "k")
    assert everything_in(store.path("trials")) == ["k", "k/anew.txt", "k/manifest.json"]


def test_an_entry_with_a_bit_flipped_gives_way(store, entry):
    (entry / "sub" / "two.bin").write_bytes(b"twO")
    assert store.whole("trials", "k")  # a look at the sizes does not see it
    with store.publish("trials", "k") as draft:
        (draft / "anew.txt").write_text("anew")
    assert everything_in(store.path("trials")) == ["k", "k/anew.txt", "k/manifest.json"]


def test_single_files_can_be_asked_for(entry):
    assert whole(entry, "one.json")
    cut_short(entry)
    assert whole(entry, "one.json")
    assert not whole(entry, "sub/two.bin")
    assert not whole(entry, "one.json", "sub/two.bin")
    assert not whole(entry, "never-there")


@pytest.mark.parametrize("content", ["", "{", '{"one": 2}', '{"one": 1, "more": 2}'])
def test_json_that_is_not_what_was_written_is_not_read(content, entry):
    assert read_whole_json(entry, "one.json") == {"one": 1}
    (entry / "one.json").write_text(content)
    assert read_whole_json(entry, "one.json") is None


@pytest.mark.parametrize("content", ["", "[]", "1", "no JSON"])
def test_what_is_no_json_object_is_not_read_however_whole(content, entry):
    (entry / "one.json").write_text(content)
    write_manifest(entry)
    assert whole(entry)
    assert read_whole_json(entry, "one.json") is None


def test_json_beside_an_entry_is_not_of_it(entry):
    assert read_whole_json(entry, "none.json") is None
    (entry / "late.json").write_text("{}")
    assert read_whole_json(entry, "late.json") is None
    assert read_whole_json(entry / "none", "one.json") is None


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_can_not_be_read_just_now_is_an_error_and_deletes_nothing(number, store, entry, monkeypatch):
    before = everything_in(store.root)

    def failing(*arguments, **options):
        raise OSError(number, os.strerror(number))

    for name in ("stat", "read_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, failing)
            with pytest.raises(OSError) as caught:  # noqa: PT011
                whole(entry)
        assert caught.value.errno == number
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        with pytest.raises(OSError, match=os.strerror(number)):
            read_whole_json(entry, "one.json")
        with pytest.raises(OSError, match=os.strerror(number)), store.publish("trials", "k") as draft:
            (draft / "anew.txt").write_text("anew")
    assert everything_in(store.root) == before
    assert store.whole("trials", "k")


def test_what_is_set_aside_is_no_entry_and_goes_when_another_takes_its_place(store, entry):
    store.set_aside("trials", "k")
    store.set_aside("trials", "never-there")
    store.set_aside("nowhere", "k")
    assert not entry.exists()
    assert [file.name for file in store.path("trials").rglob("one.json")] == ["one.json"]
    assert all(path.name.startswith(".") for path in store.path("trials").iterdir())
    store.clear_drafts("trials", "k")
    assert len(list(store.path("trials").iterdir())) == 1
    with store.publish("trials", "other"):
        pass
    assert len(list(store.path("trials").iterdir())) == 2
    with store.publish("trials", "k"):
        pass
    assert sorted(path.name for path in store.path("trials").iterdir()) == ["k", "other"]


def test_json_comes_back(tmp_path):
    value = {"λ": 0.1, "list": [1, None, True], "nested": {"text": "π"}}
    write_json(tmp_path / "new" / "folder" / "value.json", value)
    assert read_json(tmp_path / "new" / "folder" / "value.json") == value
    assert "λ" in (tmp_path / "new" / "folder" / "value.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "none.json") is None


@pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}])
def test_json_that_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path, bad):
    write_json(tmp_path / "value.json", {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "value.json", bad)
    assert read_json(tmp_path / "value.json") == {"old": 1}
    assert everything_in(tmp_path) == ["value.json"]


def test_a_file_is_replaced_and_not_written_into(tmp_path):
    file = tmp_path / "text"
    write_text(file, "old and long")
    with file.open(encoding="utf-8") as reader:
        write_text(file, "new")
        assert reader.read() == "old and long"
    assert file.read_text() == "new"


HOLDER = """
    import sys
    from dfd_tune.store import open_store
    with open_store(sys.argv[1]).lease("teacher-k"):
        print("held", flush=True)
        sys.stdin.readline()
"""
ASKER = """
    import sys
    from pathlib import Path
    from dfd_tune.locks import HeldError, holding
    try:
        with holding(Path(sys.argv[1], "leases", "teacher-k.lock"), patience=0):
            pass
    except HeldError:
        sys.exit(7)
"""


def test_a_lease_keeps_other_processes_out_until_its_holder_ends(store):
    def run(script, **options):
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(store.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    with run(HOLDER) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            assert run(ASKER).wait(60) == 7
            with store.lease("another"):  # other names are free
                pass
        finally:
            holder.kill()  # a process that dies lets go
    assert run(ASKER).wait(60) == 0


def test_a_store_is_made_where_it_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("new/store")
    assert store.root == tmp_path / "new" / "store"
    assert store.root.is_dir()
    assert everything_in(store.root) == []
    assert open_store(store.root) == existing_store("new/store") == store


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/store").root == tmp_path / "store"
    assert existing_store("~/store").root == tmp_path / "store"


def refusal(function, location) -> str:
    with pytest.raises(UserError) as caught:
        function(location)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("address", "of"),
    [
        ("ftp://host/store", "ftp://"),
        ("s3://user:verysecret@bucket/store", "credentials"),
        ("s3://verysecret@bucket/store", "credentials"),
        ("s3://bucket/store?secret_key=verysecret", "credentials"),
        ("s3:///store", "names no bucket"),
        ("s3://bucket/", "a whole bucket"),
    ],
)
@pytest.mark.parametrize("opened", [open_store, existing_store])
def test_an_address_that_cannot_be_a_store_is_refused_without_its_secrets(opened, address, of):
    problem = refusal(opened, address)
    assert of in problem
    assert "verysecret" not in problem


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way_is_named(tmp_path, place):
    (tmp_path / "file").write_text("")
    problem = refusal(open_store, tmp_path / place)
    assert f"The store '{tmp_path / place}' can't be written (" in problem
    assert "--store" in problem


def test_a_folder_that_takes_no_files_is_refused(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # as for root, whom a mode does not stop
        if not Path("/proc/self").is_dir():
            pytest.skip("no folder here that refuses root")
        folder = Path("/proc/self")
    assert f"The store '{folder}' can't be written (" in refusal(open_store, folder)


def test_commands_that_only_read_make_no_store(tmp_path):
    assert f"no store at '{tmp_path / 'none'}'" in refusal(existing_store, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    assert "no store" in refusal(existing_store, tmp_path / "file")


@pytest.mark.parametrize("name", ["a", "lambda_grid-cifar10-2026-01-31", "A.b_c-1", "9", "x" * 100])
def test_names_that_may_be_folders(name):
    assert problem_with_name(name) is None


@pytest.mark.parametrize("name", ["", "a/b", "..", "../a", "a..b", ".hidden", "-dash", "a b", "a\n", "λ", "x" * 101])
def test_names_that_may_not(name):
    problem = problem_with_name(name)
    assert problem is not None
    assert problem.startswith(f"--name is '{name}', but must be ")


def test_drafts_of_killed_publishers_are_cleared_and_others_are_kept(store):
    killed = store.publish("banks", "aaaa")
    other = store.publish("banks", "bbbb")
    draft, kept = killed.__enter__(), other.__enter__()
    store.clear_drafts("banks", "aaaa")
    assert not draft.exists()
    assert kept.exists()


# A store's identity


def test_a_store_keeps_its_identity_also_when_it_is_moved(tmp_path):
    one, other = open_store(tmp_path / "one"), open_store(tmp_path / "other")
    identity = one.identity()
    assert re.fullmatch("[0-9a-f]{32}", identity)
    assert identity == one.identity() == open_store(one.root).identity()
    assert other.identity() != identity
    one.root.rename(tmp_path / "moved")
    assert open_store(tmp_path / "moved").identity() == identity
    assert [path.name for path in (tmp_path / "moved").iterdir()] == ["store.json"]


@pytest.mark.parametrize("links", [True, False])
def test_of_many_who_ask_a_new_store_for_its_identity_all_get_the_same(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    for attempt in range(5):
        store = open_store(tmp_path / str(attempt))
        together = threading.Barrier(8)

        def ask(store=store, together=together):
            together.wait(10)
            return store.identity()

        with ThreadPoolExecutor(8) as people:
            answers = [future.result() for future in [people.submit(ask) for _ in range(8)]]
        assert set(answers) == {store.identity()}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}'])
def test_a_spoilt_identity_is_not_replaced_in_silence(tmp_path, content):
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(UserError, match=r"store\.json"):
        open_store(tmp_path).identity()
    assert (tmp_path / "store.json").read_text() == content
