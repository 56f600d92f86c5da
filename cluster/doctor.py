"""Check whether the promises hold here: on this machine, and on every node of a cluster."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.nodes import Cluster
from cluster.resources import available_cores, cuda_devices, node_resources
from cluster.token import TOKEN_VARIABLE, exposed_mode, token_enabled, token_path, token_present

Status = Literal["ok", "missing", "wrong"]

PACKAGES = ("ray", "numpy", "scipy", "scikit-learn", "celer", "pandas", "pyarrow")
_MODULES = {"scikit-learn": "sklearn"}
_GIB = 1 << 30
_LEAST_MEMORY_GIB, _LEAST_DISK_GIB = 4.0, 10.0
_PRODUCT_SIDE = 1024
_NODE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Check:
    """One line of ``tenfold doctor``."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def check_machine(folder: str | Path = ".") -> list[Check]:
    """Check this machine, without Ray: Python, packages, cores, memory, disk, devices, token.

    Parameters
    ----------
    folder : str or Path
        Where runs will be written; its disk is the one that counts.
    """
    checks: dict[str, Callable[[], Check]] = {
        "python": check_python,
        **{name: partial(check_package, name) for name in PACKAGES},
        "cores": check_cores,
        "memory": check_memory,
        "free disk": partial(check_disk, folder),
        "cuda": check_cuda,
        "mps": check_mps,
        "mlx": check_mlx,
        "faiss": check_faiss,
        "offered to Ray": check_resources,
        "token authentication": check_token,
    }
    return [_guarded(name, check) for name, check in checks.items()]


def check_cluster(cluster: Cluster) -> list[Check]:
    """Check an open Ray: its nodes, object store, dashboard, and versions that differ."""
    nodes = cluster.nodes
    store_gib = sum(node.resources.get("object_store_memory", 0) for node in nodes) / _GIB
    described = "; ".join(node.describe() for node in nodes)
    rows = [
        Check("nodes", "ok", described),
        Check("object store", "ok", f"{store_gib:.1f} GiB on {len(nodes)} node(s)")
        if store_gib >= 0.5
        else Check(
            "object store",
            "wrong",
            f"{store_gib:.1f} GiB",
            "Give Ray more: --object-store-gib 2, or ray start --object-store-memory=…",
        ),
        Check("dashboard", "ok", cluster.dashboard_url)
        if cluster.dashboard_url
        else Check("dashboard", "missing", "not running", "pip install 'ray[default]'"),
    ]
    return [*rows, _guarded("versions on all nodes", partial(check_versions, cluster))]


def check_versions(cluster: Cluster) -> Check:
    """Compare Python and package versions of all nodes with those of this process."""
    here = versions()
    nodes = cluster.nodes
    refs = [
        _remote_versions.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote()
        for node in nodes
    ]
    done, _ = ray.wait(refs, num_returns=len(refs), timeout=_NODE_TIMEOUT_S)
    differing = []
    for node, ref in zip(nodes, refs, strict=True):
        if ref not in done:
            differing.append(f"{node.host}: no answer")
            continue
        there = ray.get(ref)
        differing += [
            f"{node.host}: {name} {there.get(name)} (here {mine})"
            for name, mine in here.items()
            if there.get(name) != mine
        ]
    if differing:
        return Check(
            "versions on all nodes",
            "wrong",
            "; ".join(differing),
            "Install the same Python and package versions on every node.",
        )
    return Check("versions on all nodes", "ok", f"equal on {len(refs)} node(s)")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages whose results must agree."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


@ray.remote(num_cpus=0)
def _remote_versions() -> dict[str, str]:
    return versions()


def check_python() -> Check:
    """Which Python this is; older ones than 3.11 cannot install Tenfold."""
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", "ok", detail)


