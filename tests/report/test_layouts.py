"""Which numbers stand where: the paper's tables with ours beside them, from made-up searches."""

import dataclasses

import numpy as np
import pytest

from dfd_tune.analysis.cells import trials_to_test
from dfd_tune.analysis.comparisons import compare, pooled
from dfd_tune.analysis.points import Interval, half_width
from dfd_tune.analysis.verdicts import judge
from dfd_tune.confirm import AWAY, CONTROLS
from dfd_tune.parts import Camera
from dfd_tune.record import FrontendRecord
from dfd_tune.report.cell_tables import cells_table, controls_table, frontends_table
from dfd_tune.report.formats import as_latex
from dfd_tune.report.found import Found
from dfd_tune.report.layouts import tables_of
from dfd_tune.report.numbers import signed, text_of
from dfd_tune.report.paper_tables import table1, table2
from tests.report.searches import (
    confirmed,
    grid_trials,
    make_request,
    make_search,
    make_trial,
    students,
    with_each_image,
    with_teachers_images,
    with_tests,
)

BACKBONES = ["resnet18", "alexnet", "vgg16"]  # not the paper's order
TEACHERS = {"resnet18": 0.94, "alexnet": 0.80, "vgg16": 0.93}
CAMERA = Camera(8)
ROWS = ["HR baseline", "base (λ = 0)", "DFD", "chosen λ", "DFD − base", "gap recovered", "verdict"]


def made_as(explore, dataset, **settings):
    """A request for a grid with settings that a shipped space has; students start from scratch, as the paper's."""
    request = make_request(explore, dataset=dataset)
    return dataclasses.replace(request, settings={**request.settings, "student_start": "scratch", **settings})


def concluded(search, trials, accuracy, **confirm):
    """The search with all of its cells trained anew and only that tested; under `paper` nothing anew, all tested."""
    if search.protocol != "paper":
        search, trials = confirmed(search, trials, cells="all", **confirm)
    search = dataclasses.replace(search, num_trials=sum(trial.stage == "search" for trial in trials))
    return Found(with_tests(search, trials_to_test(search, trials), accuracy), trials)


def table1_search(dataset, resolutions, seeds=1, accuracy=None, settings=None, **changes):
    """A search as `table1` makes it, with so many fresh seeds; unless said otherwise, λ = 2 wins and has two points
    more than the base."""
    explore = {"resolution": resolutions, "backbone": BACKBONES, "lambda_": [0, 0.5, 2]}
    request = made_as(explore, dataset, **(settings or {}))
    trials = grid_trials(request, lambda point: 0.7 + 0.05 * point["lambda_"])
    search = make_search(request, TEACHERS, **changes)
    return concluded(search, trials, accuracy or (lambda point: 0.7 + 0.01 * point["lambda_"]), seeds=seeds)


def of_search(found):
    """The search as it is once its own trials have ended, before anything is trained anew or tested."""
    search = dataclasses.replace(found.search, tested={}, tests={}, confirmation=[])
    return Found(search, [trial for trial in found.trials if trial.stage == "search"])


def column(table, title):
    """By row name, a column of a table."""
    place = table.header.index(title)
    return {row[0]: row[place] for row in table.rows}


def row_of(table, number):
    """By column name, a row of a table."""
    return dict(zip(table.header, table.rows[number], strict=True))


# Table 1.


def test_two_searches_share_one_table_1_in_the_papers_order():
    found = [table1_search("svhn", [16, 8]), table1_search("cifar10", [8, 16])]
    table = table1(found)
    assert table.header[1:] == ("CIFAR-10 8×8", "CIFAR-10 16×16", "SVHN 8×8", "SVHN 16×16")
    assert [row[0] for row in table.rows] == [
        f"{name} {row}" for name in ("AlexNet", "VGG-16", "ResNet-18") for row in ROWS
    ]
    assert [other.name for other in tables_of(found)] == ["table1", "cells-made_up-svhn", "cells-made_up-cifar10"]


