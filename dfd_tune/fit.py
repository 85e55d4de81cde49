"""Whether a request fits a dataset: sides, batches and layers that it has room for, and networks that can be at hand.

Not for: what a request may say at all (settings.py, space.py), nor for what it comes to (plan.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from dfd_tune.axes import Choice, Range, grid_points, point_at
from dfd_tune.backbones import is_other
from dfd_tune.bring import teacher_files
from dfd_tune.data.prepared import Dataset
from dfd_tune.distill.networks import feature_dim_of
from dfd_tune.methods import METHODS
from dfd_tune.models import layer_problem, network_problem
from dfd_tune.parts import FRONTEND_FACTOR, NetworkConfig
from dfd_tune.rules import OWN
from dfd_tune.settings import Request
from dfd_tune.teacher_file import TeacherFile, parse

BEFORE_THE_SEARCH = ("width", "crop_padding", "resolution", "blur", "noise", "jpeg_quality")
"""Settings that decide networks or images which are made before the search; `teacher_*` and `frontend_*` do too."""
SMALL_GRID = 100_000
"""A grid of more points than this is a slip of the pen."""


def misfits(request: Request, dataset: Dataset) -> list[str]:
    """What of `request` does not fit `dataset`, one sentence a problem."""
    problems = []
    workers = request.settings["workers"]
    size = 1
    for axis in request.explore.values():
        size *= len(axis.values) if isinstance(axis, Choice) else 1
    if size > SMALL_GRID:
        problems.append(f"The space spans {size} combinations, but {SMALL_GRID} is the most; shorten its lists.")
    for name, axis in request.explore.items():
        decides_network = name in BEFORE_THE_SEARCH or name.startswith(("teacher_", "frontend_"))
        if decides_network and isinstance(axis, Range):
            problems.append(f"{name} has a range, but each value needs a teacher or images of its own; give a list.")
    for resolution in request.possible("resolution"):
        if resolution >= dataset.image_size:
            problems.append(
                f"resolution is {resolution}, but must be below the image size of the dataset, "
                f"{dataset.image_size} pixels."
            )
    problems += _misfits_of_front_ends(request, dataset)
    found = [_misfit_of_network(*network, dataset) for network in _networks(request)]
    unfit = [problem for problem in dict.fromkeys(found) if problem is not None]
    problems += unfit
    problems += _misfits_of_teacher_files(request, dataset)
    if any("maps" in METHODS[method].outputs for method in request.possible("method")):
        files = [file.backbone for file in teacher_files(request) if file.backbone is not None]
        for backbone in dict.fromkeys([*request.backbones(), *files]):
            for layer in request.possible("hint_layer"):
                if (problem := layer_problem(backbone, layer)) is not None:
                    problems.append(problem)
    if size <= SMALL_GRID and not unfit:
        problems += _misfits_of_reused_classifiers(request, dataset)
    for padding in request.possible("crop_padding"):
        if padding >= dataset.image_size:
            problems.append(
                f"crop_padding is {padding}, but must be below the image size, {dataset.image_size} pixels."
            )
    shares = [("batch_size", workers), ("teacher_batch_size", 1)]
    if "srgan" in request.possible("frontend"):
        shares.append(("frontend_batch_size", 1))
    for name, sharing in shares:
        for batch_size in request.possible(name):
            smallest = _smallest_share(len(dataset.train.labels), int(batch_size), sharing)
            if smallest < 2:
                problems.append(
                    f"{name} is {batch_size}, which leaves one of {sharing} workers with {smallest} of "
                    f"{len(dataset.train.labels)} images in some step, but batch norm needs 2; give a larger one."
                )
    return problems


def _misfits_of_front_ends(request: Request, dataset: Dataset) -> list[str]:
    kinds = [kind for kind in request.possible("frontend") if kind != "none"]
    return [
        f"frontend {', '.join(kinds)} at resolution {resolution} gives {FRONTEND_FACTOR * resolution} pixels, but the "
        f"images have {dataset.image_size}; take a resolution of at most {dataset.image_size // FRONTEND_FACTOR}, or "
        "frontend none."
        for resolution in request.possible("resolution")
        if kinds and dataset.image_size > resolution > dataset.image_size // FRONTEND_FACTOR
    ]


def _misfits_of_reused_classifiers(request: Request, dataset: Dataset) -> list[str]:
    """A sentence for each backbone and teachers that a method would put another classifier on, which does not fit."""
    if not any(METHODS[method].reuses_classifier for method in request.possible("method")):
        return []
    problems: dict[str, None] = {}
    for point in _distilling_points(request):
        method, backbone, teachers, width = (point[name] for name in ("method", "backbone", "teachers", "width"))
        file = None if point["teacher_file"] is None else parse(point["teacher_file"])
        if not METHODS[method].reuses_classifier or (file is None and teachers in (OWN, backbone)):
            continue
        if file is not None:
            ours = feature_dim_of(dataset, NetworkConfig(backbone, width, 0.0, point["batch_norm"]))
            if file.gives != "network" or file.dim == ours:
                continue  # of a program it is said elsewhere
            problem = f"teacher_file has {file.dim} features and {backbone} at width {width:g} {ours}"
        elif "+" in teachers:
            problem = f"{teachers} are several"
        else:
            ours, theirs = (
                feature_dim_of(dataset, NetworkConfig(name, width, 0.0, point["batch_norm"]))
                for name in (backbone, teachers)
            )
            if ours == theirs:
                continue
            problem = f"{teachers} has {theirs} features at width {width:g} and {backbone} {ours}"
        problems[
            f"method {method} gives the student its teacher's classifier, which takes one teacher of as many features "
            f"as the student, but {problem}; set teachers=own, or take another method."
        ] = None
    return [*problems]


def _distilling_points(request: Request) -> Iterator[dict[str, Any]]:
    """The settings at each point with λ above 0 that a search may come to; a range is stood for by its upper end."""
    choices = {name: axis for name, axis in request.explore.items() if isinstance(axis, Choice)}
    ends = {name: axis.high for name, axis in request.explore.items() if isinstance(axis, Range)}
    for point in grid_points(choices):
        settings = {**request.settings, **point_at(ends | point, request.explore)}
        if settings["lambda_"] > 0 and request.allows(point):
            yield settings


def _misfits_of_teacher_files(request: Request, dataset: Dataset) -> list[str]:
    files = teacher_files(request)
    if not files:
        return []
    problems = []
    for file in files:
        for method in request.possible("method"):
            if file.gives != "network" and not METHODS[method].takes(file.gives):
                able = [name for name, known in METHODS.items() if known.takes(file.gives)]
                needs = " and ".join(dict.fromkeys(METHODS[method].outputs))
                if METHODS[method].reuses_classifier:
                    needs += " and takes the teacher's classifier"
                problems.append(
                    f"method is {method}, which compares {needs}, but teacher_file is a program that gives "
                    f"{file.gives} alone; take {' or '.join(able)}, or another file."
                )
        if "teacher" in request.possible("student_start"):
            problems += _misfit_of_start(request, dataset, file)
    if request.named_teachers() and "high_res" in request.possible("teacher_sees"):
        problems.append("teachers names backbones that are trained here, beside teacher_file; leave one of them out.")
    if "longer" in request.confirm.controls:
        problems.append(
            "The control longer trains for the teacher's epochs as well, which of a teacher_file are not known; take "
            "half_longer."
        )
    return problems


def _misfit_of_start(request: Request, dataset: Dataset, file: TeacherFile) -> list[str]:
    """Why students can't start from the weights of a teacher file, as a sentence; nothing, if they can."""
    parts = [request.possible(name) for name in ("backbone", "width", "batch_norm")]
    students = {(*network, dataset.image_size) for network in itertools.product(*parts)}
    if students == {(file.backbone, file.width, file.batch_norm, file.side)}:
        return []
    return [
        f"student_start is teacher, but teacher_file ({file}) is not the student's own network, of the same backbone, "
        f"width, batch norm and images of {dataset.image_size} pixels; start from scratch or base."
    ]


