"""CIFAR-10: the original python batches, Parquet files, or a download of the batches.

The batches are pickles. They are read with stand-ins for the few names that occur in them, so that nothing a
pickle names is ever run. Not for: CIFAR-100, or other datasets in Parquet (parquet.py).
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dfd_tune.data.sources import parquet
from dfd_tune.data.sources.decode import resize_images
from dfd_tune.data.sources.download import download_once
from dfd_tune.data.sources.raw import RawDataset, fingerprint_files
from dfd_tune.errors import UserError, cause_of

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE = "test_batch"

_EXPECTED = (
    "cifar-10-python.tar.gz unpacked (a folder with data_batch_1 to data_batch_5 and test_batch), or Parquet "
    "files train*.parquet and test*.parquet"
)


def fingerprint(data: Path | None) -> dict[str, Any]:
    """Names, sizes and times of the files; a constant for the download, whose MD5 sum is checked."""
    if data is None:
        return {"download": "cifar-10-python.tar.gz"}
    folder = _batches_in(data)
    if folder is not None:
        return fingerprint_files(folder, _batch_files(folder))
    _check_parquet(data)
    return parquet.fingerprint(data)


def load(data: Path | None, image_size: int | None, cache: Path, say: Callable[[str], None]) -> RawDataset:
    """Read CIFAR-10 from `data`, or download it into `cache` first, unless it is there.

    Raises:
        UserError: files are missing or unsuitable, or the download fails.
    """
    folder = _downloaded(cache, say) if data is None else _batches_in(data)
    if folder is not None:
        return _load_batches(folder, image_size)
    assert data is not None
    _check_parquet(data)
    raw = parquet.load(data, image_size, cache, say)
    if len(raw.classes) != len(CLASSES):
        raise UserError(
            f"--data '{data}' has {len(raw.classes)} classes, but CIFAR-10 has {len(CLASSES)}; for other "
            "images use --dataset parquet."
        )
    # Without names in the files, classes are called by their numbers.
    unnamed = raw.classes == tuple(str(label) for label in range(len(CLASSES)))
    return dataclasses.replace(raw, classes=CLASSES) if unnamed else raw


def _batches_in(data: Path) -> Path | None:
    for folder in (data, data / BATCHES):
        if (folder / TRAIN_FILES[0]).is_file():
            return folder
    return None


def _batch_files(folder: Path) -> list[Path]:
    files = [folder / name for name in (*TRAIN_FILES, TEST_FILE)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"'{folder}' lacks {', '.join(missing)}; unpack cifar-10-python.tar.gz there again.")
    return files


def _check_parquet(data: Path) -> None:
    if not any(data.rglob("train*.parquet")):
        raise UserError(f"--data '{data}' holds no CIFAR-10; expected is {_EXPECTED}.")


def _load_batches(folder: Path, image_size: int | None) -> RawDataset:
    batches = [_read_batch(file) for file in _batch_files(folder)]
    train, (test_images, test_labels) = batches[:-1], batches[-1]
    return RawDataset(
        train_images=resize_images(np.concatenate([images for images, _ in train]), image_size),
        train_labels=np.concatenate([labels for _, labels in train]),
        test_images=resize_images(test_images, image_size),
        test_labels=test_labels,
        classes=CLASSES,
    )


def _read_batch(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 3, 32, 32), and labels, int64 (N,), of one batch."""
    try:
        content = _Unpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        images = content[b"data"].pixels().reshape(-1, 3, 32, 32)
        labels = np.array(content[b"labels"], dtype=np.int64)
        if labels.shape != images.shape[:1] or labels.min() < 0 or labels.max() >= len(CLASSES):
            raise ValueError("its labels do not fit its images")
    except Exception as error:
        # Unpickling foreign bytes fails in any way there is.
        raise UserError(
            f"'{file}' is no batch of CIFAR-10 ({cause_of(error)}); unpack cifar-10-python.tar.gz again."
        ) from None
    return images, labels


class _Array:
    """Stands in for a NumPy array in a pickle: keeps the state that the array would be restored from."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, self.fortran, self.content = state

    def pixels(self) -> np.ndarray:
        """The array, uint8, of the recorded shape."""
        if not isinstance(self.kind, _Kind) or self.kind.name not in ("u1", b"u1"):
            raise ValueError("its images are not bytes")
        order: Literal["C", "F"] = "F" if self.fortran else "C"
        return np.frombuffer(self.content, dtype=np.uint8).reshape(self.shape, order=order)


class _Kind:
    """Stands in for a NumPy dtype: keeps its name."""

    def __init__(self, name: str | bytes, *_: Any):
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which single bytes do not have."""


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into a pickle of protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Reads plain containers and the stand-ins above; refuses every other name."""

    _ALLOWED = {  # noqa: RUF012  (read only)
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Kind,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which has no place there") from None


def _fetch(folder: Path) -> None:
    """Download and unpack the batches below the folder; the archive's MD5 sum is checked."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(CIFAR10.url, str(folder), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)


def _downloaded(cache: Path, say: Callable[[str], None]) -> Path:
    """The folder of batches in `cache`, downloaded unless it is there."""
    return download_once(
        cache / BATCHES,
        name="cifar10",
        title="CIFAR-10",
        size="170 MB",
        fetch=_fetch,
        expected=_EXPECTED,
        say=say,
    )
