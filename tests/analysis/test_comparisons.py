"""What the test images say of a cell, from made-up trials whose numbers can be worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest

from dfd_tune.analysis.cells import cells_of
from dfd_tune.analysis.comparisons import (
    compare,
    compare_controls,
    high_resolution,
    pair_of,
    pooled,
    teachers_of,
)
from dfd_tune.analysis.paired import as_differences, difference_of, gap_recovered, paired_difference
from dfd_tune.analysis.points import Interval
from dfd_tune.analysis.points import tested_accuracy as accuracy_once_tested
from dfd_tune.config import TrialConfig
from dfd_tune.record import test_record as record_of
from tests.report.searches import (
    DIGEST,
    confirmed,
    grid_trials,
    make_request,
    make_search,
    students,
    with_each_image,
    with_teachers_images,
    with_tests,
)

TEACHERS = {"resnet18": 0.99, "vgg16": 0.97}


def always(value):
    return lambda point: value


# Where accuracies alone are known.


def compared(accuracy, seeds=(0, 1, 2), teacher=0.97, leave_out=()):
    """The comparison of a single cell of λ = 0 and 1, whose test accuracies are given by (λ, seed)."""
    request = make_request({"lambda_": [0, 1], "seed": list(seeds)})
    trials = [
        trial
        for trial in grid_trials(request, always(0.9))
        if (trial.config["lambda_"], trial.config["seed"]) not in leave_out
    ]
    search = with_tests(
        make_search(request, {"resnet18": teacher + 0.01}),  # its test accuracy is a point lower than on validation
        trials,
        lambda config: accuracy[config["lambda_"], config["seed"]],
    )
    (cell,) = cells_of(search, trials)
    return compare(search, cell)


def test_differences_are_paired_by_seed():
    # Base 0.80 0.84 0.88, distilled 0.82 0.85 0.91: means 0.84 and 0.86, each with an interval of its own. The pairs
    # differ by 0.02 0.01 0.03: mean 0.02, s = 0.01, half width t(0.975, 2) · s / √3 = 4.3027 · 0.01 / 1.7321 = 0.02484.
    base = {(0, 0): 0.80, (0, 1): 0.84, (0, 2): 0.88}
    distilled = {(1, 0): 0.82, (1, 1): 0.85, (1, 2): 0.91}
    result = compared(base | distilled)
    assert result.difference.mean == pytest.approx(0.02)
    assert result.difference.half == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-4)
    assert result.difference.seeds == 3
    assert (result.state, result.paired) == ("compared", None)  # which images were right is not recorded
    assert result.base.mean == pytest.approx(0.84)
    assert result.base.half == pytest.approx(4.3027 * 0.04 / math.sqrt(3), rel=1e-4)  # s = 0.04
    # s² = (0.04² + 0.01² + 0.05²) / 2 = 0.0021
    assert result.distilled == Interval(
        pytest.approx(0.86), pytest.approx(4.3027 * math.sqrt(0.0021 / 3), rel=1e-4), seeds=3
    )


def test_what_seeds_share_does_not_blur_a_paired_difference():
    # Seeds differ by 10 points, pairs by 1.0 1.1 0.9 points: s = 0.001, half width 4.3027 · 0.001 / √3 = 0.0025.
    accuracy = {(0, 0): 0.6, (0, 1): 0.7, (0, 2): 0.8, (1, 0): 0.61, (1, 1): 0.711, (1, 2): 0.809}
    half = pytest.approx(4.3027 * 0.001 / math.sqrt(3), rel=1e-4)
    assert compared(accuracy).difference == Interval(pytest.approx(0.01), half, seeds=3)


def test_seeds_without_a_partner_are_left_out_of_difference_and_gap():
    # Seed 2 has a student alone. Pairs: 0.82 − 0.80 and 0.86 − 0.84, both 0.02. Of the pairs, the base is 0.82 on
    # average, so the gap to 0.97 is 0.15, of which 0.02 are recovered.
    accuracy = {(0, 0): 0.80, (0, 1): 0.84, (1, 0): 0.82, (1, 1): 0.86, (1, 2): 0.50}
    result = compared(accuracy, leave_out={(0, 2)})
    assert result.difference == Interval(pytest.approx(0.02), pytest.approx(0, abs=1e-12), seeds=2)
    assert result.gap_recovered.mean == pytest.approx(0.02 / 0.15)
    assert (result.base.seeds, result.distilled.seeds) == (2, 3)


# Trained anew.


FRESH = [1000, 1001, 1002]
ONE_CELL = make_request({"lambda_": [0, 1, 2]})


def anew(accuracy=lambda config: 0.8, seeds=3, teacher=0.97, **others):
    """A search with one cell, λ = 2 chosen and confirmed, whose test accuracies are given by trial; and the cell."""
    trials = grid_trials(ONE_CELL, lambda point: 0.9 + 0.01 * point["lambda_"])
    search, trials = confirmed(make_search(ONE_CELL, {"resnet18": teacher + 0.01}), trials, seeds=seeds, **others)
    search = with_tests(search, trials, accuracy)
    return search, cells_of(search, trials)[0], trials


def test_compared_are_the_students_trained_anew_and_no_others():
    # Those that were chosen from would give 0.99 against 0.5.
    fresh = {(0, 1000): 0.80, (0, 1001): 0.84, (0, 1002): 0.88, (2, 1000): 0.82, (2, 1001): 0.85, (2, 1002): 0.91}
    seen = {(0, 0): 0.5, (1, 0): 0.5, (2, 0): 0.99}
    search, cell, _ = anew(lambda config: (fresh | seen)[config["lambda_"], config["seed"]])
    found = compare(search, cell)
    assert found.difference.mean == pytest.approx(0.02)
    assert (found.distilled.mean, found.base.mean, found.fresh) == (pytest.approx(0.86), pytest.approx(0.84), True)
    student, plain = pair_of(search, cell)
    assert [trial.config["seed"] for trial in (*student.trials, *plain.trials)] == FRESH * 2
    assert cell.chosen.trials[0].config["seed"] == 0


def test_before_anything_is_confirmed_nothing_is_compared():
    search, cell, trials = anew()
    before = dataclasses.replace(search, confirmation=[])
    found = compare(before, cells_of(before, trials)[0])
    assert (found.difference, found.state, found.fresh) == (None, "not tested yet", False)
    untested = dataclasses.replace(search, tested={})
    assert compare(untested, cell).state == "not tested yet"


def test_a_cell_that_was_not_confirmed_says_so():
    request = make_request({"backbone": list(TEACHERS), "lambda_": [0, 1]})
    trials = grid_trials(request, lambda point: 0.9 + 0.01 * (point["backbone"] == "vgg16"))
    search, trials = confirmed(make_search(request, TEACHERS), trials, students(0.1))
    states = {cell.name: compare(search, cell).state for cell in cells_of(search, trials)}
    assert states == {"resnet18": "not confirmed", "vgg16": "compared"}


def test_a_pair_that_lost_one_of_its_two_is_left_out():
    lost = {(2.0, 1001), (0.0, 1002)}
    search, cell, _ = anew(
        lambda config: 0.8 + 0.05 * (config["lambda_"] > 0) + 0.01 * (config["seed"] == 1003),
        seeds=4,
        failed=lambda config: (config["lambda_"], config["seed"]) in lost,
    )
    found = compare(search, cell)
    assert (found.difference.mean, found.difference.seeds) == (pytest.approx(0.05), 2)
    assert (found.distilled.seeds, found.base.seeds) == (3, 3)
    assert {arm: (len(point.trials), point.lacking) for arm, point in cell.confirmed.arms.items()} == {
        "student": (3, 1),
        "plain": (3, 1),
    }


def test_without_a_common_seed_there_is_nothing_to_compare():
    search, cell, _ = anew(
        lambda config: 0.8 + 0.1 * (config["lambda_"] > 0),
        seeds=2,
        failed=lambda config: (config["lambda_"] > 0) == (config["seed"] == 1000),
    )
    found = compare(search, cell)
    assert (found.difference, found.gap_recovered, found.state) == (None, None, "nothing to compare")
    assert (found.base.mean, found.distilled.mean) == (pytest.approx(0.8), pytest.approx(0.9))


def test_a_student_that_always_failed_leaves_nothing_to_compare():
    search, cell, _ = anew(failed=lambda config: config["seed"] >= 1000 and config["lambda_"] > 0)
    found = compare(search, cell)
    assert (found.state, found.distilled, found.base.seeds) == ("nothing to compare", None, 3)
    assert compare_controls(search, cell) == {}


def test_controls_are_held_against_the_student_on_the_same_seeds():
    epochs = ONE_CELL.settings["epochs"]
    by_epochs = {epochs: 0.80, round(1.5 * epochs): 0.83, 2 * epochs: 0.86}
    search, cell, _ = anew(
        lambda config: 0.85 if config["lambda_"] else by_epochs[config["epochs"]], controls=("half_longer", "longer")
    )
    found = compare_controls(search, cell)
    assert list(found) == ["half_longer", "longer"]
    assert {name: one.difference.mean for name, one in found.items()} == {
        "half_longer": pytest.approx(0.02),
        "longer": pytest.approx(-0.01),
    }
    assert all(one.fresh and one.difference.seeds == 3 and one.distilled.mean == 0.85 for one in found.values())
    assert compare(search, cell).difference.mean == pytest.approx(0.05)


def test_a_control_that_failed_has_nothing_to_compare():
    epochs = ONE_CELL.settings["epochs"]
    search, cell, _ = anew(controls=("longer",), failed=lambda config: config["epochs"] > epochs)
    assert {name: one.state for name, one in compare_controls(search, cell).items()} == {"longer": "nothing to compare"}


def test_without_controls_there_are_none():
    search, cell, _ = anew()
    assert compare_controls(search, cell) == {}


def with_own_teachers(search, trials, accuracies):
    """The search with a teacher of each fresh seed, these their accuracies on high-resolution test images."""
    teachers = {}
    for trial in trials:
        if trial.stage == "confirm":
            key, seed = TrialConfig(**trial.config).teacher().key(DIGEST), trial.config["seed"]
            record = dataclasses.replace(search.teachers[0], key=key, test_accuracy=accuracies[seed])
            teachers[key] = record
    assert len(teachers) == len(accuracies)
    return dataclasses.replace(search, teachers=[*search.teachers, *teachers.values()])


def test_of_a_replicated_pipeline_each_pair_has_its_own_teachers_gap():
    # The students' gains are 0.04 and 0.02 of gaps 0.10 and 0.20: 0.06 / 0.30 in all, not 0.06 / 0.34 with the search's
    # own teacher, whose accuracy is 0.97.
    fresh = {(0, 1000): 0.80, (2, 1000): 0.84, (0, 1001): 0.70, (2, 1001): 0.72}
    search, _, trials = anew(
        lambda config: fresh.get((config["lambda_"], config["seed"]), 0.5), seeds=2, replicate="pipeline"
    )
    search = with_own_teachers(search, trials, {1000: 0.90, 1001: 0.90})
    (cell,) = cells_of(search, trials)
    assert {seed: teacher.test_accuracy for seed, teacher in teachers_of(cell).items()} == {1000: 0.90, 1001: 0.90}
    found = compare(search, cell)
    assert found.gap_recovered.mean == pytest.approx(0.06 / 0.30)
    search = with_own_teachers(search, trials, {1000: 0.96, 1001: 0.94})
    (cell,) = cells_of(search, trials)
    # Two teachers, mean 0.95, s = 0.0141, half width 12.7062 · 0.0141 / √2 = 0.127.
    assert high_resolution(search, cell) == Interval(pytest.approx(0.95), pytest.approx(0.127, rel=1e-3), 2)


def test_a_replicated_pipelines_gap_is_taken_image_by_image_from_each_pairs_teacher():
    search, cell, trials = anew(seeds=5, replicate="pipeline")
    search = with_own_teachers(search, trials, dict.fromkeys(range(1000, 1005), 0.95))
    search = with_each_image(search, [trial for trial in trials if trial.stage == "confirm"], students(0.1))
    (cell,) = cells_of(search, trials)
    easy = {seed: np.arange(360) % (18 + seed - 1000) > 0 for seed in range(1000, 1005)}
    records = [record_of(teacher.key, easy[seed]) for seed, teacher in teachers_of(cell).items()]
    search = dataclasses.replace(search, tests=search.tests | {record.key: record for record in records})
    student, plain = (stacked(search, point) for point in pair_of(search, cell))
    gaps = as_differences(np.stack([easy[seed] for seed in sorted(easy)]), plain)
    wanted = gap_recovered(as_differences(student, plain), gaps)
    assert compare(search, cell).gap_recovered == Interval(wanted.share, wanted.half, 5)


def test_a_low_resolution_control_does_not_stand_for_the_hr_baseline():
    search, cell, _ = anew(controls=("low_res_teacher",))
    assert {teacher.role for teacher in teachers_of(cell).values()} == {"teacher"}
    assert high_resolution(search, cell) == Interval(pytest.approx(0.97), None, 1)


# As chosen, where nothing is confirmed.


def test_the_gap_recovered_is_a_share_of_what_low_resolution_costs():
    # Base 0.80, HR baseline 0.90, distilled 0.85: half of it; 0.75 loses as much.
    assert compared({(0, 0): 0.8, (1, 0): 0.85}, seeds=(0,), teacher=0.9).gap_recovered.mean == pytest.approx(0.5)
    assert compared({(0, 0): 0.8, (1, 0): 0.75}, seeds=(0,), teacher=0.9).gap_recovered.mean == pytest.approx(-0.5)


@pytest.mark.parametrize("teacher", [0.8, 0.7])
def test_there_is_no_gap_where_the_hr_baseline_is_not_above_the_base(teacher):
    result = compared({(0, 0): 0.8, (1, 0): 0.85}, seeds=(0,), teacher=teacher)
    assert result.gap_recovered is None
    assert result.difference.mean == pytest.approx(0.05)


def test_without_a_teachers_test_accuracy_there_is_no_gap():
    request = make_request({"lambda_": [0, 1]})
    trials = grid_trials(request, always(0.9))
    search = with_tests(make_search(request, {"resnet18": 0.99}), trials, lambda point: 0.8 + point["lambda_"] / 100)
    unmeasured = [dataclasses.replace(teacher, test_accuracy=None) for teacher in search.teachers]
    for teachers in (unmeasured, []):
        changed = dataclasses.replace(search, teachers=teachers)
        (cell,) = cells_of(changed, trials)
        assert compare(changed, cell).gap_recovered is None


def test_a_cell_is_not_tested_until_all_of_its_trials_are():
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    trials = grid_trials(request, always(0.9))
    search = make_search(request, TEACHERS)
    (cell,) = cells_of(search, trials)
    assert compare(search, cell).state == "not tested yet"
    assert compare(search, cell).base is None
    half = with_tests(search, trials[:3], always(0.8))
    result = compare(half, cell)
    assert (result.base.mean, result.distilled, result.state) == (0.8, None, "not tested yet")
    assert accuracy_once_tested(half, cell.chosen) is None
    whole = with_tests(search, trials, always(0.8))
    assert compare(whole, cell).state == "compared"
    assert accuracy_once_tested(whole, cell.chosen) == Interval(0.8, 0.0, 2)


def test_plain_training_alone_has_nothing_to_compare():
    request = make_request({"lambda_": [0, 1]})
    trials = grid_trials(request, always(0.9))[:1]
    search = with_tests(make_search(request, TEACHERS), trials, always(0.8))
    (cell,) = cells_of(search, trials)
    assert compare(search, cell).state == "nothing to compare"
    assert compare(search, cell).base.mean == 0.8


# Where each image is recorded.


def recorded(right=None, seeds=range(5), teacher=None):
    """A search of two backbones, λ = 0 and 1, whose students are right on the images that `right` says; its cells."""
    request = make_request({"backbone": list(TEACHERS), "lambda_": [0, 1], "seed": list(seeds)})
    trials = grid_trials(request, always(0.9))
    search = with_each_image(make_search(request, TEACHERS), trials, right or students(0.1))
    if teacher is not None:
        search = with_teachers_images(search, teacher)
    return search, cells_of(search, trials)


def stacked(search, point):
    return np.stack([search.tests[trial.key].right() for trial in point.trials])


def without_the_test_of(search, trial):
    return dataclasses.replace(search, tests={key: test for key, test in search.tests.items() if key != trial.key})


def test_a_recorded_difference_is_one_over_seeds_and_images():
    search, (cell, _) = recorded()
    found = compare(search, cell)
    assert found.paired == paired_difference(stacked(search, cell.chosen), stacked(search, cell.base))
    assert found.difference == Interval(found.paired.difference, found.paired.half, 5)
    assert found.difference.mean == pytest.approx(found.distilled.mean - found.base.mean)


def test_pairs_are_of_equal_seeds_whatever_their_order():
    search, (cell, _) = recorded()
    turned = dataclasses.replace(cell, chosen=dataclasses.replace(cell.chosen, trials=cell.chosen.trials[::-1]))
    one, other = (dataclasses.astuple(compare(search, some).paired) for some in (cell, turned))
    assert one == pytest.approx(other)
    odd = dataclasses.replace(cell, chosen=dataclasses.replace(cell.chosen, trials=cell.chosen.trials[1:]))
    pairs = (stacked(search, point)[1:] for point in (cell.chosen, cell.base))
    assert compare(search, odd).paired == paired_difference(*pairs)


def test_a_single_unrecorded_student_leaves_an_interval_over_seeds_alone():
    search, (cell, _) = recorded()
    found = compare(without_the_test_of(search, cell.base.trials[2]), cell)
    assert found.paired is None
    assert (found.difference.mean, found.difference.seeds) == (pytest.approx(compare(search, cell).difference.mean), 5)


def test_one_recorded_seed_has_no_interval():
    search, (cell, _) = recorded(seeds=[0])
    found = compare(search, cell)
    assert (found.difference.half, found.paired.p_value) == (None, None)
    assert found.gap_recovered.half is None


def test_the_gap_recovered_has_an_interval_where_the_gap_is_beyond_its_own():
    teacher = np.arange(360) % 20 > 0
    search, (cell, _) = recorded(teacher=teacher)
    gains = as_differences(stacked(search, cell.chosen), stacked(search, cell.base))
    found = compare(search, cell).gap_recovered
    wanted = gap_recovered(gains, as_differences(teacher, stacked(search, cell.base)))
    assert found == Interval(wanted.share, wanted.half, 5)
    assert 0 < found.half < found.mean < 1


def test_a_gap_within_its_own_interval_is_none_to_recover():
    search, (cell, _) = recorded(teacher=np.arange(360) % 100 < 66)
    assert search.teachers[0].test_accuracy > compare(search, cell).base.mean
    assert compare(search, cell).gap_recovered is None


def test_a_teacher_that_is_not_recorded_leaves_no_interval_to_show():
    search, (cell, _) = recorded()
    assert cell.teacher.test_accuracy is not None
    assert compare(search, cell).gap_recovered is None


# Cells together.


def test_pooled_cells_are_each_seeds_mean():
    search, cells = recorded(teacher=np.arange(360) % 20 > 0)
    found = pooled(search, cells)
    gains = [as_differences(stacked(search, cell.chosen), stacked(search, cell.base)) for cell in cells]
    assert found.paired == difference_of(np.mean(gains, axis=0))
    alone = [compare(search, cell) for cell in cells]
    assert found.base.mean == pytest.approx(np.mean([one.base.mean for one in alone]))
    assert found.difference.mean == pytest.approx(np.mean([one.difference.mean for one in alone]))
    shares = sorted(one.gap_recovered.mean for one in alone)
    assert shares[0] < found.gap_recovered.mean < shares[1]


def test_the_same_cell_twice_is_no_more_than_once():
    search, (cell, _) = recorded()
    twice, once = (dataclasses.astuple(found.paired) for found in (pooled(search, [cell] * 2), compare(search, cell)))
    assert twice == pytest.approx(once)


def test_only_seeds_that_all_cells_have_are_pooled():
    search, (cell, other) = recorded()
    fewer = dataclasses.replace(other, chosen=dataclasses.replace(other.chosen, trials=other.chosen.trials[1:]))
    assert pooled(search, [cell, fewer]).difference.seeds == 4


def test_pooled_are_the_students_trained_anew():
    request = make_request({"backbone": list(TEACHERS), "lambda_": [0, 1]})
    search, trials = confirmed(
        make_search(request, TEACHERS), grid_trials(request, always(0.9)), students(0.1), cells="all"
    )
    cells = cells_of(search, trials)
    pairs = [[stacked(search, point) for point in pair_of(search, cell)] for cell in cells]
    found = pooled(search, cells)
    assert found.paired == difference_of(np.mean([as_differences(*pair) for pair in pairs], axis=0))
    assert (found.fresh, found.difference.seeds) == (True, 5)
    as_chosen, chosen_cells = recorded()
    assert not pooled(as_chosen, chosen_cells).fresh


def test_a_single_recorded_cell_is_not_pooled():
    search, (cell, other) = recorded()
    assert pooled(search, [cell]) is None
    assert pooled(search, []) is None
    assert pooled(without_the_test_of(search, other.base.trials[0]), [cell, other]) is None
