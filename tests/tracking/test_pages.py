"""MLflow's pages of a search, as `dfd-tune ui NAME` names them, in Debian's Chromium without a screen.

The search was run elsewhere: here its records lie in the store, and no MLflow database.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dfd_tune.store import open_store
from dfd_tune.tracking.view import runs_url
from tests.tracking.copies import concluded_search, write_folder

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_MS = 60_000
"""For a page on a busy machine; one that is idle shows it in two or three seconds."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no /usr/bin/chromium (Debian's package chromium)"),
]


@pytest.fixture(scope="module")
def pages(start_cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The addresses that the command says, by what it says of them."""
    store = open_store(tmp_path_factory.mktemp("pages") / "store")
    search, trials = concluded_search("paged")
    write_folder(store, search, trials)
    process = start_cli("ui", "paged", "--store", store.root, "--port", "5300")
    try:
        yield _addresses(process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _addresses(process: subprocess.Popen[str]) -> dict[str, str]:
    said: dict[str, str] = {}
    assert process.stdout is not None
    for line in process.stdout:
        what, _, address = line.strip().rpartition(": ")
        said[what] = address
        if "report" in what:
            return said
    raise AssertionError(f"the command ended, and said {said}")


def _place(pages: dict[str, str]) -> tuple[str, str]:
    """The server's address, and the experiment's id."""
    found = re.match(r"(.*)/#/experiments/(\d+)/", pages["Its report and best student"])
    assert found is not None
    return found[1], found[2]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser) -> Iterator[Callable]:
    """Opens an address in a browser that knows nothing yet, and waits for a text."""
    context = browser.new_context(viewport={"width": 1500, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)

    def open_(address: str, text: str):
        page.goto(address)
        page.get_by_text(text).first.wait_for()
        return page

    yield open_
    context.close()


def test_the_runs_page_shows_settings_accuracy_and_duration_the_best_first(pages, opened) -> None:
    page = opened(pages["Runs of 'paged'"], "val_accuracy")
    column = page.locator(".ag-row .ag-cell[col-id='metrics.`val_accuracy`']")
    column.first.wait_for()
    headers = {text.strip() for text in page.locator(".ag-header-cell").all_inner_texts()}
    assert headers == {"", "Run Name", "Created", "val_accuracy", "backbone", "lambda_", "Duration"}
    numbers = [float(text) for text in column.all_inner_texts() if text != "-"]  # the summary has none
    assert len(numbers) == 5
    assert numbers == sorted(numbers, reverse=True)
    assert "1.0min" in page.locator(".ag-row .ag-cell[col-id='duration']").all_inner_texts()  # 60.5 s


def test_the_runs_page_opens_also_without_its_view(pages, opened) -> None:
    base, number = _place(pages)
    page = opened(runs_url(base, number, view=False), "Run Name")
    page.locator(".ag-row").nth(5).wait_for()


def test_the_comparison_draws_its_parallel_coordinates(pages, opened) -> None:
    page = opened(pages["Its trials side by side"], "Parallel Coordinates Plot")
    plot = page.locator(".js-plotly-plot")
    plot.locator(".y-axis").nth(2).wait_for()
    assert plot.locator(".axis-title").all_text_contents() == ["backbone", "lambda_", "val_accuracy"]
    assert plot.locator("canvas").count() > 0


def test_a_run_has_its_curves(pages, opened) -> None:
    page = opened(pages["Runs of 'paged'"], "val_accuracy")
    page.locator(".ag-row a", has_text="λ=0").first.click()
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_test_id("experiment-view-compare-runs-card").first.wait_for()
    line = page.locator(".js-plotly-plot .scatterlayer .point")
    line.nth(3).wait_for()  # a point an epoch


def test_the_best_student_has_its_alias_signature_and_example(pages, opened) -> None:
    page = opened(pages["Its report and best student"], "Registered models")
    page.locator("a[href$='models/paged/versions/1']").first.click()
    page.get_by_text("Aliases").wait_for()
    page.get_by_text(re.compile(r"^@\s*best$")).first.wait_for()
    page.get_by_text("Inputs (1)").click()
    page.get_by_text("uint8").wait_for()
    base, number = _place(pages)
    [logged] = MlflowClient(base, base).search_logged_models([number])
    opened(f"{base}/#/experiments/{number}/models/{logged.model_id}/artifacts", "input_example.json")
