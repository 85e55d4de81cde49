"""A dataset, prepared once in the store and then shared, memory-mapped, by every process of a node.

    datasets/<key>/  train.arrow  validation.arrow  test.arrow  dataset.json

The entry's key names a selection of settings and the state of the source's files: it answers "is this
prepared already?" without opening an image. Files that were changed in place, with size and time as they were, are
noticed by a rescan alone, which reads all of them again; what it finds goes under a key of its content, and a note
says so for later launches:

    rescans/<key>.json  keys of the entries that were made of this state of the files, the one that counts last

The dataset's digest names its content, wherever that came from, and goes into trial keys.
Not for: decoding (sources/), or what is done to images in training (views.py, degradation.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfd_tune.config import DatasetConfig
from dfd_tune.data.arrow import DamagedFileError, Split, read_split, write_split
from dfd_tune.data.sources import SOURCES, Source
from dfd_tune.data.sources.raw import LEAST_PER_CLASS, RawDataset, check_classes
from dfd_tune.data.splits import stratified_split, stratified_subset
from dfd_tune.digest import digest_arrays, digest_json
from dfd_tune.disk import in_words
from dfd_tune.errors import UserError, cause_of, raise_all, unknown_name
from dfd_tune.rules import problems_in
from dfd_tune.store import Store, read_whole_json, whole, write_json

__all__ = ["DamagedFileError", "Dataset", "Split", "digest_of", "open_dataset", "prepare_dataset"]

_FORMAT = 1
"""Raised by hand when the same source would be prepared differently, so that old entries are not reused."""

_SPLITS = ("train", "validation", "test")
_CARD = "dataset.json"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared dataset. Send its folder, not its images, to another process, and open it there.

    Attributes:
        folder: the entry in the store.
        digest: names images, labels, classes and split; the same wherever the images came from.
        name: the source's name.
        classes: names by label.
        channels: 1 (gray) or 3 (RGB).
        image_size: side of the square images in pixels.
        mean: per channel, of the training images, on the scale 0 to 1.
        std: as `mean`; never 0.
        train: images to train on; at least one of each class.
        validation: images to choose by; at least one of each class.
        test: images to look at once; may lack classes.
    """

    folder: Path
    digest: str
    name: str
    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    validation: Split
    test: Split


def prepare_dataset(
    config: DatasetConfig,
    store: Store,
    say: Callable[[str], None],
    *,
    prepared: str | None = None,
    of_search: str | None = None,
    rescan: bool = False,
) -> Dataset:
    """The dataset that `config` selects: from the store, or prepared now.

    Launches at the same time prepare it once.

    Args:
        config: the selection.
        store: where prepared datasets, and downloads, are kept.
        say: takes lines of progress.
        prepared: the entry that is known to hold it, as its source may be on another machine or gone; taken if it is
            there and whole.
        of_search: the entry that a search goes on with, whatever rescans have found since, if the files look as they
            did when that was prepared.
        rescan: whether to read all files again, though they look as they did.

    Raises:
        UserError: the source, its files, or the numbers of images asked for are unsuitable. Nothing half-made
            is left behind.
    """
    if prepared is not None and not rescan:
        found = store.opened("datasets", prepared, _open_if_whole)
        if found is not None:
            return found
    source, data = _check(config)
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name != "data"}
    state = digest_json({"settings": settings, "source": source.fingerprint(data), "format": _FORMAT})

    def read() -> RawDataset:
        raw = source.load(data, config.image_size, store.path("downloads"), say)
        return _subset(_checked(raw, source.name), config)

    if rescan and data is not None:
        with store.lease(f"rescans-{state}", say):
            return _rescanned(config, store, say, state, read)
    if rescan:
        say(f"--rescan reads the files of --data again; '{source.name}' has none.")
    keys = [state] if data is None else _keys_of(store, state)
    return _ensured(config, store, say, of_search if of_search in keys else keys[-1], read)


def _ensured(
    config: DatasetConfig, store: Store, say: Callable[[str], None], key: str, read: Callable[[], RawDataset]
) -> Dataset:
    """The dataset under a key: from the store, or made of what `read` gives."""

    def make(draft: Path) -> None:
        _write(draft, read(), config)

    try:
        return store.ensure("datasets", key, _open_if_whole, make, say)[0]
    except OSError as error:
        told = f"The prepared dataset '{key}' in the store '{store.location}' can't be used ({cause_of(error)})."
        raise UserError(in_words(error) or told) from None


