"""Blocks of columns that answer for a design matrix which nobody holds whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from actors.lasso.problem import BoolArray, FloatArray, IntArray
from cluster.storage import Store

# Residuals that meet the columns at a time: what a pass returns is so many times a block's columns.
MAX_TOGETHER = 8


@dataclass(frozen=True)
class BlockFile:
    """A file of consecutive columns, the first of which is column ``first`` of the matrix."""

    name: str
    first: int
    n_columns: int


@dataclass(frozen=True, eq=False)
class Screened:
    """What a pass over some columns found.

    Attributes
    ----------
    largest : ndarray (k,)
        ``max_j |x_j' r|`` for each residual.
    columns : ndarray (m,), int64, rising
        The strongest of those above their bound.
    X : csc_matrix (n_samples, m)
        These columns themselves.
    """

    largest: FloatArray
    columns: IntArray
    X: sp.csc_matrix


class Blocks(Protocol):
    """All columns, wherever they are."""

    shape: tuple[int, int]

    def screen(
        self, residuals: FloatArray, bounds: FloatArray, limit: int, held: IntArray
    ) -> Sequence[Screened]:
        """Return what each block found; see `ColumnBlock.screen`."""
        ...


class ColumnBlock:
    """The columns of some files, and their products with residuals.

    Its memory is that of its columns, plus ``MAX_TOGETHER`` numbers for each column of a file.
    """

    def __init__(self, store: Store, files: Sequence[BlockFile]) -> None:
        self._files = files
        self._parts = [read_block(store, file) for file in files]

    def screen(
        self, residuals: FloatArray, bounds: FloatArray, limit: int, held: IntArray
    ) -> Screened:
        """Correlate every column with ``residuals`` (n_samples, k).

        Parameters
        ----------
        bounds : ndarray (k,)
            A column with ``|x_j' r|`` above its residual's bound violates optimality.
        limit : int
            Violating columns returned for each residual and file, the strongest.
        held : ndarray, int64, rising
            Columns that the caller has; they count, but are not sent.
        """
        k = residuals.shape[1]
        largest = np.zeros(k)
        columns, parts = [], []
        for file, X in zip(self._files, self._parts, strict=True):
            missing = ~np.isin(np.arange(file.first, file.first + file.n_columns), held)
            chosen = np.zeros(file.n_columns, dtype=bool)
            for first in range(0, k, MAX_TOGETHER):
                some = slice(first, first + MAX_TOGETHER)
                strength = np.abs(X.T @ residuals[:, some])
                largest[some] = np.maximum(largest[some], strength.max(axis=0, initial=0.0))
                for own, bound in zip(strength.T, bounds[some], strict=True):
                    chosen[_strongest(own, missing & (own > bound), limit)] = True
            columns.append(file.first + np.flatnonzero(chosen))
            parts.append(X[:, np.flatnonzero(chosen)])
        return Screened(largest, np.concatenate(columns), sp.hstack(parts, format="csc"))


class LocalBlocks:
    """Blocks that are read from their files one after the other, and held one at a time."""

    def __init__(self, store: Store) -> None:
        self.shape, self._files = block_files(store)
        self._store = store

    def screen(
        self, residuals: FloatArray, bounds: FloatArray, limit: int, held: IntArray
    ) -> Sequence[Screened]:
        """See :class:`Blocks`."""
        return [
            ColumnBlock(self._store, [file]).screen(residuals, bounds, limit, held)
            for file in self._files
        ]


def write_blocks(store: Store, parts: Iterable[sp.csc_matrix]) -> None:
    """Write the matrix whose columns are those of ``parts``, in order; a file a part.

    Raises
    ------
    ValueError
        When the parts differ in their rows, or there are none.
    """
    files, rows, first = [], set(), 0
    for number, X in enumerate(parts):
        name = f"columns-{number:05d}.npz"
        store.write_arrays(name, data=X.data, indices=X.indices, indptr=X.indptr)
        files.append({"name": name, "first": first, "n_columns": X.shape[1]})
        rows.add(X.shape[0])
        first += X.shape[1]
    if len(rows) != 1:
        raise ValueError(f"parts: expected one number of rows, got {sorted(rows)}")
    store.write_json("columns.json", {"n_samples": rows.pop(), "files": files})


def block_files(store: Store) -> tuple[tuple[int, int], list[BlockFile]]:
    """Return the shape of the matrix that `write_blocks` wrote, and its files."""
    index = store.read_json("columns.json")
    files = [BlockFile(**file) for file in index["files"]]
    return (index["n_samples"], files[-1].first + files[-1].n_columns), files


def read_block(store: Store, file: BlockFile) -> sp.csc_matrix:
    """Return the columns of one file."""
    arrays = store.read_arrays(file.name)
    n_samples = store.read_json("columns.json")["n_samples"]
    parts = (arrays["data"], arrays["indices"], arrays["indptr"])
    return sp.csc_matrix(parts, shape=(n_samples, file.n_columns))


def memory_needed(store: Store, files: Sequence[BlockFile]) -> int:
    """Return the bytes that a `ColumnBlock` of ``files`` takes at most, what it sends left out.

    Its columns, a second copy of one file while that is read, and the products of one file.
    """
    sizes = [size or 0 for size in store.sizes([file.name for file in files])]
    products = 2 * 8 * MAX_TOGETHER * max(file.n_columns for file in files)
    return sum(sizes) + max(sizes) + products


def _strongest(strength: FloatArray, eligible: BoolArray, limit: int) -> IntArray:
    found = np.flatnonzero(eligible)
    if found.size <= limit:
        return found
    return found[np.argpartition(-strength[found], limit)[:limit]]
