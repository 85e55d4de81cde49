"""MLflow: what a search leaves there, and the page that shows it. The only package that imports mlflow.

    connection.py  where MLflow is, whether it answers, and its database made ready
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
from dfd_tune.tracking.ui import compare_url, serve_ui

__all__ = ["Tracker", "compare_url", "open_tracker", "resolve_address", "serve_ui", "upload_report"]
