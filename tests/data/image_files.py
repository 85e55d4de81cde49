"""Small image datasets as files, for the tests of this folder. Not tests."""

import io
import json
import pickle
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def random_images(count, *, channels=3, side=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def cycled_labels(count, classes):
    return np.arange(count, dtype=np.int64) % classes


def as_pillow(image):
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def png(image):
    buffer = io.BytesIO()
    as_pillow(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root, images, labels):
    """One PNG per image, `root/<label>/<index>.png`."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = root / str(label) / f"{index:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(image))
    return root


def write_parquet(path, images, labels, *, names=None, image="image", label="label", as_struct=True):
    """Images, arrays or encoded bytes, as a dataset of the Hugging Face hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = [item if item is None or isinstance(item, bytes) else png(item) for item in images]
    column = (
        pa.array(
            [{"bytes": item, "path": None} for item in encoded],
            pa.struct({"bytes": pa.binary(), "path": "str"}),
        )
        if as_struct
        else pa.array(encoded, pa.binary())
    )
    table = pa.table({image: column, label: pa.array([int(value) for value in labels], pa.int64())})
    if names:
        features = {label: {"_type": "ClassLabel", "names": list(names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path.parent


def write_batches(folder, images, labels, test_images, test_labels):
    """CIFAR-10's python batches, in the layout and the pickle protocol of the original."""
    folder.mkdir(parents=True)
    parts = zip(np.array_split(images, 5), np.array_split(labels, 5), strict=True)
    for number, (part, part_labels) in enumerate(parts, start=1):
        write_batch(folder / f"data_batch_{number}", part, part_labels)
    write_batch(folder / "test_batch", test_images, test_labels)
    return folder


def write_batch(file, images, labels):
    content = {b"data": images.reshape(len(images), -1), b"labels": [int(label) for label in labels]}
    file.write_bytes(pickle.dumps(content, protocol=2))


def write_batch_of_python2(file, images, labels):
    """As Python 2 wrote the original files: byte strings for text, NumPy's old module names."""

    def text(value):  # SHORT_BINSTRING
        return b"U" + bytes([len(value)]) + value

    def number(value):  # BININT
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    shape = number(len(images)) + number(3072) + b"\x86"
    content = b"T" + struct.pack("<i", images.size) + images.tobytes()  # BINSTRING
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"
    listed = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    file.write_bytes(b"\x80\x02}(" + text(b"labels") + listed + text(b"data") + array + b"u.")
