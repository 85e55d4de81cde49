"""One split of a dataset as an Arrow IPC file, and back as arrays that lie in the file.

The file is one record batch with two columns: `image`, FixedSizeList<uint8>[C·S·S], and `label`, int64.
Reading maps it into memory: every process of a node shares one copy.
Not for: which images a split holds (prepared.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfd_tune.errors import cause_of
from dfd_tune.store import is_passing


class DamagedFileError(Exception):
    """A prepared file is missing, cut short, or not what it should be; preparing again mends it."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8, (N, C, S, S), values 0 to 255; read-only, in a memory-mapped file.
        labels: int64, (N,), indices into the dataset's classes; read-only.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def write_split(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write a split.

    Args:
        path: the file to write.
        images: uint8, (N, C, S, S).
        labels: int64, (N,).
    """
    import pyarrow as pa

    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert images.shape[:1] == labels.shape
    pixels = pa.array(np.ascontiguousarray(images).reshape(-1))
    image = pa.FixedSizeListArray.from_arrays(pixels, math.prod(images.shape[1:]))
    batch = pa.record_batch({"image": image, "label": pa.array(labels)})
    # 64-bit lengths: 175,000 images of 3×64×64 are more values than 31 bits count.
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)


def read_split(path: Path, shape: tuple[int, int, int]) -> Split:
    """Map a split into memory, without copying.

    Args:
        path: a file of `write_split`.
        shape: (C, S, S) of its images.

    Raises:
        DamagedFileError: the file is missing, cut short, foreign, or holds images of another shape.
        OSError: the disk can't be read just now.
    """
    import pyarrow as pa

    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
        if reader.num_record_batches != 1:
            raise DamagedFileError(f"{path.name} holds {reader.num_record_batches} record batches, not 1")
        batch = reader.get_batch(0)
        batch.validate()
        found = {field.name: str(field.type) for field in batch.schema}
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and is_passing(error):
            raise
        raise DamagedFileError(f"{path.name}: {cause_of(error)}") from None
    expected = {"image": pa.list_(pa.uint8(), math.prod(shape)), "label": pa.int64()}
    # `list_` names its items "item", as `from_arrays` does; equal types have equal text.
    if found != {name: str(kind) for name, kind in expected.items()}:
        raise DamagedFileError(f"{path.name} holds other columns than image and label of {shape} images")
    if batch.column("image").null_count or batch.column("label").null_count:
        raise DamagedFileError(f"{path.name} holds empty rows")
    images = batch.column("image").flatten().to_numpy(zero_copy_only=True)
    labels = batch.column("label").to_numpy(zero_copy_only=True)
    return Split(images=images.reshape(len(labels), *shape), labels=labels)
