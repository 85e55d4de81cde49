import gc

import numpy as np
import pyarrow as pa
import pytest
from image_files import cycled_labels, random_images

from dfd_tune.data.arrow import DamagedFileError, read_split, write_split


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "train.arrow"
    write_split(path, random_images(40, side=8), cycled_labels(40, 4))
    return path


def test_what_was_written_is_read(file):
    split = read_split(file, (3, 8, 8))
    assert len(split) == 40
    assert np.array_equal(split.images, random_images(40, side=8))
    assert np.array_equal(split.labels, cycled_labels(40, 4))
    assert split.images.dtype == np.uint8
    assert split.labels.dtype == np.int64
    assert split.images.flags.c_contiguous


def test_images_lie_in_the_file_and_take_no_memory_of_their_own(file):
    before = pa.total_allocated_bytes()
    split = read_split(file, (3, 8, 8))
    assert pa.total_allocated_bytes() - before < split.images.nbytes / 4
    gc.collect()  # the map must outlive the reader
    assert split.images[39].sum() == random_images(40, side=8)[39].sum()


def test_arrays_can_not_be_written(file):
    split = read_split(file, (3, 8, 8))
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        split.labels[0] = 0


def test_a_view_of_other_memory_is_written_as_it_reads(tmp_path):
    images = random_images(40, side=8)[::2, :, ::-1]
    write_split(tmp_path / "part.arrow", images, cycled_labels(40, 4)[::2].copy())
    assert np.array_equal(read_split(tmp_path / "part.arrow", (3, 8, 8)).images, images)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_damaged(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedFileError, match=r"train\.arrow"):
        read_split(file, (3, 8, 8))


def test_missing_and_foreign_files_and_other_shapes_are_damaged(file, tmp_path):
    with pytest.raises(DamagedFileError, match=r"none\.arrow"):
        read_split(tmp_path / "none.arrow", (3, 8, 8))
    with pytest.raises(DamagedFileError, match="other columns"):
        read_split(file, (1, 8, 8))
    (tmp_path / "text.arrow").write_text("not Arrow " * 100)
    with pytest.raises(DamagedFileError, match=r"text\.arrow"):
        read_split(tmp_path / "text.arrow", (3, 8, 8))
    table = pa.table({"other": [1, 2, 3]})
    with pa.ipc.new_file(str(tmp_path / "other.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DamagedFileError, match="other columns"):
        read_split(tmp_path / "other.arrow", (3, 8, 8))
