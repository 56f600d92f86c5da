"""A memory bank in several parts, for one that a single machine or core cannot serve."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actors.memory_bank.checks import checked_patches
from actors.memory_bank.index import MemoryBank
from cluster.errors import InputError
from cluster.storage import Store


def write_parts(
    patches: npt.ArrayLike, store: Store, name: str, parts: int, **options: Any
) -> list[str]:
    """Save ``patches`` as banks of rows that follow one another, and return their names in order.

    One part is called ``name``; several ``name-0``, ``name-1``, …. ``options`` are those of
    `MemoryBank`.

    Raises
    ------
    InputError
        As `MemoryBank` does, and for more parts than patches.
    """
    X = checked_patches(patches)
    if not 1 <= parts <= len(X):
        raise InputError(
            "memory bank",
            "parts",
            f"1 to {len(X)}, the number of patches",
            parts,
            "Use fewer parts.",
        )
    names = [name] if parts == 1 else [f"{name}-{part}" for part in range(parts)]
    for part, rows in zip(names, np.array_split(X, parts), strict=True):
        MemoryBank(rows, **options).save(store, part)
    return names