def check_package(name: str) -> Check:
    """A package that Tenfold needs is installed, in a version that it accepts, and imports."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "missing", "not installed", "pip install tenfold")
    wanted = _requirement(name)
    if wanted is not None and not wanted.contains(version, prereleases=True):
        return Check(name, "wrong", version, f"pip install '{name}{wanted}'")
    importlib.import_module(_MODULES.get(name, name))
    return Check(name, "ok", version)


def _requirement(name: str) -> Any:
    """Return the versions that our own metadata accepts; None when not installed as a package."""
    from packaging.requirements import Requirement

    try:
        stated = importlib.metadata.requires("tenfold") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    specifiers = {entry.name: entry.specifier for entry in map(Requirement, stated)}
    return specifiers.get(name)


def check_cores() -> Check:
    """How many cores this process may use."""
    return Check("cores", "ok", f"{available_cores()} of {os.cpu_count()}")


def check_memory() -> Check:
    """Enough memory is free to begin with."""
    memory = psutil.virtual_memory()
    free_gib = memory.available / _GIB
    detail = f"{free_gib:.1f} GiB free of {memory.total / _GIB:.1f}"
    if free_gib >= _LEAST_MEMORY_GIB:
        return Check("memory", "ok", detail)
    remedy = f"Close other programs: {_LEAST_MEMORY_GIB:g} GiB should be free."
    return Check("memory", "wrong", detail, remedy)


def check_disk(folder: str | Path = ".") -> Check:
    """Enough disk is free where runs are written."""
    place = Path(folder).absolute()
    place = next(path for path in (place, *place.parents) if path.exists())
    free_gib = shutil.disk_usage(place).free / _GIB
    detail = f"{free_gib:.1f} GiB at {place}"
    if free_gib >= _LEAST_DISK_GIB:
        return Check("free disk", "ok", detail)
    return Check(
        "free disk", "wrong", detail, f"Free {_LEAST_DISK_GIB:g} GiB, or use another --out"
    )


def check_cuda() -> Check:
    """CUDA works for PyTorch: a product of two matrices, timed."""
    if not _installed("torch"):
        seen = cuda_devices()
        detail = f"PyTorch is not installed; nvidia-smi lists {seen} device(s)"
        return Check("cuda", "missing", detail, "pip install 'tenfold[torch]'")
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        remedy = "Needed on NVIDIA machines only: install a driver and a CUDA build of torch."
        return Check("cuda", "missing", f"torch {torch.__version__} sees no CUDA device", remedy)
    seconds = _timed_product(torch, "cuda")
    device = torch.cuda.get_device_name(0)
    detail = f"{torch.cuda.device_count()} × {device}, {_speed(seconds)}"
    return Check("cuda", "ok", detail)


def check_mps() -> Check:
    """Metal works for PyTorch: a product of two matrices, timed."""
    if not _installed("torch"):
        remedy = "On a Mac: pip install 'tenfold[torch]'"
        return Check("mps", "missing", "PyTorch is not installed", remedy)
    torch = importlib.import_module("torch")
    if not torch.backends.mps.is_available():
        return Check("mps", "missing", "no Metal device", "Needed on Apple silicon only.")
    return Check("mps", "ok", _speed(_timed_product(torch, "mps")))


def check_mlx() -> Check:
    """MLX works: a product of two matrices, timed."""
    if not _installed("mlx"):
        return Check("mlx", "missing", "not installed", "On a Mac: pip install 'tenfold[mlx]'")
    mx = importlib.import_module("mlx.core")
    matrix = mx.random.normal((_PRODUCT_SIDE, _PRODUCT_SIDE))
    mx.eval(matrix @ matrix)
    started = time.perf_counter()
    mx.eval(matrix @ matrix)
    return Check("mlx", "ok", f"{mx.default_device()}, {_speed(time.perf_counter() - started)}")


def check_faiss() -> Check:
    """FAISS is installed; the memory bank of the fpcb job searches with it."""
    if not _installed("faiss"):
        return Check("faiss", "missing", "not installed", "For fpcb: pip install faiss-cpu")
    faiss = importlib.import_module("faiss")
    devices = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return Check("faiss", "ok", f"{faiss.__version__}, {devices} GPU(s)")


def check_token() -> Check:
    """Ray asks for a token, and no other user of this machine can read it."""
    name, path = "token authentication", token_path()
    if not token_enabled():
        remedy = "Unset RAY_AUTH_MODE: without a token, anyone who reaches a port can run code."
        return Check(name, "wrong", "switched off", remedy)
    if os.environ.get(TOKEN_VARIABLE):
        return Check(name, "ok", f"on, token from {TOKEN_VARIABLE}")
    if not token_present():
        return Check(name, "ok", f"on, {path} is made when Ray starts")
    if (mode := exposed_mode(path)) is not None:
        return Check(name, "wrong", f"{path} has mode {mode}", f"chmod 600 {path}")
    return Check(name, "ok", f"on, token in {path}")


def check_resources() -> Check:
    """Devices that this machine offers to Ray under our own names."""
    offered = ", ".join(f"{name} {count:g}" for name, count in node_resources().items())
    return Check("offered to Ray", "ok", offered or "cores alone, no device")


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    # A broken driver or a half-installed package must cost its own line, not the whole list.
    try:
        return check()
    except Exception as error:
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        return Check(name, "wrong", detail, "Reinstall it, or remove it if it is not needed.")


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _timed_product(torch: Any, device: str) -> float:
    matrix = torch.randn(_PRODUCT_SIDE, _PRODUCT_SIDE, device=device)
    (matrix @ matrix).sum().item()  # the first product also loads kernels
    started = time.perf_counter()
    (matrix @ matrix).sum().item()
    return time.perf_counter() - started


def _speed(seconds: float) -> str:
    flops = 2 * _PRODUCT_SIDE**3 / max(seconds, 1e-9)
    return f"{_PRODUCT_SIDE}² product in {1e3 * seconds:.2f} ms ({flops / 1e12:.2f} TFLOP/s)"
