"""The column actor: owns some blocks of columns and screens them for whoever asks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import ray
from threadpoolctl import threadpool_limits

from actors.lasso.column_blocks import (
    BlockFile,
    ColumnBlock,
    Screened,
    block_files,
    memory_needed,
)
from actors.lasso.column_shards import Target, alpha_maxima, solve_columns
from actors.lasso.problem import FloatArray, IntArray
from actors.lasso.solution import PathSolution
from cluster.nodes import Cluster
from cluster.storage import Store

RESTARTS = 5


class ColumnActor:
    """Screens the columns of ``files``; rebuilt from them when its process is lost."""

    def __init__(self, store: Store, files: Sequence[BlockFile]) -> None:
        self._bare_bytes = _private_bytes()
        self._block = ColumnBlock(store, files)
        self._most_bytes = _private_bytes()

    def screen(
        self, residuals: FloatArray, bounds: FloatArray, limit: int, held: IntArray
    ) -> Screened:
        """See :class:`actors.lasso.column_blocks.ColumnBlock`."""
        with threadpool_limits(1):
            found = self._block.screen(residuals, bounds, limit, held)
        self._most_bytes = max(self._most_bytes, _private_bytes())
        return found

    def used_bytes(self) -> int:
        """Return how far its memory has been seen above that of its bare process."""
        return self._most_bytes - self._bare_bytes


class RayBlocks:
    """Blocks owned by actors of ``num_cpus`` each, which share the files."""

    def __init__(
        self, store: Store, actors: int, num_cpus: float = 1.0, budget_bytes: int | None = None
    ) -> None:
        self.shape, files = block_files(store)
        owned = [
            [files[at] for at in part]
            for part in np.array_split(np.arange(len(files)), min(actors, len(files)))
        ]
        if budget_bytes is not None:
            needed = max(memory_needed(store, part) for part in owned)
            if needed > budget_bytes:
                raise ValueError(
                    f"budget_bytes: expected {needed:,} or more for {actors} actors, got "
                    f"{budget_bytes:,}; use more actors, or more and smaller files"
                )
        start: Any = ray.remote(ColumnActor).options(
            num_cpus=num_cpus, max_restarts=RESTARTS, max_task_retries=RESTARTS
        )
        self.actors = [start.remote(store, part) for part in owned]

    def screen(
        self, residuals: FloatArray, bounds: FloatArray, limit: int, held: IntArray
    ) -> Sequence[Screened]:
        """See :class:`actors.lasso.column_blocks.Blocks`."""
        sent = ray.put(residuals)
        return ray.get([actor.screen.remote(sent, bounds, limit, held) for actor in self.actors])

    def used_bytes(self) -> list[int]:
        """Return the memory that each actor has been seen to take beyond its bare process."""
        return ray.get([actor.used_bytes.remote() for actor in self.actors])

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)


@contextmanager
def column_actors(
    cluster: Cluster, store: Store, actors: int, budget_bytes: int | None = None
) -> Iterator[RayBlocks]:
    """Let ``actors`` own the column blocks in ``store``, until the block of code ends.

    More actors than cores take turns.
    """
    cluster.check_shared(store)
    num_cpus = min(1.0, cluster.cores / actors)
    blocks = RayBlocks(store, actors, num_cpus, budget_bytes)
    try:
        yield blocks
    finally:
        blocks.close()


def solve_column_sharded(
    cluster: Cluster,
    store: Store,
    targets: Sequence[Target],
    alphas: Sequence[FloatArray] | None = None,
    *,
    actors: int,
    tol: float = 1e-6,
    ratio: float = 30.0,
    n_alphas: int = 50,
    budget_bytes: int | None = None,
) -> list[PathSolution]:
    """Solve Lasso paths on the matrix that `write_blocks` wrote to ``store``.

    The matrix is in the memory of no process: each of ``actors`` holds its share of the columns,
    and this one those in use.

    Parameters
    ----------
    alphas : for each target its decreasing alphas; default ``n_alphas`` from its alpha_max down to
        alpha_max / ``ratio``
    budget_bytes : int, optional
        Memory that the columns of an actor may take.

    Raises
    ------
    ValueError
        When the columns of an actor take more than ``budget_bytes``.
    """
    with column_actors(cluster, store, actors, budget_bytes) as blocks:
        if alphas is None:
            highest = alpha_maxima(blocks, targets)
            alphas = [np.geomspace(top, top / ratio, n_alphas) for top in highest]
        return solve_columns(blocks, targets, alphas, tol=tol)


def _private_bytes() -> int:
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))
