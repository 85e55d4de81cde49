"""Images in Parquet files, as datasets on the Hugging Face hub have them.

`train*.parquet` and, if there is a test set, `test*.parquet`, in the folder or in folders below it. An image
column holds encoded images, as binary or as a struct with a field `bytes`; a label column holds whole
numbers. Names of classes come from the hub's metadata in the schema; without them, a class is called by its
number.
Not for: columns of raw pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfd_tune.data.sources.decode import Encoded, decode_images
from dfd_tune.data.sources.raw import (
    RawDataset,
    check_classes,
    fingerprint_files,
    first_few,
    is_hidden,
    with_test_split,
)
from dfd_tune.errors import UserError, cause_of

IMAGE_NAMES = ("image", "img", "images")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")


@dataclass(frozen=True)
class _Columns:
    """The columns that matter; `classes` is None where the schema names none."""

    image: str
    label: str
    classes: tuple[str, ...] | None


def fingerprint(data: Path | None) -> dict[str, Any]:
    """Names, sizes and times of the Parquet files."""
    assert data is not None
    train, test = find_files(data)
    return fingerprint_files(data, train + test)


def load(data: Path | None, image_size: int | None, cache: Path, say: Callable[[str], None]) -> RawDataset:
    """Read all Parquet files, in the order of their names.

    Raises:
        UserError: files or columns are missing or ambiguous, or labels or images are unsuitable.
    """
    assert data is not None
    train_files, test_files = find_files(data)
    where = f"'{data}'"
    columns = _find_columns(train_files[0], data)
    train, train_labels = _read(train_files, columns, data)
    test, test_labels = _read(test_files, columns, data)
    classes = columns.classes or tuple(str(label) for label in np.unique(train_labels))
    train_labels = _checked(train_labels, columns, classes, where)
    test_labels = _checked(test_labels, columns, classes, where)
    check_classes(train_labels, classes, where)
    if test_files and not test:
        raise UserError(f"The test*.parquet files of {where} hold no rows; fill them, or remove them.")
    images = decode_images(train + test, image_size, where, say)
    if not test:
        return with_test_split(images, train_labels, classes, where, say)
    return RawDataset(images[: len(train)], train_labels, images[len(train) :], test_labels, classes)


def find_files(data: Path) -> tuple[list[Path], list[Path]]:
    """The training and the test files, sorted; the list of test files may be empty.

    Raises:
        UserError: there are no training files, or several datasets' files.
    """
    train, test = (
        sorted(path for path in data.rglob(pattern) if path.is_file() and not is_hidden(path, data))
        for pattern in ("train*.parquet", "test*.parquet")
    )
    if not train:
        raise UserError(f"--data '{data}' holds no train*.parquet; expected are train*.parquet and test*.parquet.")
    for files in (train, test):
        folders = sorted({str(file.parent) for file in files})
        if len(folders) > 1:
            raise UserError(
                f"--data '{data}' holds Parquet files of the same split in several folders "
                f"({first_few(folders)}); name one of them with --data."
            )
    return train, test


def _find_columns(file: Path, data: Path) -> _Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None
    images = [field.name for field in schema if _holds_bytes(field.type)]
    labels = [field.name for field in schema if pa.types.is_integer(field.type)]
    where = f"'{file.relative_to(data)}' in '{data}'"
    image = _choose("image column (binary, or a struct with bytes)", images, IMAGE_NAMES, schema.names, where)
    label = _choose("label column (whole numbers)", labels, LABEL_NAMES, schema.names, where)
    return _Columns(image, label, _class_names(schema.metadata, label))


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _choose(what: str, candidates: Sequence[str], preferred: Sequence[str], present: Sequence[str], where: str) -> str:
    """The candidate with a preferred name, else the only one."""
    for name in preferred:
        if name in candidates:
            return name
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise UserError(
            f"{where} has several candidates for the {what}: {', '.join(candidates)}; rename one to '{preferred[0]}'."
        )
    raise UserError(f"{where} has no {what}; its columns are {', '.join(present) or 'none'}.")


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    """The names that the hub's metadata gives to a column's numbers; None if there are none."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]
        if feature["_type"] != "ClassLabel":
            return None
        return tuple(str(name) for name in feature["names"]) or None
    except (KeyError, TypeError, ValueError):
        return None  # other tools write other metadata; names are a nicety


def _read(files: Sequence[Path], columns: _Columns, data: Path) -> tuple[list[Encoded], np.ndarray]:
    """Encoded images, whose bytes stay in Arrow's buffers, and labels as in the files, int64."""
    images: list[Encoded] = []
    labels: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
    for file in files:
        image, label = _read_file(file, columns)
        name = file.relative_to(data).as_posix()
        images += [Encoded(value.as_buffer(), name, row) for row, value in enumerate(image)]
        labels.append(label)
    return images, np.concatenate(labels)


def _read_file(file: Path, columns: _Columns) -> tuple[Any, np.ndarray]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            table = opened.read(columns=[columns.image, columns.label])
        image, label = table.column(columns.image), table.column(columns.label)
        if pa.types.is_struct(image.type):
            image = pc.struct_field(image, "bytes")
        if not _holds_bytes(image.type):
            raise UserError(f"'{file}' has no encoded images in column '{columns.image}', unlike the first file.")
        if label.null_count:
            raise UserError(f"'{file}' has {label.null_count} rows without a label; remove them or label them.")
        return image, label.cast(pa.int64()).to_numpy()
    except KeyError as error:
        raise UserError(f"'{file}' lacks a column that the first file has: {cause_of(error)}.") from None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"'{file}' can't be read as Parquet ({cause_of(error)}); replace it.")


def _checked(labels: np.ndarray, columns: _Columns, classes: Sequence[str], where: str) -> np.ndarray:
    """Labels as indices into `classes`, int64.

    Raises:
        UserError: a label is negative or is no class.
    """
    values = np.unique(labels)
    known = np.arange(len(classes)) if columns.classes else np.array([int(name) for name in classes], dtype=np.int64)
    wrong = [str(value) for value in values if value < 0 or value not in known]
    if wrong:
        allowed = f"0 to {len(classes) - 1}" if columns.classes else "the non-negative labels of the training files"
        raise UserError(
            f"Column '{columns.label}' of {where} holds labels that are no classes: {first_few(wrong)}; "
            f"allowed are {allowed}."
        )
    return np.searchsorted(known, labels).astype(np.int64)
