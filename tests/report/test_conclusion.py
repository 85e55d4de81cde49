"""What came out, in a few lines; the numbers worked out by hand."""

import dataclasses

from dfd_tune.analysis.verdicts import seeds_of_best
from dfd_tune.report.conclusion import conclusion
from tests.report.searches import (
    REQUEST,
    TEACHERS,
    grid_trials,
    make_best,
    make_request,
    make_search,
    students,
    with_each_image,
    with_tests,
)


def test_the_gap_recovered_by_hand(search, trials):
    first, second, third = conclusion(search, trials)
    assert first.startswith("Best student, chosen on validation images: vgg16 with λ = 1, validation accuracy 95.00 %")
    assert first.endswith("test accuracy 94.00 %")
    # Student 94, base 90, teacher 96 (on test images): 4 points, and 4 / 6 of the gap.
    assert "without distillation (λ = 0): test accuracy 90.00 %; distillation gives +4.00 points" in second
    assert second.endswith("the teacher on high-resolution images: 96.00 %, so the gap recovered is 67%")
    assert third.startswith("One test image is 0.28 points")  # 1 of 360


def test_a_loss_is_said_as_plainly_as_a_gain(search, trials):
    worse = dataclasses.replace(search.best, test_accuracy=0.87)
    second = conclusion(dataclasses.replace(search, best=worse), trials)[1]
    assert "distillation gives −3.00 points" in second
    assert second.endswith("the gap recovered is −50%")  # -3 / 6


def test_there_is_no_gap_below_the_base(search, trials):
    better = dataclasses.replace(search.best, base_test_accuracy=0.96)
    second = conclusion(dataclasses.replace(search, best=better), trials)[1]
    assert second.endswith("the teacher on high-resolution images: 96.00 %")


def test_plain_training_that_wins_is_not_held_against_itself(trials):
    best = make_best(trials[0], base_key=None, base_test_accuracy=None)
    assert trials[0].config["lambda_"] == 0
    (line,) = conclusion(make_search(REQUEST, TEACHERS, best=best), trials)
    assert "resnet18 with λ = 0" in line


def test_without_a_base_nothing_is_said_of_a_gain(search, trials):
    best = dataclasses.replace(search.best, base_key=None, base_test_accuracy=None)
    assert len(conclusion(dataclasses.replace(search, best=best), trials)) == 1


def test_seeds_are_advised_where_there_are_none(search, trials):
    assert conclusion(search, trials)[-1].endswith("Explore `seed` to have intervals.")
    seeded = dataclasses.replace(search, explored={**search.explored, "seed": [0, 1]})
    assert "Explore `seed`" not in conclusion(seeded, trials)[-1]


def test_under_the_papers_protocol_the_conclusion_says_what_chose(search, trials):
    honest = conclusion(search, trials)
    assert not any("TEST" in line for line in honest)
    *same, last = conclusion(dataclasses.replace(search, protocol="paper"), trials)
    assert same == honest
    assert "chosen on validation images" in same[0]
    assert last.startswith("Protocol `paper`: the report's tables and figures choose λ on TEST images")


def test_nothing_finished_is_said():
    assert conclusion(make_search(REQUEST, {}), []) == ["No trial has finished, so there is no best student."]


def test_before_its_end_a_search_that_has_results_is_not_said_to_have_none(trials):
    (line,) = conclusion(make_search(REQUEST, {}), trials)
    assert "No trial has finished" not in line


SEEDS = make_request({"backbone": ["resnet18", "vgg16"], "lambda_": [0, 1, 5], "seed": [0, 1, 2]})


def of_seeds(on_validation, on_test, **changes):
    """A concluded search of `SEEDS`, whose best student is the trial of highest validation accuracy."""
    trials = grid_trials(SEEDS, on_validation)
    best = max(trials, key=lambda trial: trial.metrics["val_accuracy"])
    made = make_search(SEEDS, TEACHERS, best=make_best(best, base_test_accuracy=0.99), **changes)
    return with_tests(made, trials, on_test), trials


