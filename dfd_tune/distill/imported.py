"""Teachers that were trained elsewhere: brought into the store once, frozen, measured on a dataset, and never trained.

    teachers/<digest>/  teacher.safetensors or teacher.pt2, teacher.json      the file, and what is declared of it
    pretrained/<key>/   network.safetensors, network.json                     what a dataset says of it

A file is either weights of one of the backbones, or a `torch.export` program that gives logits or features. Not for:
how it becomes a network (teacher_network.py), or what has to be declared of it (declared.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dfd_tune.data.pairs import EvaluationImages, TrainingImages
from dfd_tune.data.prepared import Dataset
from dfd_tune.digest import digest_json, sha256_of
from dfd_tune.distill import kept
from dfd_tune.distill.declared import Declared
from dfd_tune.distill.features import sums_by_class
from dfd_tune.distill.networks import arrays_of
from dfd_tune.distill.pretrained import Pretrained
from dfd_tune.distill.teacher_network import check, declared_of, network_from
from dfd_tune.distill.training import evaluate
from dfd_tune.errors import UserError, cause_of
from dfd_tune.models import Network
from dfd_tune.parts import ImportedConfig
from dfd_tune.store import Store, sound, write_json
from dfd_tune.teacher_file import KIND, TeacherFile

FACTS_FILE = "teacher.json"
STANDARD_ERRORS = 3
"""So many above chance a teacher must be."""
PROBED_IMAGES = 5000
"""Training images, drawn with a fixed seed, whose features give the classes' means."""


def bring_in(store: Store, file: Path, dataset: Dataset, say: Callable[[str], None]) -> TeacherFile:
    """Look at a teacher file, and have the store keep a copy; returns the name that stands for it from then on.

    Args:
        store: in which it will lie.
        file: weights as safetensors, or a program as .pt2.
        dataset: whose images it is to look at.
        say: takes a line.

    Raises:
        UserError: it can't be used, or what is declared of it does not suffice.
    """
    if not file.is_file():
        raise UserError(
            f"The teacher '{file}' is no file; name weights as .safetensors or a program as .pt2 (`dfd-tune resume` "
            "goes on with a search whose teacher file is gone, as its store has a copy)."
        )
    declared = declared_of(file, dataset)
    try:
        network = network_from(file, declared, dataset, torch.device("cpu"))
        check(network, dataset)
    except ValueError as error:
        raise UserError(f"The teacher '{file}' can't be used: it {cause_of(error)}.") from None
    sha256 = sha256_of(file)
    name = TeacherFile(
        gives=declared.gives,
        dim=network.feature_dim,
        side=declared.image_size,
        digest=digest_json({"sha256": sha256, "declared": declared.to_json()}),
        backbone=declared.backbone,
        width=declared.width,
        batch_norm=declared.batch_norm is not False,
    )

    def make(folder: Path) -> None:
        shutil.copyfile(file, folder / _file_name(declared))
        facts = {"file": file.name, "sha256": sha256, "name": str(name), "declared": declared.to_json()}
        write_json(folder / FACTS_FILE, facts)

    # All of it is read, as who brings the file anew may do so because the store's is damaged.
    store.ensure(KIND, name.digest, lambda folder: folder if sound(folder) else None, make, say)
    say(f"Teacher '{file.name}': {name}; the store has a copy.")
    return name


@dataclass(frozen=True)
class Imported:
    """A teacher file in the store."""

    file: str
    """Its name as it was given, without folders."""
    declared: Declared


def imported(store: Store, name: TeacherFile) -> Imported:
    """What is known of a teacher file.

    Raises:
        UserError: the store does not have it, whole.
    """
    facts = store.facts(KIND, name.digest, FACTS_FILE)
    if facts is None:
        raise _lost(store, name)
    return Imported(facts["file"], Declared.from_json(facts["declared"]))


def network_of(
    store: Store, name: TeacherFile, dataset: Dataset, device: torch.device | None = None
) -> tuple[Network, dict[str, np.ndarray]]:
    """The teacher, frozen, in evaluation mode; and its weights, as a student may start from them, if it is one of the
    backbones.

    Of a program that gives features, the classifier passes these on: it has none of its own.

    Raises:
        UserError: the store does not have it, whole.
    """
    declared = imported(store, name).declared
    with store.near(KIND, name.digest) as folder:
        if not sound(folder):
            raise _lost(store, name)
        try:
            network = network_from(folder / _file_name(declared), declared, dataset, device)
        except ValueError as error:
            raise UserError(f"The teacher {name} can't be used: it {cause_of(error)}.") from None
    weights = {} if name.backbone is None or name.side != dataset.image_size else arrays_of(network)
    return network, weights


def find_imported(
    store: Store, config: ImportedConfig, dataset: Dataset, device: torch.device | None = None
) -> Pretrained | None:
    """The teacher with what was measured of it on `dataset`; None where that was not done yet, or is damaged."""
    return kept.find(store, _place(config, dataset), _thaw(store, config, dataset, device))


