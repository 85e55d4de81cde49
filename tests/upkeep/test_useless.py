"""What may go from a store, and that nothing else goes."""

import json
import threading
import time

import pytest

from dfd_tune.config import TrialConfig
from dfd_tune.errors import UserError
from dfd_tune.liveness import UPKEEP, running
from dfd_tune.store import STUDENT_FILE, BucketStore, listing, write_text
from dfd_tune.upkeep import useless
from dfd_tune.upkeep.removal import remove_search
from dfd_tune.upkeep.useless import remove, useless_in
from tests.report.searches import DIGEST
from tests.upkeep.made_up import age, checkpoint, made_up, publish, publish_all, save, trial_at, write_records

STRAYS = ("datasets", "low_res", "pretrained", "teachers", "frontends", "trials")
SAID = []


def names(found):
    return {item.name for item in found}


@pytest.fixture
def spare(search):
    """The students that the made-up search does not need."""
    _, trials = search
    return {f"trials/{trial_at(trials, *point)}/{STUDENT_FILE}" for point in (("resnet18", 2.0), ("alexnet", 1.0))}


def test_what_a_search_refers_to_is_not_found_and_strays_are(filled, spare):
    assert names(useless_in(filled)) == spare
    before = set(listing(filled))
    for kind in STRAYS:
        publish(filled, kind, "stray")
    publish(filled, "banks", "stray", teacher_weights="another's", dataset=DIGEST)
    filled.write_text("text", "backbones", "0123456789abcdef.py")
    found = useless_in(filled)
    strays = {f"{kind}/stray" for kind in (*STRAYS, "banks")} | {"backbones/0123456789abcdef.py"}
    assert names(found) == strays | spare
    sizes = {item.name: item.bytes for item in found}
    assert sizes["trials/stray"] == sum(known.bytes for known in listing(filled, "trials", "stray").values()) > 0
    removed = remove(filled, found, SAID.append)
    assert names(removed) == names(found)
    after = set(listing(filled))
    left = {name for name in before - after if not name.startswith("leases/")}
    assert {name.rpartition("/")[2] for name in left} == {STUDENT_FILE}
    assert len(left) == len(spare)
    assert {name for name in after - before if not name.startswith("leases/")} == set()
    assert useless_in(filled) == []


def test_a_bank_goes_with_its_teacher_or_its_images_and_one_that_says_nothing_stays(filled_folder, spare, search):
    record, _ = search
    weights = f"weights of {record.teachers[0].key}"
    publish(filled_folder, "banks", "of-other-images", teacher_weights=weights, dataset="another")
    with filled_folder.publish("banks", "says-nothing") as draft:
        write_text(draft / "features.npy", "")
    assert names(useless_in(filled_folder)) == spare | {"banks/of-other-images"}


def test_checkpoints_stay_until_their_training_is_over(filled, spare, search):
    record, trials = search
    open_, done = trials[0].key, trials[1].key
    filled.discard("trials", open_)
    checkpoint(filled, f"trials-{open_}")
    checkpoint(filled, f"trials-{done}")
    checkpoint(filled, f"pretrained-{record.teachers[0].key}")
    checkpoint(filled, "trials-stray")
    over = {f"checkpoints/trials-{done}", f"checkpoints/pretrained-{record.teachers[0].key}"}
    found = useless_in(filled)
    assert names(found) == spare | over | {"checkpoints/trials-stray"}
    remove(filled, found, SAID.append)
    assert filled.entries("checkpoints", f"trials-{open_}") == ["000003"]
    assert filled.entries("checkpoints", f"trials-{done}") == []


def test_what_a_running_search_may_use_stays(filled, search):
    record, trials = search
    checkpoint(filled, f"trials-{trials[1].key}")
    with running(filled, record.search, SAID.append):
        write_records(filled, record, trials)
        assert useless_in(filled) == [], "its students, and checkpoints of what it may train again, too"
    assert f"checkpoints/trials-{trials[1].key}" in names(useless_in(filled))


@pytest.mark.parametrize("state", ["begins", "can't be read", "of another version"])
def test_where_it_is_not_known_what_a_search_needs_nothing_goes(folder, search, state):
    record, trials = search
    save(folder, record, trials)
    publish(folder, "trials", "stray")
    file = folder.path("searches", record.search, "search.json")
    if state == "begins":
        with (
            running(folder, "beginning", SAID.append),
            pytest.raises(UserError, match=r"'beginning' is just beginning.*try again"),
        ):
            useless_in(folder)
        assert names(useless_in(folder)) >= {"trials/stray"}
        return
    value = json.loads(file.read_text())
    file.write_text("{" if state == "can't be read" else json.dumps(value | {"request": {"space": 1}}))
    with pytest.raises(UserError, match=f"'{record.search}' .*store rm"):
        useless_in(folder)
    remove_search(folder, record.search)
    assert names(useless_in(folder)) == {"trials/stray"}


