"""A search on a cluster, from a laptop: Ray's own launcher and jobs, with what a search needs around them.

The rest of the program does not know where Ray came from. Needs the extra dfd-tune[cluster]. Not for: the search
itself, which runs there as it would here (search/).
"""
