"""One of several equal parts of a saved memory bank: the engine of an actor, without Ray."""

from __future__ import annotations

import numpy as np

from actors.memory_bank.index import FloatArray, IntArray, MemoryBank
from cluster.errors import InputError
from cluster.storage import Store


class BankPart:
    """Rows ``start`` to ``end`` of the bank saved as ``name``, which alone are kept in memory.

    Attributes
    ----------
    whole : int
        Patches of the whole bank as this part knows it; parts that differ in it do not fit.
    """

    def __init__(
        self, store: Store, name: str, part: int, parts: int, device: str, threads: int
    ) -> None:
        self._store, self._name = store, name
        self._part, self._parts = part, parts
        self._device, self._threads = device, threads
        self.reload()

    def load(self) -> MemoryBank:
        """Return the whole bank as it is saved now."""
        # A GPU need not hold what is only read, added to or cut.
        device = self._device if self._parts == 1 else "cpu"
        return MemoryBank.load(self._store, self._name, device=device, threads=self._threads)

    def reload(self) -> None:
        """Take the part from the bank as it is saved now."""
        bank = self.load()
        self.whole, self.dim, self._start = bank.size, bank.dim, 0
        if self._parts > 1:
            if self.whole < self._parts:
                raise InputError(
                    f"memory bank {self._name}",
                    "actors",
                    f"1 to {self.whole}, the number of patches",
                    self._parts,
                    "Use fewer actors.",
                )
            self._start = self._part * self.whole // self._parts
            end = (self._part + 1) * self.whole // self._parts
            bank = bank.cut(self._start, end, self._device)
        self._bank = bank

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray, int]:
        """Return distances and rows (of the whole bank) of this part's nearest, and ``whole``.

        Of a part with fewer than ``k`` patches, all are returned.
        """
        if not 1 <= k <= self.whole:
            raise InputError(
                "k",
                "number of neighbours",
                f"1 to {self.whole}, the size of the memory bank",
                k,
                "Ask for fewer neighbours or build a larger bank.",
            )
        distance, index = self._bank.search(queries, min(k, self._bank.size))
        return distance, index + self._start, self.whole

    def rows(self, index: IntArray) -> tuple[IntArray, FloatArray, int]:
        """Return which of ``index`` (n,) are in this part, their patches, and d."""
        own = index - self._start
        here = np.flatnonzero((own >= 0) & (own < self._bank.size))
        return here, self._bank.reconstruct(own[here]), self.dim

    def add(self, patches: FloatArray, after: int) -> None:
        """Append ``patches`` to the saved bank, if it has ``after`` patches; `reload` sees them.

        Nothing happens when it has them already.

        Raises
        ------
        InputError
            When the bank has another size: somebody else has added.
        """
        bank = self.load()
        if bank.size == after + len(patches):
            last = bank.reconstruct(np.arange(after, bank.size))
            if np.array_equal(last, patches):
                return
        if bank.size != after:
            raise InputError(
                f"memory bank {self._name}",
                "size",
                after,
                bank.size,
                "Another client has added patches: add again.",
            )
        bank.add(patches)
        bank.save(self._store, self._name)
