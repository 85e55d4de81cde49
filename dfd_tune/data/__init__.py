"""Images: read from where they are, prepared once into memory-mapped files, and turned into training views.

    sources/        where images come from, one module per source
    recipes.py      the settings that each source recommends
    splits.py       stratified subsets and splits
    arrow.py        a split as an Arrow file
    prepared.py     a dataset, prepared once and shared by every process of a node
    views.py        crops and flips
    degradation.py  low-resolution images

Not for: networks and training.
"""
