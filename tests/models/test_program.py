"""Exported programs: what is loaded gives what the model gave, and what could run anything else is never loaded."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import pytest
import torch
from torch import nn

from dfd_tune.models import build_network
from dfd_tune.models.program import load_program, problem_in

SIDE = 8


def model(seed=0):
    return build_network(
        "resnet18", width=0.125, dropout=0.0, channels=1, image_size=SIDE, num_classes=3, seed=seed
    ).eval()


def exported(module, path, images=None, dynamic=True):
    images = torch.randn(2, 1, SIDE, SIDE) if images is None else images
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    torch.export.save(torch.export.export(module, (images,), dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return exported(model(), tmp_path_factory.mktemp("program") / "model.pt2")


def changed(program, path, records):
    """A copy of an archive in which some records are others; a function changes what was there as JSON."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].split("/")[0]
        known = {name.removeprefix(f"{root}/"): old.read(name) for name in old.namelist()}
        for name, content in records.items():
            if callable(content):
                value = json.loads(known[name])
                content(value)
                content = json.dumps(value).encode()
            known[name] = content
        for name, content in known.items():
            new.writestr(f"{root}/{name}", content)
    return path


def nodes_of(graph):
    return graph["graph_module"]["graph"]["nodes"]


@torch.no_grad()
def test_a_program_gives_what_its_model_gave_and_stays_as_it_is(program):
    assert problem_in(program) is None
    loaded = load_program(program)
    images = torch.randn(5, 1, SIDE, SIDE)
    torch.testing.assert_close(loaded(images), model()(images))
    assert (loaded.channels, loaded.side) == (1, SIDE)
    loaded.train()
    assert not loaded.training
    torch.testing.assert_close(loaded(images), model()(images))
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_sides_may_be_open(tmp_path):
    class Means(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3))

    path = tmp_path / "means.pt2"
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    torch.export.save(torch.export.export(Means(), (torch.randn(2, 3, 8, 9),), dynamic_shapes=shapes), path)
    loaded = load_program(path)
    assert (loaded.channels, loaded.side) == (3, None)
    assert loaded(torch.ones(4, 3, 20, 20)).shape == (4, 3)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return (open, (self.place, "w"))


def test_nothing_pickled_is_loaded(program, tmp_path):
    place = tmp_path / "went_off"
    saved = io.BytesIO()
    torch.save(Bomb(place), saved)
    attacks = [
        {"data/sample_inputs/model.pt": saved.getvalue()},
        {"data/sample_inputs/model.pt": pickle.dumps(Bomb(place))},
        {"data/weights/model.pt": saved.getvalue()},
        {"data/constants/model.pt": saved.getvalue()},
    ]

    def pickled_weight(config):
        next(iter(config["config"].values()))["use_pickle"] = True

    attacks.append(
        {"data/weights/model_weights_config.json": pickled_weight, "data/weights/weight_0": saved.getvalue()}
    )
    for name in ("custom_obj_0", "opaque_obj_0"):
        constants = {"config": {"x": {"path_name": name, "is_param": False, "use_pickle": False, "tensor_meta": None}}}
        attacks.append(
            {
                "data/constants/model_constants_config.json": json.dumps(constants).encode(),
                f"data/constants/{name}": saved.getvalue(),
            }
        )
    for number, records in enumerate(attacks):
        path = changed(program, tmp_path / f"{number}.pt2", records)
        with pytest.raises(ValueError, match="unpickled"):
            load_program(path)
    assert not place.exists()


def test_nothing_but_tensor_operations_is_called(program, tmp_path):
    targets = (
        "torch.serialization.os.system",
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "_operator.methodcaller",
        "_operator.__class__",
        "math.__loader__",
        "torch.ops.load_library",
        "#my_extension:op",
        "exec",
    )
    for number, target in enumerate(targets):

        def call(graph, target=target):
            nodes_of(graph)[0]["target"] = target

        path = changed(program, tmp_path / f"{number}.pt2", {"models/model.json": call})
        with pytest.raises(ValueError, match="no tensor operation"):
            load_program(path)


def test_expressions_of_sizes_are_arithmetic(program, tmp_path):
    place = tmp_path / "went_off"

    def sizes_of(graph, expression):
        def walk(value):
            if isinstance(value, dict):
                if "expr_str" in value:
                    value["expr_str"] = expression
                for part in value.values():
                    walk(part)
            elif isinstance(value, list):
                for part in value:
                    walk(part)

        walk(graph)

    expressions = (
        f"open('{place}', 'w')",
        "().__class__",
        "Symbol('s0').args",
        "Symbol('x y')",
        "lambda: 1",
        "print(1)",
        "1 if s0 else 2",
        "__import__('os')",
    )
    for number, expression in enumerate(expressions):
        records = {"models/model.json": lambda graph, text=expression: sizes_of(graph, text)}
        path = changed(program, tmp_path / f"{number}.pt2", records)
        with pytest.raises(ValueError, match="no arithmetic"):
            load_program(path)
    assert not place.exists()
    plain = changed(
        program, tmp_path / "plain.pt2", {"models/model.json": lambda graph: sizes_of(graph, "s7 + 2*(s0 - 1)")}
    )
    assert problem_in(plain) is None


def test_names_are_names(program, tmp_path):
    def called(graph):
        nodes_of(graph)[0]["name"] = 'x"); print("'

    def arguments(graph):
        graph["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = ["images=print(1)"]

    for number, change in enumerate((called, arguments)):
        path = changed(program, tmp_path / f"{number}.pt2", {"models/model.json": change})
        with pytest.raises(ValueError, match="no name"):
            load_program(path)


def test_guards_of_the_file_are_not_run(program, tmp_path):
    place = tmp_path / "went_off"

    def guarded(graph):
        graph["guards_code"] = [f"open({str(place)!r}, 'w') is not None"]

    loaded = load_program(changed(program, tmp_path / "guarded.pt2", {"models/model.json": guarded}))
    loaded(torch.randn(2, 1, SIDE, SIDE))
    assert not place.exists()


def test_compiled_code_other_archives_and_rubbish_are_refused(program, tmp_path):
    cases = {
        "compiled": {"data/aotinductor/model/x.so": b"\x7fELF"},
        "programs": {"models/other.json": b"{}"},
        "format": {"archive_format": b"other"},
    }
    for words, records in cases.items():
        assert words in problem_in(changed(program, tmp_path / f"{words}.pt2", records))
    rubbish = tmp_path / "rubbish.pt2"
    rubbish.write_bytes(b"PK\x03\x04" + bytes(100))
    assert "no archive" in problem_in(rubbish)
    empty = tmp_path / "empty.pt2"
    zipfile.ZipFile(empty, "w").close()
    assert "no archive" in problem_in(empty)
    whole = program.read_bytes()
    rubbish.write_bytes(whole[: len(whole) // 2])
    assert "no archive" in problem_in(rubbish)


def test_what_takes_no_batches_of_square_images_is_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3)), images.amax(dim=(2, 3))

    with pytest.raises(ValueError, match="2 outputs"):
        load_program(exported(Two(), tmp_path / "two.pt2"))
    with pytest.raises(ValueError, match="batches of 2 alone"):
        load_program(exported(model(), tmp_path / "fixed.pt2", dynamic=False))
    with pytest.raises(ValueError, match="not square"):
        load_program(exported(nn.Identity(), tmp_path / "wide.pt2", images=torch.randn(2, 1, 8, 9)))
    with pytest.raises(ValueError, match="2 dimensions"):
        load_program(exported(nn.Identity(), tmp_path / "flat.pt2", images=torch.randn(2, 8)))
