"""What is taken where a person names nothing. Not for: settings, which have their defaults where they are declared."""

EMBEDDED = "letters"
"""The dataset."""
DEFAULT_STORE = "./dfd_runs"
"""The folder of datasets, teachers, trials and searches."""
