"""Cluster files: those that come along, and what is said of those that are wrong."""

import json
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from dfd_tune.cluster.checks import PLACEHOLDER
from dfd_tune.cluster.files import read_cluster, shipped_clusters
from dfd_tune.errors import UserError

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHIPPED = {"onprem", "aws", "gcp", "kuberay", "slurm", "Dockerfile"}
RAY_FILES = ("onprem", "aws", "gcp")
HOSTS = "provider: {type: local, head_ip: h1, worker_ips: [h2, h3]}\n"
NAMED = "cluster_name: mine\n"


def text_of(name):
    return shipped_clusters()[name].read_text()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home with the key and the token that the shipped files name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".ssh/dfd-cluster", ".ray/auth_token"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("secret")
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.fixture
def read(tmp_path):
    """Read a cluster file from text."""

    def read_text(text):
        (tmp_path / "mine.yaml").write_text(text)
        return read_cluster(str(tmp_path / "mine.yaml"))

    return read_text


@pytest.fixture
def refusals(read, tmp_path):
    """The sentences with which a file is refused, without its name."""

    def problems(text):
        with pytest.raises(UserError) as caught:
            read(text)
        assert all(problem.endswith((".", "?")) and "\n" not in problem for problem in caught.value.problems)
        return [problem.replace(str(tmp_path / "mine.yaml"), "FILE") for problem in caught.value.problems]

    return problems


@pytest.fixture
def shipped(read):
    """A shipped Ray cluster file, with something in place of each placeholder."""
    return lambda name: read(PLACEHOLDER.sub(lambda found: found[0].lower().replace("_", "-"), text_of(name)))


# Those that come along.


def test_six_files_are_shipped():
    assert set(shipped_clusters()) == SHIPPED


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_takes_the_shipped_files(shipped, name):
    cluster = shipped(name)
    assert cluster.provider == {"onprem": "local"}.get(name, name)
    assert cluster.name == f"dfd-{name}"
    assert cluster.token_file is not None
    assert not set(cluster.config) - set(ray_schema()["properties"])


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_gpus_come_from_zero_and_may_be_spot_machines(shipped, name):
    cluster = shipped(name)
    head, gpu = cluster.kinds
    assert (cluster.device, cluster.head_kind, cluster.most_nodes) == ("cuda", "head", 9)
    assert (head.name, head.cpus, head.gpus, head.max_workers) == ("head", 0, 0, 0)
    assert (gpu.gpus, gpu.min_workers, gpu.max_workers) == (1, 0, 8)
    assert cluster.accelerator == {"aws": "A10G", "gcp": "L4"}[name]
    assert re.search("spot", json.dumps(cluster.config["available_node_types"]["gpu"]), re.IGNORECASE)


def test_the_hosts_of_the_onpremises_file(shipped, home):
    cluster = shipped("onprem")
    assert cluster.head_ip == "fill-in-head-host"
    assert cluster.worker_ips == ("fill-in-worker-1-host", "fill-in-worker-2-host")
    assert (cluster.ssh_user, cluster.ssh_private_key) == ("fill-in-user", home / ".ssh/dfd-cluster")
    assert (cluster.device, cluster.accelerator, cluster.most_nodes) == (None, None, 3)


@pytest.mark.parametrize("name", RAY_FILES)
def test_nothing_is_open_and_lost_nodes_are_soon_told(shipped, name):
    cluster = shipped(name)
    starts = [*cluster.config["head_start_ray_commands"], *cluster.config["worker_start_ray_commands"]]
    for start in (command for command in starts if "ray start" in command):
        assert start.index("export RAY_AUTH_MODE=token") < start.index("ray start")
    (head,) = (command for command in starts if "ray start --head" in command)
    assert "--dashboard-host=127.0.0.1" in head
    settings = json.loads(re.search("--system-config='(.*)'", head)[1])
    assert settings == {
        name.removeprefix("RAY_"): int(value) for name, value in kuberay_environment().items() if value != "0"
    }
    assert "system-config" not in "".join(cluster.config["worker_start_ray_commands"])  # Ray refuses it there