def test_the_papers_number_stands_beside_ours():
    cells = column(table1([table1_search("cifar10", [8, 16]), table1_search("svhn", [8])]), "CIFAR-10 8×8")
    # Base 0.70, DFD 0.72, HR baseline 0.94 − 0.01 for ResNet-18: 2 points, 2 / 23 of the gap.
    assert [cells[f"ResNet-18 {row}"] for row in ROWS] == [
        "93.00",
        "70.00 (79.86)",
        "72.00 (81.26)",
        "2",
        "+2.00 (+1.40)",
        "9%",
        "too few seeds for a verdict",
    ]
    svhn = column(table1([table1_search("cifar10", [8]), table1_search("svhn", [8])]), "SVHN 8×8")
    assert svhn["AlexNet DFD"] == "72.00 (81.97)"


def test_table_1_says_which_of_a_searchs_cells_it_shows():
    explore = {"backbone": BACKBONES, "student_start": ["base", "scratch"], "lambda_": [0, 2]}
    request = make_request(explore)
    trials = grid_trials(request, lambda point: 0.9)
    table = table1([Found(make_search(request, TEACHERS), trials)])
    assert "Of its 6 cells, the 3 with base." in table.caption
    assert "Of its" not in table1([table1_search("digits", [4])]).caption


def test_seeds_give_intervals():
    # Differences of 2, 3 and 4 points: mean 3, s = 1, half width 4.3027 / √3 = 2.48.
    accuracy = {0: 0.70, 0.5: 0.6, 2: 0.72}
    found = table1_search(
        "cifar10",
        [8, 16],
        3,
        lambda point: accuracy[point["lambda_"]] + 0.01 * (point["seed"] - AWAY) * (point["lambda_"] > 0),
    )
    cells = column(table1([found]), "CIFAR-10 16×16")
    assert cells["VGG-16 base (λ = 0)"] == "70.00 ± 0.00 (88.02)"
    assert cells["VGG-16 DFD"] == "73.00 ± 2.48 (89.35)"
    assert cells["VGG-16 DFD − base"] == "+3.00 ± 2.48 (+1.33)"
    assert cells["VGG-16 verdict"] == "too few seeds for a verdict"


def recorded_search(gain=0.15, backbones=BACKBONES, dataset="digits", seeds=5, **changes):
    """A search of λ = 0 and 1 whose confirmation is recorded image by image, and its teachers are."""
    request = make_request({"backbone": list(backbones), "lambda_": [0, 1]}, dataset=dataset)
    trials = grid_trials(request, lambda point: 0.9)
    search = make_search(request, TEACHERS, **changes)
    search, trials = confirmed(search, trials, students(gain), seeds=seeds, cells="all")
    return Found(with_teachers_images(search, np.arange(360) % 20 > 0), trials)


def test_verdicts_are_of_all_cells_of_a_table_together():
    found = recorded_search()
    table = table1([found])
    judged = judge([compare(found.search, cell) for cell in found.cells])
    cells = column(table, "digits 4×4")
    assert cells["VGG-16 verdict"] == judged[2].verdict == "better"
    assert cells["VGG-16 DFD − base"] == signed(judged[2].comparison.difference)
    assert "p values adjusted by Holm's method for 3 comparisons" in table.caption
    assert "over seeds and test images" in table.caption
    chance = [recorded_search(0.045), recorded_search(0.0, search="null")]
    alone, among = ([row[-1] for row in cells_table(some).rows] for some in chance)
    assert set(among) == {"no significant difference"}
    together = [text for row in table1(chance).rows for text in row[1:] if row[0].endswith("verdict")]
    assert alone[:-1].count("better") > together.count("better") > 0


def test_the_table_of_cells_ends_with_all_of_them_pooled():
    found = recorded_search()
    table = cells_table(found)
    assert [row[0] for row in table.rows] == [*BACKBONES, "pooled"]
    last = row_of(table, 3)
    assert {last[name] for name in ("start", "epochs", "chosen λ", "HR baseline, %")} == {"–"}
    together = pooled(found.search, found.cells)
    assert (last["seeds"], last["difference"], last["verdict"]) == ("5", signed(together.difference), "better")
    seen = float(last["would have seen"])
    assert seen == pytest.approx(100 * together.paired.smallest_seen, abs=0.005)
    assert all(seen < float(row_of(table, number)["would have seen"]) for number in range(3))
    assert float(last["p (Holm)"]) < 0.05
    (single,) = cells_table(recorded_search(backbones=["vgg16"])).rows
    assert single[0] == "vgg16"


