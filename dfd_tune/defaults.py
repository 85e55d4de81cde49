"""What is taken where a person names nothing. Not for: settings, which have their defaults where they are declared."""

EMBEDDED = "letters"
"""The dataset."""
DEFAULT_STORE = "./dfd_runs"
"""The folder of datasets, teachers, trials and searches."""
KEEP_STUDENTS = ("chosen", "all")
"""Which students stay when a search has ended; the first by default (upkeep/students.py)."""
