"""Whatever a YAML file or `--set` says: it is a plan, or it is refused in plain sentences. Never a traceback."""

import dataclasses
import json
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfd_tune.api import default_name
from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.confirm import CONTROLS
from dfd_tune.criteria import CRITERIA, DEFAULT
from dfd_tune.data.sources import SOURCES
from dfd_tune.errors import UserError
from dfd_tune.frozen_request import request_as_json, request_from_json
from dfd_tune.plan import Plan, make_plan
from dfd_tune.plan import describe as describe_plan
from dfd_tune.rules import kinds_of, settings_of
from dfd_tune.samplers import SAMPLERS, drawing
from dfd_tune.settings import resolve
from dfd_tune.show_config import describe
from dfd_tune.space import read_space
from dfd_tune.store import problem_with_name
from tests.samples import tiny_dataset

DATASET = tiny_dataset(train=40, image_size=8)
EVERYTHING = list(HealthCheck)
FEW = settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=EVERYTHING)
MANY = settings(FEW, max_examples=500)

NAMES = [*settings_of(TrialConfig), *settings_of(DatasetConfig)]
SETTABLE = [name for name in NAMES if name not in ("dataset", "data")]
WORDS = ["none", "own", "auto", "1/2", "1/4", "1/3", "1/0", "1e-3", "0x1", "true", "nan", ".inf", "2024-13-45", "λ", ""]
SLIPS = ["", " ", "\n", "\t", ":", "[", "]", "{", "'", "&a ", "*a", "!!", "-", "\\", '"\\ud800"', "? "]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=5),
    st.dates(),
    st.binary(max_size=3),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["low", "high", "log", "step", "a"]), st.integers(0, 3), max_size=3),
)


