"""The command line: commands, options, exit codes; nothing else.

    group.py      the group, and the options that commands share
    launch.py     launch, resume
    running.py    stop, logs
    searches.py   results, report, ui
    models.py     predict
    datasets.py   datasets, spaces
    entry.py      the entry point: how errors end the process

Exit codes: 0 done; 1 some trials failed, or an internal error; 2 bad input; 130 stopped.
Heavy modules are imported inside commands, so that `--help` is quick.
"""

from dfd_tune.cli.entry import main, process

__all__ = ["main", "process"]
