from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest

from tests.report.figures.svg import Drawn, read_svg


@pytest.fixture
def draw(tmp_path) -> Callable[..., Drawn]:
    """Draw with `make(FOLDER)`, check the two files, and return what is in the SVG."""

    def drawn(make: Callable[[Path], list[Path]]) -> Drawn:
        with mpl.rc_context({"svg.fonttype": "none"}):  # texts as texts
            files = make(tmp_path)
        assert [file.suffix for file in files] == [".png", ".svg"]
        assert sorted(tmp_path.iterdir()) == files
        image = files[0].read_bytes()
        assert image.startswith(b"\x89PNG\r\n\x1a\n")
        assert image.endswith(b"IEND\xaeB`\x82")
        assert 10_000 < len(image) < 1_000_000
        return read_svg(files[1])

    return drawn
