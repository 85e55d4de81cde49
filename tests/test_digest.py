import hashlib

import numpy as np
import pytest

from dfd_tune.digest import DIGITS, digest_arrays, digest_json

ARRAY = np.arange(6, dtype=np.int16).reshape(2, 3)


def test_a_digest_is_that_of_compact_sorted_json():
    # Digests name what lies in stores: if this fails, old results are no longer found.
    expected = hashlib.sha256(b'{"a":1,"b":[true,null,0.5,"\\u03bb"]}').hexdigest()[:16]
    assert digest_json({"b": [True, None, 0.5, "λ"], "a": 1}) == expected
    assert len(expected) == DIGITS


@pytest.mark.parametrize(
    "other", [{"a": 1, "b": 3}, {"a": 1}, {"b": 1, "a": 2}, {"a": "1", "b": 2}, {"a": 1.0, "b": 2}]
)
def test_other_content_gives_another_digest(other):
    assert digest_json(other) != digest_json({"a": 1, "b": 2})


def test_what_is_no_json_has_no_digest():
    with pytest.raises(ValueError, match="JSON"):
        digest_json({"a": float("nan")})


def test_arrays_have_the_digest_of_their_names_dtypes_shapes_and_bytes():
    expected = hashlib.sha256(b"a:<i2:(2, 3);" + ARRAY.tobytes()).hexdigest()[:16]
    assert digest_arrays({"a": ARRAY}) == expected


def test_memory_layout_and_order_of_names_do_not_matter():
    digest = digest_arrays({"a": ARRAY, "b": ARRAY[:1]})
    assert digest_arrays({"b": ARRAY[:1].copy(), "a": np.asfortranarray(ARRAY)}) == digest
    assert digest_arrays({"a": np.repeat(ARRAY, 2, axis=0)[::2], "b": ARRAY[:1]}) == digest


@pytest.mark.parametrize(
    "other",
    [
        {"b": ARRAY},
        {"a": ARRAY.reshape(3, 2)},
        {"a": ARRAY.astype(np.uint16)},
        {"a": ARRAY + 1},
        {"a": ARRAY, "b": ARRAY[:0]},
        {"a": ARRAY[:0]},
    ],
)
def test_other_arrays_give_another_digest(other):
    assert digest_arrays(other) != digest_arrays({"a": ARRAY})