def test_a_removed_search_leaves_what_others_need(filled_folder, search):
    record, trials = search
    other, others = made_up("other")
    keep = [trial for trial in others if trial.config["backbone"] == "alexnet"]
    request = json.loads(json.dumps(other.request))
    request["explore"]["backbone"] = ["alexnet"]
    other = made_up(
        "other",
        planned=[trial.key for trial in keep],
        num_trials=3,
        request=request,
        explored=other.explored | {"backbone": ["alexnet"]},
        teachers=other.teachers[1:],
        options={"keep_students": "all"},
        tested={},
    )[0]
    save(filled_folder, other, keep)
    remove_search(filled_folder, record.search)
    teacher = TrialConfig(**next(one.config for one in trials if one.config["backbone"] == "resnet18")).teacher()
    gone = {f"trials/{trial.key}" for trial in trials if trial.config["backbone"] == "resnet18"}
    gone |= {f"pretrained/{teacher.key(DIGEST)}", f"banks/bank-{teacher.key(DIGEST)}"}
    assert names(useless_in(filled_folder)) == gone


def test_what_is_needed_by_the_time_it_would_go_stays(folder, search):
    publish_all(folder, *search)
    found = useless_in(folder)
    assert len(found) > 10
    save(folder, *search)
    assert {item.parts[-1] for item in remove(folder, found, SAID.append)} == set()


def test_what_somebody_works_on_stays_which_is_said(folder):
    for key in ("held", "free"):
        publish(folder, "datasets", key)
    said = []
    found = useless_in(folder)
    with folder.lease("datasets-held"):
        removed = remove(folder, found, said.append)
    assert names(removed) == {"datasets/free"}
    assert said == ["datasets/held stays, as somebody works on it."]
    assert not folder.path("leases", "datasets-free.lock").exists(), "what never had a lock gets none"


def test_a_launch_that_begins_waits_until_all_is_removed(folder):
    began = threading.Event()

    def launch():
        with running(folder, "late", SAID.append):
            began.set()

    with folder.lease(UPKEEP):
        thread = threading.Thread(target=launch)
        thread.start()
        assert not began.wait(0.3)
    assert began.wait(30)
    thread.join()


def draft_of(store, kind="trials", name="k"):
    """What a killed publisher leaves."""
    place = store.path(kind, f".{name}.abcdefgh")
    place.mkdir(parents=True)
    (place / "half.bin").write_bytes(b"half")
    return place


def test_what_killed_writers_left_goes_after_a_day(folder, search):
    record, trials = search
    save(folder, record, trials)
    old, young = draft_of(folder), draft_of(folder, "datasets")
    aside = folder.path("low_res", ".set-aside.k.abc", "k")
    aside.mkdir(parents=True)
    (aside / "x").write_bytes(b"12345")
    text = folder.path("searches", record.search, "trials", ".t.json.abc")
    text.write_text("half")
    scratch = folder.path("searches", record.search, ".tune", "jobs")
    scratch.mkdir(parents=True)
    checkpoint(folder, f"trials-{trials[0].key}")
    epoch = folder.path("checkpoints", f"trials-{trials[0].key}", ".000004.abc")
    epoch.mkdir()
    top = folder.path(".store.json.abc")
    top.write_text("")
    own = folder.path(".git")
    own.mkdir()
    wanted = (old, aside.parent, text, scratch.parent, epoch, top)
    for place in (*wanted, own):
        age(place, days=1.1)
    found = useless_in(folder)
    assert names(found) == {place.relative_to(folder.root).as_posix() for place in wanted}
    assert {item.name: item.bytes for item in found}["low_res/.set-aside.k.abc"] == 5
    with running(folder, record.search, SAID.append):
        write_records(folder, record, trials)
        assert f"searches/{record.search}/.tune" not in names(useless_in(folder))
    remove(folder, found, SAID.append)
    assert not any(place.exists() for place in wanted)
    assert young.exists()
    assert own.exists()
    assert useless_in(folder) == []


def test_a_draft_that_somebody_still_writes_stays(folder):
    age(draft_of(folder, "datasets"), days=2)
    found = useless_in(folder)
    with folder.lease("datasets-k"):
        assert remove(folder, found, SAID.append) == []
    assert names(remove(folder, found, SAID.append)) == {"datasets/.k.abcdefgh"}


def test_what_no_manifest_names_in_a_bucket_goes_after_a_day_by_its_clock(filled, search, spare, monkeypatch):
    if not isinstance(filled, BucketStore):
        pytest.skip("of a bucket alone")
    key = search[1][0].key
    filled.bucket.write(b"quicker", "trials", key, "loser", STUDENT_FILE)
    filled.bucket.write(b"killed", "banks", "never", "killed", "features.npy")
    filled.set_aside("low_res", next(iter(filled.entries("low_res"))))
    assert names(useless_in(filled)) == spare, "all of it is young"
    assert filled.bucket.files("leases") == {}, "what asked for the time is gone"
    time.sleep(1.1)  # the bucket's times are whole seconds
    monkeypatch.setattr(useless, "OLD_NANOSECONDS", 0)
    found = useless_in(filled)
    left = {item.name for item in found} - spare
    assert {f"trials/{key}/loser", "banks/never/killed"} < left
    assert len(left) == 3
    remove(filled, found, SAID.append)
    assert filled.damages("trials", key) == []
    assert filled.bucket.files("banks", "never") == {}
    assert names(useless_in(filled)) == set()
