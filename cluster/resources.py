"""What this machine offers to Ray, and what an engine asks of it.

Ray 2.60 lets an Apple machine advertise ``GPU: 1``, so ``num_gpus=1`` alone can land CUDA code on
a Mac. Every machine therefore also advertises ``cuda``, ``mlx`` or ``mps``, and engines ask for
those by name.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

from cluster.errors import InputError

DEVICES = ("cuda", "mlx", "mps")
_CPU_ENGINES = ("newton", "celer", "sklearn", "numpy", "faiss", "cpu")
_MLX_GPU_BUILDS = ("mlx-metal", "mlx-cuda", "mlx-cuda-12", "mlx-cuda-13")
_QUERY_TIMEOUT_S = 15


def node_resources() -> dict[str, float]:
    """Detect the devices of this machine, under the names that engines ask for.

    Returns
    -------
    dict
        ``cuda``: number of CUDA devices; ``mlx``: 1 where MLX runs; ``mps``: 1 where PyTorch can
        use Metal. What is not there is left out. A Mac never offers ``cuda``. Cores and memory
        Ray detects itself; ``ray start --resources`` refuses to be told.
    """
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    found = {
        "cuda": float(cuda_devices()),
        "mlx": float(_installed("mlx") and (apple or _imports("mlx.core"))),
        "mps": float(apple and _installed("torch")),
    }
    return {name: count for name, count in found.items() if count}


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cuda_devices() -> int:
    """Return the number of CUDA devices that programs here can use; 0 on any Mac."""
    query = shutil.which("nvidia-smi")
    if platform.system() == "Darwin" or query is None:
        return 0
    try:
        listed = subprocess.run(
            [query, "-L"], capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [entry.strip() for entry in visible.split(",") if entry.strip()]
        count = min(count, 0 if named[:1] in ([], ["-1"]) else len(named))
    # A CPU build of PyTorch next to a good driver: promising cuda would fail later, in a task.
    if count and _installed("torch"):
        count = min(count, importlib.import_module("torch").cuda.device_count())
    return count


def mlx_has_gpu() -> bool:
    """Tell whether the MLX installed here drives a GPU: Metal's or CUDA's build, not the CPU's."""
    for name in _MLX_GPU_BUILDS:
        with suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)
            return True
    return False


def node_address(head: str) -> str:
    """Return the address by which the machine ``head`` sees this one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((head, 6379))
        return str(probe.getsockname()[0])


def engine_resources(engine: str, *, num_cpus: float = 1) -> dict[str, Any]:
    """Return Ray options for an actor or task that runs ``engine``.

    Parameters
    ----------
    engine : str
        ``newton``, ``celer``, ``sklearn`` (cores alone), ``torch`` or ``torch:cuda`` (a CUDA
        device), ``torch:cpu``, ``torch:mps``, ``mlx``, ``faiss`` (cores alone) or ``faiss:cuda``.
    num_cpus : float
        Cores of the worker; Ray also gives its BLAS as many threads.

    Returns
    -------
    dict
        For ``.options(**…)``; a CUDA worker asks for ``num_gpus`` as well, so that Ray gives each
        one a device of its own.

    Raises
    ------
    InputError
        For an engine not named above.
    """
    device = engine_device(engine)
    options: dict[str, Any] = {"num_cpus": num_cpus}
    if device == "cpu":
        return options
    if device == "cuda":
        return {**options, "num_gpus": 1, "resources": {"cuda": 1}}
    return {**options, "resources": {device: 1}}


def engine_device(engine: str) -> str:
    """Return what ``engine`` runs on: ``cpu``, or one of ``DEVICES``, as a machine offers it.

    Raises
    ------
    InputError
        For an engine that `engine_resources` does not name.
    """
    name, _, device = engine.partition(":")
    device = device or {"torch": "cuda", "mlx": "mlx"}.get(name, "cpu")
    if (
        (device == "cpu" and name in (*_CPU_ENGINES, "torch"))
        or (device == "cuda" and name in ("torch", "faiss"))
        or (name, device) in (("mlx", "mlx"), ("torch", "mps"))
    ):
        return device
    raise InputError(
        "engine",
        "name",
        "newton, celer, sklearn, torch, torch:cuda, torch:cpu, torch:mps or mlx",
        repr(engine),
        "Choose one of these.",
    )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _imports(module: str) -> bool:
    # On Linux `mlx` without a backend can be found, yet not imported.
    try:
        importlib.import_module(module)
    except (ImportError, OSError):
        return False
    return True


if __name__ == "__main__":  # in ray-config.yaml: python -m cluster.resources $RAY_HEAD_IP
    print(node_address(sys.argv[1]))
