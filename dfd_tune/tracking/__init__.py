"""MLflow: what a search leaves there, and the page that shows it. The only package that imports mlflow.

    address.py     where MLflow is, and the passwords that are not shown
    connection.py  whether it answers, its database made ready, and what its failures mean
    experiments.py whose experiment and whose registered model a name is
    runs.py        the runs of one experiment, kept equal to a search's records
    outbox.py      one thread that writes while the search goes on
    tracker.py     Tracker: what the rest of the program talks to
    models.py      the best student in the model registry
    ui.py          the MLflow server of a store, as a child process

mlflow takes seconds to import, so it is imported inside functions only. Not for: truth. The records in the
store are the truth (record.py); whatever MLflow misses can be written again from them.
"""

from dfd_tune.tracking.connection import resolve_address
from dfd_tune.tracking.tracker import Tracker, open_tracker, upload_report
from dfd_tune.tracking.ui import compare_url, mark_interrupted, serve_ui

__all__ = [
    "Tracker",
    "compare_url",
    "mark_interrupted",
    "open_tracker",
    "resolve_address",
    "serve_ui",
    "upload_report",
]
