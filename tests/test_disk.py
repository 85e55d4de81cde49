"""What errors of the disk say to a person: which file, whose, what is lacking."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from dfd_tune.disk import in_words, naming, size_in_words, told_in_words
from dfd_tune.errors import UserError
from dfd_tune.store import open_store, write_text

ROOT = Path(__file__).parent.parent
NOBODY = 65534


def of(number, path=None):
    return OSError(number, os.strerror(number), *([] if path is None else [str(path)]))


def test_a_full_disk_names_the_file_and_what_is_free(tmp_path):
    sentence = in_words(of(errno.ENOSPC, tmp_path / "store" / "low_res" / "k"))
    assert sentence.startswith(f"The disk of '{tmp_path}/store/low_res/k' is full (No space left on device; ")
    assert "B free" in sentence
    assert "room" in in_words(of(errno.EDQUOT))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EROFS, errno.ENOLCK])
def test_a_failing_disk_is_told_with_its_cause(number):
    sentence = in_words(of(number, "/mnt/store/trials/k/result.json"))
    assert "'/mnt/store/trials/k/result.json'" in sentence
    assert os.strerror(number) in sentence


@pytest.mark.parametrize("error", [of(errno.ENOENT, "/x"), of(errno.EPIPE), OSError("odd"), ValueError("no")])
def test_other_errors_are_none_of_the_disks(error):
    assert in_words(error) is None
    with pytest.raises(type(error)), told_in_words():
        raise error


def test_a_write_that_knows_no_file_is_told_of_the_one_that_was_to_be_written(tmp_path):
    with pytest.raises(OSError) as caught, naming(tmp_path / "a"):  # noqa: PT011
        raise of(errno.ENOSPC)
    assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(UserError, match=f"'{tmp_path}/b' is full"), told_in_words(), naming(tmp_path / "a"):
        raise of(errno.ENOSPC, tmp_path / "b")


@pytest.mark.parametrize(("count", "text"), [(0, "0.0 kB"), (1500, "1.5 kB"), (12_340_000, "12.3 MB"), (5e9, "5.0 GB")])
def test_sizes(count, text):
    assert size_in_words(count) == text


# Other users' files: a process that gives up root's rights meets what root has made for itself alone.


@pytest.fixture
def store():
    """A store that everybody may enter; pytest's own folders may not be."""
    import shutil
    import tempfile

    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp(prefix="dfd-others-"))
    folder.chmod(0o777)
    yield open_store(folder / "store")
    shutil.rmtree(folder)


def as_nobody(store, script):
    """What a line of Python, which has `store`, says as the command line would, where user 65534 runs it."""
    lines = f"""
        import fcntl, os, sys  # where another user may not look for modules
        sys.path[:0] = [{str(ROOT)!r}]
        from dfd_tune.disk import in_words
        from dfd_tune.errors import UserError
        from dfd_tune.store import FolderStore, existing_store, open_store
        from dfd_tune.record import load_search, load_trials
        from pathlib import Path
        import dfd_tune.liveness as liveness
        os.setgroups([])
        os.setgid({NOBODY})
        os.setuid({NOBODY})
        os.umask(0o022)
        store = FolderStore(Path({str(store.root)!r}))
        try:
            {script}
            print("went well")
        except UserError as error:
            print(error)
        except OSError as error:
            print(in_words(error) or repr(error))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(lines)], capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def hold(path):
    """What `umask 077` makes of a file or folder."""
    path.chmod(0o700 if path.is_dir() else 0o600)


def test_an_entry_of_another_user(store):
    with store.publish("trials", "k") as draft:
        write_text(draft / "result.json", "{}")
    hold(store.path("trials", "k"))
    said = as_nobody(store, "store.content('trials', 'k', 'result.json')")
    assert said.startswith(f"'{store.path('trials', 'k')}' belongs to root, and ")
    assert "chmod" in said
    said = as_nobody(store, "with store.publish('trials', 'other'): pass")
    assert said.startswith(f"'{store.path('trials')}' belongs to root, and ")
    assert store.content("trials", "k", "result.json") == b"{}"


def test_a_file_of_an_entry_of_another_user(store):
    with store.publish("low_res", "k") as draft:
        (draft / "train.npy").write_bytes(b"pixels")
    hold(store.path("low_res", "k", "train.npy"))
    said = as_nobody(store, "store.content('low_res', 'k', 'train.npy')")
    assert said.startswith(f"'{store.path('low_res', 'k', 'train.npy')}' belongs to root, and ")


def test_a_lock_of_another_user(store):
    with store.lease("teacher-k"):
        pass
    assert as_nobody(store, "with store.lease('teacher-k'): pass") == "went well", "it may be read, so it may be locked"
    hold(store.lock_file("teacher-k"))
    said = as_nobody(store, "with store.lease('teacher-k'): pass")
    assert said.startswith(f"'{store.lock_file('teacher-k')}' belongs to root, and ")
    said = as_nobody(store, "with store.lease('another'): pass")
    assert said.startswith(f"'{store.path('leases')}' belongs to root, and ")


@pytest.mark.parametrize("held", ["search.json", "trials", "tests", "."])
def test_records_of_another_user(store, held):
    import dataclasses

    from dfd_tune.record import save_search, save_test, save_trial
    from dfd_tune.record import test_record as record_of
    from tests.report.searches import make_request, make_search, make_trial

    request = make_request({"lambda_": [0, 1]})
    search = make_search(request, {}, search="mine")
    save_search(store, dataclasses.replace(search))
    save_trial(store, "mine", make_trial(request, {"lambda_": 0}, 0.9))
    save_test(store, "mine", record_of("k", np.array([True])))
    look = "search = load_search(store, 'mine'); load_trials(store, search); liveness.state_of(store, 'mine')"
    assert as_nobody(store, look) == "went well"
    place = store.path("searches", "mine", held)
    hold(place)
    assert as_nobody(store, look).startswith(f"'{place}' belongs to root, and ")
