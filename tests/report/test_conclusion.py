"""What came out, in a few lines: the first one holds the verdict; facts, not sentences."""

import dataclasses

import pytest

from dfd_tune.analysis.comparisons import compare_controls
from dfd_tune.analysis.verdicts import headline
from dfd_tune.confirm import CONTROLS
from dfd_tune.report.conclusion import OPENINGS, conclusion
from tests.report.searches import (
    REQUEST,
    TEACHERS,
    confirmed,
    grid_trials,
    make_best,
    make_request,
    make_search,
    students,
    with_each_image,
    with_tests,
)

LINE = make_request({"lambda_": [0, 0.5, 1, 5]})


def on_validation(point):
    """Best at λ = 1."""
    return {0.0: 0.90, 0.5: 0.93, 1.0: 0.95, 5.0: 0.92}[point["lambda_"]]


def concluded(right, accuracy=on_validation, **options):
    """A search over λ that is confirmed and has its best student; and its trials."""
    search, trials = confirmed(make_search(LINE, TEACHERS), grid_trials(LINE, accuracy), right, **options)
    best = next(trial for trial in trials if trial.stage == "confirm" and trial.status == "FINISHED")
    return dataclasses.replace(search, best=make_best(best, test_accuracy=0.9375)), trials


def points(value):
    return f"{100 * value:+.2f}".replace("-", "−")


def of_epochs(gain):
    """As `students`, but longer training is half as good as distillation."""
    longer = LINE.settings["epochs"] + 1
    made = students(gain, spread=0.0)
    half = students(gain / 2, spread=0.0)

    def right(config):
        return half({**config, "lambda_": 1.0}) if config["epochs"] >= longer else made(config)

    return right


# The first line.


def test_the_first_line_holds_the_verdict_the_difference_its_half_the_seeds_and_what_could_have_been_seen():
    search, trials = concluded(students(0.15))
    first, *others = conclusion(search, trials)
    found = headline(search, trials).judgement.comparison
    assert first.startswith(OPENINGS["better"])
    assert f"{100 * found.distilled.mean:.1f} % against {100 * found.base.mean:.1f} % of 360 test images" in first
    assert f"{points(found.difference.mean)} ± {100 * found.difference.half:.2f} points over 5 fresh seeds" in first
    assert f"a true difference of {100 * found.paired.smallest_seen:.1f} " in first
    assert "\n" not in first
    assert not any(first in other for other in others)


@pytest.mark.parametrize(("gain", "verdict"), [(-0.15, "worse"), (0.0, "no significant difference")])
def test_a_loss_and_no_difference_are_said_as_plainly_as_a_gain(gain, verdict):
    search, trials = concluded(students(gain))
    found = headline(search, trials)
    assert found.judgement.verdict == verdict
    first = conclusion(search, trials)[0]
    assert first.startswith(OPENINGS[verdict])
    assert points(found.difference.mean) in first


def test_beside_the_verdict_stands_the_difference_to_plain_training_for_half_as_many_epochs_again():
    search, trials = concluded(of_epochs(0.2), controls=("half_longer", "longer"))
    first, *others = conclusion(search, trials)
    found = headline(search, trials)
    controls = compare_controls(search, found.cell)
    half = controls["half_longer"].difference
    assert 0 < half.mean < found.difference.mean
    assert f"{points(half.mean)} ± {100 * half.half:.2f} against {CONTROLS['half_longer']}" in first
    assert CONTROLS["longer"] not in first
    (line,) = [line for line in others if CONTROLS["longer"] in line]
    assert points(controls["longer"].difference.mean) in line
    assert not any(CONTROLS["half_longer"] in line for line in others)


def test_without_that_control_the_line_says_nothing_of_it():
    search, trials = concluded(students(0.15), controls=("longer",))
    assert CONTROLS["half_longer"] not in " ".join(conclusion(search, trials))


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_fewer_than_five_fresh_seeds_are_no_verdict(seeds):
    search, trials = concluded(students(0.15), seeds=seeds)
    first = conclusion(search, trials)[0]
    assert first.startswith("No verdict, as fewer than 5 seeds")
    assert f"over {seeds} fresh seed{'s' if seeds > 1 else ''}" in first


def test_pairs_that_failed_do_not_count_and_are_said():
    search, trials = concluded(
        students(0.15), failed=lambda config: config["lambda_"] == 1 and config["seed"] in (1001, 1003)
    )
    lines = conclusion(search, trials)
    assert lines[0].startswith("No verdict, as fewer than 5 seeds")
    assert "over 3 fresh seeds" in lines[0]
    assert sum("2 of the trials that confirm FAILED" in line for line in lines) == 1


# Where nothing is confirmed.


