"""Trials that share a process train as if each were alone."""

import dataclasses

import pytest

from benchmarks.cohort import DIFFERENT, check, cohort_of, refuse_strangers, together
from dfd_tune.distill.workbench import BankPlan
from tests.distill.tiny import fresh_store, prepared, trial, without_times, workbench
from tests.distill.tiny import run as run_alone

BATCH_NORM = {"backbone": "resnet18", "epochs": 2}


@pytest.mark.parametrize("banked", [True, False])
def test_each_trains_as_a_search_would_train_it_alone(tmp_path, capsys, banked):
    store = fresh_store(tmp_path)
    config = trial(**BATCH_NORM)
    key = config.teacher().key(workbench(store).dataset.digest)
    bench = prepared(store, config, banks={key: BankPlan("epochs", config.epochs)} if banked else {})
    configs = cohort_of(config, 3)
    histories, _ = together(configs, bench)
    assert [without_times(history) for history in histories] == [
        without_times(run_alone(each, bench)[1].history) for each in configs
    ]
    assert len({history[-1]["loss"] for history in histories}) == len(configs)
    assert check(configs, bench)
    assert '"same": [true, true, true]' in capsys.readouterr().out


def test_a_cohort_differs_in_what_it_may_alone():
    configs = cohort_of(trial(), 24)
    assert len(set(configs)) == len(configs)
    refuse_strangers(configs)
    names = {field.name for field in dataclasses.fields(configs[0])}
    assert {name for name in names if len({getattr(each, name) for each in configs}) > 1} == DIFFERENT


@pytest.mark.parametrize("changed", [{"batch_size": 8}, {"width": 0.25}, {"epochs": 3}])
def test_trials_that_differ_in_more_are_refused(changed):
    with pytest.raises(ValueError, match=next(iter(changed))):
        refuse_strangers([trial(), trial(**changed)])


def test_dropout_is_refused():
    with pytest.raises(ValueError, match="dropout"):
        refuse_strangers([trial(dropout=0.5)])
