"""What a job does on the cluster: it carries out the order that lies in its working directory.

    probe     look around on every node
    launch    run a search, or what is left of it
    command   one of dfd-tune's own commands, on the store there
    pack      gather a search's files, so that they can be brought away

What it has to say is written as JSON lines; a refusal ends it with code 2, a stop with 130. Not for: what happens on
the laptop.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dfd_tune.cluster.package import CREDENTIALS_FILE, MLFLOW_URI, ORDER_FILE
from dfd_tune.errors import UserError
from dfd_tune.search.screen import JsonLines
from dfd_tune.signals import STOPPED, Signals
from dfd_tune.store import BucketStore, Store, open_store
from dfd_tune.store.bucket import BucketError

PACK_SECONDS = 3600.0
"""How long a packed search waits to be brought away."""

Order = Mapping[str, Any]
Verb = Callable[[Order, JsonLines], int]


def main() -> None:
    """Carry out the order in the working directory, and end the process with its exit code."""
    order = json.loads(Path(ORDER_FILE).read_text(encoding="utf-8"))
    with contextlib.suppress(FileNotFoundError):
        os.environ.update(json.loads(Path(CREDENTIALS_FILE).read_text(encoding="utf-8")))
        Path(CREDENTIALS_FILE).unlink()
    screen = JsonLines(sys.stdout)
    try:
        sys.exit(VERBS[order["verb"]](order, screen))
    except UserError as error:
        screen.tell("refused", list(error.problems))
        sys.exit(2)
    except BucketError as error:
        told = f"{error.strerror}; what is finished is kept: launch again once the bucket answers."
        screen.tell("refused", [told[0].upper() + told[1:]])
        sys.exit(2)


def _probe(order: Order, screen: JsonLines) -> int:
    from dfd_tune.cluster.probe import copies_on_node, look_from_all
    from dfd_tune.liveness import state_of
    from dfd_tune.search.runtime import may_grow

    store = open_store(order["store"], copies_on_node(order["store"], order["copies"]))
    _join_ray()
    # Hosts are what they are; of a cluster that is known by its address, it is asked whether machines may come.
    grows = order["grows"] if order["grows"] is not None else may_grow()
    nodes = look_from_all(
        store, order["data"], order["copies"], screen.line, wait_for_gpu=grows and order["device"] == "cuda"
    )
    state = state_of(store, order["search"])
    screen.tell(
        "probe",
        {
            "nodes": [asdict(node) for node in nodes],
            "has": [entry for entry in order["entries"] if _has(store, *entry.split("/"))],
            "running": str(state) if state.kind == "running" else None,
        },
    )
    return 0


def _has(store: Store, kind: str, key: str) -> bool:
    """Whether a store has an entry, or a file that is one of its own."""
    loose = store.there(kind, key) if isinstance(store, BucketStore) else store.path(kind, key).is_file()
    return loose or store.whole(kind, key)


def _launch(order: Order, screen: JsonLines) -> int:
    from dfd_tune.cluster.incoming import adopt
    from dfd_tune.cluster.probe import copies_on_node
    from dfd_tune.frozen_request import request_from_json
    from dfd_tune.record import load_search
    from dfd_tune.search.begin import launch
    from dfd_tune.search.options import OF_ONE_LAUNCH, LaunchOptions, recorded_options

    given = order["options"]
    copies = copies_on_node(order["store"], given["node_copies"], given["node_copies_budget"])
    store = open_store(order["store"], copies)
    adopt(store, order["incoming"])
    uri = os.environ.pop(MLFLOW_URI, None)
    if order["request"] is None:
        search = load_search(store, order["search"])
        request = request_from_json(search.request, search=search.search)
        this = {name: order["options"][name] for name in OF_ONE_LAUNCH}
        options = recorded_options(search, mlflow_uri=uri, **this)
    else:
        request = request_from_json(order["request"], search=order["search"])
        options = LaunchOptions(**order["options"], mlflow_uri=uri)
    try:
        with Signals() as signals:
            outcome = launch(request, store, options, screen, signals)
    except KeyboardInterrupt:
        screen.tell("stopped", True)
        return STOPPED
    screen.tell(
        "outcome", {"failed": outcome.failed, "complaints": outcome.complaints, "mlflow": outcome.search.mlflow}
    )
    return 1 if outcome.failed else 0


def _command(order: Order, screen: JsonLines) -> int:
    screen.tell("begin", True)
    command = [sys.executable, "-m", "dfd_tune.cli", *order["arguments"], "--store", order["store"]]
    screen.tell("exit", subprocess.run(command, stderr=subprocess.STDOUT, check=False).returncode)
    return 0


def _pack(order: Order, screen: JsonLines) -> int:
    """Lay an archive beside Ray's logs, from where the job port hands it out; it goes when this job is stopped."""
    import ray

    from dfd_tune.cluster.fetch import files_of
    from dfd_tune.liveness import state_of

    store = open_store(order["store"])
    files = files_of(store, order["search"], frozenset(order["has"]))
    _join_ray()
    logs = Path(ray._private.worker.global_worker.node.get_session_dir_path()) / "logs"
    archive = logs / f"dfd-tune-{uuid.uuid4().hex}.tar"
    with _removed_at_the_end(archive):
        with tarfile.open(archive, "w") as tar:
            for path, file in files.items():
                with contextlib.suppress(FileNotFoundError):  # of a search that runs, and has moved on
                    tar.add(file, path)
        screen.tell(
            "packed",
            {
                "node": ray.get_runtime_context().get_node_id(),
                "name": archive.name,
                "bytes": archive.stat().st_size,
                "state": state_of(store, order["search"]).as_json(),
            },
        )
        time.sleep(PACK_SECONDS)
    return 0


@contextlib.contextmanager
def _removed_at_the_end(file: Path) -> Iterator[None]:
    def end(number: int, frame: Any) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _join_ray() -> None:
    import logging

    import ray

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)


VERBS: dict[str, Verb] = {"probe": _probe, "launch": _launch, "command": _command, "pack": _pack}
"""What an order may ask for."""

if __name__ == "__main__":
    main()