def test_a_gap_recovered_has_its_interval():
    found = recorded_search()
    gap = compare(found.search, found.cells[0]).gap_recovered
    assert row_of(cells_table(found), 0)["gap recovered"] == f"{gap.mean:.0%} ± {100 * gap.half:.0f}"


def test_where_images_are_not_recorded_the_caption_says_what_intervals_are_of():
    old = table1_search("cifar10", [8], 5)
    table = cells_table(old)
    assert {row[-1] for row in table.rows} == {"no verdict without each image"}
    assert "over seeds alone: no verdict" in table.caption
    assert "seeds and test images" not in table.caption
    assert "over seeds alone" not in cells_table(recorded_search()).caption


def test_a_dataset_that_the_paper_does_not_have_has_no_number_of_the_papers():
    table = table1([table1_search("digits", [4, 2])])
    text = " ".join(cell for row in table.rows for cell in row)
    assert table.header[1:] == ("digits 2×2", "digits 4×4")
    assert "(" not in text.replace("(λ = 0)", "")
    assert "paper" not in table.caption
    beside = "In brackets: the paper's number, one run on all training images; ours are trained on 45,000 of 50,000"
    assert beside in table1([table1_search("cifar10", [8])]).caption


def test_a_resolution_that_the_paper_does_not_have_has_none_either():
    table = table1([table1_search("cifar10", [8, 4])])
    assert column(table, "CIFAR-10 4×4")["VGG-16 base (λ = 0)"] == "70.00"
    assert column(table, "CIFAR-10 8×8")["VGG-16 base (λ = 0)"] == "70.00 (78.41)"
    assert "brackets" not in table1([table1_search("cifar10", [4])]).caption


@pytest.mark.parametrize(
    "departure",
    [{"student_start": "teacher"}, {"width": 0.5}, {"epochs": 50}, {"batch_size": 64}, {"teacher_sees": "low_res"}],
    ids=lambda departure: next(iter(departure)),
)
def test_beside_training_that_is_not_the_papers_own_stands_none_of_its_numbers(departure):
    table = table1([table1_search("cifar10", [8], settings=departure)])
    assert column(table, "CIFAR-10 8×8")["VGG-16 base (λ = 0)"] == "70.00"
    assert "brackets" not in table.caption


def test_nor_beside_training_on_few_of_its_images():
    whole = table1_search("cifar10", [8])
    few = dataclasses.replace(whole.search, dataset={**whole.search.dataset, "train_images": 4500})
    table = table1([Found(few, whole.trials)])
    assert column(table, "CIFAR-10 8×8")["VGG-16 base (λ = 0)"] == "70.00"
    assert "brackets" not in table.caption


def test_of_two_searches_of_the_same_cell_neither_is_lost():
    first, second = table1_search("digits", [4]), table1_search("digits", [4], search="longer")
    table = table1([first, second])
    assert table.header[1:] == ("digits 4×4", "digits 4×4 (longer)")


def test_a_single_cell_is_no_table_1():
    request = make_request({"lambda_": [0, 1]})
    trials = grid_trials(request, lambda point: 0.9)
    one = Found(make_search(request, {}), trials)
    assert table1([one]) is None
    assert table1([one, table1_search("cifar10", [8])]) is not None


def test_table_1_is_of_dfd_without_front_end_whatever_else_was_explored():
    explore = {"method": ["kd", "dfd"], "backbone": BACKBONES, "lambda_": [0, 1]}
    request = make_request(explore)
    trials = grid_trials(request, lambda point: 0.9)
    accuracy = {"kd": 0.9, "dfd": 0.8}
    search = with_tests(make_search(request, TEACHERS), trials, lambda point: accuracy[point["method"]])
    cells = column(table1([Found(search, trials)]), "digits 4×4")
    assert cells["ResNet-18 DFD"] == "80.00"
    only = make_request({"method": ["kd"], "backbone": BACKBONES, "lambda_": [0, 1]})
    assert table1([Found(make_search(only, {}), grid_trials(only, lambda point: 0.9))]) is None


