"""The paper's numbers, typed a second time from its tables."""

import pytest

from dfd_tune.report.paper import BACKBONES, DATASETS, FRONTENDS, TABLE_1, TABLE_2, is_table_2, title_of

# Base network / DFD by row; columns are CIFAR-10 at 8 and 16, SVHN at 8 and 16.
ROWS = {
    "AlexNet": "64.08/66.23  69.10/71.60  81.81/81.97  87.77/88.35",
    "VGG-16": "78.41/79.97  88.02/89.35  90.40/91.11  95.52/95.90",
    "ResNet-18": "79.86/81.26  89.12/90.41  90.45/92.07  95.55/96.02",
}
COLUMNS = [("cifar10", 8), ("cifar10", 16), ("svhn", 8), ("svhn", 16)]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_table_1_is_as_printed(backbone):
    printed = [tuple(map(float, entry.split("/"))) for entry in ROWS[title_of(backbone)].split()]
    assert [TABLE_1[(*column, backbone)] for column in COLUMNS] == printed


def test_table_1_holds_nothing_else():
    assert set(TABLE_1) == {(*column, backbone) for column in COLUMNS for backbone in BACKBONES}
    assert [title_of(name) for name in BACKBONES] == list(ROWS)
    assert [title_of(name) for name in DATASETS] == ["CIFAR-10", "SVHN"]


def test_table_2_is_as_printed():
    assert list(TABLE_2.values()) == [93.38, 79.86, 80.00, 79.41, 79.05, 81.26]
    assert list(TABLE_2) == ["high_res", *FRONTENDS, "dfd"]
    assert FRONTENDS == ("none", "vdsr", "espcn", "srgan")


def test_table_2_repeats_one_cell_of_table_1():
    assert TABLE_1["cifar10", 8, "resnet18"] == (TABLE_2["none"], TABLE_2["dfd"])


def test_table_2_is_of_one_cell_alone():
    assert is_table_2("cifar10", 8, "resnet18")
    others = [("svhn", 8, "resnet18"), ("cifar10", 16, "resnet18"), ("cifar10", 8, "vgg16")]
    assert not any(is_table_2(*other) for other in others)


def test_a_name_that_the_paper_does_not_have_stays_as_it_is():
    assert title_of("digits") == "digits"