def ensure_imported(
    store: Store,
    config: ImportedConfig,
    dataset: Dataset,
    images: TrainingImages,
    validation: EvaluationImages,
) -> tuple[Pretrained, bool]:
    """The teacher with what was measured of it, and whether that was done now.

    Args:
        store: has the file.
        config: which teacher.
        dataset: whose images these are.
        images: training images, on the scale that the teacher takes; likewise `validation`.
        validation: validation images.

    Raises:
        UserError: it is hardly better than chance.
    """
    device = validation.images.device

    def measure() -> tuple[nn.Module, kept.Facts]:
        known = imported(store, config.file)
        network, _ = network_of(store, config.file, dataset, device)
        network.to(device)
        means = _Kept(torch.zeros(0))
        if config.file.gives == "features":
            means = _Kept(_means(network, images, len(dataset.classes)))
            network.classifier = NearestMean(means.means)
        accuracy = evaluate(network, validation).accuracy
        _refuse_chance(known, config.file, accuracy, validation.labels)
        return means, {"role": config.role, "val_accuracy": accuracy, "history": [], "file": known.file}

    return kept.ensure(store, _place(config, dataset), _thaw(store, config, dataset, device), measure)


def least_accuracy(labels: Tensor) -> float:
    """What a teacher must be above: the largest class's share of `labels`, which who says but that one class has right,
    and three standard errors of such a share; a fraction."""
    share = float(labels.bincount().max()) / len(labels)
    return share + STANDARD_ERRORS * float(np.sqrt(share * (1 - share) / len(labels)))


class NearestMean(nn.Module):
    """The class whose mean is nearest to a vector of features, as logits (B, K): 2 f·m − ‖m‖², or ‖f‖² − ‖f − m‖².

    Args:
        means: of each class's features, float32 (K, D).
    """

    means: Tensor

    def __init__(self, means: Tensor):
        super().__init__()
        self.register_buffer("means", means)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, K) of features (B, D)."""
        return 2 * features @ self.means.T - self.means.square().sum(1)


class _Kept(nn.Module):
    """What is kept of a measurement: the classes' means, or nothing."""

    means: Tensor

    def __init__(self, means: Tensor):
        super().__init__()
        self.register_buffer("means", means)


def _place(config: ImportedConfig, dataset: Dataset) -> kept.Place:
    return kept.Place("pretrained", config.key(dataset.digest), config.identity(), dataset.digest)


def _thaw(
    store: Store, config: ImportedConfig, dataset: Dataset, device: torch.device | None
) -> Callable[[kept.Weights, kept.Facts], Pretrained]:
    def thaw(measured: kept.Weights, facts: kept.Facts) -> Pretrained:
        network, weights = network_of(store, config.file, dataset, device)
        if config.file.gives == "features":
            network.classifier = NearestMean(torch.tensor(measured["means"]))
        return Pretrained(
            key=config.key(dataset.digest),
            config=config,
            network=network,
            weights=weights,
            weights_digest=config.file.digest,
            val_accuracy=facts["val_accuracy"],
            history=facts["history"],
            file=facts["file"],
        )

    return thaw


@torch.no_grad()
def _means(network: Network, images: TrainingImages, classes: int) -> Tensor:
    """The mean features of each class of training images as they are, float32 (K, D)."""
    count = min(PROBED_IMAGES, len(images))
    chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(images))[:count])
    chosen = chosen.sort().values.to(images.images.device)
    looked_at = EvaluationImages(images.images[chosen], images.labels[chosen], images.mean, images.std)
    features = torch.cat([network.features(inputs).float() for inputs, _ in looked_at.batches()])
    counts = looked_at.labels.bincount(minlength=classes).clamp(min=1)
    return (sums_by_class(features, looked_at.labels, classes) / counts[:, None]).float()


def _refuse_chance(known: Imported, name: TeacherFile, accuracy: float, labels: Tensor) -> None:
    least = least_accuracy(labels)
    if accuracy >= least:
        return
    hint = "whether the order of `classes`, `mean` and `std` are those that it was trained with"
    if name.gives == "features":
        hint = "whether `mean` and `std` are those that it was trained with, and whether it gives features"
    raise UserError(
        f"The teacher '{known.file}' has {accuracy:.1%} of {len(labels)} validation images right, but a teacher must "
        f"have more than {least:.1%}, which is chance and {STANDARD_ERRORS} standard errors; see {hint}."
    )


def _lost(store: Store, name: TeacherFile) -> UserError:
    return UserError(
        f"The store '{store.location}' does not have the teacher file {name}, or it is damaged there; launch with the "
        "file itself (--teacher FILE)."
    )


def _file_name(declared: Declared) -> str:
    return "teacher.safetensors" if declared.gives == "network" else "teacher.pt2"
