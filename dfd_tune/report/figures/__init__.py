"""The figures of a report, each drawn by one function into a PNG and an SVG.

Not for: the numbers in them (report/cells.py).
"""
