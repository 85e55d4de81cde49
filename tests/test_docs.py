"""The documentation says what the code says."""

import re
from pathlib import Path

import pytest

from dfd_tune.config import DatasetConfig, TrialConfig
from dfd_tune.data.sources import SOURCES
from dfd_tune.methods import METHODS
from dfd_tune.rules import broken_rule, settings_of
from dfd_tune.space import shipped_spaces

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def documented_settings():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", (DOCS / "settings.md").read_text(), re.MULTILINE)
    return {name: (allowed, meaning) for name, allowed, meaning in rows}


def declared_settings():
    nothing_like_it = object()
    return {
        name: (broken_rule(config, name, nothing_like_it), setting.metadata["help"])
        for config in (DatasetConfig, TrialConfig)
        for name, setting in settings_of(config).items()
        if name not in ("dataset", "data")
    }


def test_every_setting_is_documented_as_declared():
    assert documented_settings() == declared_settings()


def test_every_dataset_and_space_is_mentioned():
    assert all(f"`{name}`" in (DOCS / "data.md").read_text() for name in SOURCES)
    assert all(f"`{name}`" in (ROOT / "README.md").read_text() for name in shipped_spaces())


def test_every_method_has_a_row():
    section = (DOCS / "method.md").read_text().split("## Other methods")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| ", section, re.MULTILINE) == ["method", *METHODS]


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_house_in_the_readme_is_the_house():
    """Every module of the package's top floors is named in the README's list, and nothing else is."""
    listing = (ROOT / "README.md").read_text().split("## The house")[1].split("```")[1]
    named = set(re.findall(r"\b(\w+)\.py", listing))
    package = ROOT / "dfd_tune"
    floors = [package, package / "search", package / "analysis", package / "distill"]
    built = {file.stem for floor in floors for file in floor.glob("*.py") if file.stem != "__init__"}
    assert named == built
