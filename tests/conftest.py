"""A Ray for the tests that ask for one: two cores, embedded, started once."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

# Before anything imports ray: the tests join nobody's cluster and touch nobody's token, and
# metrics are exported every second, so that a test need not wait for them.
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("RAY_AUTH_TOKEN", None)
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN_PATH"] = str(Path(tempfile.mkdtemp(prefix="tenfold-")) / "auth_token")
os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112 - Ray spells it so


@pytest.fixture(scope="session")
def cluster():
    from cluster.connect import ClusterConfig, connect

    with connect(ClusterConfig(num_cpus=2, object_store_gib=0.5)) as opened:
        yield opened


@pytest.fixture
def store(tmp_path):
    from cluster.storage import Store

    return Store(tmp_path / "store")


@pytest.fixture
def join_environment(cluster):
    """Variables with which another process on this machine joins the tests' Ray."""
    return {
        **os.environ,
        "RAY_ADDRESS": cluster.address,
        # An embedded Ray is on loopback; elsewhere Ray would look for it at the outward address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }


@pytest.fixture(scope="session")
def ray_head():
    """Start a cluster of one node with `ray start --head`.

    Yields the variables with which `ray job submit` reaches it, RAY_ADDRESS of its dashboard
    among them. Ports and folder are its own, as other Rays may run on this machine.
    """
    from cluster.token import make_token, token_path

    make_token(token_path())
    ray = Path(sys.executable).with_name("ray")
    port, dashboard, agent = (_free_port() for _ in range(3))
    environment = {
        **os.environ,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on loopback alone
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        log = Path(folder) / "start.log"
        command = f"""{ray} start --head --block --num-cpus=2 --object-store-memory=300000000
            --node-ip-address=127.0.0.1 --port={port} --temp-dir={folder}
            --dashboard-host=127.0.0.1 --dashboard-port={dashboard}
            --dashboard-agent-listen-port={agent}""".split()
        with log.open("w") as sink:
            head = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
        try:
            _wait_for_agent(agent, head, log)
            yield {**environment, "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        finally:
            family = psutil.Process(head.pid).children(recursive=True)
            head.terminate()
            _, left = psutil.wait_procs([psutil.Process(head.pid), *family], timeout=30)
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            head.wait(timeout=10)


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _wait_for_agent(port, head, log, timeout_s=90.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(log.read_text())
