"""A `torch.export` program (.pt2) as a module: looked into before torch reads it, then loaded, frozen.

`torch.export.load` unpickles some parts of an archive, evaluates the expressions of sizes, and looks up by name what a
node calls. So the archive is read as a zip file first, and what of it would run anything but tensor operations is
refused: see `problem_in`. That keeps a file from running code as it is loaded, as far as torch's own readers of tensors
can be trusted; it is no promise about a file of somebody whom you don't trust. Not for: what a program's numbers mean
(distill/declared.py).
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfd_tune.errors import cause_of

MOST_GRAPH_BYTES = 256_000_000
"""Of the graph's text; that of a ResNet-152 has some 5 MB."""

_TORCH_SAVED = re.compile(r"data/(weights|constants|sample_inputs)/[^/]+\.pt")
"""Records that torch.export.load reads with torch.load."""
_OPERATORS = re.compile(r"torch\.ops\.(aten|prims|torchvision)\.\w+(\.\w+)?|_operator\.[a-z_]+|math\.[a-z_0-9]+")
_WRAPPERS = re.compile(r"torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast)|torch\.sym_[a-z_]+")
_FORBIDDEN = re.compile(
    r"torch\.ops\.aten\.(from_file|save|load)\b.*|_operator\.(call|methodcaller|attrgetter|itemgetter)"
)
"""Of the operators: those that touch files, and those that call what they are given."""
_NAME = re.compile(r"[\w.:\[\]/-]*")
_FREE_TEXT = frozenset(
    ("metadata", "in_spec", "out_spec", "as_string", "as_strings", "guards_code", "torch_version", "expr_str")
)
"""Keys whose text is never made into code: as_string and the like are written as literals, expr_str is checked apart,
guards_code is left alone by loading without guards."""
_SYMBOL = re.compile(r"'?[a-z]+[0-9]+'?")
_SYMPY_WORDS = re.compile(
    "Symbol|Integer|Rational|Float|Add|Mul|Pow|Mod|Max|Min|Abs|FloorDiv|ModularIndexing|PythonMod|CleanDiv|CeilToInt|"
    "FloorToInt|CeilDiv|IntTrueDiv|FloatTrueDiv|TruncToInt|ToFloat|Eq|Ne|Equality|Unequality|Le|Lt|Ge|Gt|LessThan|"
    "StrictLessThan|GreaterThan|StrictGreaterThan|And|Or|Not|floor|ceiling|True|False|positive|nonnegative|integer|"
    "real|nonzero|evaluate"
)


class Program(nn.Module):
    """An exported program with its weights. It has one mode alone, that in which it was exported."""

    def __init__(self, module: nn.Module, channels: int | None, side: int | None):
        super().__init__()
        self.module = module
        self.channels = channels
        """Of the images that it takes; None if any number will do. Likewise `side`, in pixels."""
        self.side = side
        self.requires_grad_(False)
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """What it gives, (B, D), for images, float32 (B, C, S, S)."""
        found: Tensor = self.module(images)
        return found

    def train(self, mode: bool = True) -> Program:
        """Nothing: an exported module refuses the call."""
        return self


def problem_in(path: Path) -> str | None:
    """Why a program is not loaded, as a phrase that goes on with "it"; None if nothing stands against it.

    Refused are: what is no archive of `torch.export.save`; more than one program; compiled code; pickled tensors,
    custom objects and anything else that torch's `weights_only` reader does not take; nodes that call anything but the
    tensor operations of torch and torchvision, arithmetic, and switches of gradients and autocast; expressions of sizes
    that are more than arithmetic; names that could be anything but names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _problem_in(archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, KeyError, RecursionError, ValueError) as error:
        return f"is no archive that torch.export.save wrote ({cause_of(error)})"


def load_program(path: Path, device: torch.device | None = None) -> Program:
    """The program in a file, frozen.

    Args:
        path: of the file.
        device: where it is to run; None is the CPU.

    Raises:
        ValueError: it is refused, or can't be read; the message is a phrase that goes on with "it".
    """
    problem = problem_in(path)
    if problem is not None:
        raise ValueError(problem)
    with warnings.catch_warnings(), _without_log():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.load(path)
            if device is not None and device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, device)
            inputs = _image_inputs(program)
            # Guards are code in the file's own words.
            silent = {"check_guards": False} if "check_guards" in inspect.signature(program.module).parameters else {}
            return Program(program.module(**silent), *inputs)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"can't be read by torch {torch.__version__} ({cause_of(error)})") from None


def _image_inputs(program: torch.export.ExportedProgram) -> tuple[int | None, int | None]:
    """Channels and side of the images that a program takes.

    Raises:
        ValueError: it takes or gives something else than one tensor.
    """
    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise ValueError(
            f"takes {len(signature.user_inputs)} inputs and gives {len(signature.user_outputs)} outputs, but must take "
            "a batch of images alone and give one tensor"
        )
    (shape,) = (
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in signature.user_inputs
    )
    if len(shape) != 4:
        raise ValueError(f"takes a tensor of {len(shape)} dimensions, but must take images (B, C, S, S)")
    batch, channels, height, width = (size if isinstance(size, int) else None for size in shape)
    if batch is not None:
        raise ValueError(f"takes batches of {batch} alone; export it with a dynamic first dimension")
    if height != width:
        raise ValueError("takes images that are not square")
    return channels, height


def _problem_in(archive: zipfile.ZipFile) -> str | None:
    names = archive.namelist()
    root = names[0].split("/")[0] if names else ""
    records = [name.removeprefix(f"{root}/") for name in names]
    if any(not name.startswith(f"{root}/") for name in names) or len(set(names)) < len(names):
        return "is no archive that torch.export.save wrote"
    if "archive_format" not in records or archive.read(f"{root}/archive_format") != b"pt2":
        return "is no archive of the format pt2, which torch.export.save writes since torch 2.8; export it anew"
    models = [record for record in records if record.startswith("models/")]
    if models != ["models/model.json"]:
        return f"holds {len(models)} programs, but must hold one, called `model`"
    if any(record.startswith("data/aotinductor/") for record in records):
        return "holds compiled code, which is not run; export it with torch.export.save"
    for record in records:
        if _TORCH_SAVED.fullmatch(record) and not _is_tensors(archive.read(f"{root}/{record}")):
            return f"holds '{record}', which would have to be unpickled; export it anew with plain tensors"
    return _pickled(archive, root, records) or _problem_in_graph(archive, f"{root}/models/model.json")


def _is_tensors(content: bytes) -> bool:
    """Whether torch's restricted reader, which knows tensors and plain containers alone, takes it."""
    if not content:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        return True
    except Exception:
        return False


