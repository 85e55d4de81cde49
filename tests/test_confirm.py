"""What is trained anew: settings of a space, fresh seeds, arms and plain training's own search, worked out by hand."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_tune.config import LARGEST_SEED
from dfd_tune.confirm import (
    AWAY,
    CONTROLS,
    DEFAULT,
    TUNED_DROPOUTS,
    TUNED_LEARNING_RATES,
    TUNED_WEIGHT_DECAYS,
    Confirm,
    arms_of,
    confirm_as_json,
    confirm_from_json,
    fresh_seeds,
    tuning_of,
    twin_of,
    with_seed,
)
from dfd_tune.errors import UserError
from dfd_tune.frozen_request import request_as_json
from dfd_tune.space import read_space
from tests.samples import digits_trial, request_for

ONE = "explore: {lambda_: [0, 1]}\n"


@pytest.fixture
def read(tmp_path):
    """Read a space from text."""

    def read_text(text):
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return read_space(str(file))

    return read_text


# What a space says.


def test_a_space_confirms_five_seeds_of_its_best_cell_unless_it_says_otherwise(read):
    assert read(ONE).confirm == DEFAULT == Confirm(seeds=5, cells="best", replicate="student", controls=())
    asked = read(ONE + "confirm: {seeds: 7, cells: all, replicate: pipeline}\ncontrols: [longer]\n").confirm
    assert asked == Confirm(seeds=7, cells="all", replicate="pipeline", controls=("longer",))
    assert read(ONE + "confirm: {seeds: 0}\n").confirm == Confirm(seeds=0)
    assert read(ONE + "confirm:\ncontrols: []\n").confirm == DEFAULT


def test_controls_stand_in_the_order_in_which_reports_show_them(read):
    backwards = ", ".join(reversed(CONTROLS))
    assert read(ONE + f"controls: [{backwards}]\n").confirm.controls == tuple(CONTROLS)
    assert read(ONE + "controls: [longer, longer]\n").confirm.controls == ("longer",)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("confirm: 5\n", 2, "`confirm` must be a mapping"),
        ("confirm: [5]\n", 2, "`confirm` must be a mapping"),
        ("confirm: {seed: 5}\n", 2, "Unknown key of `confirm` 'seed'. Did you mean 'seeds'?"),
        ("confirm: {controls: [longer]}\n", 2, "Unknown key of `confirm` 'controls'."),
        ("confirm: {seeds: -1}\n", 2, "seeds is -1, but must be a whole number at least 0 and at most 1000"),
        ("confirm: {seeds: 1001}\n", 2, "seeds is 1001, but must"),
        ("confirm: {seeds: 2.5}\n", 2, "seeds is 2.5, but must"),
        ("confirm: {seeds: true}\n", 2, "seeds is True, but must"),
        ("confirm: {seeds: none}\n", 2, "seeds is 'none', but must"),
        ("confirm: {cells: every}\n", 2, "cells is 'every', but must be one of best, all"),
        ("confirm: {replicate: students}\n", 2, "replicate is 'students', but must be one of student, pipeline (did"),
        ("confirm: {seeds: 3}\ncontrols: longer\n", 3, "controls must be a list"),
        ("controls: {longer: 1}\n", 2, "controls must be a list"),
        ("controls: [1]\n", 2, "controls must be a list"),
        ("controls: [longest]\n", 2, "Unknown control 'longest'. Did you mean 'longer'?"),
        ("confirm: {seeds: 0}\ncontrols: [longer]\n", 3, "controls need fresh seeds"),
        ("protocol: paper\nconfirm: {seeds: 3}\n", 2, "the protocol paper confirms nothing"),
        ("protocol: paper\ncontrols: [longer]\n", 2, "the protocol paper confirms nothing"),
    ],
)
def test_a_slip_is_named_with_its_line(read, tmp_path, text, line, said):
    with pytest.raises(UserError) as caught:
        read(ONE + text)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path / 'mine.yaml'}, line {line}: {said}"), problem


def test_all_slips_are_named_together(read):
    with pytest.raises(UserError) as caught:
        read(ONE + "confirm: {seeds: -1, cells: some, sseeds: 3}\ncontrols: [longest, shortest]\n")
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize("text", ["", "confirm: {seeds: 2, cells: all}\ncontrols: [longer, tuned_base]\n"])
def test_a_confirmation_survives_json(read, text):
    confirm = read(ONE + text).confirm
    assert confirm_from_json(json.loads(json.dumps(confirm_as_json(confirm)))) == confirm


# What a launch says otherwise.


def test_what_a_launch_asks_for_stands_above_the_space(tmp_path, read):
    read(ONE + "confirm: {seeds: 7, cells: all}\ncontrols: [longer]\n")
    file = tmp_path / "mine.yaml"
    assert request_for(file).confirm == Confirm(seeds=7, cells="all", controls=("longer",))
    asked = {"seeds": 2, "cells": None, "replicate": "pipeline", "controls": "tuned_base, half_longer"}
    assert request_for(file, confirm=asked).confirm == Confirm(
        seeds=2, cells="all", replicate="pipeline", controls=("half_longer", "tuned_base")
    )
    assert request_for(file, confirm={"controls": "none"}).confirm.controls == ()


def test_without_fresh_seeds_there_are_no_controls(tmp_path, read):
    read(ONE + "controls: [longer]\n")
    file = tmp_path / "mine.yaml"
    assert request_for(file, confirm={"seeds": 0}).confirm == Confirm(seeds=0)
    with pytest.raises(UserError, match="controls need fresh seeds"):
        request_for(file, confirm={"seeds": 0, "controls": "longer"})


def test_an_unknown_control_of_a_launch_is_refused():
    with pytest.raises(UserError) as caught:
        request_for("lambda_grid", confirm={"controls": "longest"})
    assert caught.value.problems[0].startswith("--controls: Unknown control 'longest'. Did you mean 'longer'?")


def test_the_papers_protocol_confirms_nothing():
    request = request_for("lambda_grid", protocol="paper")
    assert request.space.confirm.seeds > 0
    assert request.confirm == Confirm(seeds=0)
    assert request_as_json(request)["confirm"]["seeds"] == 0
    assert request_for("lambda_grid", protocol="paper", confirm={"seeds": 0}).confirm == Confirm(seeds=0)
    with pytest.raises(UserError, match="--replicate: the protocol paper confirms nothing"):
        request_for("lambda_grid", protocol="paper", confirm={"seeds": None, "replicate": "pipeline"})


# Seeds.


@given(st.integers(0, 30), st.integers(0, LARGEST_SEED), st.sets(st.integers(0, LARGEST_SEED)), st.integers(0, 60))
def test_fresh_seeds_are_distinct_and_never_seen(count, first, seen, offset):
    near = {(first + AWAY + place) % (LARGEST_SEED + 1) for place in range(offset)}  # such as would come first
    found = fresh_seeds(count, first, seen | near)
    assert len(found) == len(set(found)) == count
    assert not set(found) & (seen | near)
    assert all(0 <= seed <= LARGEST_SEED for seed in found)
    assert fresh_seeds(count + 1, first, seen | near)[:count] == found


def test_fresh_seeds_by_hand():
    assert fresh_seeds(3, 0, [0, 1, 2]) == [1000, 1001, 1002]
    assert fresh_seeds(3, 7, [1008]) == [1007, 1009, 1010]
    assert fresh_seeds(3, LARGEST_SEED - AWAY - 1, []) == [LARGEST_SEED - 1, LARGEST_SEED, 0]
    assert fresh_seeds(2, LARGEST_SEED - AWAY, [0]) == [LARGEST_SEED, 1]
    assert fresh_seeds(0, 0, []) == []


def test_a_seed_is_that_of_the_student_alone_or_of_all_that_is_trained_for_it():
    config = digits_trial(lambda_=2.0, teacher_seed=3, augment_seed=4, frontend_seed=5)
    student, pipeline = with_seed(config, 1000, "student"), with_seed(config, 1000, "pipeline")
    assert student == dataclasses.replace(config, seed=1000)
    assert student.teacher() == config.teacher()
    assert pipeline == dataclasses.replace(config, seed=1000, teacher_seed=1000, augment_seed=1000, frontend_seed=1000)
    assert pipeline.teacher() != config.teacher()


# Arms.


def test_the_arms_of_a_student_by_hand():
    student = digits_trial(lambda_=2.0, epochs=7, teacher_epochs=4)
    plain = dataclasses.replace(student, lambda_=0.0)
    tuned = dataclasses.replace(plain, learning_rate=0.2)
    assert twin_of(student) == plain
    arms = arms_of(student, list(CONTROLS), tuned)
    assert arms == {
        "student": student,
        "plain": plain,
        "half_longer": dataclasses.replace(plain, epochs=11),  # 10.5, rounded up
        "longer": dataclasses.replace(plain, epochs=11),
        "low_res_teacher": dataclasses.replace(student, teacher_sees="low_res"),
        "tuned_base": tuned,
    }
    assert list(arms) == ["student", "plain", *CONTROLS]


@pytest.mark.parametrize("control", CONTROLS)
def test_only_controls_that_are_asked_for_are_arms(control):
    student = digits_trial(lambda_=2.0)
    assert list(arms_of(student, [control], twin_of(student))) == ["student", "plain", control]


def test_plain_trainings_own_settings_wait_until_they_are_known():
    student = digits_trial(lambda_=2.0)
    assert list(arms_of(student, list(CONTROLS), None)) == ["student", "plain", *list(CONTROLS)[:-1]]


def test_a_plain_student_has_itself_alone():
    plain = digits_trial(lambda_=0.0)
    assert arms_of(plain, list(CONTROLS), plain) == {"plain": plain}


# Plain training's own settings.


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18"])
def test_plain_trainings_search_begins_with_the_students_own_settings_and_stays_within_its_ranges(backbone):
    plain = digits_trial(backbone=backbone, lambda_=0.0, learning_rate=0.02, dropout=0.1)
    found = tuning_of(plain, 40)
    assert found[0] == plain
    assert len({config.key("") for config in found}) == len(found) == 40
    ends = {
        "learning_rate": [0.02 * factor for factor in TUNED_LEARNING_RATES],
        "weight_decay": TUNED_WEIGHT_DECAYS,
        "dropout": TUNED_DROPOUTS,
    }
    for config in found:
        for name, (low, high) in ends.items():
            assert low <= getattr(config, name) <= high
        changed = {name for name, value in vars(config).items() if value != getattr(plain, name)}
        assert changed <= set(ends)
    # Spread over the whole of each range, on a logarithmic scale: some of 40 in each outer quarter.
    for name in ("learning_rate", "weight_decay"):
        low, high = ends[name]
        quarter = (high / low) ** 0.25
        values = [getattr(config, name) for config in found]
        assert min(values) < low * quarter
        assert max(values) > high / quarter


def test_a_network_without_dropout_keeps_the_setting():
    residual = digits_trial(backbone="resnet18", lambda_=0.0, dropout=0.1)
    assert {config.dropout for config in tuning_of(residual, 10)} == {0.1}
    assert len({config.dropout for config in tuning_of(digits_trial(backbone="vgg16", lambda_=0.0), 10)}) == 10


def test_plain_trainings_search_is_the_same_again_and_a_longer_one_begins_with_it():
    plain = digits_trial(lambda_=0.0)
    assert tuning_of(plain, 9) == tuning_of(plain, 9)
    assert tuning_of(plain, 12)[:9] == tuning_of(plain, 9)
    assert tuning_of(plain, 1) == [plain]


def test_no_learning_rate_is_above_what_is_allowed():
    assert max(config.learning_rate for config in tuning_of(digits_trial(lambda_=0.0, learning_rate=60.0), 30)) <= 100
