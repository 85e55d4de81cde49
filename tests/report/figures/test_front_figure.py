"""Accuracy against cost, drawn and told."""

import dataclasses

from dfd_tune.report.captions import chosen_by
from dfd_tune.report.figures.front import front
from dfd_tune.report.fronts import front_line, front_objects, limit_line
from dfd_tune.report.tables import ranking
from tests.report.searches import make_request, make_search, make_trial

REQUEST = make_request({"lambda_": [0, 1, 2]})


def trials_of(*pairs, metric="parameters"):
    found = []
    for lambda_, (accuracy, cost) in enumerate(pairs):
        trial = make_trial(REQUEST, {"lambda_": lambda_}, accuracy)
        found.append(dataclasses.replace(trial, metrics=trial.metrics | {metric: cost}))
    return found


TRIALS = trials_of((0.9, 500.0), (0.8, 100.0), (0.7, 200.0))


def search_of(choose="accuracy", cost="parameters"):
    return make_search(REQUEST, {}, objectives=["accuracy", cost], choose=choose)


def test_the_figure_shows_points_front_and_limit(draw):
    drawn = draw(lambda folder: front(search_of("front:parameters<=300"), TRIALS, folder))
    assert {"points", "front", "limit of the choice", "parameters", "validation accuracy, %"} <= set(drawn.texts)


def test_without_a_second_objective_nothing_is_drawn(tmp_path):
    assert front(make_search(REQUEST, {}), TRIALS, tmp_path) == []
    assert front(search_of(), [], tmp_path) == []


def test_the_line_names_both_ends_and_the_ranking_the_members():
    line = front_line(search_of(), TRIALS)
    assert "2 points" in line
    assert "accuracy 80.00% on validation images with 100 parameters to accuracy 90.00%" in line
    header, rows = ranking(search_of(), TRIALS)
    columns = [header.index(name) for name in ("parameters", "front")]
    assert [[row[column] for column in columns] for row in rows] == [["500", "front"], ["100", "front"], ["200", ""]]
    assert all(len(row) == len(header) for row in rows)
    assert "front" not in ranking(make_search(REQUEST, {}), TRIALS)[0]


def test_latency_is_told_in_milliseconds():
    trials = trials_of((0.9, 0.0025), (0.8, 0.001), (0.7, 0.002), metric="image_seconds")
    search = search_of(cost="latency")
    assert "1 ms an image" in front_line(search, trials)
    header, rows = ranking(search, trials)
    assert [row[header.index("latency, ms")] for row in rows] == ["2.5", "1", "2"]
    assert [found["latency"] for found in front_objects(search, trials)] == [0.001, 0.0025]


def test_a_limit_that_leaves_nothing_is_said():
    assert limit_line(search_of("front:parameters<=300"), TRIALS) is None
    assert "the smallest has 100 parameters" in limit_line(search_of("front:parameters<=99"), TRIALS)


def test_whoever_reads_what_was_chosen_reads_within_which_limit():
    limited = chosen_by(search_of("front:parameters<=300"))
    assert "among students with at most 300 parameters" in limited
    assert limited.replace(" among students with at most 300 parameters", "") == chosen_by(search_of())
