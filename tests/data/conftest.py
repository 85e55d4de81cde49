import pytest

from dfd_tune.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.fixture
def said():
    """Lines given to `say`, which is this list's `append`."""
    return []
