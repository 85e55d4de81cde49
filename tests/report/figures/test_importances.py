"""Importances as bars."""

from dfd_tune.report.figures.importances import importances
from tests.report.searches import make_request, make_search, make_trial

REQUEST = make_request(
    {"lambda_": {"low": 0.1, "high": 10, "log": True}, "learning_rate": {"low": 0.01, "high": 0.1}}, "tpe", 2
)
TRIALS = [make_trial(REQUEST, {"lambda_": value, "learning_rate": 0.05}, 0.9) for value in (1.0, 2.0)]


def test_a_bar_for_each_setting_the_most_important_on_top(draw):
    search = make_search(REQUEST, {}, importances={"lambda_": 0.23, "learning_rate": 0.77})
    drawn = draw(lambda folder: importances(search, TRIALS, folder))
    assert [text for text in drawn.texts if text in ("λ", "learning_rate")] == ["λ", "learning_rate"]  # from below
    assert [text for text in drawn.texts if text in ("23 %", "77 %")] == ["23 %", "77 %"]
    assert "share in what sets the best tenth apart, % (PED-ANOVA)" in drawn.texts


def test_the_figure_says_what_it_is_of(draw):
    search = make_search(REQUEST, {}, importances={"lambda_": 0.0, "learning_rate": 0.0})
    twin = make_trial(REQUEST, {"lambda_": 0.0, "learning_rate": 0.05}, 0.9)
    drawn = draw(lambda folder: importances(search, [*TRIALS, twin], folder))
    assert "What mattered among the explored settings" in drawn.texts
    assert "digits at 4×4 instead of 8×8 pixels" in drawn.text
    assert (
        "From 2 trials chosen by TPE, on validation images. Of few trials, the best tenth are two or three."
        in drawn.texts
    )


def test_without_importances_nothing_is_drawn(tmp_path):
    assert importances(make_search(REQUEST, {}), TRIALS, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
