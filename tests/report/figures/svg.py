"""What a figure shows is read from its SVG, where every text and every colour can be found. Not tests."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Drawn:
    """A figure as it lies in its SVG."""

    root: ElementTree.Element

    @property
    def texts(self) -> list[str]:
        return ["".join(text.itertext()) for text in self.root.iter(f"{SVG}text")]

    @property
    def text(self) -> str:
        """All texts in a row, so that lines that were broken can be read on."""
        return " ".join(self.texts)

    @property
    def styles(self) -> list[str]:
        return [path.get("style", "").lower() for path in self.root.iter(f"{SVG}path")]

    @property
    def pictures(self) -> int:
        return sum(1 for _ in self.root.iter(f"{SVG}image"))


def read_svg(file: Path) -> Drawn:
    root = ElementTree.parse(file).getroot()
    assert root.tag == f"{SVG}svg"
    return Drawn(root)
