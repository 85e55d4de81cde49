"""Carrying out a plan on Ray: networks before the search, trials, one writer of records, the conclusion.

Not for: training itself (distill/), which knows nothing of Ray.
"""
