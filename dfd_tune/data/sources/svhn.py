"""SVHN, the digits of house numbers cut out to 32×32: the original MATLAB files, Parquet files, or a download.

Not for: the uncropped photographs, the extra training set, or other datasets in Parquet (parquet.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dfd_tune.data.sources import parquet
from dfd_tune.data.sources.decode import resize_images
from dfd_tune.data.sources.download import download_once
from dfd_tune.data.sources.raw import RawDataset, fingerprint_files, first_few
from dfd_tune.errors import UserError, cause_of

CLASSES = tuple("0123456789")
TRAIN_FILE, TEST_FILE = "train_32x32.mat", "test_32x32.mat"
PAGE = "http://ufldl.stanford.edu/housenumbers/"

_DOWNLOADED = "svhn-32x32"
_EXPECTED = (
    f"{TRAIN_FILE} and {TEST_FILE} (the cropped digits of {PAGE}), or Parquet files train*.parquet and test*.parquet"
)


def fingerprint(data: Path | None) -> dict[str, Any]:
    """Names, sizes and times of the files; a constant for the download, whose MD5 sums are checked."""
    if data is None:
        return {"download": [TRAIN_FILE, TEST_FILE]}
    if _holds_mats(data):
        return fingerprint_files(data, _mat_files(data))
    _check_parquet(data)
    return parquet.fingerprint(data)


def load(data: Path | None, image_size: int | None, cache: Path, say: Callable[[str], None]) -> RawDataset:
    """Read SVHN from `data`, or download it into `cache` first, unless it is there.

    Raises:
        UserError: files are missing or unsuitable, or the download fails.
    """
    if data is None:
        data = _downloaded(cache, say)
    if _holds_mats(data):
        return _load_mats(data, image_size)
    _check_parquet(data)
    raw = parquet.load(data, image_size, cache, say)
    if raw.classes != CLASSES:
        raise UserError(
            f"The Parquet files of --data '{data}' have the classes {first_few(raw.classes)}, but SVHN has 0 to 9; "
            "for other images use --dataset parquet."
        )
    return raw


def _holds_mats(data: Path) -> bool:
    """Whether one of the MATLAB files is there, so that the other must be."""
    return any((data / name).is_file() for name in (TRAIN_FILE, TEST_FILE))


def _mat_files(data: Path) -> list[Path]:
    files = [data / name for name in (TRAIN_FILE, TEST_FILE)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"'{data}' lacks {', '.join(missing)}; get it from {PAGE} and put it there.")
    return files


def _check_parquet(data: Path) -> None:
    if not any(data.rglob("train*.parquet")):
        raise UserError(f"--data '{data}' holds no SVHN; expected is {_EXPECTED}.")


def _load_mats(data: Path, image_size: int | None) -> RawDataset:
    (train_images, train_labels), (test_images, test_labels) = (
        _read_mat(file, image_size) for file in _mat_files(data)
    )
    return RawDataset(train_images, train_labels, test_images, test_labels, CLASSES)


def _read_mat(file: Path, image_size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 3, S, S), and labels, int64 (N,), of one file."""
    from scipy.io import loadmat

    try:
        content = loadmat(file, appendmat=False, variable_names=("X", "y"))
        images, labels = _pixels(content), _digits(content)
        if len(images) != len(labels):
            raise ValueError(f"it holds {len(images):,} images but {len(labels):,} labels")
    except NotImplementedError:
        raise UserError(
            f"'{file}' is in the format of MATLAB 7.3, which is not read; save it with '-v7', or get the original "
            f"from {PAGE}."
        ) from None
    except Exception as error:
        # Foreign bytes fail in any way there is: ValueError, TypeError, zlib.error, EOFError, ...
        raise UserError(
            f"'{file}' can't be read as a file of SVHN ({cause_of(error)}); get {file.name} from {PAGE} again."
        ) from None
    return resize_images(images, image_size), labels


def _pixels(content: dict[str, Any]) -> np.ndarray:
    """The images, (N, 3, 32, 32), still in the file's order of bytes: no copy."""
    pixels = _variable(content, "X")
    if pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise ValueError(f"its X has the shape {pixels.shape}, not (32, 32, 3, N)")
    return pixels.transpose(3, 2, 0, 1)


def _digits(content: dict[str, Any]) -> np.ndarray:
    """The labels, int64 (N,), with 0 for the file's 10."""
    labels = _variable(content, "y")
    if labels.ndim != 2 or labels.shape[1] != 1:
        raise ValueError(f"its y has the shape {labels.shape}, not (N, 1)")
    wrong = [str(label) for label in np.unique(labels) if not 1 <= label <= 10]
    if wrong:
        raise ValueError(f"its labels must be 1 to 10, where 10 means 0, but there are {first_few(wrong)}")
    return labels[:, 0].astype(np.int64) % 10


def _variable(content: dict[str, Any], name: str) -> np.ndarray:
    if name not in content:
        raise ValueError(f"it lacks the variable {name}")
    value: np.ndarray = content[name]
    if value.dtype != np.uint8:  # as structures, text and sparse matrices are not either
        raise ValueError(f"its {name} is not an array of uint8")
    return value


def _fetch(folder: Path) -> None:
    """Download both files below the folder; their MD5 sums are checked."""
    from torchvision.datasets import SVHN
    from torchvision.datasets.utils import download_url

    for split in ("train", "test"):
        url, filename, md5 = SVHN.split_list[split]
        download_url(url, str(folder / _DOWNLOADED), filename=filename, md5=md5)


def _downloaded(cache: Path, say: Callable[[str], None]) -> Path:
    """The folder of both files in `cache`, downloaded unless it is there."""
    return download_once(
        cache / _DOWNLOADED,
        name="svhn",
        title="SVHN",
        size="246 MB",
        fetch=_fetch,
        expected=_EXPECTED,
        say=say,
    )
