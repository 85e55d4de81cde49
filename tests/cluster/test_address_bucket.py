"""A search on a cluster that is known by its job port alone, with its store in a bucket."""

from collections.abc import Iterator

import pytest

from benchmarks.processes import Search, wait_for
from tests.cluster.s3 import SECRET, VARIABLES, address, serving
from tests.cluster.test_address import TOKEN, User, answers, asked
from tests.search.clusters import local_cluster

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(1200)]
SPACE = """
confirm: {seeds: 0}
explore: {lambda_: [0, 1]}
settings: {backbone: alexnet, width: 0.25, train_images: 200, test_images: 100, epochs: 3, teacher_epochs: 2}
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Iterator[User]:
    home, nodes = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("nodes")
    (home / "short.yaml").write_text(SPACE)
    with serving(home) as options:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        own = VARIABLES | {"DFD_TUNE_CACHE": str(nodes / "cache")}
        with local_cluster(2, environment=token | own, job_port=True) as cluster:
            wait_for(lambda: answers(cluster.job_address), "the job port")
            yield User(cluster.job_address, home, address("far", options))


@pytest.fixture
def launch(user) -> tuple[object, ...]:
    given = ("launch", "--dataset", "digits", "--space", user.home / "short.yaml", "--device", "cpu", "--yes")
    return (*given, *user.where)


def test_through_the_job_port_images_come_into_the_bucket_and_the_search_here(user, launch):
    kept_out = {"DFD_TUNE_CACHE": "/proc/cache"}  # what keeps this laptop from the bucket, as moto asks nobody
    said = user.run(*launch, "--name", "far", **kept_out)
    assert "through the head node" in said
    assert "Sending" in said
    assert Search(user.home / "store", "far").statuses() == {"FINISHED": 2}
    assert SECRET not in said + asked(user, "/api/jobs/")


def test_from_where_the_bucket_is_reached_nothing_is_sent_twice_and_all_works_without_the_cluster(user, launch):
    mine = VARIABLES | {"DFD_TUNE_CACHE": str(user.home / "cache")}
    said = user.run(*launch, "--name", "again", **mine)
    assert "Sending" not in said
    assert Search(user.home / "store", "again").statuses() == {"FINISHED": 2}
    assert "finished" in user.run("status", "again", "--store", user.there, **mine)
    assert "lambda" in user.run("results", "again", "--store", user.there, **mine)
    fetched = user.run("fetch", "far", "--address", "http://127.0.0.1:9", "--cluster-store", user.there, **mine)
    assert "finished" in fetched
