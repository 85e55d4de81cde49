"""How MLflow's page of a search's runs opens: the explored settings beside what is chosen by, the best trial first.

MLflow keeps such views in tags of the experiment, as its "Save as new view" does; an address names one by the end of
its tag's name. None of this is documented: where an MLflow does not know it, its page opens as it would without. Not
for: what the runs hold (runs.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dfd_tune.criteria import CRITERIA, DEFAULT, Criterion
from dfd_tune.record import SearchRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

VIEW = "dfd-tune"
"""By which an address names the view."""
TRAINING = "workflowType=machine_learning"
"""Has a page open in that half of MLflow that is about training; the other one is about agents."""
_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"


def view_tags(explored: Iterable[str], criterion: Criterion = CRITERIA[DEFAULT]) -> dict[str, str]:
    """The tags of an experiment whose page shows these settings.

    Args:
        explored: names of settings, in the order of their columns.
        criterion: what the trials are sorted by.
    """
    value, settings = f"metrics.`{criterion.column}`", [f"params.`{name}`" for name in explored]
    state = {
        "orderByKey": value,
        "orderByAsc": not criterion.larger_is_better,
        "selectedColumns": [value, *settings],
        # Those that MLflow always shows stand here too, or they would come first.
        "columnOrder": ["tags.`mlflow.runName`", value, *settings, "duration", "runDateAndNestInfo"],
    }
    # What changes with every writing (MLflow's menu wants a time) would have the tag written again and again.
    view = {"name": f"Trials by {criterion.words}", "createdAt": 0, "state": json.dumps(state)}
    return {
        _VIEW_TAG: json.dumps(view),
        "mlflow.experimentKind": "custom_model_development",  # else a page asks what kind it is
        "mlflow.experiment.primaryMetric.name": criterion.column,
    }


def columns_of(search: SearchRecord) -> list[str]:
    """The settings that tell a search's runs from each other, and from others that share its experiment."""
    return [*(["dataset"] if search.experiment else []), *search.explored]


def show_view(
    client: MlflowClient,
    experiment: Experiment,
    explored: Iterable[str],
    criterion: Criterion = CRITERIA[DEFAULT],
) -> bool:
    """Have the page of an experiment show these settings; False where MLflow does not take that, as from a reader."""
    from mlflow.exceptions import MlflowException

    try:
        for name, value in view_tags(explored, criterion).items():
            if experiment.tags.get(name) != value:
                client.set_experiment_tag(experiment.experiment_id, name, value)
    except MlflowException:
        return False
    return True


def runs_url(base_url: str, experiment_id: str, *, view: bool = True) -> str:
    """The page of an experiment's runs, in our view where the experiment has it."""
    asked = f"viewStateShareKey={VIEW}&" if view else ""
    return f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs?{asked}{TRAINING}"


def run_url(base_url: str, experiment_id: str, run_id: str) -> str:
    """The page of one run."""
    return f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?{TRAINING}"
