"""What a store needs now and then: to be looked over, held against its manifests, and rid of what nobody needs.

    inventory.py   what lies in it, by search and by kind
    soundness.py   every digest, every record
    references.py  what searches refer to
    useless.py     what no search refers to, and its removal;   removal.py   a search's
    students.py    which students a search needs once it has ended

Not for: commands (cli/store.py), nor how a store keeps things (store/).
"""
