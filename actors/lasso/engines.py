"""The engines by name."""

import importlib
import platform

from actors.lasso.solution import Engine
from cluster.errors import InputError
from cluster.resources import engine_device

ENGINES = ("newton", "celer", "sklearn")
# Batched engines on a device of their own; plain ``torch`` takes the best that is there.
DEVICE_ENGINES = ("torch", "torch:cuda", "torch:mps", "torch:cpu", "mlx")


def make_engine(name: str) -> Engine:
    """Return a fresh engine.

    Engines are imported only when asked for: celer and PyTorch cost seconds at import.

    Raises
    ------
    ValueError
        For a name that is not one of ``ENGINES`` and ``DEVICE_ENGINES``.
    InputError
        When the library or the device of an engine is not there.
    """
    if name == "newton":
        from actors.lasso.newton import NewtonEngine

        return NewtonEngine()
    if name == "celer":
        from actors.lasso.celer_engine import CelerEngine

        return CelerEngine()
    if name == "sklearn":
        from actors.lasso.sklearn_engine import SklearnEngine

        return SklearnEngine()
    if name in DEVICE_ENGINES:
        library, _, device = name.partition(":")
        require_library(library)
        if library == "mlx":
            from actors.lasso.mlx_engine import MlxEngine

            return MlxEngine()
        from actors.lasso.torch_engine import TorchEngine

        return TorchEngine(device)
    names = ", ".join((*ENGINES, *DEVICE_ENGINES))
    raise ValueError(f"engine: expected one of {names}, got {name!r}")


def device_of(engine: str) -> str:
    """Return what an engine keeps busy: ``cpu``, ``cuda``, or ``metal`` by whatever library."""
    device = engine_device(engine)
    return "metal" if device in ("mlx", "mps") else device


def require_library(library: str) -> None:
    """Check that ``torch`` or ``mlx`` can be loaded; on Linux MLX may be there without a backend.

    Raises
    ------
    InputError
        When it cannot.
    """
    try:
        importlib.import_module("mlx.core" if library == "mlx" else library)
    except (ImportError, OSError) as error:
        raise InputError(
            f"engine {library}",
            f"its library cannot be loaded on {platform.node()} ({error})",
            fix=f"Run pip install 'tenfold[{library}]'.",
        ) from error
