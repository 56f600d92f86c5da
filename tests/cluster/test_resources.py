import json
import platform
import stat
import subprocess
import sys
import types
from pathlib import Path

import pytest
from ray._private.parameter import RayParams

from cluster import resources
from cluster.errors import InputError
from cluster.nodes import Cluster, NodeInfo
from cluster.resources import engine_resources, node_address, node_resources


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A nvidia-smi on the path that lists two devices."""
    query = tmp_path / "nvidia-smi"
    query.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: a)'\necho 'GPU 1: H200 (UUID: b)'\n")
    query.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def installed(monkeypatch):
    """Let the given modules be found, and nothing else."""

    def install(**modules):
        monkeypatch.setattr(resources, "_installed", lambda name: name in modules)
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    install()
    return install


def torch_with(devices):
    cuda = types.SimpleNamespace(device_count=lambda: devices)
    module = types.ModuleType("torch")
    module.cuda = cuda
    return module


def test_ray_start_accepts_what_the_command_prints():
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "node-resources"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    offered = json.loads(done.stdout)
    assert offered == node_resources()
    RayParams(resources=offered)  # refuses names that Ray detects itself, as `ray start` does


def test_devices_of_nvidia_smi_are_offered(two_gpus, installed, monkeypatch):
    assert node_resources() == {"cuda": 2.0}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert node_resources() == {"cuda": 1.0}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert node_resources() == {}


def test_cuda_is_not_offered_when_pytorch_cannot_use_it(two_gpus, installed):
    installed(torch=torch_with(0))
    assert node_resources() == {}
    installed(torch=torch_with(2))
    assert node_resources() == {"cuda": 2.0}


def test_mac_never_offers_cuda(two_gpus, installed, monkeypatch):
    installed(torch=torch_with(2), mlx=types.ModuleType("mlx"))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert node_resources() == {"mlx": 1.0, "mps": 1.0}


def test_broken_nvidia_smi_offers_nothing(two_gpus, installed, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert node_resources() == {}


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("newton", {"num_cpus": 2}),
        ("celer", {"num_cpus": 2}),
        ("sklearn", {"num_cpus": 2}),
        ("torch", {"num_cpus": 2, "num_gpus": 1, "resources": {"cuda": 1}}),
        ("torch:cpu", {"num_cpus": 2}),
        ("torch:mps", {"num_cpus": 2, "resources": {"mps": 1}}),
        ("mlx", {"num_cpus": 2, "resources": {"mlx": 1}}),
    ],
)
def test_engines_ask_for_their_device(engine, options):
    assert engine_resources(engine, num_cpus=2) == options


@pytest.mark.parametrize("engine", ["abacus", "mlx:cuda", "newton:cuda", ""])
def test_unknown_engine_is_refused(engine):
    with pytest.raises(InputError, match="engine"):
        engine_resources(engine)


def test_cuda_work_never_fits_a_mac_that_advertises_a_gpu():
    class Mixed(Cluster):
        machines: tuple = ()

        @property
        def nodes(self):
            return list(self.machines)

    mac = NodeInfo("1", "mac", {"CPU": 8.0, "memory": 2**34, "GPU": 1.0, "mlx": 1.0}, {})
    box = NodeInfo("2", "box", {"CPU": 16.0, "memory": 2**36, "GPU": 1.0, "cuda": 1.0}, {})
    mixed = Mixed(False, "head:6379", None)
    mixed.machines = (mac,)
    mixed.require(engine_resources("mlx"), "solve")
    with pytest.raises(
        InputError, match="solve: resources of one machine: expected CPU 1, GPU 1, cuda 1"
    ):
        mixed.require(engine_resources("torch"), "solve")
    mixed.machines = (mac, box)
    mixed.require(engine_resources("torch"), "solve")
    assert mac.describe() == "mac: 8 cores, 16.0 GiB, mlx 1"


def test_own_address_towards_loopback_is_loopback():
    assert node_address("127.0.0.1") == "127.0.0.1"
