"""A time as a person types it."""

import click
import pytest

from dfd_tune.cli.group import Duration


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2 d", 172_800)])
def test_a_number_and_its_unit(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "90", "h", "-1h", "0m", "1w", "1h30m", "nan s", "1e3s", "99999999d"])
def test_anything_else_is_refused_in_one_sentence(text):
    with pytest.raises(click.BadParameter, match="as in 90m"):
        Duration().convert(text, None, None)
