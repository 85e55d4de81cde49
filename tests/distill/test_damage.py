"""Proof by damage: whatever is emptied, cut short or has a bit flipped in a store, nothing wrong is taken from it.

Each file of each kind of entry, in a copy of one store that is finished: what is asked for next is as before, as the
damaged entry was made anew, and a traceback is never what it gives. A bit in a large array that is mapped into memory
is not looked for at each opening: there it is seen by digest, when an entry is copied to a node, and by `sound`, of
which `dfd-tune store verify` is made.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import bits, fresh_store, run, trial, without_times, workbench

from dfd_tune import own_backbones
from dfd_tune.config import DatasetConfig
from dfd_tune.data.arrow import DamagedFileError
from dfd_tune.data.cameras import SPLITS, camera_images
from dfd_tune.data.prepared import open_dataset, prepare_dataset
from dfd_tune.distill.checkpoints import Checkpoints
from dfd_tune.distill.imported import bring_in, network_of
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.student import find_result, save_result, student_file, student_there, train_student
from dfd_tune.distill.workbench import BankPlan
from dfd_tune.errors import UserError
from dfd_tune.models.deployed import load_deployed
from dfd_tune.own_backbones import read_backbone, run_those_of, text_of
from dfd_tune.store import MANIFEST_FILE, Copies, FolderStore, Store, sound
from dfd_tune.store import files as store_files

SAID: list[str] = []
CONFIG = trial(epochs=2, batch_size=20)
THROUGH = trial(
    frontend="espcn", frontend_size=0.1, frontend_epochs=1, frontend_batch_size=20, frontend_learning_rate=2e-3
)
CUT_OFF = trial(lambda_=0.0, epochs=3, seed=5)
DIGITS = DatasetConfig(dataset="digits", train_images=60, test_images=30)
SOURCE = "from torch import nn\n\n\ndef small(channels, image_size, classes):\n    return nn.Identity()\n"


class CutOffError(Exception):
    """In the place of a kill."""


class CutOff(Checkpoints):
    """Ends the training once a checkpoint of two epochs is kept."""

    def save(self, snapshot):
        super().save(snapshot)
        if snapshot.epoch == 2:
            raise CutOffError


def dataset(store: Store) -> Any:
    found = prepare_dataset(DIGITS, store, SAID.append)
    splits = (found.train, found.validation, found.test)
    return found.digest, [(split.images.tobytes(), split.labels.tobytes()) for split in splits]


def low_res(store: Store) -> Any:
    images = workbench(store).dataset
    return [camera_images(store, images, CONFIG.camera, split).tobytes() for split in SPLITS]


def teacher(store: Store) -> Any:
    found, _, _ = workbench(store).prepare(CONFIG.teacher(), SingleProcess())
    return bits(found.network), found.val_accuracy, without_times(found.history)


def bank(store: Store) -> Any:
    bench = workbench(store)
    bench = workbench(store, {CONFIG.teacher().key(bench.dataset.digest): BankPlan("views", CONFIG.epochs)})
    bench.prepare(CONFIG.teacher(), SingleProcess())
    return bench.features(CONFIG.teacher()).features.numpy().tobytes()


def frontend(store: Store) -> Any:
    config = THROUGH.low_res.frontend
    found, _ = workbench(store).prepare_frontend(config, SingleProcess())
    return bits(found.network), found.psnr, found.ssim


def teacher_file(store: Store) -> Any:
    """Brought again from where it lies, beside the store."""
    images = workbench(store).dataset
    name = bring_in(store, store.root.parent / "taught" / "network.safetensors", images, SAID.append)
    return str(name), bits(network_of(store, name, images)[0])


def backbone(store: Store) -> Any:
    """Put where it is not by who has the file."""
    name = read_backbone(f"{store.root.parent / 'net.py'}:small")
    run_those_of(store, [name])
    own_backbones._texts.clear()
    found = text_of(name)
    own_backbones._stores.clear()
    return found


def student(store: Store) -> Any:
    """As a job does: handed on where it is there, else trained."""
    bench = workbench(store)
    key = CONFIG.key(bench.dataset.digest)
    result = find_result(store, key)
    if result is None or not student_there(store, key):
        bench.prepare(CONFIG.teacher(), SingleProcess())
        network, result = run(CONFIG, bench)
        save_result(network, result, CONFIG, bench)
    return without_times(result.history), bits(load_deployed(student_file(store, key))[0])


def training(store: Store) -> Any:
    """One that was cut off, brought to its end."""
    checkpoints = Checkpoints(store, "trials-cut-off", every_seconds=1e9)
    network, result = train_student(CUT_OFF, workbench(store), SingleProcess(), checkpoints)
    return bits(network), without_times(result.history)


ARRAYS = ("train.arrow", "validation.arrow", "test.arrow", "train.npy", "validation.npy", "test.npy", "features.npy")
"""Files that are mapped into memory."""
KINDS: dict[str, tuple[Callable[[Store], Any], str, tuple[str, ...]]] = {
    "datasets": (dataset, "datasets/[!.t]*", ("train.arrow", "validation.arrow", "test.arrow", "dataset.json")),
    "low_res": (low_res, "low_res/[!.]*", ("train.npy", "validation.npy", "test.npy", "camera.json")),
    "pretrained": (teacher, "pretrained/[!.]*", ("network.safetensors", "network.json")),
    "banks": (bank, "banks/[!.]*", ("features.npy", "bank.json")),
    "frontends": (frontend, "frontends/[!.]*", ("network.safetensors", "network.json")),
    "teachers": (teacher_file, "teachers/[!.]*", ("teacher.safetensors", "teacher.json")),
    "trials": (student, "trials/[!.]*", ("student.safetensors", "result.json")),
    "checkpoints": (training, "checkpoints/trials-cut-off/[!.]*", ("state.safetensors", "state.json")),
}
"""Kind of entry -> what is asked of it, where its one entry is, and its files beside the manifest."""
FILES = [(kind, file) for kind, (*_, files) in KINDS.items() for file in (*files, MANIFEST_FILE)]


@dataclasses.dataclass(frozen=True)
class Finished:
    """A store in which all kinds lie, and what is asked of each."""

    folder: Path
    expected: dict[str, Any]

    def copy(self, to: Path) -> Store:
        """The store and what lies beside it, elsewhere."""
        shutil.copytree(self.folder, to, dirs_exist_ok=True)
        return FolderStore(to / "store")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    store = fresh_store(folder / "store")
    (folder / "net.py").write_text(SOURCE)
    expected = {"pretrained": teacher(store)}
    (entry,) = store.path("pretrained").glob("[!.]*")
    shutil.copytree(entry, folder / "taught")
    with pytest.raises(CutOffError):
        train_student(CUT_OFF, workbench(store), SingleProcess(), CutOff(store, "trials-cut-off", every_seconds=0.0))
    expected |= {kind: ask(store) for kind, (ask, *_) in KINDS.items()}
    expected["backbones"] = backbone(store)
    return Finished(folder, expected)


def emptied(content: bytes) -> bytes:
    return b""


def cut(place: int) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        return content[:place]

    damage.__name__ = f"cut at {place}"
    return damage


def flipped(place: int) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]

    damage.__name__ = f"bit of byte {place} flipped"
    return damage


def damages_of(size: int, flips: int) -> list[Callable[[bytes], bytes]]:
    """Emptied, cut short at every 4 KiB, near the end and in the middle, and flips at equal distances."""
    cuts = sorted({*range(4096, size, 4096), size // 2, size - 1} - {0})
    places = np.unique(np.linspace(0, size - 1, flips).astype(int))
    return [emptied, *map(cut, cuts[:: 1 + len(cuts) // 8]), *(flipped(int(place)) for place in places)]


def hold(finished: Finished, folder: Path, kind: str, file: str, damage: Callable[[bytes], bytes]) -> None:
    """Damage a file in a copy of the store, and ask for what it holds."""
    store = finished.copy(folder)
    ask, place, _ = KINDS[kind]
    (entry,) = store.root.glob(place)
    content = (entry / file).read_bytes()
    (entry / file).write_bytes(damage(content))
    told = ask(store)
    if kind == "checkpoints":  # one that is damaged is set aside, and its training goes on without
        assert told == finished.expected[kind], f"{kind}/{file}, {damage.__name__}"
        return
    if damage.__name__.startswith("bit") and (file in ARRAYS or file == MANIFEST_FILE) and not sound(entry):
        # Not seen as it was opened, for which only sizes are read: seen by all of its bytes.
        assert file in ARRAYS or told == finished.expected[kind]
        assert any(name in ARRAYS for name in KINDS[kind][2])
        told = ask(dataclasses.replace(store, copies=Copies(folder / "node")))
    assert told == finished.expected[kind], f"{kind}/{file}, {damage.__name__}"
    assert sound(entry), f"{kind}/{file}, {damage.__name__}"


SAMPLE = itertools.cycle((emptied, cut(100), flipped(70)))


@pytest.mark.parametrize(("kind", "file", "damage"), [(*case, next(SAMPLE)) for case in FILES])
def test_a_damaged_file_of_each_kind_is_made_anew_with_the_same_content(kind, file, damage, finished, tmp_path):
    hold(finished, tmp_path, kind, file, damage)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "file"), FILES)
def test_whatever_is_damaged_is_made_anew_with_the_same_content(kind, file, finished, tmp_path):
    (pristine,) = (finished.folder / "store").glob(KINDS[kind][1])
    for number, damage in enumerate(damages_of((pristine / file).stat().st_size, flips=8)):
        hold(finished, tmp_path / str(number), kind, file, damage)
        shutil.rmtree(tmp_path / str(number))


def every(size: int, step: int, ends: int) -> list[int]:
    """Places in a file: all near its ends, where formats keep what they say of themselves, and some between."""
    return sorted({*range(min(ends, size)), *range(max(0, size - ends), size), *range(0, size, step)})


@pytest.mark.slow
def test_no_flipped_bit_makes_a_dataset_or_an_array_an_exception(finished, tmp_path):
    """Such as Arrow's and NumPy's own readers raise, of which there are many kinds."""
    store = finished.copy(tmp_path)
    (entry,) = store.root.glob(KINDS["datasets"][1])
    images = workbench(store).dataset
    looks: list[tuple[Path, Callable[[], Any]]] = [(entry / "test.arrow", lambda: open_dataset(entry))]
    (pictures,) = store.root.glob(KINDS["low_res"][1])
    looks.append((pictures / "test.npy", lambda: camera_images(store, images, CONFIG.camera, "test")))
    for file, look in looks:
        content = file.read_bytes()
        for place in every(len(content), 97, 700):
            file.write_bytes(flipped(place)(content))
            try:
                look()
            except DamagedFileError:
                continue
            finally:
                file.write_bytes(content)


@pytest.mark.parametrize("damage", [emptied, cut(20), flipped(3), flipped(40)], ids=lambda damage: damage.__name__)
def test_the_text_of_a_backbone_is_put_back_by_its_file_and_not_run_damaged(damage, finished, tmp_path):
    own_backbones._texts.clear()  # that other tests have read
    store = finished.copy(tmp_path)
    (text,) = store.path("backbones").glob("*.py")
    name = f"net.py:small:{text.stem}"
    text.write_bytes(damage(text.read_bytes()))
    with pytest.raises(UserError, match=r"net\.py:small"):
        run_those_of(store, [name])
    own_backbones._stores.clear()
    assert backbone(store) == finished.expected["backbones"] == SOURCE


def test_text_that_is_none_is_not_run(finished, tmp_path):
    own_backbones._texts.clear()  # that other tests have read
    store = finished.copy(tmp_path)
    (text,) = store.path("backbones").glob("*.py")
    text.write_bytes(b"\xff\xfe" + text.read_bytes())
    with pytest.raises(UserError, match="not in the store"):
        run_those_of(store, [f"net.py:small:{text.stem}"])
    own_backbones._stores.clear()


@pytest.mark.parametrize("file", ["network.safetensors", "network.json", MANIFEST_FILE, "copy.json"])
@pytest.mark.parametrize("damage", [emptied, cut(100), flipped(70)], ids=lambda damage: damage.__name__)
def test_a_damaged_copy_on_a_node_is_made_anew(file, damage, finished, tmp_path):
    node = dataclasses.replace(finished.copy(tmp_path), copies=Copies(tmp_path / "node"))
    assert teacher(node) == finished.expected["pretrained"]
    (place,) = (tmp_path / "node").glob(f"pretrained-*/**/{file}")
    place.write_bytes(damage(place.read_bytes()))
    assert teacher(node) == finished.expected["pretrained"]
    (entry,) = (tmp_path / "node").glob("pretrained-*/[!.c]*")
    assert sound(entry)


# A disk that can't be read just now.


def refuse(monkeypatch, doomed: Path, number: int) -> None:
    """Have whoever opens a file be told that it can't be now, by whatever way it is opened."""
    import builtins
    import io

    import pyarrow

    def refusing(real):
        def opened(file, *arguments, **options):
            if isinstance(file, str | os.PathLike) and Path(file) == doomed:
                raise OSError(number, os.strerror(number), str(file))
            return real(file, *arguments, **options)

        return opened

    monkeypatch.setattr(builtins, "open", refusing(builtins.open))
    monkeypatch.setattr(io, "open", refusing(io.open))
    monkeypatch.setattr(pyarrow, "memory_map", refusing(pyarrow.memory_map))
    monkeypatch.setattr(store_files, "STALE_PAUSES", (0.0, 0.0, 0.0))


def tree(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, but for lock files."""
    files = (file for file in folder.rglob("*") if file.is_file() and "leases" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize(("kind", "file"), FILES)
def test_what_can_not_be_read_just_now_is_an_error_and_stays_as_it_is(kind, file, finished, tmp_path, monkeypatch):
    store = finished.copy(tmp_path)
    ask, place, _ = KINDS[kind]
    (entry,) = store.root.glob(place)
    before = tree(store.root)
    for number in (errno.EIO, errno.ESTALE, errno.EACCES):
        with monkeypatch.context() as patch:
            refuse(patch, entry / file, number)
            with pytest.raises((OSError, UserError), match=os.strerror(number)):
                ask(store)
        assert tree(store.root) == before
    assert ask(store) == finished.expected[kind]
