"""A Ray for the tests that ask for one: two cores, embedded, started once."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

# Before anything imports ray: the tests join nobody's cluster and touch nobody's token, and
# metrics are exported every second, so that a test need not wait for them.
os.environ.pop("RAY_ADDRESS", None)
# Several tests and their workers share few cores; OpenMP threads that wait for one another spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("RAY_AUTH_TOKEN", None)
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN_PATH"] = str(Path(tempfile.mkdtemp(prefix="tenfold-")) / "auth_token")
os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112 - Ray spells it so
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process less to start
# Of an S3 server of a test; workers take them from the Ray that starts them.
os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "of-the-tests")
os.environ |= {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

# What takes longest goes first, so that at the end no core waits for the other.
LONGEST = (
    "test_faults",
    "test_detector_run",
    "test_train_faults",
    "test_end_to_end",
    "test_job_submission",
    "test_detect_faults",
    "test_fpcb_faults",
    "test_connect",
    "test_bench_lasso",
    "test_runs",
    "test_object_store",
    "test_units",
    "test_shards",
)


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def cluster():
    from cluster.connect import ClusterConfig, connect

    with connect(ClusterConfig(num_cpus=2, object_store_gib=0.5)) as opened:
        yield opened


@pytest.fixture
def stopped_workers_end():
    """Kill what a test has stopped: Ray cannot, and the cores of a stopped worker stay taken."""
    import psutil
    from driver import processes

    yield
    for process in processes("ray::"):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_STOPPED:
                process.kill()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "none", disk]).returncode
    ):
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def store(tmp_path):
    from cluster.storage import Store

    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
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
    among them, and RAY_TMPDIR, which holds its logs and what was packed for it.
    """
    from raylets import Raylets

    with Raylets(alone=True) as raylets:
        raylets.head(2, dashboard=True, object_store_mib=300)
        where = {"RAY_ADDRESS": raylets.dashboard_url, "RAY_TMPDIR": str(raylets.folder)}
        yield {**raylets.environment(), **where}
