"""The solver actor: holds the design matrix once and solves one unit a call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import ray
import scipy.sparse as sp
from ray.actor import ActorHandle
from threadpoolctl import threadpool_limits

from actors.lasso.engines import make_engine
from actors.lasso.multitask_unit import solve_multitask_unit
from actors.lasso.solution import GridEngine
from actors.lasso.unit import UnitResult, solve_folds, solve_targets, solve_unit
from cluster.resources import engine_device, engine_resources


class LassoWorker:
    """Solves units of (target, fold, stretch of alphas).

    Its state is what the constructor is given, so an actor that died is rebuilt by constructing it
    again; a unit depends on nothing but its payload and its predecessor's result.

    Parameters
    ----------
    design : dict of arrays ``data, indices, indptr, shape``
        CSC design matrix, read-only views into the object store.
    targets : ndarray (n_samples, n_targets)
    roles : ndarray (n_folds, n_samples), int8
    engine : str
    threads : int
        Threads of the numerical libraries; one keeps results equal on every machine.
    """

    def __init__(
        self,
        design: Mapping[str, np.ndarray],
        targets: np.ndarray,
        roles: np.ndarray,
        engine: str,
        threads: int = 1,
    ) -> None:
        self._X = sp.csc_matrix(
            (design["data"], design["indices"], design["indptr"]),
            shape=tuple(design["shape"]),
            copy=False,
        )
        self._targets, self._roles = targets, roles
        self._engine = make_engine(engine)
        self._threads = threads

    def solve(
        self, payload: Mapping[str, Any], previous: Mapping[str, np.ndarray] | None
    ) -> UnitResult:
        """Solve ``payload`` = {target, fold, alphas, tol}, warm-started from ``previous``.

        With ``margin`` in place of ``fold``: all folds side by side, by `solve_folds`. With a list
        of targets: all of them with one set of columns, by `solve_multitask_unit`. With neither
        target nor fold: all of both as one batch, by `solve_targets`. With ``reach``: results have
        what columns outside the matrix can reach.
        """
        with_reach = bool(payload.get("reach"))
        with threadpool_limits(self._threads):
            if "target" not in payload:
                return solve_targets(
                    cast("GridEngine", self._engine),
                    self._X,
                    self._targets,
                    self._roles,
                    payload["alphas"],
                    tol=payload["tol"],
                    previous=previous,
                    with_reach=with_reach,
                )
            if "margin" in payload:
                return solve_folds(
                    self._X,
                    np.ascontiguousarray(self._targets[:, payload["target"]]),
                    self._roles,
                    payload["alphas"],
                    tol=payload["tol"],
                    margin=payload["margin"],
                    previous=previous,
                    with_reach=with_reach,
                )
            if isinstance(payload["target"], list):
                return solve_multitask_unit(
                    self._X,
                    self._targets[:, payload["target"]],
                    self._roles[payload["fold"]],
                    payload["alphas"],
                    tol=payload["tol"],
                    previous=previous,
                )
            return solve_unit(
                self._engine,
                self._X,
                np.ascontiguousarray(self._targets[:, payload["target"]]),
                self._roles[payload["fold"]],
                payload["alphas"],
                tol=payload["tol"],
                previous=previous,
                with_reach=with_reach,
            )


def worker_resources(engine: str, engines: Sequence[str], threads: int = 1) -> dict[str, Any]:
    """Return the Ray options of a worker of ``engine`` in a run of ``engines``.

    Beside other engines a device's worker asks for its device alone: those of the cores may have
    taken every core of its machine.
    """
    spared = len(engines) > 1 and engine_device(engine) != "cpu"
    return engine_resources(engine, num_cpus=0 if spared else threads)


def worker_factories(
    X: sp.csc_matrix,
    targets: np.ndarray,
    roles: np.ndarray,
    *,
    engines: Sequence[str],
    threads: int = 1,
) -> dict[str, Callable[[], ActorHandle]]:
    """Put the arrays into the object store once; return what starts a worker on them, by engine.

    Call it in the driver: an object that a worker had put would be lost with that worker.
    """
    design = ray.put(
        {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": np.array(X.shape)}
    )
    rest = (ray.put(targets), ray.put(roles))
    worker = ray.remote(LassoWorker)

    def factory(engine: str) -> Callable[[], ActorHandle]:
        actor = worker.options(**worker_resources(engine, engines, threads))

        def start() -> Any:
            return actor.remote(design, *rest, engine, threads)

        return start

    return {engine: factory(engine) for engine in engines}


def worker_factory(
    X: sp.csc_matrix,
    targets: np.ndarray,
    roles: np.ndarray,
    *,
    engine: str,
    threads: int = 1,
) -> Callable[[], ActorHandle]:
    """Return what `worker_factories` does for one engine."""
    return worker_factories(X, targets, roles, engines=[engine], threads=threads)[engine]
