"""A launch on several datasets: a search each, their names and files, one experiment, one report."""

import pytest

from dfd_tune.api import searches_for
from dfd_tune.defaults import EMBEDDED
from dfd_tune.errors import UserError


def asked(space="lambda_grid", dataset=None, data=(), name=None):
    return searches_for(space, dataset=dataset, data=data, assignments=[], name=name)


@pytest.fixture
def own(tmp_path):
    def write(line):
        file = tmp_path / "own.yaml"
        file.write_text(f"explore: {{lambda_: [0, 1]}}\n{line}\n")
        return str(file)

    return write


def test_a_single_dataset_has_an_experiment_of_its_search(own):
    (one,) = asked(dataset="digits", name="mine")
    assert (one.name, one.experiment, one.request.dataset.dataset, one.named) == ("mine", "", "digits", True)
    (one,) = asked()
    assert (one.request.dataset.dataset, one.named) == (EMBEDDED, False)


def test_several_share_an_experiment_and_have_recipes_of_their_own():
    first, second = asked(dataset="digits, cifar10,digits", name="both")
    assert [one.name for one in (first, second)] == ["both-digits", "both-cifar10"]
    assert {one.experiment for one in (first, second)} == {"both"}
    assert first.request.settings["epochs"] != second.request.settings["epochs"]
    unnamed = asked(dataset="digits,svhn")
    assert all(f"-{one.request.dataset.dataset}-" in one.name for one in unnamed)
    assert "-digits-svhn-" in unnamed[0].experiment


def test_a_space_may_name_them_and_the_command_line_wins(own):
    space = own("dataset: [digits, letters]")
    assert [one.request.dataset.dataset for one in asked(space)] == ["digits", "letters"]
    assert [one.request.dataset.dataset for one in asked(space, dataset="svhn")] == ["svhn"]
    assert [one.request.dataset.dataset for one in asked(own("dataset: letters"))] == ["letters"]


def test_files_are_given_by_name(tmp_path):
    (one,) = asked(dataset="folder", data=[str(tmp_path)])
    assert one.request.dataset.data == str(tmp_path)
    (one,) = asked(dataset="folder", data=["a=b"])
    assert one.request.dataset.data.endswith("a=b")
    first, second = asked(dataset="cifar10,folder", data=[f"folder={tmp_path}"])
    assert (first.request.dataset.data, second.request.dataset.data) == (None, str(tmp_path))


@pytest.mark.parametrize(
    ("dataset", "data", "line", "named"),
    [
        ("digits,cifar", [], "", ["cifar", "cifar10"]),
        ("digits,folder", ["/x"], "", ["/x", "digits=PATH"]),
        (None, [], "dataset: [digitz]", ["digitz", "digits"]),
        (None, [], "dataset: {a: 1}", ["dataset", "list"]),
        (None, [], "dataset: [3]", ["dataset", "list"]),
    ],
)
def test_what_can_not_be_meant(own, dataset, data, line, named):
    with pytest.raises(UserError) as caught:
        asked(own(line), dataset=dataset, data=data)
    assert len(caught.value.problems) == 1
    assert all(word in caught.value.problems[0] for word in named), caught.value.problems


@pytest.mark.slow
def test_two_datasets_come_into_one_experiment_and_one_report(run_cli, ray_variables, tmp_path):
    from mlflow import MlflowClient

    store = tmp_path / "store"
    tiny = ("--set", "train_images=100", "--set", "test_images=60", "--set", "width=0.125", "--set", "epochs=1")
    space = tmp_path / "two.yaml"
    space.write_text("confirm: {seeds: 0}\nexplore: {lambda_: [0, 1]}\ndataset: [digits, letters]\n")
    done = run_cli("launch", "--space", space, "--name", "two", "--store", store, *tiny, **ray_variables)
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = (store / "searches" / "two-digits").glob("report-*/report.html")
    assert str(report) in done.stdout
    assert "two-letters" in report.read_text()
    uri = f"sqlite:///{store}/mlflow.db"
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("two")
    runs = client.search_runs([experiment.experiment_id])
    kinds = [(run.data.tags["dfd.search"], run.data.tags["dfd.kind"]) for run in runs]
    assert sorted(kinds) == sorted(
        (f"two-{name}", kind) for name in ("digits", "letters") for kind in ("summary", "trial", "trial")
    )
    again = run_cli("launch", "--space", space, "--name", "two", "--store", store, *tiny, **ray_variables)
    assert again.returncode == 0
    assert again.stdout.count("All trials of this search are finished already.") == 2
    assert len(client.search_runs([experiment.experiment_id])) == len(runs)
