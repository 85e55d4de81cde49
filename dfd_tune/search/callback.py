"""Tune's events handed on to the ledger. Imported once Ray may be.

Not for: what is done with them (ledger.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune import Callback

from dfd_tune.config import TrialConfig
from dfd_tune.distill.student import find_result
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.worker import TRIAL_KEY
from dfd_tune.settings import Request


class LedgerCallback(Callback):
    """Keeps the ledger's books while Tune runs."""

    def __init__(self, request: Request, ledger: Ledger):
        self._request = request
        self._ledger = ledger

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks into snapshots, which are never restored (the store is)."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins."""
        self._ledger.started(self._config(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reports an epoch."""
        if TRIAL_KEY in result:
            self._ledger.epoch_done(result[TRIAL_KEY], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's function has returned; its result must lie in the store."""
        key = self._key(trial)
        result = find_result(self._ledger.store, key)
        if result is None:
            self._ledger.failed(key, "The trial ended without an error and without a result.")
        else:
            self._ledger.finished(self._config(trial), result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial crashed, and will not be tried again."""
        self._ledger.failed(self._key(trial), _error_text(trial))

    def _config(self, trial: Any) -> TrialConfig:
        return self._request.trial(trial.config)

    def _key(self, trial: Any) -> str:
        return self._config(trial).key(self._ledger.dataset_digest)


def _error_text(trial: Any) -> str:
    file = getattr(trial, "error_file", None)
    if file and Path(file).exists():
        return Path(file).read_text(encoding="utf-8", errors="replace")
    return repr(trial.get_error())
