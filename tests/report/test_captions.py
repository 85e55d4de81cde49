"""What is said of numbers: of which images, epochs and seeds they are, what chose λ, and what is missing."""

import dataclasses

from dfd_tune.record import BestRecord
from dfd_tune.report.captions import best_of, caption_of, chosen_by, facts_of, marked, missing_of, seeds_of
from tests.report.searches import confirmed, grid_trials, make_request, make_search, make_trial, with_tests

REQUEST = make_request({"lambda_": [0, 1], "seed": [0, 1, 2]})
TRIALS = grid_trials(REQUEST, lambda point: 0.9)
SEARCH = with_tests(make_search(REQUEST, {}), TRIALS, lambda point: 0.8)
CONFIRMED = confirmed(SEARCH, TRIALS)
ONE_SEED = make_request({"lambda_": [0, 1]})
PAPER = dataclasses.replace(SEARCH, protocol="paper")


def test_facts_name_dataset_sides_images_epochs_and_seeds():
    facts = (
        "digits at 4×4 instead of 8×8 pixels: 1,149 training, 288 validation and 360 test images; 20 epochs; "
        "chosen with 3 seeds a point"
    )
    assert facts_of(SEARCH, TRIALS) == facts
    anew = facts_of(*CONFIRMED)
    assert anew.startswith(f"{facts}; confirmed with 5 fresh seeds")
    assert "teacher" not in anew
    assert "teacher" in facts_of(*confirmed(SEARCH, TRIALS, replicate="pipeline"))
    assert facts_of(*confirmed(SEARCH, TRIALS, seeds=1)).endswith(
        "; confirmed with one fresh seed making the student anew"
    )


def test_a_student_that_was_trained_anew_is_shown_alone_with_its_epochs():
    search, trials = CONFIRMED
    alone = facts_of(search, [trial for trial in trials if trial.stage == "confirm"][:1])
    assert "; 20 epochs; confirmed with 5 fresh seeds" in alone


def test_longer_controls_do_not_change_the_epochs_that_are_named():
    assert "; 20 epochs; " in facts_of(*confirmed(SEARCH, TRIALS, controls=("half_longer", "longer")))


def test_what_differs_among_trials_is_given_from_first_to_last():
    request = make_request({"resolution": [6, 2, 4, 3], "epochs": [20, 5], "lambda_": [0, 1]})
    trials = grid_trials(request, lambda point: 0.9)
    assert "digits at 2×2 to 6×6 instead of 8×8 pixels" in facts_of(SEARCH, trials)
    assert facts_of(SEARCH, trials).endswith("; 5 to 20 epochs; chosen with one seed a point")
    some = [trial for trial in trials if trial.config["resolution"] in (2, 4)]
    assert "digits at 2×2 and 4×4 instead of" in facts_of(SEARCH, some)
    three = [trial for trial in trials if trial.config["resolution"] != 6]
    assert "digits at 2×2, 3×3 and 4×4 instead of" in facts_of(SEARCH, three)


def test_points_may_have_different_numbers_of_seeds():
    assert seeds_of(TRIALS) == [3]
    assert seeds_of(TRIALS[:4]) == [1, 3]
    assert facts_of(SEARCH, TRIALS[:4]).endswith("chosen with 1 to 3 seeds a point")
    assert seeds_of([]) == []


def test_a_caption_says_what_intervals_are_and_what_chose_lambda():
    assert caption_of(SEARCH, TRIALS) == (
        facts_of(SEARCH, TRIALS) + "; ± is the mean's 95 % interval. " + chosen_by(SEARCH)
    )
    assert "on the very students that were tested: no verdict" in chosen_by(SEARCH)
    assert "fresh seeds" in chosen_by(CONFIRMED[0])
    assert "no verdict" not in chosen_by(CONFIRMED[0])
    one_a_point = grid_trials(ONE_SEED, lambda point: 0.9)
    assert "± is" in caption_of(*confirmed(make_search(ONE_SEED, {}), one_a_point))
    one = caption_of(SEARCH, TRIALS[::3])
    assert "one seed a point, so no intervals. " in one
    assert "±" not in one


def test_under_the_papers_protocol_test_images_are_named_in_capitals():
    assert "TEST images" in chosen_by(PAPER)
    assert "no honest estimate" in caption_of(PAPER, TRIALS)
    assert "TEST" not in caption_of(SEARCH, TRIALS)
    assert marked("Accuracy", PAPER) == "Accuracy, λ chosen on TEST images"
    assert marked("Accuracy", SEARCH) == "Accuracy"


def test_an_unfinished_search_says_what_is_missing():
    failed = make_trial(REQUEST, {"lambda_": 1.0, "seed": 2}, 0.0, status="FAILED")
    running = make_trial(REQUEST, {"lambda_": 1.0, "seed": 1}, 0.0, status="RUNNING")
    unfinished = dataclasses.replace(SEARCH, tested={})
    missing = missing_of(unfinished, [*TRIALS[:4], running, failed])
    assert missing.startswith("Unfinished: 4 of 6 trials have a result, 1 RUNNING, 1 FAILED.")
    assert missing.endswith("so there are no test accuracies yet.")
    assert missing in caption_of(unfinished, [*TRIALS[:4], running, failed])
    assert missing_of(SEARCH, TRIALS) == ""


def test_what_a_confirmation_lacks_is_said_apart():
    search, trials = confirmed(SEARCH, TRIALS, failed=lambda config: config["seed"] == 1003)
    search = dataclasses.replace(search, tested=SEARCH.tested)
    missing = missing_of(search, trials)
    assert missing.startswith("Unfinished: 8 of 10 confirming trials have a result, 2 FAILED.")
    assert missing_of(search, trials[:8]).startswith("Unfinished: 2 of 10 confirming trials have a result.")
    assert missing_of(*with_all_tested(confirmed(SEARCH, TRIALS, controls=("tuned_base",)))) == ""


def with_all_tested(found):
    search, trials = found
    return with_tests(search, trials, lambda point: 0.8), trials


def test_a_search_that_has_just_begun_can_be_described():
    caption = caption_of(dataclasses.replace(SEARCH, tested={}), [])
    assert caption.startswith("digits of 8×8 pixels: 1,149 training, 288 validation and 360 test images. λ was chosen")
    assert "Unfinished: 0 of 6 trials" in caption
    assert "seed" not in caption


def test_the_best_student_is_named_by_what_was_explored():
    best = BestRecord(
        key="k",
        config=TRIALS[-1].config,
        val_accuracy=0.9,
        test_accuracy=0.8125,
        teacher=None,
        base_key=None,
        base_test_accuracy=None,
        model=None,
    )
    assert best_of(SEARCH, best) == (
        "resnet18 λ=1 seed=2 is best on validation images (90.00 %) and has 81.25 % of the test images right"
    )
