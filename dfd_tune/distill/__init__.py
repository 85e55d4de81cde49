"""The core of the project: losses, teachers, feature banks and the training of a student.

Runs a whole trial in one process with torch alone. Not for: searching (search/) or recording (tracking/).
"""
