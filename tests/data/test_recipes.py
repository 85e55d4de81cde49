import subprocess
import sys

import pytest

from dfd_tune.config import DatasetConfig, TrialConfig, teacher_defaults
from dfd_tune.data.sources import SOURCES
from dfd_tune.rules import problems_in, settings_of


def test_these_are_the_sources():
    assert list(SOURCES) == ["digits", "letters", "cifar10", "svhn", "parquet", "folder"]
    assert [source.name for source in SOURCES.values()] == list(SOURCES)


@pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
def test_a_recipe_makes_a_whole_trial_and_a_validation_split(source):
    of_dataset = {name: value for name, value in source.recipe.items() if name in settings_of(DatasetConfig)}
    settings = {name: value for name, value in source.recipe.items() if name not in of_dataset}
    assert "validation_fraction" in of_dataset
    assert problems_in(DatasetConfig, {"dataset": source.name, **of_dataset}) == []
    trial = TrialConfig(**settings, **teacher_defaults(settings), precision="float32")
    assert trial.learning_rate == source.recipe["learning_rate"]
    assert set(settings) <= set(settings_of(TrialConfig))


@pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
def test_a_source_that_needs_data_says_what_that_holds(source):
    assert source.data_holds if source.needs_data else True
    assert "\n" not in source.summary


def test_names_and_recipes_are_read_without_anything_heavy():
    code = (
        "import sys, dfd_tune.data.sources, dfd_tune.data.recipes\n"
        "heavy = {'numpy', 'torch', 'torchvision', 'pyarrow', 'sklearn', 'PIL'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_preparing_needs_no_torch_to_be_imported():
    code = "import sys, dfd_tune.data.prepared; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
