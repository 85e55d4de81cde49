"""What a search found, for people and programs: points with their seeds, tables, figures.

Everything is made from the records in the store. Not for: computing accuracies (distill/) or MLflow (tracking/).
"""
