"""cluster/kuberay, as far as it can be checked without Kubernetes."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from ray.scripts.scripts import start
from typer.main import get_command

from pipelines.cli import make_app

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster" / "kuberay"


@pytest.fixture(scope="module")
def documents():
    return {d["kind"]: d for d in yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text())}


@pytest.fixture(scope="module")
def job(documents):
    return documents["RayJob"]["spec"]


@pytest.fixture(scope="module")
def groups(job):
    """The head, then the groups of workers."""
    cluster = job["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.fixture(scope="module")
def pods(job, groups):
    return [job["submitterPodTemplate"]["spec"], *(g["template"]["spec"] for g in groups)]


@pytest.fixture(scope="module")
def containerfile():
    """Lines of the Containerfile, continued ones joined: instruction and words."""
    text = (FOLDER / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], shlex.split(line)[1:]) for line in lines]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_ray_start_accepts_the_parameters_of_every_group(groups):
    for group in groups:
        # As KubeRay does: the values stand in a shell command.
        words = " ".join(f"--{name}={value}" for name, value in group["rayStartParams"].items())
        given = start.make_context("ray start", shlex.split(words)).params
        assert {name.replace("-", "_") for name in group["rayStartParams"]} <= given.keys()


def test_only_the_group_with_gpus_offers_cuda(groups):
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        gpus = int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
        (offered,) = shlex.split(group["rayStartParams"].get("resources", "'{}'"))
        assert json.loads(offered) == ({"cuda": gpus} if gpus else {})


def test_entrypoint_is_a_command_of_ours(job):
    words = shlex.split(job["entrypoint"])
    assert words[:3] == ["python", "-m", "pipelines"]
    command, rest = get_command(make_app(words[3:4])), words[3:]
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context("tenfold", rest)


def test_job_asks_for_the_token_and_names_none(job, pods):
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    containers = [container for pod in pods for container in pod["containers"]]
    assert not any("env" in container for container in containers)
    assert not re.search(r"[0-9a-f]{32}", (FOLDER / "rayjob.yaml").read_text())


def test_nothing_runs_as_root_or_may_become_it(pods, containerfile):
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    users = [words for instruction, words in containerfile if instruction == "USER"]
    assert users == [[str(pods[0]["securityContext"]["runAsUser"])]]


def test_every_pod_sees_the_run_folders(groups, documents):
    claim = documents["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in groups:
        pod = group["template"]["spec"]
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert mount == {"name": volume["name"], "mountPath": "/runs"}


def test_strangers_do_not_reach_the_ports_of_ray(documents, job):
    policy = documents["NetworkPolicy"]["spec"]
    nodes, guests = policy["ingress"]
    assert nodes["from"] == [{"podSelector": policy["podSelector"]}]
    assert [port["port"] for port in guests["ports"]] == [8265]
    labels = job["submitterPodTemplate"]["metadata"]["labels"]
    assert guests["from"][0] == {"podSelector": {"matchLabels": labels}}


def test_image_and_job_have_one_version_of_ray_that_the_package_accepts(
    containerfile, job, project
):
    arguments = dict(w[0].split("=") for instruction, w in containerfile if instruction == "ARG")
    assert arguments["RAY"] == job["rayClusterSpec"]["rayVersion"]
    (wanted,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "ray")
    assert wanted.specifier.contains(arguments["RAY"])


def test_containerfile_installs_what_is_there(containerfile, project):
    copied = [word for name, words in containerfile if name == "COPY" for word in words[:-1]]
    assert {"actors", "cluster", "pipelines", project["readme"]} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    assert {f"!{name}" for name in copied} <= set(ignored)
    run = " ".join(word for name, words in containerfile if name == "RUN" for word in words)
    (extra,) = re.findall(r"/opt/tenfold\[(\w+)\]", run)
    assert extra in project["optional-dependencies"]
