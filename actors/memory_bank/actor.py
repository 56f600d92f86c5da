"""The memory-bank actor, and the client that searches several as one; neither imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from actors.memory_bank.checks import checked_patches
from actors.memory_bank.index import MemoryBank
from actors.memory_bank.merge import FloatArray, IntArray, merge_nearest
from cluster.errors import InputError
from cluster.failures import input_error
from cluster.nodes import Cluster
from cluster.resources import engine_resources
from cluster.storage import Store

RESTARTS = 5
_BATCH = 16_384  # queries a call: a second or so of work, 5 MB on the way


class BankActor:
    """Holds one saved bank; its state is that file, so one that died comes back as it was."""

    def __init__(self, store: Store, name: str, device: str, threads: int) -> None:
        self._store, self._name = store, name
        self._bank = MemoryBank.load(store, name, device=device, threads=threads)

    def size(self) -> int:
        """Return the number of patches."""
        return self._bank.size

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """See `MemoryBank.search`; of fewer patches than ``k``, all are returned."""
        return self._bank.search(queries, min(k, self._bank.size))

    def add(self, patches: FloatArray, after: int) -> int:
        """Append ``patches`` to a bank of ``after``, save, and return its size.

        A second call, as is made when the actor died after saving, changes nothing.
        """
        if self._bank.size == after + len(patches):
            return self._bank.size
        if self._bank.size != after:
            raise InputError(
                f"memory bank {self._name}",
                "size",
                after,
                self._bank.size,
                "Another client has added patches: add again.",
            )
        self._bank.add(patches)
        self.save(self._store, self._name)
        return self._bank.size

    def save(self, store: Store, name: str) -> None:
        """See `MemoryBank.save`."""
        self._bank.save(store, name)


class BankClient:
    """Searches several actors as one bank, exactly; may be sent to other tasks and actors."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self.actors = list(actors)

    def sizes(self) -> list[int]:
        """Return the number of patches of each part."""
        return _get([actor.size.remote() for actor in self.actors])

    def search(self, queries: npt.ArrayLike, k: int) -> tuple[FloatArray, IntArray]:
        """Return the k nearest patches of each query; see `MemoryBank.search`.

        Indices count through the parts; a part that dies is restarted and asked again.
        """
        sizes = self.sizes()
        if not 1 <= k <= sum(sizes):
            raise InputError("k", "number of neighbours", f"1 to {sum(sizes)}", k, "Ask for fewer.")
        Q = checked_patches(queries, where="queries")
        starts = np.cumsum([0, *sizes[:-1]])
        # All batches are under way at once: an actor goes from one to the next without a wait.
        calls = [
            [actor.search.remote(sent, k) for actor in self.actors]
            for sent in (ray.put(Q[at : at + _BATCH]) for at in range(0, len(Q), _BATCH))
        ]
        found = []
        for call in calls:
            parts = _get(call)
            distances = [distance for distance, _ in parts]
            rows = [index + start for (_, index), start in zip(parts, starts, strict=True)]
            found.append(merge_nearest(distances, rows, k))
        distance, index = zip(*found, strict=True)
        return np.concatenate(distance), np.concatenate(index)

    def add(self, patches: npt.ArrayLike) -> int:
        """Append ``patches`` to the last part, so that no index changes; return the whole size."""
        sizes = self.sizes()
        more = checked_patches(patches)
        return sum(sizes[:-1]) + _get([self.actors[-1].add.remote(more, sizes[-1])])[0]


@contextmanager
def bank_actors(
    cluster: Cluster,
    store: Store,
    names: Sequence[str],
    *,
    device: str = "auto",
    threads: int = 1,
) -> Iterator[BankClient]:
    """Serve the banks saved in ``store`` as ``names`` (see `write_parts`) until the block ends.

    ``threads`` is the number of cores of each actor; more actors than cores take turns. With
    ``cuda`` each has a CUDA device of its own.
    """
    cluster.check_shared(store)
    engine = "faiss:cuda" if device == "cuda" else "faiss"
    options = engine_resources(engine, num_cpus=min(threads, cluster.cores / len(names)))
    start: Any = ray.remote(BankActor).options(
        **options, max_restarts=RESTARTS, max_task_retries=RESTARTS
    )
    client = BankClient([start.remote(store, name, device, threads) for name in names])
    try:
        client.sizes()
        yield client
    finally:
        for actor in client.actors:
            ray.kill(actor)


def _get(calls: list[Any]) -> list[Any]:
    try:
        return ray.get(calls)
    except ray.exceptions.RayError as error:
        if (refused := input_error(error)) is not None:
            raise refused from error
        raise
