"""Ray that does not come up: a sentence where the machine is too busy, a traceback where nobody knows why."""

import pytest

from dfd_tune.errors import UserError
from dfd_tune.search.runtime import RayRuntime
from dfd_tune.signals import Signals


class Failing(RayRuntime):
    """One whose Ray ends so; that is how Ray says it."""

    words = ""

    def _init(self):
        raise Exception(self.words)


@pytest.mark.parametrize(
    ("words", "kind"),
    [("The current node timed out during startup. This could happen because …", UserError), ("boom", Exception)],
)
def test_ray_that_does_not_start(tmp_path, monkeypatch, words, kind):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # as it is left by others, and put back
    monkeypatch.setattr(Failing, "words", words)
    with (
        pytest.raises(kind, match=r"Ray did not start|boom") as caught,
        Signals() as signals,
        Failing(tmp_path / "ray.log", signals) as ray,
    ):
        ray.start()
    assert type(caught.value) is kind
