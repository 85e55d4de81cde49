"""`python -m dfd_tune.cli`; nothing else."""

from dfd_tune.cli.entry import process

if __name__ == "__main__":
    process()