def missing_weights(request: Request, vgg19_at_hand: bool) -> list[str]:
    """A sentence if SRGAN is to be trained with the features of a network that is not there."""
    asked = "srgan" in request.possible("frontend") and "vgg19" in request.possible("frontend_content")
    if not asked or vgg19_at_hand:
        return []
    return [
        "frontend_content is vgg19, but its weights are not at hand: put torchvision's vgg19-dcbb9e9d.pth into the "
        "folder `downloads` of the store, or set frontend_content=teacher."
    ]


def _networks(request: Request) -> Iterator[tuple[str, float, bool]]:
    """Backbone, width and batch norm of the students and teachers that a request asks for, each combination once; none
    where all backbones are the package's own, which take whatever may be asked for."""
    if not any(is_other(name) for name in request.backbones()):
        return
    wanted = {"backbone", "teachers", "width", "batch_norm", *(name for only in request.only for name in only)}
    for name, axis in reversed(list(request.explore.items())):
        wanted |= {other for other, _ in axis.when} if name in wanted else set()
    axes = {
        name: axis if isinstance(axis, Choice) else Choice((axis.low, axis.high), axis.when)
        for name, axis in request.explore.items()
        if name in wanted
    }
    found: dict[tuple[str, float, bool], None] = {}
    for point in grid_points(axes):
        if request.allows(point):
            at = {**request.settings, **point}
            teachers = [] if at["teachers"] == OWN else at["teachers"].split("+")
            found |= {(name, at["width"], at["batch_norm"]): None for name in (at["backbone"], *teachers)}
    yield from found


def _misfit_of_network(backbone: str, width: float, batch_norm: bool, dataset: Dataset) -> str | None:
    return network_problem(
        backbone, width=width, batch_norm=batch_norm, channels=dataset.channels, image_size=dataset.image_size
    )


def _smallest_share(images: int, batch_size: int, workers: int) -> int:
    """The fewest images that a worker gets in a step, as batches differ in size by at most one."""
    return images // math.ceil(images / batch_size) // workers
