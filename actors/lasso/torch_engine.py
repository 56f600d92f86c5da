"""PyTorch: CUDA, Metal (MPS) or the CPU, behind the batched engine."""

# ruff: noqa: D102 - methods are documented where their protocol is defined

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from actors.lasso.backend import ridge_of
from actors.lasso.batched import BatchedEngine
from actors.lasso.design import Design, HostDesign
from actors.lasso.problem import LassoProblem
from actors.lasso.torch_design import DeviceMatrix, TorchDesign
from cluster.errors import InputError
from cluster.resources import available_cores

# Compute capabilities whose float64 runs at half the speed of float32, rather than at 1/32 or less.
FULL_FLOAT64 = ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0))
# Of the certificate on the host.
MAX_THREADS = 16
BUDGET_BYTES = {"cpu": 2**30, "mps": 2**31, "cuda": 2**33}


class TorchBackend:
    """Operations of :class:`actors.lasso.backend.Backend` on one PyTorch device."""

    xp: Any = torch

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.itemsize = dtype.itemsize
        self.ridge = ridge_of(dtype.itemsize)

    def array(self, values: np.ndarray) -> torch.Tensor:
        # Rounded here: MPS knows no float64.
        host = torch.tensor(values, dtype=torch.float64)
        return host.to(self.dtype).to(self.device)

    def index(self, values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values).to(self.device)

    def host(self, array: torch.Tensor) -> np.ndarray:
        here = array.cpu()
        return (here.to(torch.float64) if here.is_floating_point() else here).numpy()

    def largest(self, array: torch.Tensor) -> torch.Tensor:
        return array.amax(-1)

    def smallest_at(self, array: torch.Tensor) -> torch.Tensor:
        return array.argmin(-1)

    def first(self, mask: torch.Tensor, count: int) -> torch.Tensor:
        return torch.argsort((~mask).to(torch.uint8), dim=-1, stable=True)[:, :count]

    def take(self, array: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return torch.gather(array, -1, at)

    def put(self, array: torch.Tensor, at: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return array.scatter(-1, at, values)

    def solve(
        self, matrices: torch.Tensor, right: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        factors, info = torch.linalg.cholesky_ex(matrices)
        lower = torch.linalg.solve_triangular(factors, right[:, :, None], upper=False)
        solutions = torch.linalg.solve_triangular(factors.mT, lower, upper=True)[:, :, 0]
        return solutions, (info == 0) & torch.isfinite(solutions).all(-1)


class TorchEngine(BatchedEngine):
    """The batched engine on a PyTorch device.

    Parameters
    ----------
    device : str
        ``cuda``, ``mps``, ``cpu``, or empty for the first of these that is there.
    dtype : torch.dtype, optional
        Default: float64 where the device is fast at it, else float32 with refinement.
    budget_bytes : int, optional
        Memory of the device that the solver plans with.

    Raises
    ------
    InputError
        When the device is not there.
    """

    def __init__(
        self, device: str = "", dtype: torch.dtype | None = None, budget_bytes: int | None = None
    ) -> None:
        device = device or best_device()
        if device not in available_devices():
            raise InputError(
                f"engine torch:{device}",
                f"PyTorch {torch.__version__} does not reach this device on {platform.node()}",
                " or ".join(f"torch:{name}" for name in available_devices()),
                fix="Choose one of these, or install PyTorch's build for the device.",
            )
        self._device, dtype = torch.device(device), dtype or default_dtype(device)
        backend = TorchBackend(self._device, dtype)
        threads = min(MAX_THREADS, available_cores())
        super().__init__(f"torch:{device}", backend, budget_bytes or BUDGET_BYTES[device], threads)
        self._dtype = dtype
        self._matrix: DeviceMatrix | None = None

    def _design(self, problems: Sequence[LassoProblem]) -> Design:
        if self._device.type != "cuda":
            return HostDesign(problems, self._backend)
        if self._matrix is None or self._matrix.source is not problems[0].X:
            self._matrix = DeviceMatrix(problems[0].X, self._device)
        return TorchDesign(problems, self._matrix, self._dtype)


def available_devices() -> tuple[str, ...]:
    """Return the devices that this PyTorch reaches, the fastest first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return (*(name for name, yes in there.items() if yes), "cpu")


def best_device() -> str:
    """Return the first of ``available_devices()``."""
    return available_devices()[0]


def default_dtype(device: str) -> torch.dtype:
    """Return float64 for devices that are fast at it, float32 for others."""
    fast = device == "cpu" or (
        device == "cuda" and torch.cuda.get_device_capability() in FULL_FLOAT64
    )
    return torch.float64 if fast else torch.float32
