"""A node's copies: made once, checked, never taken for what the store no longer says, and bounded."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from dfd_tune.errors import UserError
from dfd_tune.store import MANIFEST_FILE, Copies, FolderStore, Store, copies, open_store, read_json, whole, write_json
from dfd_tune.store.copies import check_copies

FILES = {"one.bin": b"1" * 600, "sub/two.bin": b"2" * 400}
SIZE = 1000

NEAR = """
    import os, sys, time
    from pathlib import Path
    from dfd_tune.store import Copies, FolderStore

    store = FolderStore(Path(sys.argv[1]), Copies(Path(sys.argv[2])))
    opened = []

    def watch(event, arguments):
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(str(store.root)):
            if not arguments[0].endswith(".json"):
                opened.append(arguments[0])
                AT_OPEN

    sys.addaudithook(watch)
    print("ready", flush=True)
    while not Path(sys.argv[3]).exists():
        time.sleep(0.001)
    with store.near("things", "k") as folder:
        assert (folder / "one.bin").read_bytes() == b"1" * 600
    print(len(opened))
"""
"""Read an entry in a process of its own, once `argv[3]` is there; prints how many files of the store it opened."""


@pytest.fixture
def root(tmp_path) -> Path:
    """Where the node's copies go."""
    return tmp_path / "node" / "copies"


@pytest.fixture
def store(tmp_path, root) -> Store:
    """A store with copies, in which the entry `things/k` is."""
    made = FolderStore(open_store(tmp_path / "store").root, Copies(root))
    publish(made, "k")
    return made


def publish(store: Store, key: str, files=FILES) -> None:
    with store.publish("things", key) as draft:
        for name, content in files.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_bytes(content)


def contents(store: Store, key: str = "k") -> dict[str, bytes] | None:
    """What a reader finds; None if that is not whole."""
    with store.near("things", key) as folder:
        return {name: (folder / name).read_bytes() for name in FILES} if whole(folder) else None


def entries(root: Path) -> set[str]:
    """Keys of the entries of which there are copies."""
    return {str(folder.name) for folder in root.glob("things-*/*") if folder.is_dir()}


def copy_of(root: Path, key: str = "k") -> Path:
    (folder,) = root.glob(f"things-*/{key}")
    return folder


def last_used(root: Path, **seconds: float) -> None:
    """Pretend that copies were last used then."""
    for key, when in seconds.items():
        os.utime(copy_of(root, key).parent, (when, when))


def overwrite(file: Path, content: bytes) -> None:
    """Put other bytes into a file whose size and time stay."""
    assert file.stat().st_size == len(content)
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_without_copies_the_entry_itself_is_read(store):
    with FolderStore(store.root).near("things", "k") as folder:
        assert folder == store.path("things", "k")


def test_a_copy_is_the_entry_and_lies_on_the_node(store, root):
    with store.near("things", "k") as folder:
        assert folder.is_relative_to(root)
        assert folder.name == "k"
        assert whole(folder)
    assert contents(store) == FILES
    assert read_json(copy_of(root) / MANIFEST_FILE) == read_json(store.path("things", "k", MANIFEST_FILE))


def test_what_was_copied_is_not_read_from_the_store_again(store):
    assert contents(store) == FILES
    overwrite(store.path("things", "k", "one.bin"), b"x" * 600)
    assert contents(store) == FILES


