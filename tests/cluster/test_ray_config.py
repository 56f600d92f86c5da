import re
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

PATH = Path(__file__).resolve().parents[2] / "ray-config.yaml"


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load(PATH.read_text())


def test_config_passes_the_validation_of_ray_up(config):
    assert validate_config(prepare_config(config)) is None  # it raises what it finds wrong


def test_misspelt_key_does_not_pass(config):
    with pytest.raises(Exception, match="Additional properties"):
        validate_config(prepare_config({**config, "worker_commands": []}))


def test_one_command_starts_every_worker_with_what_it_offers(config):
    starts = [c for c in config["worker_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 1
    assert '--resources="$(tenfold node-resources)"' in starts[0]
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1" in starts[0]
    assert "--node-ip-address" in starts[0]


def test_token_authentication_is_on_and_the_dashboard_on_loopback(config):
    head = " ".join(config["head_start_ray_commands"])
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in " ".join(config["worker_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head


def test_no_token_is_written_into_the_file():
    assert not re.search(r"[0-9a-f]{32}", PATH.read_text())