def test_with_seeds_the_gain_is_that_of_all_of_them():
    def on_validation(point):
        return (
            {0: 0.90, 1: 0.95, 5: 0.93}[point["lambda_"]] - 0.02 * (point["backbone"] == "vgg16") + point["seed"] / 1e4
        )

    def on_test(point):
        return {0: 0.90, 1: 0.92, 5: 0.99}[point["lambda_"]] + 0.01 * point["seed"] * (point["lambda_"] == 1)

    search, trials = of_seeds(on_validation, on_test)
    first, second, third = conclusion(search, trials)
    assert first.startswith("Best student, chosen on validation images: resnet18 with λ = 1, the best of 3 seeds, ")
    # Distilled 92, 93, 94; plain 90: differences 2, 3, 4 with s = 1, so ± 4.3027 · 1 / √3 = 2.48. The teacher has 98:
    # 3 of 8 points.
    assert second == (
        "Over 3 seeds, on test images: 93.00 ± 2.48 % with λ = 1, 90.00 ± 0.00 % without distillation (λ = 0); "
        "distillation gives +3.00 ± 2.48 points: too few seeds for a verdict; the teacher on high-resolution images: "
        "98.00 %, so the gap recovered is 38%"
    )
    assert third == "± is the mean's 95 % interval. One test image is 0.28 points."


def test_plain_training_that_wins_is_held_against_the_best_lambda():
    def on_validation(point):
        return {0: 0.95, 1: 0.90, 5: 0.93}[point["lambda_"]] - 0.02 * (point["backbone"] == "vgg16")

    search, trials = of_seeds(on_validation, lambda point: {0: 0.95, 1: 0.99, 5: 0.94}[point["lambda_"]])
    first, second, _ = conclusion(search, trials)
    assert "resnet18 with λ = 0, the best of 3 seeds" in first
    assert "94.00 ± 0.00 % with λ = 5, 95.00 ± 0.00 % without distillation (λ = 0)" in second
    assert "distillation gives −1.00 ± 0.00 points: too few seeds for a verdict" in second


def test_seeds_that_are_recorded_image_by_image_have_a_verdict_and_what_it_could_have_seen():
    request = make_request({"lambda_": [0, 1], "seed": [0, 1, 2, 3, 4]})
    trials = grid_trials(request, lambda point: 0.9 + 0.05 * point["lambda_"])
    search = make_search(request, TEACHERS, best=make_best(trials[-1]))
    search = with_each_image(search, trials, students(0.15))
    paired = seeds_of_best(search, trials).judgement.comparison.paired
    _, second, third = conclusion(search, trials)
    assert f"gives {100 * paired.difference:+.2f} ± {100 * paired.half:.2f} points: better" in second
    assert f"a true difference of {100 * paired.smallest_seen:.2f} points would have been found" in third


def test_plain_training_that_stands_in_several_cells_is_held_against_none():
    request = make_request({"method": ["dfd", "kd"], "lambda_": [0, 1], "seed": [0, 1, 2]})
    trials = grid_trials(request, lambda point: 0.95 - 0.01 * point["lambda_"])
    search = make_search(request, TEACHERS, best=make_best(trials[0], base_test_accuracy=None))
    (line,) = conclusion(with_tests(search, trials, lambda point: 0.9), trials)
    assert "λ = 0, validation accuracy" in line


def test_what_test_images_chose_is_not_shown_for_what_validation_images_chose():
    search, trials = of_seeds(
        lambda point: {0: 0.90, 1: 0.95, 5: 0.93}[point["lambda_"]] - 0.02 * (point["backbone"] == "vgg16"),
        lambda point: {0: 0.90, 1: 0.92, 5: 0.97}[point["lambda_"]],
        protocol="paper",
    )
    lines = conclusion(search, trials)
    assert "resnet18 with λ = 1, validation accuracy" in lines[0]
    assert not any("λ = 5" in line or "97" in line for line in lines)
    assert lines[-1].startswith("Protocol `paper`")