def _rescanned(
    config: DatasetConfig, store: Store, say: Callable[[str], None], state: str, read: Callable[[], RawDataset]
) -> Dataset:
    """The dataset as its files are now; what was prepared of the same state of them before stays as it is."""
    keys = _keys_of(store, state)
    known = {key: digest_of(store, key) for key in keys}
    if not any(known.values()):
        return _ensured(config, store, say, state, read)
    raw = read()
    digest = _digest(config, _content_digest(raw))
    if known[keys[-1]] == digest:
        say(f"The files of --data '{config.data}' hold the images that were prepared.")
        return _ensured(config, store, say, keys[-1], lambda: raw)
    say(
        f"The files of --data '{config.data}' hold other images than when they were prepared, with names, sizes and "
        "times as they were; the new ones are taken from now on, but for searches that have begun with the others."
    )
    key = next((key for key in keys if known[key] == digest), digest_json({"state": state, "content": digest}))
    found = _ensured(config, store, say, key, lambda: raw)
    store.write_json({"keys": [*(other for other in keys if other != key), key]}, *_note_parts(state))
    return found


def digest_of(store: Store, key: str) -> str | None:
    """The digest of a prepared dataset, by its card alone; None if that is not there, or not what was written.

    Raises:
        OSError: the store can't be read just now.
    """
    digest = (store.facts("datasets", key, _CARD) or {}).get("digest")
    return digest if isinstance(digest, str) else None


def _keys_of(store: Store, state: str) -> list[str]:
    """Keys of the entries that were made of a state of files, the one that counts last."""
    try:
        note = store.read_json(*_note_parts(state)) or {}
        return [str(key) for key in note["keys"]]
    except (KeyError, TypeError, ValueError, AssertionError):
        return [state]


def _note_parts(state: str) -> tuple[str, str]:
    return "rescans", f"{state}.json"


def _open_if_whole(folder: Path) -> Dataset | None:
    try:
        return open_dataset(folder)
    except DamagedFileError:
        return None


def open_dataset(folder: Path) -> Dataset:
    """Open a prepared dataset; its images stay in the files, mapped into memory.

    Raises:
        DamagedFileError: a file is missing, cut short, or does not belong there.
        OSError: the disk can't be read just now.
    """
    if not whole(folder):
        raise DamagedFileError("a file is missing or cut short")
    card = read_whole_json(folder, _CARD)
    if card is None:
        raise DamagedFileError(f"{_CARD} is not what was written")
    try:
        classes = tuple(card["classes"])
        shape = (card["channels"], card["image_size"], card["image_size"])
        splits = {name: _open_split(folder, name, shape, card["images"][name], len(classes)) for name in _SPLITS}
        return Dataset(
            folder=folder,
            digest=card["digest"],
            name=card["name"],
            classes=classes,
            channels=card["channels"],
            image_size=card["image_size"],
            mean=tuple(card["mean"]),
            std=tuple(card["std"]),
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
        )
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{_CARD}: {cause_of(error)}") from None


def _open_split(folder: Path, name: str, shape: tuple[int, int, int], count: int, classes: int) -> Split:
    split = read_split(folder / f"{name}.arrow", shape)
    if len(split) != count:
        raise DamagedFileError(f"{name}.arrow holds {len(split)} images, not {count}")
    if count == 0 or split.labels.min() < 0 or split.labels.max() >= classes:
        raise DamagedFileError(f"{name}.arrow holds labels that are no classes")
    return split


def _check(config: DatasetConfig) -> tuple[Source, Path | None]:
    """The source that is meant and its folder, made absolute; None where no folder is given."""
    source = SOURCES.get(config.dataset)
    if source is None:
        raise UserError(unknown_name("dataset", config.dataset, SOURCES))
    raise_all(problems_in(DatasetConfig, dataclasses.asdict(config)))
    if config.data is None:
        if source.needs_data:
            raise UserError(f"--dataset {source.name} needs --data PATH: a folder that holds {source.data_holds}.")
        return source, None
    if source.data_holds is None:
        raise UserError(f"--dataset {source.name} takes no --data, but it is '{config.data}'; leave it out.")
    data = Path(config.data).expanduser().absolute()
    if not data.is_dir():
        state = "is not a folder" if data.exists() else "does not exist"
        raise UserError(f"--data '{data}' {state}; name a folder that holds {source.data_holds}.")
    return source, data