def test_without_confirmation_there_is_no_verdict_whatever_the_numbers_say():
    request = make_request({"lambda_": [0, 1], "seed": [0, 1, 2, 3, 4]})
    trials = grid_trials(request, lambda point: 0.9 + 0.05 * point["lambda_"])
    search = with_each_image(make_search(request, TEACHERS, best=make_best(trials[-1])), trials, students(0.15))
    found = headline(search, trials)
    first = conclusion(search, trials)[0]
    assert first.startswith("No verdict, as nothing was trained anew")
    assert points(found.difference.mean) in first
    assert "over 5 seeds" in first
    assert not any(opening in first for opening in OPENINGS.values())


def test_a_single_seed_that_was_chosen_from_is_no_verdict(search, trials):
    # Nothing is tested but the best student, 94, and its twin, 90.
    lines = conclusion(search, trials)
    assert "vgg16 with λ = 1, validation accuracy 95.00 %, test accuracy 94.00 %" in lines[0]
    assert "90.00 %, a difference of +4.00 points. No verdict" in lines[1]
    worse = dataclasses.replace(search, best=dataclasses.replace(search.best, test_accuracy=0.87))
    assert "a difference of −3.00 points. No verdict" in conclusion(worse, trials)[1]


def test_without_a_base_nothing_is_said_of_a_difference(search, trials):
    best = dataclasses.replace(search.best, base_key=None, base_test_accuracy=None)
    assert len(conclusion(dataclasses.replace(search, best=best), trials)) == 1


def test_plain_training_that_wins_is_not_held_against_itself(trials):
    best = make_best(trials[0], base_key=None, base_test_accuracy=None)
    assert trials[0].config["lambda_"] == 0
    (line,) = conclusion(make_search(REQUEST, TEACHERS, best=best), trials)
    assert "resnet18 with λ = 0" in line


# What else is said.


def test_what_was_compared_is_said_with_the_teacher_and_the_gap_by_hand():
    # Students 91, plain 85, the teacher 98 on test images: 6 points, 6 / 13 of the gap, without images no interval.
    search, trials = concluded(None, seeds=1)
    search = with_tests(search, trials, lambda config: 0.91 if config["lambda_"] else 0.85)
    (line,) = [line for line in conclusion(search, trials) if line.startswith("Compared: ")]
    epochs = LINE.settings["epochs"]
    for fact in ("λ = 1,", "start scratch", f"{epochs} epochs", "98.00 %", "gap recovered 46%", "0.28 points"):
        assert fact in line, fact


def test_the_best_student_is_one_of_those_trained_anew():
    search, trials = concluded(students(0.15))
    (line,) = [line for line in conclusion(search, trials) if line.startswith("Best student")]
    assert "of those trained anew" in line
    assert "test accuracy 93.75 %" in line  # its own, beside the mean of the first line


@pytest.mark.parametrize(("best", "edge"), [(0.5, "smallest"), (1.0, None), (5.0, "largest")])
def test_a_chosen_lambda_at_the_edge_of_its_list_is_said(best, edge):
    search, trials = concluded(students(0.15), lambda point: 0.9 + 0.01 * (point["lambda_"] == best))
    said = [line for line in conclusion(search, trials) if "extend the list" in line]
    assert len(said) == (edge is not None)
    assert all(f"λ = {best:g} is the {edge}" in line for line in said)


def test_under_the_papers_protocol_there_is_no_verdict_and_test_images_are_named():
    trials = grid_trials(LINE, on_validation)
    search = make_search(LINE, TEACHERS, protocol="paper", best=make_best(trials[2]))
    search = with_each_image(search, trials, students(0.15))
    first, *_, last = conclusion(search, trials)
    assert first.startswith("No verdict, as λ was chosen on TEST images")
    assert last.startswith("Protocol `paper`")
    honest = conclusion(dataclasses.replace(search, protocol="validation"), trials)
    assert not any("TEST" in line for line in honest)


def test_nothing_finished_is_said():
    assert conclusion(make_search(REQUEST, {}), []) == ["No trial has finished, so there is no best student."]


def test_that_no_point_has_all_of_its_seeds_is_said_with_what_to_do():
    request = make_request({"lambda_": [0, 1], "seed": [0, 1]})
    trials = [
        dataclasses.replace(trial, status="FAILED") if trial.config["seed"] else trial
        for trial in grid_trials(request, lambda point: 0.9)
    ]
    (line,) = conclusion(make_search(request, {}), trials)
    assert "dfd-tune resume made_up-digits --retry-failed" in line


def test_before_its_end_a_search_that_has_results_is_not_said_to_have_none(trials):
    (line,) = conclusion(make_search(REQUEST, {}), trials)
    assert "No trial has finished" not in line


def test_shares_of_a_gpu_that_did_not_do_are_told_of():
    search, trials = concluded(students(0.15))
    assert not any("GPU" in line for line in conclusion(search, trials))
    grown = [dataclasses.replace(trial, gpus=share) for trial, share in zip(trials, (0.5, 1.0), strict=False)]
    (line,) = [line for line in conclusion(search, grown + trials[2:]) if "GPU" in line]
    assert f"2 of {len(trials)}" in line
    assert "1 of a GPU" in line
