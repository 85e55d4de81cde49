"""A store with a made-up search and all that it refers to: real keys, files of a few bytes. Not tests."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfd_tune.config import TrialConfig
from dfd_tune.frozen_request import request_as_json
from dfd_tune.liveness import running
from dfd_tune.parts import PretrainedConfig
from dfd_tune.record import SearchRecord, TrialRecord, save_search, save_trial
from dfd_tune.store import RESULT_FILE, STUDENT_FILE, Store, each, write_json
from dfd_tune.upkeep.references import Entry, entries_of
from tests.report.searches import DIGEST, grid_trials, make_best, make_request, make_search

REQUEST = make_request({"backbone": ["resnet18", "alexnet"], "lambda_": [0, 1, 2]})
ACCURACIES = {("resnet18", 0.0): 0.8, ("resnet18", 1.0): 0.9, ("resnet18", 2.0): 0.85}
ACCURACIES |= {("alexnet", 0.0): 0.7, ("alexnet", 1.0): 0.6, ("alexnet", 2.0): 0.75}


def made_up(name: str = "made-up", **changes: Any) -> tuple[SearchRecord, list[TrialRecord]]:
    """A concluded search of two cells: each has chosen one of two points that distil, so that the other's student is
    needed by nothing."""
    trials = grid_trials(REQUEST, lambda point: ACCURACIES[point["backbone"], point["lambda_"]])
    best = max(trials, key=lambda trial: trial.metrics["val_accuracy"])
    twin = next(trial for trial in trials if trial.config == best.config | {"lambda_": 0.0})
    record = make_search(
        REQUEST,
        {"resnet18": 0.95, "alexnet": 0.9},
        search=name,
        num_trials=len(trials),
        planned=[trial.key for trial in trials],
        options={"keep_students": "chosen"},
        best=make_best(best, base_key=twin.key),
        tested={best.key: 0.9, twin.key: 0.8},
    )
    return replace(record, **{"request": request_as_json(REQUEST), **changes}), trials


def trial_at(trials: list[TrialRecord], backbone: str, lambda_: float) -> str:
    """Key of the trial of that point."""
    (key,) = [one.key for one in trials if (one.config["backbone"], one.config["lambda_"]) == (backbone, lambda_)]
    return key


def save(store: Store, search: SearchRecord, trials: list[TrialRecord]) -> None:
    """The records of a search, as its launch leaves them."""
    with running(store, search.search, lambda line: None):
        write_records(store, search, trials)


def write_records(store: Store, search: SearchRecord, trials: list[TrialRecord]) -> None:
    """The records of a search alone."""
    save_search(store, search)
    each(lambda trial: save_trial(store, search.search, trial), trials)


def publish(store: Store, kind: str, key: str, **facts: Any) -> None:
    """An entry of that kind, with two files."""
    names = {"trials": (STUDENT_FILE, RESULT_FILE), "pretrained": ("network.safetensors", "network.json")}
    names |= {"frontends": ("network.safetensors", "network.json"), "banks": ("features.npy", "bank.json")}
    weights, card = names.get(kind, ("content.bin", "card.json"))
    with store.publish(kind, key) as draft:
        (draft / weights).write_bytes(f"{kind} {key}".encode() * 10)
        write_json(draft / card, {"key": key, **facts})


def publish_all(store: Store, search: SearchRecord, trials: list[TrialRecord]) -> set[Entry]:
    """What a search refers to, and a bank of each of its teachers; returns their kinds and keys."""
    entries = set(entries_of(store, search, trials))
    each(lambda entry: publish(store, *entry, weights_digest=f"weights of {entry[1]}"), sorted(entries))
    for teacher in search.teachers:
        publish(store, "banks", f"bank-{teacher.key}", teacher_weights=f"weights of {teacher.key}", dataset=DIGEST)
        entries.add(("banks", f"bank-{teacher.key}"))
    return entries


def checkpoint(store: Store, training: str, epoch: int = 3) -> None:
    """Of a training."""
    with store.publish("checkpoints", training, f"{epoch:06}") as draft:
        (draft / "state.safetensors").write_bytes(b"state")


def teachers_of(trials: list[TrialRecord], search: SearchRecord) -> set[str]:
    """Keys of the teachers of the trials that distil, by their configurations."""
    networks = {network for trial in trials for network in TrialConfig(**trial.config).pretrained()}
    assert all(isinstance(network, PretrainedConfig) for network in networks)
    return {network.key(search.dataset["digest"]) for network in networks}


def age(place: Path, days: float) -> None:
    """Have a file or folder, and all in it, look as if nobody had written to it for so long."""
    then = time.time() - days * 86_400
    for one in [*place.rglob("*"), place]:
        os.utime(one, (then, then))
