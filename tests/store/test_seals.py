"""Sealed JSON: it comes back, and whatever is changed in it is seen."""

import json

import pytest

from dfd_tune.store.files import as_json
from dfd_tune.store.seals import object_in, sealed

VALUES = [{}, {"one": 1}, {"λ": [0.1, None, {"deep": "}\n"}], "text": 'a "seal": "b"'}]


@pytest.mark.parametrize("value", VALUES)
def test_what_was_sealed_comes_back_and_is_json_all_the_same(value):
    text = sealed(as_json(value))
    assert object_in(text) == value
    assert json.loads(text).keys() - {"seal"} == value.keys()
    assert object_in(as_json(value)) == value, "what has no seal, as of older versions, is taken as it is"


@pytest.mark.parametrize("value", VALUES)
def test_every_flipped_bit_is_seen_but_in_the_name_of_the_seal(value):
    content = sealed(as_json(value)).encode()
    name = content.rindex(b'"seal"')
    for place in range(len(content)):
        for bit in range(8):
            damaged = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
            try:
                found = object_in(damaged.decode())
            except ValueError:
                continue
            assert name < place < name + 5
            assert found.keys() > value.keys(), "a field that no record has"


@pytest.mark.parametrize("value", VALUES)
def test_what_is_cut_short_is_seen(value):
    text = sealed(as_json(value))
    for length in range(len(text) - 1):
        with pytest.raises(ValueError):  # noqa: PT011
            object_in(text[:length])


@pytest.mark.parametrize("text", ["", "[]", "1", "null", "no JSON"])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        object_in(text)
