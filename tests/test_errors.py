import pickle

import pytest

from dfd_tune.errors import FEW, UserError, cause_of, raise_all, unknown_name


def test_a_user_error_shows_one_problem_a_line():
    assert str(UserError("This.", "That.")) == "This.\nThat."


def test_a_user_error_crosses_process_borders():
    error = pickle.loads(pickle.dumps(UserError("This.", "That.")))
    assert type(error) is UserError
    assert error.problems == ("This.", "That.")


def test_all_problems_are_raised_together():
    raise_all([])
    with pytest.raises(UserError) as caught:
        raise_all(["This.", "That."])
    assert caught.value.problems == ("This.", "That.")


def test_an_unknown_name_gets_the_nearest_and_all_that_are_known():
    text = unknown_name("fruit", "aple", {"pear", "apple", "plum"})
    assert text == "Unknown fruit 'aple'. Did you mean 'apple'? Known: apple, pear, plum."


def test_a_name_near_to_nothing_gets_no_guess():
    assert unknown_name("fruit", "xyz", ["apple"]) == "Unknown fruit 'xyz'. Known: apple."
    assert unknown_name("fruit", "xyz", []) == "Unknown fruit 'xyz'. Known: none."


def test_of_many_names_the_nearest_is_enough():
    many = [f"fruit{number}" for number in range(FEW + 1)]
    assert unknown_name("fruit", "fruit_3", many) == "Unknown fruit 'fruit_3'. Did you mean 'fruit3'?"
    assert all(name in unknown_name("fruit", "xyz", many) for name in many)


def test_a_name_may_be_any_yaml_value():
    assert unknown_name("key", 3, ["explore"]) == "Unknown key '3'. Known: explore."


def test_a_cause_fits_into_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none").read_text()
    assert cause_of(caught.value) == "No such file or directory"
    assert cause_of(ValueError("first line.\nsecond line.")) == "first line"
    assert cause_of(ValueError()) == "ValueError"
