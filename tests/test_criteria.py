"""What may be chosen by: each row is a metric that every look at validation images records, and says which way it is
better."""

import pytest

from dfd_tune.criteria import CRITERIA, DEFAULT
from dfd_tune.distill.training import Evaluation, validation_metrics
from dfd_tune.record import BestRecord
from dfd_tune.search.ledger import _EPOCH_METRICS

PERFECT = Evaluation(accuracy=1.0, loss=0.0, balanced_accuracy=1.0, macro_f1=1.0)
USELESS = Evaluation(accuracy=0.1, loss=2.3, balanced_accuracy=0.1, macro_f1=0.02)


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_is_recorded_and_tells_good_from_bad(name):
    by = CRITERIA[name]
    good, bad = (by.of(validation_metrics(found)) for found in (PERFECT, USELESS))
    assert by.cost(good) < by.cost(bad)
    assert by.column in _EPOCH_METRICS
    assert by.column in BestRecord.__dataclass_fields__


def test_accuracy_goes_without_saying():
    assert CRITERIA[DEFAULT].column == "val_accuracy"


def test_shares_are_told_in_per_cent():
    assert CRITERIA["macro_f1"].text(0.5) == "50.0%"
    assert CRITERIA["loss"].text(0.51234) == "0.5123"