@pytest.mark.parametrize("name", RAY_FILES)
def test_the_commands_are_bash_and_setting_up_twice_changes_nothing(shipped, name, home):
    config = shipped(name).config
    commands = [command for key, value in config.items() if key.endswith("_commands") for command in value]
    assert len(commands) >= 6
    for command in commands:
        assert "\n" not in command
        subprocess.run(["bash", "-n", "-c", command], check=True)
    (path,) = (command for command in config["setup_commands"] if ".bashrc" in command)
    for _ in range(2):
        subprocess.run(["bash", "-c", path], check=True)
    assert (home / ".bashrc").read_text() == 'export PATH="$HOME/dfd-tune-env/bin:$PATH"\n'


def test_the_page_on_clusters_knows_every_file_and_its_placeholders():
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert all(f"dfd-tune cluster example {name}" in page for name in SHIPPED)
    assert set(PLACEHOLDER.findall(page)) <= set(PLACEHOLDER.findall("".join(map(text_of, SHIPPED))))
    for name in ("aws", "gcp"):
        assert all(
            placeholder in page for placeholder in PLACEHOLDER.findall(text_of(name)) if placeholder != "FILL_IN_"
        )


def test_no_file_opens_a_port_to_the_world():
    for name in SHIPPED:
        assert "0.0.0.0" not in text_of(name)
        if name != "Dockerfile":
            assert re.search(r"RAY_AUTH_MODE=token|mode: token", text_of(name))