def _pickled(archive: zipfile.ZipFile, root: str, records: list[str]) -> str | None:
    for record in records:
        if not re.fullmatch(r"data/(weights|constants)/\w+_config\.json", record):
            continue
        for name, payload in json.loads(archive.read(f"{root}/{record}"))["config"].items():
            path = str(payload["path_name"])
            raw = payload["use_pickle"] is False and re.fullmatch(r"(weight|tensor)_[0-9]+", path)
            if not raw or _NAME.fullmatch(name) is None:
                return f"holds '{name}', which would have to be unpickled; export it anew with plain tensors"
    return None


def _problem_in_graph(archive: zipfile.ZipFile, name: str) -> str | None:
    if archive.getinfo(name).file_size > MOST_GRAPH_BYTES:
        return f"has a graph of more than {MOST_GRAPH_BYTES / 1e6:g} MB"
    text = archive.read(name).decode("utf-8")
    if "__enum__" in text:  # of which torch would import the module
        return "takes or gives something else than plain tensors"
    return next(_problems_in_value(json.loads(text), None), None)


def _problems_in_value(value: Any, key: str | None) -> Iterator[str]:
    """What is wrong with a part of the graph, and with what it holds, as phrases."""
    if isinstance(value, dict):
        if "target" in value and "inputs" in value and not _is_operator(value["target"]):
            yield f"calls '{value['target']}', which is no tensor operation"
        for name, part in value.items():
            if _NAME.fullmatch(name) is None:
                yield f"has something called '{name[:40]}', which is no name"
            elif name in ("as_custom_obj", "as_opaque", "custom_obj") and part:
                yield "holds an object that is no tensor"
            elif name == "as_operator" and not _is_operator(part):
                yield f"hands on '{part}', which is no tensor operation"
            elif name == "expr_str" and not _is_arithmetic(part):
                yield "holds something in its description of sizes that is no arithmetic"
            elif name not in _FREE_TEXT:
                yield from _problems_in_value(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _problems_in_value(part, key)
    elif isinstance(value, str) and not (
        value.isidentifier() if key == "forward_arg_names" else _NAME.fullmatch(value)
    ):
        yield f"has something called '{value[:40]}', which is no name"


def _is_operator(target: Any) -> bool:
    if not isinstance(target, str) or "__" in target or _FORBIDDEN.fullmatch(target):
        return False
    return bool(_OPERATORS.fullmatch(target) or _WRAPPERS.fullmatch(target))


def _is_arithmetic(expression: Any) -> bool:
    """Whether an expression of sizes has nothing in it but symbols, numbers and arithmetic: sympy evaluates it."""
    if not isinstance(expression, str) or re.search(r"[^\w\s'(),=<>+*/.-]|\.\s*[A-Za-z_]", expression):
        return False
    words = re.findall(r"'[^']*'|[A-Za-z_]\w*", expression)
    if expression.count("'") != 2 * sum(word.startswith("'") for word in words):
        return False
    return all(_SYMPY_WORDS.fullmatch(word) or _SYMBOL.fullmatch(word) for word in words)


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """torch writes a traceback into its log where it goes on to try an older format."""
    log = logging.getLogger("torch.export")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
