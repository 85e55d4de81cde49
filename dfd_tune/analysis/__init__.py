"""What the results of a search say: points, cells, choices, paired comparisons, verdicts, importances.

Rules of science, made from records alone. Not for: drawing or wording (report/), or running anything (search/).
"""
