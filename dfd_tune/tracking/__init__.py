"""MLflow: what a search leaves there, and the page that shows it. The only package that imports mlflow.

    address.py     where MLflow is, and the passwords that are not shown
    connection.py  whether it answers, its database made ready, and what its failures mean
    experiments.py whose experiment and whose registered model a name is
    view.py        how the page of an experiment's runs opens
    runs.py        the runs of one experiment, kept equal to a search's records
    dataset.py     a search's dataset as their input
    summary.py     what came of a search as a whole
    outbox.py      one thread that writes while the search goes on
    tracker.py     Tracker: what the rest of the program talks to
    models.py      the best student in the model registry
    interrupted.py runs of a search whose process died
    mirror.py      all of the above, written anew from a search's records
    ui.py          the MLflow server of a store, as a child process

mlflow takes seconds to import, so it is imported inside functions only. Not for: truth. The records in the
store are the truth (record.py); whatever MLflow misses can be written again from them.
"""

from dfd_tune.tracking.connection import resolve_address
from dfd_tune.tracking.interrupted import mark_interrupted
from dfd_tune.tracking.mirror import mirror
from dfd_tune.tracking.summary import Summary
from dfd_tune.tracking.tracker import Tracker, open_tracker, upload_report
from dfd_tune.tracking.ui import compare_url, serve_ui

__all__ = [
    "Summary",
    "Tracker",
    "compare_url",
    "mark_interrupted",
    "mirror",
    "open_tracker",
    "resolve_address",
    "serve_ui",
    "upload_report",
]