def _checked(raw: RawDataset, name: str) -> RawDataset:
    """The source's images, once they are enough to train and test on; what sources owe is asserted."""
    for images, labels in ((raw.train_images, raw.train_labels), (raw.test_images, raw.test_labels)):
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert images.flags.c_contiguous
        assert images.shape[1:] == raw.train_images.shape[1:]
        assert len(images) == len(labels)
    check_classes(raw.train_labels, raw.classes, f"dataset '{name}'")
    if not len(raw.test_labels):
        raise UserError(f"The test set of dataset '{name}' is empty; add test images.")
    return raw


def _subset(raw: RawDataset, config: DatasetConfig) -> RawDataset:
    """The fixed subsets that are asked for.

    Raises:
        UserError: more images are asked for than there are, or too few for the number of classes.
    """
    # A class must stay large enough to be split again; a test set need only have room for every class.
    least = {"train": (LEAST_PER_CLASS, config.train_offset), "test": (1, 0)}
    problems = []
    changes: dict[str, Any] = {}
    for name, (each, offset) in least.items():
        count: int | None = getattr(config, f"{name}_images")
        images, labels = getattr(raw, f"{name}_images"), getattr(raw, f"{name}_labels")
        if count is None and offset == 0:
            continue
        problem = _problem_with_subset(name, count, offset, len(labels), each, len(raw.classes))
        if problem is not None:
            problems.append(problem)
            continue
        size = len(labels) - offset if count is None else count
        chosen = stratified_subset(labels, size, seed=0, at_least=each, offset=offset)
        changes |= {f"{name}_images": images[chosen], f"{name}_labels": labels[chosen]}
    raise_all(problems)
    raw = dataclasses.replace(raw, **changes)
    if config.train_offset:  # what is passed over may have been all of a small class
        check_classes(raw.train_labels, raw.classes, f"what train_offset {config.train_offset} leaves")
    return raw


def _problem_with_subset(name: str, count: int | None, offset: int, there: int, each: int, classes: int) -> str | None:
    """What is wrong with taking `count` images, or all of them, after `offset`, as one sentence; None if nothing is."""
    needed, left = each * classes, there - offset
    least = f"at least {needed} ({each} for each of {classes} classes)"
    if left < needed:
        return (
            f"{name}_offset is {offset}, which leaves {max(left, 0)} of the {there} images in the {name} set, but "
            f"{least} must be left; lower it to at most {there - needed}."
        )
    if count is None or needed <= count <= left:
        return None
    after = f"{left}, as {name}_offset passes over {offset} of the {there}" if offset else f"{there}, the number of"
    bounds = f"{least} and at most {after} images in the {name} set"
    return f"{name}_images is {count}, but must be {bounds}; leave it out to take all."


def _write(folder: Path, raw: RawDataset, config: DatasetConfig) -> None:
    """Fill a draft of the entry; the description comes last."""
    content = _content_digest(raw)
    kept, held_out = stratified_split(raw.train_labels, config.validation_fraction, seed=int(content, 16))
    splits = {
        "train": (raw.train_images[kept], raw.train_labels[kept]),
        "validation": (raw.train_images[held_out], raw.train_labels[held_out]),
        "test": (raw.test_images, raw.test_labels),
    }
    for name, (images, labels) in splits.items():
        write_split(folder / f"{name}.arrow", images, labels)
    mean, std = _statistics(splits["train"][0])
    card: dict[str, Any] = {
        "name": config.dataset,
        "digest": _digest(config, content),
        "classes": list(raw.classes),
        "channels": raw.train_images.shape[1],
        "image_size": raw.train_images.shape[2],
        "mean": list(mean),
        "std": list(std),
        "images": {name: len(labels) for name, (_, labels) in splits.items()},
    }
    write_json(folder / _CARD, card)


def _digest(config: DatasetConfig, content: str) -> str:
    """Of a dataset, by the digest of its content before the validation split."""
    return digest_json({"content": content, "validation_fraction": float(config.validation_fraction)})


def _content_digest(raw: RawDataset) -> str:
    """Digest of images, labels and classes, and of nothing about where they came from."""
    arrays = {name: value for name, value in vars(raw).items() if isinstance(value, np.ndarray)}
    return digest_json({"classes": list(raw.classes), "arrays": digest_arrays(arrays)})


def _statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel on the scale 0 to 1; the latter at least 1/255."""
    # Counts of the 256 levels are exact, and take little memory when filled part by part.
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(images), 1000):
        for channel, pixels in enumerate(images[start : start + 1000].swapaxes(0, 1)):
            counts[channel] += np.bincount(pixels.ravel(), minlength=256)
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels[None] - mean[:, None]) ** 2).sum(axis=1)
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(map(float, mean)), tuple(map(float, std))
