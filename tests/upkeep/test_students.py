"""Which students a search needs once it has ended, by the rules of its choice; others are let go of."""

import dataclasses

import pytest

from dfd_tune.liveness import running
from dfd_tune.store import RESULT_FILE, STUDENT_FILE
from dfd_tune.upkeep import students
from dfd_tune.upkeep.references import standings
from dfd_tune.upkeep.soundness import check
from dfd_tune.upkeep.students import let_go_of_students, needed_by, spare_students, students_in
from tests.report.searches import confirmed, make_best
from tests.upkeep.made_up import made_up, publish_all, save, trial_at, write_records

POINTS = {("resnet18", 2.0), ("alexnet", 1.0)}
"""Those that no cell has chosen."""


def keys(trials, points=POINTS):
    return {trial_at(trials, *point) for point in points}


def everything(trials):
    return {trial.key for trial in trials}


def test_each_cell_needs_what_it_chose_and_plain_training_beside_it(folder, search):
    record, trials = search
    assert needed_by(folder, record, trials) == everything(trials) - keys(trials)


def test_what_was_tested_is_needed_too(folder, search):
    record, trials = search
    (tested, _) = sorted(keys(trials))
    record = dataclasses.replace(record, tested=record.tested | {tested: 0.5})
    assert needed_by(folder, record, trials) == everything(trials) - (keys(trials) - {tested})


def test_under_the_papers_protocol_all_are_tested_and_stay(folder, search):
    record, trials = search
    assert needed_by(folder, dataclasses.replace(record, protocol="paper"), trials) == everything(trials)


def test_what_confirms_is_needed_and_what_tuned_a_control_is_not(folder):
    record, trials = made_up(tested={})
    record, trials = confirmed(record, trials, seeds=2, cells="best", controls=("tuned_base",))
    best = next(trial for trial in trials if trial.stage == "confirm" and trial.config["lambda_"] > 0)
    record = dataclasses.replace(record, best=make_best(best, base_key=None))
    needed = needed_by(folder, record, trials)
    by_stage = {stage: {trial.key for trial in trials if trial.stage == stage} for stage in ("confirm", "control")}
    assert by_stage["confirm"] <= needed
    assert by_stage["control"]
    assert not by_stage["control"] & needed
    assert keys(trials_of_search(trials)).isdisjoint(needed)


def trials_of_search(trials):
    return [trial for trial in trials if trial.stage == "search"]


def test_the_front_of_a_search_that_is_after_a_cost_is_needed(folder, search):
    record, trials = search
    small = trial_at(trials, "alexnet", 1.0)
    trials = [
        dataclasses.replace(trial, metrics=trial.metrics | {"parameters": 1.0 if trial.key == small else 9.0})
        for trial in trials
    ]
    record = dataclasses.replace(record, objectives=["accuracy", "parameters"])
    assert small in needed_by(folder, record, trials)
    assert keys(trials) - {small} == everything(trials) - needed_by(folder, record, trials)


@pytest.mark.parametrize(
    "changes", [{"options": {"keep_students": "all"}}, {"options": {}}, {"best": None}, {"num_trials": 7}]
)
def test_all_are_needed_where_all_are_kept_or_the_search_is_not_over(folder, search, changes):
    record, trials = search
    assert needed_by(folder, dataclasses.replace(record, **changes), trials) == everything(trials)


def test_those_that_nothing_needs_are_let_go_of_and_results_stay(filled, search):
    record, trials = search
    said = []
    let_go_of_students(filled, record, trials, said.append)
    assert len(said) == 1
    for trial in trials:
        assert filled.has("trials", trial.key, STUDENT_FILE) == (trial.key not in keys(trials))
        assert filled.facts("trials", trial.key, RESULT_FILE)["key"] == trial.key
        assert filled.whole("trials", trial.key)
    assert [fault for checked in check(filled) for fault in checked.faults] == []
    let_go_of_students(filled, record, trials, said.append)
    assert len(said) == 1, "nothing was left to be done"