def test_all_files_name_the_same_versions_and_those_are_ours():
    ray_versions, ours, pythons = set(), set(), set()
    for name in SHIPPED:
        text = text_of(name)
        ray_versions |= set(re.findall(r"ray\[default\]==([\d.]+)'|rayVersion: \"([\d.]+)\"|Ray ([\d.]+\d),", text))
        ours |= set(re.findall(r"dfd-tune(?:\[cluster\])?==([\d.]+)'|dfd-tune:([\d.]+\d)|dfd-tune (\d[\d.]+\d)", text))
        pythons |= set(re.findall(r"--python (3\.\d+)|Python (3\.\d+)|python(3\.\d+)|-py(3)(\d+)", text))
    (ray_version,) = {"".join(found) for found in ray_versions}
    assert {"".join(found) for found in ours} == {PROJECT["version"]}
    (python,) = {"".join(found).replace(".", "") for found in pythons}
    assert f"{python[0]}.{python[1:]}" in Requirement(f"python{PROJECT['requires-python']}").specifier
    needed = [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cluster"]]]
    assert all(ray_version in need.specifier for need in needed if need.name == "ray")
    assert f"rayproject/ray:{ray_version}-py{python}" in text_of("Dockerfile")


def kuberay_environment():
    job = yaml.safe_load(text_of("kuberay"))
    containers = [
        group["template"]["spec"]["containers"][0]
        for group in (
            job["spec"]["rayClusterSpec"]["headGroupSpec"],
            *job["spec"]["rayClusterSpec"]["workerGroupSpecs"],
        )
    ]
    head, worker = ({setting["name"]: setting["value"] for setting in box["env"]} for box in containers)
    assert head == worker
    return head


def test_ray_knows_the_settings_by_which_lost_nodes_are_told():
    from ray._raylet import Config

    for name in kuberay_environment():
        if name != "RAY_USAGE_STATS_ENABLED":
            assert isinstance(getattr(Config, name.removeprefix("RAY_"))(), int)
    exported = dict(re.findall(r"(RAY_(?:health|grpc)_\w+)=(\d+)", text_of("slurm")))
    assert exported == {name: value for name, value in kuberay_environment().items() if name in exported}
    assert len(exported) == 6


def test_the_job_for_kubernetes_scales_gpus_from_zero_with_a_token():
    job = yaml.safe_load(text_of("kuberay"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    (gpu,) = cluster["workerGroupSpecs"]
    assert (gpu["replicas"], gpu["minReplicas"]) == (0, 0)
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    store = job["spec"]["entrypoint"].split("--store ")[1].split()[0]
    for group in (cluster["headGroupSpec"], gpu):
        (mount,) = group["template"]["spec"]["containers"][0]["volumeMounts"]
        assert Path(store).is_relative_to(mount["mountPath"])
    # A stopped search has time to close its books, and one that is tried again goes on by its name.
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "30"
    assert "--name" in job["spec"]["entrypoint"]


# What other files say.


def test_hosts_are_what_they_are(read):
    cluster = read(NAMED + HOSTS + "auth: {ssh_user: me}\nmin_workers: 0\nmax_workers: 1\n")
    assert (cluster.name, cluster.provider, cluster.head_ip, cluster.worker_ips) == (
        "mine",
        "local",
        "h1",
        ("h2", "h3"),
    )
    assert (cluster.device, cluster.most_nodes, cluster.idle_minutes) == (None, 2, 5)
    assert (cluster.ssh_user, cluster.ssh_private_key, cluster.token_file) == ("me", None, None)


NODE_TYPES = "head_node_type: head\navailable_node_types:\n  head: {node_config: {}, resources: {CPU: 4}}\n"
GCP = NAMED + "provider: {type: gcp, region: r, availability_zone: z, project_id: p}\n"
AWS = NAMED + "provider: {type: aws, region: us-west-2}\n"


def test_the_device_is_that_of_the_node_types_where_they_say(read):
    assert read(GCP + NODE_TYPES).device == "cpu"
    gpu = "  gpu: {node_config: {machineType: zones/z/n1}, resources: {GPU: 2}, max_workers: 3}\n"
    cluster = read(GCP + NODE_TYPES + gpu + "max_workers: 5\n")
    assert (cluster.device, cluster.accelerator, cluster.most_nodes) == ("cuda", "n1", 4)
    # A type that may have no node does not count.
    assert read(GCP + NODE_TYPES + gpu.replace("3", "0")).device == "cpu"
    # AWS fills in what a file leaves out.
    assert read(AWS + NODE_TYPES).device is None
    assert read(AWS + NODE_TYPES.replace("CPU: 4", "CPU: 4, GPU: 0")).device == "cpu"


@pytest.mark.parametrize(
    "provider",
    [
        "{type: aws, region: us-west-2}",
        "{type: gcp, region: r, availability_zone: z, project_id: p}",
        "{type: azure, location: westus2, resource_group: g}",
        "{type: vsphere}\nmax_workers: 2\n" + NODE_TYPES.replace("resources", "max_workers: 5, resources"),
        "{type: local, coordinator_address: 'h:8080'}\nmax_workers: 2",
    ],
)
def test_files_of_all_providers_are_read_with_rays_defaults(read, provider):
    cluster = read(f"{NAMED}provider: {provider}\n")
    assert cluster.provider in provider
    assert cluster.head_kind in [kind.name for kind in cluster.kinds]
    assert cluster.most_nodes == 3


def test_no_cloud_and_no_training_is_imported_to_read_a_file(tmp_path):
    (tmp_path / "aws.yaml").write_text(AWS)
    code = (
        f"import sys; from dfd_tune.cluster.files import read_cluster; read_cluster({str(tmp_path / 'aws.yaml')!r})\n"
        "print([name for name in ('boto3', 'botocore', 'googleapiclient', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# What is wrong.


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "FILE: a Ray cluster file is a mapping"),
        ("- a\n", "FILE: a Ray cluster file is a mapping"),
        ("a: [\n", "FILE, line 2, column 1: this is no YAML"),
        (NAMED + NAMED + HOSTS, "FILE, line 2, column 1: this is no YAML: the key 'cluster_name' is given twice"),
        (HOSTS + "auth:\n  - {a: 1, a: 2}\n", "FILE, line 3, column 12: this is no YAML: the key 'a' is given twice"),
        ("apiVersion: ray.io/v1\nkind: RayJob\n", "FILE: this is for Kubernetes"),
        (HOSTS, "FILE: the file has no `cluster_name`, which Ray needs."),
        ("cluster_nam: a\n" + HOSTS, "FILE: the file has no `cluster_name`, which Ray needs; is 'cluster_nam' meant"),
        (NAMED + "providr: {}\n", "FILE: the file has no `provider`, which Ray needs; is 'providr' meant to be it?"),
        (NAMED + "provider: aws\n", "FILE, line 2: provider is 'aws', but must be a mapping."),
        (NAMED + "provider: {region: a}\n", "FILE, line 2: provider has no `type`, which Ray needs."),
        (NAMED + "provider: {typ: aws}\n", "FILE, line 2: provider has no `type`, which Ray needs; is 'typ' meant"),
        (NAMED + "provider:\n  type: asw\n", "FILE, line 3: provider: Unknown type 'asw'. Did you mean 'aws'?"),
        (NAMED + "provider: {type: kuberay}\n", "FILE, line 2: provider: Unknown type 'kuberay'."),
        (NAMED + "provider: {type: aws, regoin: a}\n", "FILE, line 2: provider has no `region`, which Ray needs; is"),
        (
            NAMED + "provider: {type: gcp, region: a, availability_zone: b}\n",
            "FILE, line 2: provider has no `project_id`",
        ),
        (
            NAMED + "provider: {type: local, head_ip: h}\n",
            "FILE, line 2: provider has no `worker_ips`, which Ray needs.",
        ),
        (
            AWS.replace("}", ", cache_stoped_nodes: true}"),
            "FILE, line 2: provider: Unknown key 'cache_stoped_nodes'. Did you mean 'cache_stopped_nodes'?",
        ),
        (
            NAMED + "provider:\n  type: local\n  head_ip: h1\n  worker_ips:\n  - h2\n  - 3\n",
            "FILE, line 7: provider.worker_ips[1] is 3, but must be a host's name or address.",
        ),
        (
            NAMED + "provider:\n  type: local\n  head_ip: h1\n  worker_ips: [h2,\n    h1]\n",
            "FILE, line 6: provider.worker_ips[1] is 'h1', which is named before",
        ),
        (NAMED + HOSTS + NODE_TYPES, "FILE, line 4: available_node_types is for clouds"),
        (NAMED + HOSTS + "max_wrkers: 1\n", "FILE, line 3: Unknown key 'max_wrkers'. Did you mean 'max_workers'?"),
        (NAMED + HOSTS + "store: /shared\n", "FILE, line 3: Unknown key 'store'."),
        (NAMED + HOSTS + "max_workers: two\n", "FILE, line 3: max_workers is 'two', but must be a whole number."),
        (NAMED + HOSTS + "min_workers: -1\n", "FILE, line 3: min_workers is -1, but must be at least 0."),
        (
            NAMED + HOSTS + "auth: {ssh_usr: me}\n",
            "FILE, line 3: auth: Unknown key 'ssh_usr'. Did you mean 'ssh_user'?",
        ),
        (NAMED + HOSTS + "setup_commands: a\n", "FILE, line 3: setup_commands is 'a', but must be a list."),
        (NAMED + HOSTS + "setup_commands:\n- a\n- {b: c}\n", "FILE, line 5: setup_commands[1] is {'b': 'c'}, but must"),
        (NAMED + HOSTS + "file_mounts: {~/a: 1}\n", "FILE, line 3: file_mounts: ~/a is 1, but must be a path"),
        (
            NAMED + HOSTS + "docker: {image: a}\n",
            "FILE: Ray refuses this file: AssertionError: Must provide a container",
        ),
        (GCP + NODE_TYPES.replace("head_node_type: head", ""), "FILE: the file has no `head_node_type`"),
        (
            GCP + NODE_TYPES.replace("head_node_type: head", "head_node_type: hed"),
            "FILE, line 3: head_node_type: Unknown node type 'hed'. Did you mean 'head'?",
        ),
        (
            GCP + NODE_TYPES + "  gpu: {node_config: {}, resources: {GPU: one}}\n",
            "FILE, line 6: available_node_types.gpu.resources.GPU is 'one', but must be a whole number.",
        ),
        (
            GCP + NODE_TYPES + "  gpu: {node_config: {}}\n",
            "FILE, line 6: available_node_types.gpu has no `resources`, which Ray needs.",
        ),
        (
            GCP + NODE_TYPES + "  gpu:\n    min_worker: 1\n    node_config: {}\n    resources: {}\n",
            "FILE, line 7: available_node_types.gpu: Unknown key 'min_worker'. Did you mean 'min_workers'?",
        ),
        (
            GCP + NODE_TYPES + "  gpu: {node_config: {}, resources: {}, min_workers: 3}\nmax_workers: 2\n",
            "FILE, line 7: max_workers is 2, but the node types' min_workers add up to 3; raise it.",
        ),
        (NAMED + HOSTS.replace("h1", "FILL_IN_HEAD"), "FILE, line 2: FILL_IN_HEAD still stands at provider.head_ip;"),
        (
            NAMED + HOSTS + "auth: {ssh_private_key: ~/.ssh/none}\n",
            "FILE, line 3: auth.ssh_private_key names '~/.ssh/none', which is not there; name another key",
        ),
        (
            NAMED + HOSTS + "file_mounts: {~/data: ~/none}\n",
            "FILE, line 3: file_mounts copies '~/none', which is not there.",
        ),
        (
            NAMED + HOSTS + "file_mounts:\n  ~/.ray/auth_token: ~/none\n",
            "FILE, line 4: file_mounts copies '~/none', which is not there; make a token: ray get-auth-token",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_field_and_line(refusals, text, problem):
    problems = refusals(text)
    assert any(found.startswith(problem) for found in problems), problems


def test_all_problems_are_reported_together(refusals):
    problems = refusals(
        "cluster_name: FILL_IN_NAME\nmax_workers: many\nidle_timeout_minute: 5\n"
        "provider: {type: local, head_ip: FILL_IN_HEAD, worker_ips: [FILL_IN_HEAD, '']}\n"
        "auth: {ssh_private_key: none}\n"
    )
    lines = sorted(re.search(r"line (\d)", problem)[1] for problem in problems)
    assert lines == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("name", RAY_FILES)
def test_a_shipped_file_asks_for_its_placeholders_and_nothing_else(name):
    placeholders = set(PLACEHOLDER.findall("".join(re.findall("^[^#\n]*", text_of(name), re.MULTILINE))))
    with pytest.raises(UserError) as caught:
        read_cluster(name)
    assert len(placeholders) >= 2
    assert {PLACEHOLDER.search(problem)[0] for problem in caught.value.problems} == placeholders
    assert len(caught.value.problems) == len(placeholders)
    for problem in caught.value.problems:
        line = int(re.search(r"line (\d+)", problem)[1])
        assert PLACEHOLDER.search(problem)[0] in "\n".join(text_of(name).splitlines()[line - 1 : line + 5])


@pytest.mark.parametrize(
    ("key", "file"),
    [("auth: {ssh_private_key: %s}", ".ssh/dfd-cluster"), ("file_mounts: {~/.ray/auth_token: %s}", ".ray/auth_token")],
)
def test_a_secret_that_others_can_read_is_refused(read, refusals, home, key, file):
    text = NAMED + HOSTS + key % f"~/{file}"
    read(text)
    (home / file).chmod(0o644)
    (problem,) = refusals(text)
    assert f"chmod 600 ~/{file}" in problem
    assert stat.S_IMODE((home / file).stat().st_mode) == 0o644


def test_names_that_lead_to_no_ray_file(tmp_path):
    for name, expected in {
        "onprm": "Unknown cluster 'onprm'. Did you mean 'onprem'?",
        str(tmp_path / "none.yaml"): "There is no cluster file",
        "slurm": "slurm.sh is no Ray cluster file",
        "kuberay": f"{shipped_clusters()['kuberay']}: this is for Kubernetes",
        str(tmp_path): f"The cluster file '{tmp_path}' can't be read (Is a directory)",
    }.items():
        with pytest.raises(UserError) as caught:
            read_cluster(name)
        (problem,) = caught.value.problems
        assert problem.startswith(expected)


def ray_schema():
    import ray.autoscaler

    return json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
