"""Which engines solve the grid, the ones asked for or the faster ones here; and their workers."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from actors.lasso.actor import worker_factories, worker_factory, worker_resources
from actors.lasso.calibration import (
    SAMPLE_ALPHAS,
    EngineChoice,
    Trial,
    TrialMemory,
    cache_folder,
    choose,
    sample_alphas,
    size_class,
)
from actors.lasso.engines import DEVICE_ENGINES
from cluster.errors import TenfoldError
from cluster.fingerprint import fingerprint
from cluster.nodes import Cluster
from cluster.resources import engine_device, mlx_has_gpu
from cluster.storage import Store
from cluster.units import Unit, WorkerKind, solve_units
from pipelines.news.fitting.path import AUTO, PathConfig

FloatArray = npt.NDArray[np.float64]

# What is tried beside newton, where some machine has its device.
_TRIED = ("torch:cuda", "torch:mps", "mlx")


def resolve_engine(
    config: PathConfig,
    X: sp.csc_matrix,
    Y: FloatArray,
    roles: npt.NDArray[np.int8],
    make_grids: Callable[[], Sequence[FloatArray]],
    cluster: Cluster,
    workers: int | None,
    code: str,
) -> EngineChoice:
    """Return the engine to use (or several, by commas) by its full name, and how many workers.

    ``auto`` lets newton and every engine whose device some machine offers solve the same few alphas
    (newton of the first target on all rows, a device of all targets and folds in one batch), and
    takes the one whose workers together solve the most a second. On a cluster of several machines
    those that are faster together share the grid. What was measured is remembered on this machine,
    for problems of about this size on the same machines.

    Parameters
    ----------
    X, Y, roles : the grid's matrix, targets and folds, the last of which is all rows
    make_grids : callable
        Returns the alphas of each target; called only where they are needed.
    workers : int, optional
        What the user asked for; default as many as the machines have devices or cores for.
    code : str
        Fingerprint of the solver's sources, by which old measurements go stale.

    Raises
    ------
    InputError
        When no machine has what the engine needs.
    """
    engine = config.engine
    if engine == AUTO and config.early_stop:
        engine = "newton"  # the one engine that stops early
    if engine == AUTO:
        candidates = _candidates(cluster, workers)
        if sum(not trial.note for trial in candidates) == 1:
            return choose(candidates, "newton")
        memory = TrialMemory(cache_folder() / "engines.json")
        grids = make_grids()
        cells = len(roles) * sum(grid.size for grid in grids)
        samples = cells / SAMPLE_ALPHAS
        key = _key(candidates, cluster, size_class(X, cells), config.tol, code)
        if (trials := memory.recall(key)) is not None:
            return choose(trials, "newton", samples=samples, remembered=True)
        trials = tuple(
            trial if trial.note else _measure(trial, X, Y, roles, grids, config.tol, cluster)
            for trial in candidates
        )
        memory.remember(key, trials)
        return choose(trials, "newton", samples=samples)
    if engine == "torch":
        offered = (name for name in ("cuda", "mps") if _offered(cluster, name))
        engine = f"torch:{next(offered, 'cpu')}"
    names = [name.strip() for name in engine.split(",")]
    for name in names:
        cluster.require(worker_resources(name, names), f"--engine {engine}")
    return EngineChoice(",".join(names), sum(_room(name, cluster, workers) for name in names))


def worker_kinds(
    engines: Sequence[str],
    X: sp.csc_matrix,
    Y: FloatArray,
    roles: npt.NDArray[np.int8],
    cluster: Cluster,
    workers: int | None,
) -> list[WorkerKind]:
    """Return what starts the workers of each engine, and how many the machines there now allow."""
    return [
        WorkerKind(name=name, make_worker=make, count=partial(_room, name, cluster, workers))
        for name, make in worker_factories(X, Y, roles, engines=engines).items()
    ]


def _candidates(cluster: Cluster, workers: int | None) -> list[Trial]:
    """Return newton and the engines with a device, those that need no trial with a note."""
    found = [Trial("newton", _room("newton", cluster, workers))]
    for engine in _TRIED:
        device = engine_device(engine)
        if not _offered(cluster, device):
            found.append(Trial(engine, note=f"no machine offers {device}"))
        elif engine == "mlx" and cluster.embedded and not mlx_has_gpu():
            found.append(Trial(engine, note="its CPU build proves correctness, not speed"))
        else:
            found.append(Trial(engine, _room(engine, cluster, workers)))
    return found


def _measure(
    trial: Trial,
    X: sp.csc_matrix,
    Y: FloatArray,
    roles: npt.NDArray[np.int8],
    grids: Sequence[FloatArray],
    tol: float,
    cluster: Cluster,
) -> Trial:
    """Time one worker on the sample, after a first call that loads its libraries.

    A device gets the sample of all targets and folds, as it will; its seconds are those of one.
    Where there are several machines, it gets that of one by itself too, as it will beside others.
    """
    tops, samples = [grid[:1] for grid in grids], [sample_alphas(grid) for grid in grids]
    one = {"target": 0, "fold": len(roles) - 1, "tol": tol}
    first, sample = {**one, "alphas": tops[0]}, {**one, "alphas": samples[0]}
    size = 1
    if trial.engine in DEVICE_ENGINES:
        first, sample = {"alphas": tops, "tol": tol}, {"alphas": samples, "tol": tol}
        size = len(grids) * len(roles)
    units = [
        Unit(key="first", payload=first),
        Unit(key="sample", payload=sample, after="first"),
    ]
    shares = len(cluster.nodes) > 1
    if shares:
        units += [
            Unit(key="top", payload={**one, "alphas": tops[0]}),
            Unit(key="shared", payload={**one, "alphas": samples[0]}, after="top"),
        ]
    try:
        with tempfile.TemporaryDirectory(prefix="tenfold-") as folder:
            results = solve_units(
                cluster,
                worker_factory(X, Y, roles, engine=trial.engine),
                units,
                Store(folder),
                workers=1,
                fingerprint=trial.engine,
                label=f"try {trial.engine}",
            )
    except TenfoldError as error:
        return Trial(trial.engine, note=f"failed: {str(error).splitlines()[0]}")
    if (gap := max(float(result["gap"]) for result in results.values())) > tol:
        return Trial(trial.engine, note=f"missed tol: gap {gap:.0e}")
    shared = _seconds(results["shared"]) if shares else None
    return Trial(
        trial.engine, trial.workers, _seconds(results["sample"], size), shared_seconds=shared
    )


def _seconds(result: Mapping[str, np.ndarray], size: int = 1) -> float:
    """Return the solver's seconds for each of the ``size`` targets and folds of a result."""
    parts = [part for name, part in result.items() if name.endswith("seconds")]
    return round(sum(float(part.sum()) for part in parts) / size, 6)


def _offered(cluster: Cluster, device: str) -> int:
    return int(sum(node.resources.get(device, 0) for node in cluster.nodes))


def _room(engine: str, cluster: Cluster, workers: int | None) -> int:
    """Return the number of workers: as asked, but never more than there are devices."""
    device = engine_device(engine)
    if device == "cpu":
        return workers or max(1, cluster.cores)
    devices = _offered(cluster, device)
    return min(workers or devices, devices)


def _key(
    candidates: Sequence[Trial], cluster: Cluster, size: Sequence[int], tol: float, code: str
) -> str:
    machines = [node.describe().partition(" GiB")[0] for node in cluster.nodes]
    return fingerprint(
        [(trial.engine, trial.workers, trial.note) for trial in candidates],
        machines,
        [_version(package) for package in ("numpy", "scipy", "torch", "mlx")],
        list(size),
        round(float(np.log10(tol))),
        code,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
