"""The kinds of entries that a store holds, and those of their files that others than their makers look for by name.

Not for: what is in these files.
"""

KINDS = ("datasets", "low_res", "pretrained", "teachers", "frontends", "banks", "trials")
"""Folders of the store that hold entries, each under its key."""
CHECKPOINTS = "checkpoints"
"""The folder that holds a folder for each training, and in it entries, each under its epoch."""
BACKBONES = "backbones"
"""The folder that holds texts, which no manifest names: their names are their digests."""
INCOMING = ".incoming"
"""Where what is sent to a cluster's folder is written until it is whole: a folder for each sending."""

STUDENT_FILE, RESULT_FILE = "student.safetensors", "result.json"
"""Of a trial."""