def test_an_unfinished_search_has_dashes_where_nothing_is_known():
    found = of_search(table1_search("cifar10", [8]))
    trials = [trial for trial in found.trials if trial.config["backbone"] != "vgg16"]
    search = dataclasses.replace(found.search, teachers=[])
    table = table1([Found(search, trials), table1_search("svhn", [8])])
    cells = column(table, "CIFAR-10 8×8")
    assert {cells[f"VGG-16 {row}"] for row in ROWS} == {"–"}
    assert cells["ResNet-18 base (λ = 0)"] == "– (79.86)"
    assert cells["ResNet-18 HR baseline"] == "–"
    assert cells["ResNet-18 DFD − base"] == "–"
    assert cells["ResNet-18 verdict"] == "not tested yet"
    assert "Unfinished: 6 of 9 trials have a result." in table.caption


# Table 2.


def frontend(kind, psnr, camera=CAMERA):
    return FrontendRecord(
        key=kind,
        kind=kind,
        size=0.25,
        resolution=8,
        content="vgg19" if kind == "srgan" else None,
        psnr=psnr,
        ssim=0.9,
        camera=dataclasses.asdict(camera),
        bicubic_psnr=20.0,
        bicubic_ssim=0.8,
    )


def table2_search(dataset="cifar10", seeds=3, frontends=("srgan", "none", "espcn", "vdsr"), **changes):
    """A search as `table2` makes it, its front ends not in the paper's order: λ > 0 without front end alone."""
    explore = {"frontend": list(frontends), "lambda_": [0, 2]}
    request = made_as(explore, dataset, frontend_content="vgg19")
    trials = [
        trial
        for trial in grid_trials(request, lambda point: 0.8)
        if trial.config["lambda_"] == 0 or trial.config["frontend"] == "none"
    ]
    plain = {"none": 0.79, "vdsr": 0.80, "espcn": 0.78, "srgan": 0.77}
    records = [frontend(kind, 20 + number) for number, kind in enumerate(frontends) if kind != "none"]
    search = make_search(request, {"resnet18": 0.94}, frontends=records, **changes)

    def accuracy(config):  # fresh seeds differ by one point, and no pair by more than another
        return plain[config["frontend"]] + 0.01 * config["lambda_"] + 0.01 * (config["seed"] % AWAY)

    return concluded(search, trials, accuracy, seeds=seeds)


def test_table_2_has_the_papers_rows_in_its_order_with_its_numbers():
    table = table2(table2_search())
    assert [(row[0], row[-1]) for row in table.rows] == [
        ("HR baseline, ResNet-18", "93.38"),
        ("LR baseline, ResNet-18 at 8×8", "79.86"),
        ("VDSR + ResNet-18 at 8×8", "80.00"),
        ("ESPCN + ResNet-18 at 8×8", "79.41"),
        ("SRGAN + ResNet-18 at 8×8", "79.05"),
        ("DFD, λ = 2, ResNet-18 at 8×8", "81.26"),
    ]


def test_table_2_compares_front_ends_and_dfd_with_the_lr_baseline():
    table = table2(table2_search())
    rows = {row[0].split()[0].strip(","): row[1:-1] for row in table.rows}
    # Seeds are 0.01 apart, so s = 0.01, and the half width is 4.3027 · 0.01 / √3 = 0.0248.
    half = f"{100 * half_width([0.0, 0.01, 0.02]):.2f}"
    assert half == "2.48"
    assert rows["HR"] == ("93.00", "", "", "")
    assert rows["LR"] == (f"80.00 ± {half}", "", "", "20.00 / 0.800")
    few = "too few seeds for a verdict"
    assert rows["VDSR"] == (f"81.00 ± {half}", "+1.00 ± 0.00", few, "23.00 / 0.900")
    assert rows["ESPCN"] == (f"79.00 ± {half}", "−1.00 ± 0.00", few, "22.00 / 0.900")
    assert rows["DFD"] == (f"82.00 ± {half}", "+2.00 ± 0.00", few, "")
    assert "those of the LR baseline, of bicubic enlargement" in table.caption


