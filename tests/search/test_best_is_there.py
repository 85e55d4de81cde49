"""Whether the best student's files lie in a search's folder is told by the files, whatever the record says."""

import dataclasses
import shutil

import numpy as np
import pytest

from dfd_tune.models.deployed import load_deployed, save_student
from dfd_tune.record import BEST_FOLDER, PREDICTIONS_FILE
from dfd_tune.search.students import is_deployed
from dfd_tune.store import STUDENT_FILE, write_manifest
from tests.trained import write_trained
from tests.upkeep.made_up import made_up


@pytest.fixture
def kept(tmp_path):
    """A store, a search whose best student's files are there, and that best trial."""
    store, file = write_trained(tmp_path)
    search, trials = made_up()
    best = next(trial for trial in trials if trial.key == search.best.key)
    folder = store.path("searches", search.search, BEST_FOLDER)
    folder.mkdir(parents=True)
    deployed, card = load_deployed(file)
    extras = card.extras | {"trial_key": best.key}
    save_student(folder / STUDENT_FILE, deployed.network, dataclasses.replace(card, extras=extras))
    np.savez(folder / PREDICTIONS_FILE, labels=np.zeros(1), probabilities=np.zeros((1, 3)))
    write_manifest(folder)
    return store, search, best, folder


def test_it_is_there(kept):
    store, search, best, _ = kept
    assert is_deployed(store, search, best)


def test_another_ones_files_under_its_record_are_not_its(kept):
    store, search, best, _ = kept
    assert not is_deployed(store, search, dataclasses.replace(best, key="another"))


def test_neither_is_what_is_damaged_or_gone(kept):
    store, search, best, folder = kept
    (folder / PREDICTIONS_FILE).write_bytes(b"other")
    assert not is_deployed(store, search, best)
    shutil.rmtree(folder)
    assert not is_deployed(store, search, best)