def test_a_student_that_a_killed_process_has_left_without_its_manifest_goes_too(folder, search):
    record, trials = search
    save(folder, record, trials)
    publish_all(folder, record, trials)
    key = min(keys(trials))
    content = folder.path("trials", key, STUDENT_FILE).read_bytes()
    folder.let_go("trials", key, STUDENT_FILE)
    folder.path("trials", key, STUDENT_FILE).write_bytes(content)
    let_go_of_students(folder, record, trials, lambda line: None)
    assert not folder.path("trials", key, STUDENT_FILE).exists()


OTHERS = {
    "keeps all": {"options": {"keep_students": "all"}},
    "of an older version": {"options": {}},
    "is not over": {"best": None},
    "has chosen otherwise": {"tested": None},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_student_stays_while_another_search_needs_it(folder, search, other):
    record, trials = search
    changes = dict(OTHERS[other])
    if "tested" in changes:
        changes["tested"] = dict.fromkeys(keys(trials), 0.5)
    save(folder, record, trials)
    publish_all(folder, record, trials)
    save(folder, *made_up("other", **changes))
    let_go_of_students(folder, record, trials, pytest.fail)
    assert all(folder.has("trials", trial.key, STUDENT_FILE) for trial in trials)


def test_a_search_that_has_chosen_alike_needs_no_more(folder, search):
    record, trials = search
    save(folder, record, trials)
    publish_all(folder, record, trials)
    save(folder, *made_up("other"))
    let_go_of_students(folder, record, trials, lambda line: None)
    assert {trial.key for trial in trials if not folder.has("trials", trial.key, STUDENT_FILE)} == keys(trials)


@pytest.mark.parametrize("written", [False, True])
def test_all_stay_while_another_search_runs_that_has_or_may_want_them(folder, search, written):
    record, trials = search
    save(folder, record, trials)
    publish_all(folder, record, trials)
    with running(folder, "other", lambda line: None):
        if written:
            write_records(folder, *made_up("other"))
        let_go_of_students(folder, record, trials, pytest.fail)
        assert all(folder.has("trials", trial.key, STUDENT_FILE) for trial in trials)


def test_records_of_searches_that_have_nothing_in_common_are_not_read(folder, search, monkeypatch):
    record, trials = search
    save(folder, record, trials)
    publish_all(folder, record, trials)
    far, theirs = made_up("far")
    far = dataclasses.replace(far, planned=["f" * 16], tested={})
    save(folder, far, [dataclasses.replace(theirs[0], key="f" * 16)])
    asked = []

    def watched(store, name, touching=None):
        found = students_standing(store, name, touching)
        asked.append((name, len(found.trials)))
        return found

    students_standing = students.standing
    monkeypatch.setattr(students, "standing", watched)
    let_go_of_students(folder, record, trials, lambda line: None)
    assert asked == [("far", 0)]
    assert not folder.has("trials", min(keys(trials)), STUDENT_FILE)


def test_a_store_that_can_not_be_changed_keeps_them_and_says_so(folder, search, monkeypatch):
    record, trials = search
    save(folder, record, trials)
    publish_all(folder, record, trials)

    def failing(*arguments):
        raise OSError(5, "Input/output error")

    said = []
    monkeypatch.setattr(type(folder), "let_go", failing)
    let_go_of_students(folder, record, trials, said.append)
    assert len(said) == 1
    assert "Input/output error" in said[0]


def test_spare_ones_of_all_searches_are_found_together(folder, search):
    record, trials = search
    save(folder, record, trials)
    publish_all(folder, record, trials)
    assert spare_students(folder, standings(folder)) == keys(trials)
    assert students_in(folder, keys(trials)) == dict.fromkeys(keys(trials), 230)
    save(folder, *made_up("other", tested=dict.fromkeys([min(keys(trials))], 0.5)))
    assert spare_students(folder, standings(folder)) == keys(trials) - {min(keys(trials))}
