"""Verdicts: by p values adjusted for their number, over five seeds at least, and of what is recorded alone."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_tune.analysis.cells import cells_of
from dfd_tune.analysis.comparisons import Comparison, compare
from dfd_tune.analysis.paired import PairedDifference
from dfd_tune.analysis.points import Interval
from dfd_tune.analysis.verdicts import FEWEST_SEEDS, headline, holm, judge, judge_cells
from tests.report.searches import (
    TEACHERS,
    confirmed,
    grid_trials,
    make_request,
    make_search,
    students,
    with_each_image,
    with_tests,
)

CHANCE = "no significant difference"


def compared(p_value, mean=0.02, seeds=FEWEST_SEEDS, fresh=True):
    """A comparison that came out with this p value."""
    paired = PairedDifference(
        difference=mean,
        seeds=seeds,
        images=360,
        standard_error=0.01,
        degrees_of_freedom=4.0,
        half=0.03,
        p_value=p_value,
        smallest_seen=0.04,
    )
    means, difference = Interval(0.9, 0.01, seeds), Interval(mean, 0.03, seeds)
    return Comparison(base=means, distilled=means, state="compared", difference=difference, paired=paired, fresh=fresh)


def verdicts(*comparisons):
    return [judgement.verdict for judgement in judge(comparisons)]


def test_holms_method_by_hand():
    # Sorted: 0.01, 0.02, 0.03, 0.04, times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, and never less than the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_method_keeps_the_order_and_lies_between_none_and_bonferroni(values):
    adjusted = holm(values)
    for value, found in zip(values, adjusted, strict=True):
        assert value <= found <= 1
    assert min(adjusted) == pytest.approx(min(1, len(values) * min(values)))
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[place] for place in order] == sorted(adjusted)


def test_a_verdict_says_which_side_a_difference_is_on():
    assert verdicts(compared(0.01)) == ["better"]
    assert verdicts(compared(0.01, mean=-0.02)) == ["worse"]
    assert verdicts(compared(0.05)) == [CHANCE]
    assert judge([compared(0.01)])[0].p_value == 0.01


def test_what_is_beyond_chance_alone_may_not_be_among_several():
    one = compared(0.03)
    assert verdicts(one) == ["better"]
    assert verdicts(one, compared(0.5)) == [CHANCE] * 2
    assert verdicts(compared(0.06), compared(0.01), compared(0.03)) == [CHANCE, "better", CHANCE]


def test_few_seeds_have_no_verdict_and_do_not_count_among_those_that_have():
    few = compared(1e-9, seeds=FEWEST_SEEDS - 1)
    assert verdicts(few, few, compared(0.03)) == ["too few seeds for a verdict"] * 2 + ["better"]
    assert [judgement.p_value for judgement in judge([few])] == [None]


def test_seeds_that_the_choice_has_seen_have_no_verdict_and_do_not_count():
    seen = compared(1e-9, seeds=20, fresh=False)
    assert verdicts(seen, seen, compared(0.03)) == ["no verdict: seeds that the choice has seen"] * 2 + ["better"]
    assert [judgement.p_value for judgement in judge([seen])] == [None]


def test_accuracies_alone_make_no_verdict():
    alone = dataclasses.replace(compared(0.01), paired=None)
    assert verdicts(alone, compared(0.03)) == ["no verdict without each image", "better"]


@pytest.mark.parametrize("state", ["not tested yet", "not confirmed", "nothing to compare"])
def test_what_is_not_compared_says_why(state):
    assert verdicts(Comparison(base=None, distilled=None, state=state)) == [state]


REQUEST = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1]})


def searched(right, request=REQUEST, **confirm):
    """A search whose cells are all confirmed, VGG-16 best on validation images, with each test image that `right` says;
    and its trials."""

    def accuracy(config):
        return {"resnet18": 0.90, "vgg16": 0.92}[config["backbone"]] + 0.05 * config["lambda_"]

    trials = grid_trials(request, accuracy)
    return confirmed(make_search(request, TEACHERS), trials, right, accuracy=accuracy, **{"cells": "all", **confirm})


def test_a_real_effect_is_found_in_every_cell_and_none_is_not():
    search, trials = searched(students(0.15))
    cells = cells_of(search, trials)
    found = judge_cells(search, cells)
    assert [judgement.verdict for judgement in found] == ["better"] * 2
    assert [judgement.comparison for judgement in found] == [compare(search, cell) for cell in cells]
    search, trials = searched(students(0.0))
    assert [judgement.verdict for judgement in judge_cells(search, cells_of(search, trials))] == [CHANCE] * 2


def test_the_same_students_chosen_and_tested_have_no_verdict_however_large_the_effect():
    request = make_request({"lambda_": [0, 1], "seed": list(range(10))})
    trials = grid_trials(request, lambda point: 0.9 + 0.05 * point["lambda_"])
    search = with_each_image(make_search(request, TEACHERS), trials, students(0.15))
    (judgement,) = judge_cells(search, cells_of(search, trials))
    assert judgement.comparison.paired.p_value < 1e-3
    assert (judgement.verdict, judgement.p_value) == ("no verdict: seeds that the choice has seen", None)


def test_fewer_than_five_fresh_seeds_have_no_verdict():
    search, trials = searched(students(0.15), seeds=FEWEST_SEEDS - 1)
    verdicts = {judgement.verdict for judgement in judge_cells(search, cells_of(search, trials))}
    assert verdicts == {"too few seeds for a verdict"}


def test_under_the_papers_protocol_there_is_no_verdict():
    trials = grid_trials(REQUEST, lambda point: 0.9 + 0.05 * point["lambda_"])
    search = with_each_image(make_search(REQUEST, TEACHERS, protocol="paper"), trials, students(0.15))
    assert {one.p_value for one in judge_cells(search, cells_of(search, trials))} == {None}
    assert headline(search, trials).judgement.verdict == "no verdict: seeds that the choice has seen"


def test_the_headline_is_of_the_best_confirmed_students_and_judged_among_all():
    search, trials = searched(students(0.04))
    found = headline(search, trials)
    cells = cells_of(search, trials)
    assert found.cell == cells[1]
    assert found.student == cells[1].confirmed.arms["student"]
    assert found.judgement == judge_cells(search, cells)[1]
    assert found.difference == found.judgement.comparison.difference


def test_the_headline_of_one_confirmed_cell_is_that_cell():
    search, trials = searched(students(0.15), cells="best")
    found = headline(search, trials)
    assert (found.cell.name, found.judgement.verdict) == ("vgg16", "better")


def test_nothing_compared_has_no_headline():
    search, trials = searched(students(0.15))
    assert headline(dataclasses.replace(search, tested={}), trials) is None
    plain = make_request({"lambda_": [0]})
    trials = grid_trials(plain, lambda point: 0.9)
    search, trials = confirmed(make_search(plain, TEACHERS), trials, students(0.15))
    assert headline(search, trials) is None


def test_without_single_images_the_headline_has_no_verdict():
    search, trials = searched(students(0.15))
    search = with_tests(dataclasses.replace(search, tests={}), trials, lambda point: 0.9)
    assert headline(search, trials).judgement.verdict == "no verdict without each image"
