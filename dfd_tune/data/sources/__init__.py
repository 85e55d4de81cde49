"""The sources that images can come from, by name. Importing this loads none of them.

A source is a module of this package with two functions, and an entry in the table below:

    fingerprint(data: Path | None) -> dict     JSON-able; changes when the files do; opens none
    load(data: Path | None, image_size: int | None, cache: Path, say: Callable[[str], None]) -> RawDataset

Both raise UserError when `data` does not hold what the source expects.
Not for: splits, subsets and files of a prepared dataset (prepared.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfd_tune.data import recipes

if TYPE_CHECKING:
    from dfd_tune.data.sources.raw import RawDataset


@dataclass(frozen=True, kw_only=True)
class Source:
    """One place that images can come from.

    Attributes:
        name: what `--dataset` takes; also the name of the module in this package.
        summary: one line for a list of datasets.
        recipe: recommended settings: TrialConfig's, `validation_fraction`, and perhaps more of DatasetConfig's.
        data_holds: what the folder given as `--data` must hold, as a phrase; None if none may be given.
        needs_data: whether `--data` must be given.
    """

    name: str
    summary: str
    recipe: recipes.Settings
    data_holds: str | None
    needs_data: bool

    def fingerprint(self, data: Path | None) -> dict[str, Any]:
        """What identifies the files as they are: names, sizes and times, or a version; JSON-able."""
        fingerprint: dict[str, Any] = self._module().fingerprint(data)
        return fingerprint

    def load(self, data: Path | None, image_size: int | None, cache: Path, say: Callable[[str], None]) -> RawDataset:
        """Read and decode all images.

        Args:
            data: the folder given as `--data`.
            image_size: side to which images are resized; None keeps their own.
            cache: folder for downloads; made when needed.
            say: takes lines of progress.

        Raises:
            UserError: files are missing, unreadable or unsuitable.
        """
        raw: RawDataset = self._module().load(data, image_size, cache, say)
        return raw

    def _module(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.name}")


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="digits",
            summary="1,797 handwritten digits, 8×8 gray, that come with scikit-learn",
            recipe=recipes.DIGITS,
            data_holds=None,
            needs_data=False,
        ),
        Source(
            name="letters",
            summary="capital letters, 16×16 gray, drawn with the fonts that matplotlib brings",
            recipe=recipes.LETTERS,
            data_holds=None,
            needs_data=False,
        ),
        Source(
            name="cifar10",
            summary="60,000 photographs of 10 classes, 32×32; downloaded if --data is not given",
            recipe=recipes.PAPER,
            data_holds="data_batch_1 to data_batch_5 and test_batch, or train*.parquet and test*.parquet",
            needs_data=False,
        ),
        Source(
            name="svhn",
            summary="99,289 digits of house numbers, 32×32; downloaded if --data is not given",
            recipe=recipes.SVHN,
            data_holds="train_32x32.mat and test_32x32.mat, or train*.parquet and test*.parquet",
            needs_data=False,
        ),
        Source(
            name="parquet",
            summary="your images in Parquet files, as on the Hugging Face hub",
            recipe=recipes.PAPER,
            data_holds="train*.parquet and test*.parquet",
            needs_data=True,
        ),
        Source(
            name="folder",
            summary="your images in a folder per class",
            recipe=recipes.PAPER,
            data_holds="image files as train/<class>/* and test/<class>/*, or as <class>/*",
            needs_data=True,
        ),
    )
}
