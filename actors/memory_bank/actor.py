"""The memory-bank actor, and the client that searches several as one; neither imports torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from actors.memory_bank.checks import checked_patches
from actors.memory_bank.merge import FloatArray, IntArray, merge_nearest
from cluster.failures import input_error
from cluster.nodes import Cluster
from cluster.progress import count, observe_seconds
from cluster.resources import engine_resources
from cluster.run_record import run_name
from cluster.storage import Store

RESTARTS = 5
_BATCH = 16_384  # queries a call: a second or so of work, 5 MB on the way
_ROUNDS = 5  # of a search, while another client adds


class BankActor:
    """Holds a part of a saved bank: that file is its state, so one that died comes back."""

    def __init__(
        self, store: Store, name: str, part: int, parts: int, device: str, threads: int
    ) -> None:
        # Here: clients load this module too, beside torch, which brings an OpenMP of its own.
        from actors.memory_bank.part import BankPart

        self._part = BankPart(store, name, part, parts, device, threads)
        self._tags = {"run": run_name(store), "part": str(part)}

    def size(self) -> int:
        """Return the number of patches of the whole bank."""
        return self._part.whole

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray, int]:
        """See `BankPart.search`; how long it took is a metric."""
        started = time.perf_counter()
        found = self._part.search(queries, k)
        observe_seconds("tenfold_knn_seconds", time.perf_counter() - started, self._tags)
        count("tenfold_knn_queries", len(queries), self._tags)
        return found

    def rows(self, index: IntArray) -> tuple[IntArray, FloatArray, int]:
        """See `BankPart.rows`."""
        return self._part.rows(index)

    def add(self, patches: FloatArray, after: int) -> None:
        """See `BankPart.add`; a second call, after a death in the first, changes nothing."""
        self._part.add(patches, after)

    def reload(self) -> None:
        """Take the bank as it is saved now."""
        self._part.reload()

    def save(self, store: Store, name: str) -> None:
        """Write the whole bank elsewhere."""
        self._part.load().save(store, name)


class ShardedBank:
    """Searches several actors as one bank, exactly; may be sent to other tasks and actors."""

    def __init__(self, actors: list[Any]) -> None:
        self.actors = actors

    @classmethod
    @contextmanager
    def open(
        cls,
        cluster: Cluster,
        store: Store,
        name: str | None,
        *,
        actors: int = 1,
        device: str = "auto",
        threads: int = 1,
    ) -> Iterator[ShardedBank | None]:
        """Serve the bank saved in ``store`` as ``name`` until the block ends; None serves nothing.

        Parameters
        ----------
        actors : int
            Each holds as many patches as the next.
        device : str
            With ``cuda`` each actor has a CUDA device of its own.
        threads : int
            Of each actor's searches.

        Raises
        ------
        InputError
            When the bank is missing or damaged, or has fewer patches than there are actors.
        """
        if name is None:
            yield None
            return
        cluster.check_shared(store)
        engine = "faiss:cuda" if device == "cuda" else "faiss"
        # No core of its own: a task that waits for an answer lends its core meanwhile, and a
        # machine of one core has one for both.
        options = engine_resources(engine, num_cpus=0)
        cluster.require(options, "memory bank")
        start: Any = ray.remote(BankActor).options(
            **options, max_restarts=RESTARTS, max_task_retries=RESTARTS
        )
        bank = cls([start.remote(store, name, k, actors, device, threads) for k in range(actors)])
        try:
            _get([actor.size.remote() for actor in bank.actors])
            yield bank
        finally:
            for actor in bank.actors:
                ray.kill(actor)

    @property
    def size(self) -> int:
        """Number of patches."""
        return int(_get([self.actors[0].size.remote()])[0])

    def search(self, queries: npt.ArrayLike, k: int) -> tuple[FloatArray, IntArray]:
        """Return the k nearest patches of each query; see `MemoryBank.search`."""
        Q = checked_patches(queries, where="queries")
        for _ in range(_ROUNDS):
            # All batches are under way at once: an actor goes from one to the next without a wait.
            calls = [
                actor.search.remote(sent, k)
                for sent in (ray.put(Q[at : at + _BATCH]) for at in range(0, len(Q), _BATCH))
                for actor in self.actors
            ]
            found = _get(calls)
            if len({whole for _, _, whole in found}) == 1:
                break
        else:
            raise RuntimeError("memory bank: patches are being added all the time")
        n = len(self.actors)
        batches = [
            merge_nearest([part[0] for part in some], [part[1] for part in some], k)
            for some in (found[at : at + n] for at in range(0, len(found), n))
        ]
        distance, index = zip(*batches, strict=True)
        return np.concatenate(distance), np.concatenate(index)

    def reconstruct(self, index: npt.ArrayLike) -> FloatArray:
        """Return the patches (…, d) with the indices (…)."""
        wanted = np.asarray(index, dtype=np.int64)
        sent = ray.put(wanted.ravel())
        parts = _get([actor.rows.remote(sent) for actor in self.actors])
        rows = np.empty((wanted.size, parts[0][2]), dtype=np.float32)
        for at, values, _ in parts:
            rows[at] = values
        return rows.reshape(*wanted.shape, -1)

    def add(self, patches: npt.ArrayLike) -> None:
        """Append patches to the saved bank and let all actors have it; see `MemoryBank.add`."""
        more = checked_patches(patches)
        _get([self.actors[0].add.remote(more, self.size)])
        _get([actor.reload.remote() for actor in self.actors])

    def save(self, store: Store, name: str) -> None:
        """Write the whole bank elsewhere; it is always saved where it was opened."""
        _get([self.actors[0].save.remote(store, name)])


def _get(calls: list[Any]) -> list[Any]:
    try:
        return ray.get(calls)
    except ray.exceptions.RayError as error:
        if (refused := input_error(error)) is not None:
            raise refused from error
        raise