def test_table_2_judges_front_ends_and_dfd_together():
    found = table2_search("digits", seeds=5)
    better = students(0.2)

    def right(config):  # behind VDSR plain training is as good as the distilled student
        return better({**config, "lambda_": 1.0 if config["frontend"] == "vdsr" else config["lambda_"]})

    anew = trials_to_test(found.search, found.trials)
    table = table2(Found(with_each_image(found.search, anew, right), found.trials))
    verdicts = {row[0].split()[0].strip(","): row[3] for row in table.rows}
    chance = "no significant difference"
    assert verdicts == {"HR": "", "LR": "", "VDSR": "better", "ESPCN": chance, "SRGAN": chance, "DFD": "better"}
    assert "for 4 comparisons" in table.caption


def test_while_students_are_trained_anew_the_tables_say_that_they_are_not_tested_yet():
    whole = table2_search()
    search = dataclasses.replace(whole.search, tested={}, tests={})
    found = Found(search, of_search(whole).trials)
    waits = "not tested yet"
    verdicts = {row[0].split()[0].strip(","): row[3] for row in table2(found).rows}
    assert verdicts == {"HR": "", "LR": "", "VDSR": waits, "ESPCN": waits, "SRGAN": waits, "DFD": waits}
    assert column(cells_table(found), "verdict")["frontend=none"] == waits


def test_table_2_of_a_search_that_confirmed_its_best_cell_alone_says_what_is_not_confirmed():
    own = of_search(table2_search())
    search, trials = confirmed(own.search, own.trials, students(0.2), cells="best")
    table = table2(Found(search, trials))
    verdicts = {row[0].split()[0].strip(","): row[3] for row in table.rows}
    waits = "not confirmed"
    assert verdicts == {"HR": "", "LR": "", "VDSR": waits, "ESPCN": waits, "SRGAN": waits, "DFD": "better"}
    assert "The verdict is at 5 %." in table.caption


def test_table_2_takes_the_quality_of_its_own_cameras_front_ends():
    noisy = frontend("vdsr", 15, Camera(8, noise=10.0))
    found = table2_search()
    search = dataclasses.replace(found.search, frontends=[noisy, *found.search.frontends])
    rows = {row[0].split()[0]: row for row in table2(Found(search, found.trials)).rows}
    assert rows["VDSR"][-2] == "23.00 / 0.900"
    table = frontends_table(Found(search, found.trials))
    assert [row[:2] for row in table.rows[:2]] == [("vdsr", "bicubic noise=10"), ("srgan", "bicubic")]


def test_table_2_on_other_images_has_no_number_of_the_papers():
    table = table2(table2_search("digits"))
    assert {row[-1] for row in table.rows} == {"–"}
    assert "LR baseline, ResNet-18 at 4×4" in [row[0] for row in table.rows]


def test_table_2_of_an_unfinished_search_says_so():
    whole = of_search(table2_search())
    trials = [trial for trial in whole.trials if trial.config["frontend"] in ("vdsr", "espcn")]
    search = dataclasses.replace(whole.search, teachers=[], frontends=[])
    table = table2(Found(search, trials))
    assert [row[0].split()[0] for row in table.rows] == ["HR", "VDSR", "ESPCN"]
    assert table.rows[1][1:-1] == ("–", "–", "not tested yet", "")
    assert "Unfinished: 2 of 5 trials have a result." in table.caption
    assert table2(Found(search, [])) is None


def test_a_search_without_front_ends_has_no_table_2():
    assert [table.name for table in tables_of([table1_search("digits", [4])])] == ["table1", "cells-made_up-digits"]


def test_each_search_with_front_ends_has_a_table_2_of_its_own():
    names = [table.name for table in tables_of([table2_search(search="a"), table2_search("digits", search="b")])]
    assert [name for name in names if name.startswith("table2")] == ["table2-a", "table2-b"]
    assert "table2" in [table.name for table in tables_of([table2_search()])]


def test_the_front_ends_table_holds_their_quality():
    table = frontends_table(table2_search())
    assert table.rows[0] == ("srgan", "bicubic", "8×8 → 16×16", "20.00", "0.9000", "20.00", "0.8000", "vgg19")
    assert [row[0] for row in table.rows] == ["srgan", "espcn", "vdsr"]
    assert [row[-1] for row in table.rows[1:]] == ["–", "–"]
    assert "0.25 times the published ones" in table.caption


# All cells, and what all tables say.


