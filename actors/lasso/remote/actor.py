"""Run a worker class of the estimators on Ray: one call opens it, solves and closes."""

from collections.abc import Sequence
from contextlib import nullcontext
from tempfile import TemporaryDirectory
from typing import Any

import ray

from cluster.connect import ClusterConfig, connect
from cluster.nodes import Cluster
from cluster.resources import engine_resources
from cluster.storage import Store
from cluster.units import Arrays, Unit, solve_units


def solve_on_cluster(
    where: str | ClusterConfig | Cluster,
    worker: type,
    arguments: Sequence[Any],
    units: Sequence[Unit],
    *,
    engine: str,
    label: str,
) -> dict[str, Arrays]:
    """Solve ``units`` by actors of class ``worker``, each made with ``arguments`` and one thread.

    Parameters
    ----------
    where : str, ClusterConfig or Cluster
        ``"auto"``: the Ray that this process has open, else that of ``RAY_ADDRESS``, else one
        embedded for the call; ``"local"``: an embedded one; another text is an address.
    worker : type
        Takes ``arguments``, of which arrays arrive read-only, and has ``solve(payload, previous)``.

    Raises
    ------
    ConnectError
        When Ray cannot be reached.
    ShardsFailed
        When a unit kept failing.
    """
    if isinstance(where, str):
        where = ClusterConfig(address=None if where == "auto" else where)
    opened = nullcontext(where) if isinstance(where, Cluster) else connect(where)
    options = engine_resources(engine, num_cpus=1)
    with opened as cluster, TemporaryDirectory(prefix="tenfold-") as folder:
        cluster.require(options, f"the {engine} engine")
        held = [ray.put(argument) for argument in arguments]
        actor: Any = ray.remote(worker).options(**options)

        def start() -> Any:
            return actor.remote(*held)

        return solve_units(
            cluster,
            start,
            units,
            Store(folder),
            workers=max(1, cluster.cores),
            fingerprint="",
            label=label,
        )
