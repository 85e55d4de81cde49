"""`dfd-tune` in processes forked from one that has its heavy imports done: as anew, but for the seconds these take.

Reads orders as JSON, one a line, and answers each with the exit code; ends when standard input does.
Not for: what signals do, what is imported when, or a Ray of its own, some of whose variables are read at its import;
those tests start Python themselves.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import sys
import threading
import traceback
from typing import NoReturn

import dfd_tune

HEAVY = (
    "alembic.command",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "mlflow.pyfunc",
    "mlflow.pytorch",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "optuna",
    "ray.autoscaler.sdk",
    "ray.train.torch",
    "ray.tune",
    "sklearn.datasets",
    "torch.export._trace",
)
"""What `dfd-tune` imports while it works, and what this imports in its turn: together a third of a tiny launch."""


def main() -> None:
    sys.path.pop(0)  # this folder; a `dfd-tune` has none of its own
    for module in pkgutil.walk_packages(dfd_tune.__path__, "dfd_tune."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in HEAVY:
        importlib.import_module(name)
    # Neither the child's garbage collector nor its end needs to touch, and thereby copy, what all of this occupies.
    gc.freeze()
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201
    os._exit(0)  # for the same reason; and some of these modules complain where they are taken apart


def run(argv: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> NoReturn:
    """Become the command; it ends this process."""
    for name, number in ((os.devnull, 0), (out, 1), (err, 2)):
        file = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = argv
    from dfd_tune.cli import main as cli

    code = 1
    try:
        cli()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    # As Python ends, but for taking every module apart.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