def test_the_table_of_cells_has_a_row_a_cell():
    found = table1_search("digits", [4])
    table = cells_table(found)
    assert [row[0] for row in table.rows] == [f"resolution=4 {backbone}" for backbone in BACKBONES]
    assert row_of(table, 0) == {
        "cell": "resolution=4 resnet18",
        "seeds": "1",
        "start": "scratch",
        "epochs": "20",
        "base (λ = 0), %": "70.00",
        "chosen λ": "2",
        "distilled, %": "72.00",
        "difference": "+2.00",
        "gap recovered": "9%",
        "HR baseline, %": "93.00",
        "would have seen": "–",
        "p (Holm)": "–",
        "verdict": "too few seeds for a verdict",
    }


def test_the_table_of_controls_holds_the_student_against_each_of_them():
    # On test images students have 72, plain training 70, and for half of 20 epochs again, thus 30, 71 per cent.
    request = made_as({"lambda_": [0, 2]}, "digits")
    trials = grid_trials(request, lambda point: 0.7 + 0.05 * point["lambda_"])

    def accuracy(config):
        return 0.7 + 0.01 * config["lambda_"] + 0.01 * (config["epochs"] == 30)

    found = concluded(make_search(request, TEACHERS), trials, accuracy, seeds=1, controls=("half_longer", "tuned_base"))
    table = controls_table(found)
    few = "too few seeds for a verdict"
    assert table.header[1:5] == ("held against", "its accuracy, %", "distilled, %", "difference")
    assert [row[1:] for row in table.rows] == [
        (CONTROLS["half_longer"], "71.00", "72.00", "+1.00", "–", "–", few),
        (CONTROLS["tuned_base"], "70.00", "72.00", "+2.00", "–", "–", few),
    ]
    assert table.name in [other.name for other in tables_of([found])]
    assert controls_table(concluded(make_search(request, TEACHERS), trials, accuracy, seeds=1)) is None


def test_a_search_that_has_just_begun_has_no_table():
    request = make_request({"lambda_": [0, 1]})
    running = make_trial(request, {"lambda_": 1.0}, 0.0, status="RUNNING")
    assert tables_of([Found(make_search(request, {}), [running])]) == []


@pytest.mark.parametrize("protocol", ["validation", "paper"])
def test_every_table_of_test_accuracies_says_what_chose_lambda(protocol):
    found = [table2_search(protocol=protocol), table1_search("svhn", [8], protocol=protocol, search="other")]
    tables = tables_of(found)
    assert [table.name for table in tables] == [
        "table1",
        "table2",
        "cells-made_up-cifar10",
        "frontends-made_up-cifar10",
        "cells-other",
    ]
    for table in tables:
        if table.name.startswith("frontends"):
            continue
        assert ("λ was chosen on TEST images" in table.caption) == (protocol == "paper")
        assert ("λ was chosen on validation images" in table.caption) == (protocol != "paper")
        in_sight = [table.title, *table.header]
        assert any("λ chosen on TEST images" in text for text in in_sight) == (protocol == "paper"), table.name


def test_in_a_shared_table_the_column_says_which_search_chose_on_test_images():
    table = table1([table1_search("cifar10", [8]), table1_search("svhn", [8], protocol="paper")])
    assert table.header[1:] == ("CIFAR-10 8×8", "SVHN 8×8, λ chosen on TEST images")


def test_every_table_is_ascii_in_latex():
    for table in tables_of([table2_search(protocol="paper"), table1_search("svhn", [8, 16], 2, search="a_b")]):
        assert as_latex(table).isascii(), table.name


def test_numbers_are_written_with_their_intervals_and_true_minus_signs():
    worse = cells_table(table1_search("digits", [4], accuracy=lambda point: 0.7 - 0.01 * point["lambda_"]))
    assert (row_of(worse, 0)["difference"], row_of(worse, 0)["gap recovered"]) == ("−2.00", "−9%")
    assert (text_of(None), signed(None)) == ("–", "–")
    assert signed(Interval(-1e-9, None, 1)) == "+0.00"
    almost = cells_table(table1_search("digits", [4], accuracy=lambda point: 0.7 - 1e-9 * point["lambda_"]))
    assert (row_of(almost, 0)["difference"], row_of(almost, 0)["gap recovered"]) == ("+0.00", "0%")
