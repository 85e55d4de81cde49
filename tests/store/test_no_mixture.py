"""Two processes that publish one key with different bytes, while a third one reads: it never sees a mixture."""

import json
import subprocess
import sys
import textwrap

import pytest

from dfd_tune.store import open_store, whole

PUBLISHER = """
    import sys
    from dfd_tune.store import open_store
    location, mark, rounds = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
    store = open_store(location)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(rounds):
        with store.publish("things", str(number)) as draft:
            for name in ("a", "b", "c"):
                (draft / name).write_bytes(mark * (100 + number))
"""
READER = """
    import json, sys
    from dfd_tune.store import open_store, whole
    location, rounds = sys.argv[1], int(sys.argv[2])
    store = open_store(location)
    seen = [[] for _ in range(rounds)]
    print("ready", flush=True)
    sys.stdin.readline()
    number = looks = 0
    while number < rounds and looks < 1_000_000:
        looks += 1
        with store.near("things", str(number)) as folder:
            found = whole(folder)
            if found:
                seen[number].append("".join(sorted({(folder / name).read_bytes()[:1].decode() for name in "abc"})))
                assert len({(folder / name).stat().st_size for name in "abc"}) == 1
        alone = store.content("things", str(number), "b") if found else None
        if alone is not None:
            seen[number].append(alone[:1].decode())
        number += found and len(seen[number]) >= 4
    print(json.dumps(seen))
"""


def started(script, *arguments, **variables):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **variables,
    )


@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_a_reader_sees_one_publishers_bytes_and_no_mixture(either, rounds):
    processes = [
        started(PUBLISHER, either.location, "1", rounds),
        started(PUBLISHER, either.location, "2", rounds),
        started(READER, either.location, rounds),
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    seen = json.loads(told[2])
    assert len(seen) == rounds
    assert {look for looks in seen for look in looks} <= {"1", "2"}
    for number in range(rounds):  # once all is quiet, one of them counts for everybody
        contents = {either.content("things", str(number), name) for name in "abc"}
        assert len(contents) == 1
        assert contents.pop() in (b"1" * (100 + number), b"2" * (100 + number))
        with open_store(either.location).near("things", str(number)) as folder:
            assert whole(folder)
