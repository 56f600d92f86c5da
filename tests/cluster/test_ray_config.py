import re
import shlex
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "ray-config.yaml"
JOIN = (ROOT / "cluster" / "join.sh").read_text()
START_OPTIONS = {"--block", "--address", "--node-ip-address", "--resources"}


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load(PATH.read_text())


def test_config_passes_the_validation_of_ray_up(config):
    assert validate_config(prepare_config(config)) is None  # it raises what it finds wrong


def test_misspelt_key_does_not_pass(config):
    with pytest.raises(Exception, match="Additional properties"):
        validate_config(prepare_config({**config, "worker_commands": []}))


def test_one_command_starts_every_worker_with_what_it_offers(config):
    (command,) = config["worker_start_ray_commands"]
    assert command == "sh ~/tenfold/cluster/join.sh $RAY_HEAD_IP"
    assert config["file_mounts"]["~/tenfold/cluster"] == "cluster"
    (line,) = re.findall(r"ray start[^>]*", JOIN.replace("\\\n", " "))
    words = shlex.split(line)[2:]
    assert {word.partition("=")[0] for word in words} == START_OPTIONS
    start.make_context("ray start", words)  # it raises for an option that is none
    assert "resources=$(tenfold node-resources)" in JOIN
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1" in JOIN


def test_token_authentication_is_on_and_the_dashboard_on_loopback(config):
    head = " ".join(config["head_start_ray_commands"])
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in JOIN
    assert "--dashboard-host=127.0.0.1" in head


def test_no_token_is_written_into_the_file():
    assert not re.search(r"[0-9a-f]{32}", PATH.read_text())