FITTING = {
    "resolution": [2, 3, 4, "1/2", "1/4"],
    "width": [0.05, 0.125, "0.2"],
    "crop_padding": [0, 1, 7],
    "workers": [1, 2, 3],
    "batch_size": [8, 17, 40],
    "hint_layer": ["middle", "block1"],
    "teacher_file": ["none", "cat.pt2", "features-d7-s8-0123456789abcdef", "logits-d10-s16-fedcba9876543210"],
    "jpeg_quality": [None, "none", 1, 100],
    "frontend": ["none", "vdsr", "espcn", "srgan"],
}
"""Of settings whose values must fit the images or each other, or make a plan slow."""


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Values that the setting may take."""
    if name in FITTING:
        return st.sampled_from(FITTING[name])
    config = TrialConfig if name in settings_of(TrialConfig) else DatasetConfig
    limits, kind = settings_of(config)[name].metadata, kinds_of(config)[name]
    options = get_args(kind)
    if type(None) in options:
        kind, options = next(option for option in options if option is not type(None)), ()
    if limits["joined"]:
        return st.sampled_from([*limits["joined"], "own", "vgg16+resnet18", ["vgg16", "alexnet"]])
    if options or limits["words"]:
        return st.sampled_from(options or [*limits["words"]])
    if kind is bool:
        return st.booleans()
    low = limits["low"] if limits["above"] is None else limits["above"] + 0.001
    high = low + 40 if limits["high"] is None else min(limits["high"], low + 40)
    if kind is int:
        return st.integers(int(low), int(high))
    return st.one_of(st.floats(low, high), st.sampled_from([low, high, f"{low:.1e}"]))


def ranges_of(name: str) -> st.SearchStrategy[Any]:
    ends = st.tuples(values_of(name), values_of(name)).map(lambda pair: sorted(pair, key=lambda end: float_of(end)))
    log_or_step = st.sampled_from([{}, {"log": True}, {"log": False}, {"step": 1}, {"step": 0.25}, {"step": "1e-1"}])
    return st.tuples(ends, log_or_step).map(lambda parts: dict(zip(("low", "high"), parts[0], strict=True)) | parts[1])


def float_of(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


class Slips:
    """What is drawn for one example: nothing wrong, one thing in a few, or one in two."""

    def __init__(self, draw: Any):
        self.draw = draw
        self.rate = draw(st.sampled_from([0, 0, 0, 1, 5]))

    def __call__(self, good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any] = JUNK) -> Any:
        slips = self.rate and self.draw(st.integers(1, 10)) <= self.rate
        return self.draw(bad if slips else good)

    def axis(self, name: str, sampler: Any) -> Any:
        if sampler != "grid" and kinds_of(TrialConfig).get(name) in (int, float) and self.draw(st.booleans()):
            return self(ranges_of(name), st.dictionaries(st.sampled_from(["low", "high", "log", "Step"]), JUNK))
        values = self.draw(st.lists(values_of(name), min_size=self(st.just(1), st.just(0)), max_size=3, unique_by=repr))
        return self(st.just([self(st.just(value)) for value in values]))

    def confirm(self) -> dict[Any, Any]:
        """Keys of `confirm`, a few of them."""
        values = {
            "seeds": st.integers(0, 6),
            "cells": st.sampled_from(["best", "all"]),
            "replicate": st.sampled_from(["student", "pipeline"]),
        }
        names = self.draw(st.lists(st.sampled_from([*values]), max_size=3, unique=True))
        return {self(st.just(name), st.text(max_size=8)): self(values[name]) for name in names}


@st.composite
def spaces(draw) -> dict[Any, Any]:
    slips = Slips(draw)
    sampler = slips(st.sampled_from(["grid", "grid", *SAMPLERS]))
    trial_settings = [name for name in settings_of(TrialConfig) if name not in ("augment_seed", "workers")]
    some = st.lists(st.sampled_from(trial_settings), min_size=slips.rate == 0, max_size=3, unique=True)
    explore = {
        slips(st.just(name), st.one_of(st.sampled_from(NAMES), st.text(max_size=8), st.integers())): slips.axis(
            name, sampler
        )
        for name in draw(some)
        if not (name == "seed" and sampler in drawing() and slips.rate == 0)
    } or {"lambda_": [0, 1]}
    content: dict[Any, Any] = {"explore": slips(st.just(explore)), "sampler": sampler}
    if slips(st.just(sampler != "grid"), st.booleans()) is True:
        content["trials"] = slips(st.integers(1, 50))
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(SETTABLE), max_size=4))
        free = {name: slips(values_of(name)) for name in names if name not in explore or slips.rate}
        content["settings"] = slips(st.just(free))
    if sampler == "grid" and draw(st.booleans()):
        name = draw(st.sampled_from(list(explore)))
        values = explore[name] if isinstance(explore[name], list) and explore[name] else [0]
        content["only"] = slips(st.just([{name: slips(st.sampled_from(values))}]))
    if draw(st.booleans()):
        content["confirm"] = slips(st.just(slips.confirm()))
    if draw(st.booleans()):
        content["controls"] = slips(
            st.just([slips(st.sampled_from([*CONTROLS])) for _ in range(draw(st.integers(0, 3)))])
        )
    if draw(st.booleans()):
        content["protocol"] = slips(st.sampled_from(["paper", "validation"]))
        content["description"] = slips(st.text(max_size=5))
        content |= {"sampler": content["sampler"]} if slips.rate == 0 else {draw(st.text(max_size=3)): 1}
    if draw(st.booleans()):
        by = [*CRITERIA] if slips.rate or content.get("protocol") != "paper" else [DEFAULT]
        content["choose_by"] = slips(st.sampled_from(by))
    return content


@st.composite
def texts(draw) -> str:
    """A YAML file: of a space; of one with a slip of the pen; or anything."""
    kind = draw(st.sampled_from(["space"] * 6 + ["slip"] * 3 + ["anything"]))
    if kind == "anything":
        return draw(st.text(max_size=60))
    text = yaml.safe_dump(draw(spaces()), allow_unicode=True, sort_keys=False)
    for _ in range(draw(st.integers(1, 2)) if kind == "slip" else 0):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(SLIPS)) + text[place + draw(st.integers(0, 3)) :]
    return text


@st.composite
def assignments(draw) -> list[str]:
    slips, texts = Slips(draw), []
    for name in draw(st.lists(st.sampled_from(SETTABLE), max_size=3)):
        value = (
            slips(values_of(name)) if draw(st.booleans()) else slips.axis(name, "grid" if slips.rate == 0 else "tpe")
        )
        text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n...")[0]
        texts.append(slips(st.just(f"{name}={text.strip()}"), st.text(max_size=20)))
    return texts


def planned(space: str, given_assignments: list[str], dataset: str = "digits", **options: Any) -> None:
    """Plan it, or see it refused as it should be."""
    try:
        request = resolve(
            read_space(space),
            dataset=dataset,
            data=None,
            recipe=SOURCES[dataset].recipe,
            assignments=given_assignments,
            **options,
        )
        plan = make_plan(request, DATASET, bank_budget=10**6, vgg19_at_hand=False)
    except UserError as error:
        problems = error.problems
    else:
        check(plan)
        return
    assert problems
    for problem in problems:
        assert problem == problem.strip()
        assert problem.isprintable(), repr(problem)
        assert problem.endswith((".", "?")), repr(problem)


def check(plan: Plan) -> None:
    """All that is done with a plan before anything runs can be done with this one."""
    request = plan.request
    for row in describe(request):
        assert all(isinstance(cell, str) for cell in row)
    assert problem_with_name(default_name(request)) is None
    assert all("\n" not in line for line in describe_plan(plan))
    frozen = json.loads(json.dumps(request_as_json(plan.request), allow_nan=False))
    assert repr(request_from_json(frozen, search="s")) == repr(plan.request)
    json.dumps(frozen, ensure_ascii=False).encode()  # a file takes it
    assert plan.num_trials >= 1
    assert len(list(plan.confirming.trials())) == plan.num_anew
    assert all(dataclasses.asdict(config) for config in plan.trials.values())


@pytest.fixture(scope="module")
def planned_text(tmp_path_factory):
    """Plan the space that a file with this text is, or see it refused as it should be."""
    file = tmp_path_factory.mktemp("spaces") / "space.yaml"

    def plan_text(text: str) -> None:
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        planned(str(file), [])

    return plan_text


CONFIRMS = [
    {"seeds": 0},
    {"seeds": 1, "cells": "all", "controls": "tuned_base, longer"},
    {"seeds": 0, "controls": "longer"},
    {"replicate": "pipeline", "controls": "none"},
    {"controls": "\ud800,\n"},
]
"""What the options of a launch say of confirming."""


@FEW
@given(text=texts())
def test_any_space_is_a_plan_or_refused_in_sentences(planned_text, text):
    planned_text(text)


@pytest.mark.slow
@MANY
@given(text=texts())
def test_any_of_many_spaces_is_a_plan_or_refused_in_sentences(planned_text, text):
    planned_text(text)


any_assignments = given(
    st.sampled_from(["lambda_grid", "tpe_all", "random_all", "table2"]),
    assignments(),
    st.sampled_from([None] * 8 + [0, 3, -1, 200_000]),
    st.sampled_from([None] * 4 + CONFIRMS),
)


@FEW
@any_assignments
def test_any_assignment_is_a_plan_or_refused_in_sentences(space, given_assignments, trials, confirm):
    planned(space, given_assignments, trials=trials, confirm=confirm)


@pytest.mark.slow
@MANY
@any_assignments
def test_any_of_many_assignments_is_a_plan_or_refused_in_sentences(space, given_assignments, trials, confirm):
    planned(space, given_assignments, trials=trials, confirm=confirm)


@pytest.mark.parametrize(
    "text",
    [
        'explore: {lambda_: [0, 1]}\ndescription: "\\ud800"\n',
        'explore: {lambda_: [0, 1]}\ndescription: "\\e[31m\\0\\n"\n',
        "explore: &a {lambda_: *a}\n",
        "explore: {lambda_: &a [0, *a]}\n",
        "a: &a {lambda_: [0, 1]}\nexplore: {<<: *a}\n",
        "explore: {<<: {lambda_: [0, -1]}}\n",
        f"explore: {{resolution: ['1/{'9' * 5000}']}}\n",
        f"explore: {{epochs: [{'9' * 5000}]}}\n",
        f"explore: {{epochs: [{'9' * 500}], lambda_: [{'9' * 500}]}}\n",
        f"explore: {{lambda_: {'[' * 3000}\n",
        "explore: {lambda_: [0, 1]}\nonly: [{lambda_: [[0]]}, {1: 0}, {lambda_: {}}]\n",
        "explore: {lambda_: [0, 1]}\nonly: [{lambda_: 1}, {}]\n",
        "explore: {? [1, 2] : 3}\n",
        "explore: {? {a: b} : 3, null: 1, 1: 2, 2020-01-01: 4}\n",
        "sampler: [grid]\nprotocol: {}\ntrials: .nan\nexplore: {seed: {low: 0, high: 3}}\n",
        "sampler: tpe\ntrials: true\nexplore: {lambda_: {low: .nan, high: .inf, log: 1, step: .nan}}\n",
        "sampler: tpe\ntrials: 3\nexplore: {lambda_: {low: 0, high: 1e6, step: 5e-324}}\n",
        "sampler: tpe\ntrials: 3\nexplore: {seed: {low: 0, high: 3}}\n",
        "!!python/object/apply:os.system [ls]\n",
        "",
        "---\nexplore: {lambda_: [0]}\n---\nexplore: {lambda_: [1]}\n",
        "explore: {lambda_: [0, 1]}\nconfirm: {seeds: 1e3, ? [cells] : all, 1: 2}\ncontrols: {longer: 1}\n",
        "explore: {lambda_: [0, 1]}\nconfirm: {seeds: &a [*a]}\ncontrols: &b [longer, *b, 2024-01-01, '\\ud800']\n",
        "explore: {lambda_: [0, 1], seed: [0, 1]}\nconfirm: {seeds: 20, cells: all, replicate: pipeline}\n",
        pytest.param(
            "explore: {lambda_: [0, 1], seed: [0, 1]}\nconfirm: {seeds: 1000, cells: all, replicate: pipeline}\n",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_spaces_that_are_out_to_break_it(planned_text, text):
    planned_text(text)


@pytest.mark.parametrize(
    "assignment",
    [
        f"resolution=1/{'9' * 5000}",
        f"epochs={'9' * 5000}",
        f"lambda_={'9' * 500}",
        f"lambda_={'[' * 3000}",
        "lambda_=&a [*a]",
        "lambda_={low: 1, high: 0}",
        "epochs=\ud800",
        'teachers="\\ud800"',
        "teachers=[[own]]",
        "train_images=1e400",
        "\n=\n",
        "=",
        "dataset=x",
        "data=/",
    ],
)
def test_assignments_that_are_out_to_break_it(assignment):
    planned("lambda_grid", [assignment])
    planned("tpe_all", [assignment])
