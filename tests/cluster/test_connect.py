import json
import os
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from cluster.config import ClusterConfig
from cluster.connect import connect
from cluster.errors import InputError
from cluster.token import make_token, token_path, token_present

ROOT = Path(__file__).resolve().parents[2]
JOIN = """
import sys, time
from cluster.connect import connect
from cluster.errors import ConnectError
started = time.monotonic()
try:
    with connect() as cluster:
        print("joined", cluster.embedded, cluster.cores)
        print(cluster.describe(), file=sys.stderr)
except ConnectError as error:
    print("refused", error.exit_code, time.monotonic() - started < 15, error)
"""


def start_driver(environment, code=JOIN):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_output(driver):
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 0, err
    return out


def test_address_that_does_not_answer_is_refused_within_seconds():
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(
        ("127.0.0.1", 0)
    ) as closed:  # fmt: skip
        ports = [silent.getsockname()[1], closed.getsockname()[1]]
        closed.close()
        drivers = [
            start_driver(
                {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_AUTH_TOKEN": "secret-of-the-test"}
            )
            for port in ports
        ]
        for driver, port in zip(drivers, ports, strict=True):
            out = read_output(driver)
            assert out.startswith(f"refused 2 True 127.0.0.1:{port}: Ray address unreachable")
            assert "secret-of-the-test" not in out


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265", "no port"])
def test_address_of_the_wrong_kind_is_refused(address):
    out = read_output(start_driver({"RAY_ADDRESS": address, "RAY_AUTH_TOKEN": "x"}))
    assert out.startswith(f"refused 2 True {address}: Ray address")


def test_machine_with_another_python_is_refused(join_environment):
    other = "import platform; platform.python_version = lambda: '3.11.99'\n"
    driver = start_driver(join_environment, other + JOIN)
    out = read_output(driver)
    assert "version of Python: expected" in out
    assert "as on the head node, got 3.11.99 on this machine. Install the same version" in out


def test_missing_token_is_refused_when_joining(tmp_path):
    path = tmp_path / "none"
    environment = {"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_TOKEN_PATH": str(path)}
    out = read_output(start_driver(environment))
    assert "authentication token: expected one in RAY_AUTH_TOKEN or in" in out
    assert not path.exists()


def test_another_driver_joins_with_the_token_and_prints_nothing_else(join_environment):
    driver = start_driver(join_environment)
    out, err = driver.communicate(timeout=60)
    assert out == "joined False 2\n", err
    assert [line.split(":")[0] for line in err.splitlines()][1:] == ["nodes"]


def test_another_driver_is_refused_with_a_wrong_token(join_environment):
    out = read_output(start_driver({**join_environment, "RAY_AUTH_TOKEN": "0" * 64}))
    assert "refused 2 True" in out
    assert "Ray refused our authentication token" in out


def test_open_ray_is_used_again_and_left_open(cluster):
    with connect() as again:
        assert again.address == cluster.address
        assert not again.embedded
    assert cluster.cores == 2


def test_describe_names_dashboard_and_devices(cluster):
    lines = cluster.describe().splitlines()
    assert lines[0].startswith(f"embedded Ray, dashboard {cluster.dashboard_url}")
    assert "2 cores" in lines[1]


def test_embedded_ray_listens_on_loopback_alone(cluster):
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in family
        if process.status() != psutil.STATUS_ZOMBIE
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_dashboard_answers_only_with_the_token(cluster):
    request = urllib.request.Request(f"{cluster.dashboard_url}/api/cluster_status")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 401
    request.add_header("Authorization", f"Bearer {token_path().read_text()}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["result"] is True


def test_token_is_readable_by_its_owner_alone(cluster):
    assert stat.S_IMODE(token_path().stat().st_mode) == 0o600
    assert len(token_path().read_text()) == 64


def test_token_is_made_once(tmp_path):
    path = tmp_path / "deep" / "auth_token"
    environment = {"RAY_AUTH_TOKEN_PATH": str(path)}
    assert not token_present(environment)
    assert make_token(path)
    first = path.read_text()
    assert not make_token(path)
    assert path.read_text() == first
    assert token_present(environment)
    assert [p.name for p in path.parent.iterdir()] == ["auth_token"]


@pytest.mark.parametrize("options", [{"num_cpus": 0}, {"object_store_gib": 0.01}])
def test_impossible_sizes_are_refused(options):
    with pytest.raises(InputError, match="at least"):
        ClusterConfig(**options)