def test_two_processes_at_once_copy_once(store, root, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(NEAR.replace("AT_OPEN", "time.sleep(0.1)"))]
    processes = [
        subprocess.Popen([*command, store.root, root, tmp_path / "go"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    opened = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sorted(opened) == [0, len(FILES)]


def test_what_a_killed_process_leaves_is_cleared(store, root, tmp_path):
    (tmp_path / "go").touch()
    script = textwrap.dedent(NEAR.replace("AT_OPEN", "len(opened) == 2 and os._exit(9)"))
    killed = subprocess.run([sys.executable, "-c", script, store.root, root, tmp_path / "go"], timeout=60)
    assert killed.returncode == 9
    assert any(path.name.startswith(".") for path in root.iterdir())
    assert entries(root) == set()
    assert contents(store) == FILES
    assert not any(path.name.startswith(".") for path in root.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_in_a_copy_is_noticed(store, root, name):
    contents(store)
    overwrite(copy_of(root) / name, b"x" + FILES[name][1:])
    assert contents(store) == FILES


@pytest.mark.parametrize("name", [*FILES, MANIFEST_FILE, "../copy.json"])
def test_a_copy_that_lacks_a_file_is_made_again(store, root, name):
    contents(store)
    (copy_of(root) / name).unlink()
    assert contents(store) == FILES


def test_a_copy_that_was_only_touched_is_kept(store, root):
    contents(store)
    kept = copy_of(root).stat().st_ino
    os.utime(copy_of(root) / "one.bin")
    assert contents(store) == FILES
    assert copy_of(root).stat().st_ino == kept


def test_a_flipped_byte_in_the_store_is_noticed(store, root, caplog):
    overwrite(store.path("things", "k", "sub", "two.bin"), b"2" * 399 + b"x")
    assert contents(store) is None
    assert entries(root) == set()
    assert str(store.path("things", "k")) in caplog.text
    assert whole(store.path("things", "k")), "a node's word is no reason to touch the store"


@pytest.mark.parametrize("name", [*FILES, MANIFEST_FILE])
def test_what_the_store_has_lost_is_lost_for_a_node_with_a_copy_too(store, name):
    """Else nobody would make it anew for the others."""
    contents(store)
    store.path("things", "k", name).unlink()
    assert contents(store) is None


def test_a_store_that_cannot_be_read_just_now_is_an_error(store, root):
    file = store.path("things", "k", "one.bin")
    file.unlink()
    file.symlink_to(file)  # a circle: neither there nor missing
    with pytest.raises(OSError, match="symbolic links"):
        contents(store)
    assert entries(root) == set()


def test_what_was_made_anew_is_copied_anew(store):
    contents(store)
    store.set_aside("things", "k")
    publish(store, "k", FILES | {"one.bin": b"anew"})
    assert contents(store) == FILES | {"one.bin": b"anew"}


def test_stores_that_hold_the_same_share_a_copy(store, root, tmp_path):
    other = FolderStore(open_store(tmp_path / "other").root, store.copies)
    publish(other, "k")
    contents(store)
    overwrite(other.path("things", "k", "one.bin"), b"x" * 600)
    assert contents(other) == FILES


def test_a_name_that_leads_elsewhere_is_not_followed(store, root, tmp_path):
    (tmp_path / "store" / "things" / "stray").write_bytes(b"stray")
    manifest = store.path("things", "k", MANIFEST_FILE)
    known = read_json(manifest)
    known["files"]["../stray"] = {"bytes": 5, "sha256": known["files"]["one.bin"]["sha256"]}
    write_json(manifest, known)
    with store.near("things", "k") as folder:
        assert not whole(folder)
    assert not list(root.rglob("stray"))


# Room.


def with_budget(store: Store, size: int) -> Store:
    return FolderStore(store.root, Copies(store.copies.root, size))


def test_what_was_used_longest_ago_goes(store, root):
    store = with_budget(store, 2 * SIZE)
    for key in ("other", "third"):
        publish(store, key)
    contents(store, "k")
    contents(store, "other")
    last_used(root, k=1000.0, other=2000.0)
    contents(store, "k")
    assert contents(store, "third") == FILES
    assert entries(root) == {"k", "third"}
    assert contents(store, "other") == FILES


def test_what_is_mapped_into_memory_can_be_read_when_its_copy_is_gone(store, root):
    with store.near("things", "k") as folder:
        mapped = np.memmap(folder / "one.bin", dtype=np.uint8, mode="r")
    publish(store, "other")
    contents(with_budget(store, SIZE), "other")
    assert entries(root) == {"other"}
    assert mapped.tobytes() == FILES["one.bin"]


def test_what_somebody_is_about_to_open_stays(store, root):
    store = with_budget(store, 2 * SIZE)
    for key in ("other", "third"):
        publish(store, key)
    contents(store, "other")
    with store.near("things", "k"):
        last_used(root, k=1000.0, other=2000.0)
        contents(store, "third")
        assert entries(root) == {"k", "third"}


def test_too_little_room_is_a_full_disk_and_nothing_goes_in_vain(store, root, monkeypatch):
    contents(store)
    publish(store, "large", FILES | {"one.bin": b"1" * 5000})
    with pytest.raises(OSError, match="large") as raised:
        contents(with_budget(store, 5000), "large")
    assert raised.value.errno == errno.ENOSPC
    publish(store, "other")
    monkeypatch.setattr(copies, "FREE_SHARE", 1.0)
    monkeypatch.setattr(copies, "FREE_BYTES", 1e30)  # so that all of the disk is to be left free
    with pytest.raises(OSError, match="other") as raised:
        contents(store, "other")
    assert raised.value.errno == errno.ENOSPC
    assert entries(root) == {"k"}
    assert contents(store) == FILES


def test_a_folder_that_was_emptied_is_filled_again(store, root):
    contents(store)
    subprocess.run(["rm", "-r", root], check=True)
    assert contents(store) == FILES


def test_a_folder_for_copies_is_checked(tmp_path):
    check_copies(Copies(tmp_path / "new" / "copies"))
    (tmp_path / "file").write_text("")
    for unsuitable in (Path("relative"), tmp_path / "file", tmp_path / "file" / "in it"):
        with pytest.raises(UserError):
            check_copies(Copies(unsuitable))
    assert not Path("relative").exists()
