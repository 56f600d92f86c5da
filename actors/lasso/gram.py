"""Dense Gram matrix of the columns that a path has met so far."""

import numpy as np
import scipy.sparse as sp

from actors.lasso.problem import FloatArray, IntArray, LassoProblem


class GramCache:
    """Gram matrix of a growing list of columns after the projection of `LassoProblem`.

    ``X' S X - B' B`` with ``B`` the loadings; with an intercept alone, the centred Gram matrix.

    Entries do not depend on the order in which columns arrive: each is one sum over the common rows
    in row order, so a path resumed elsewhere meets the same numbers.
    """

    def __init__(self, problem: LassoProblem) -> None:
        self._problem = problem
        self.columns: IntArray = np.zeros(0, dtype=np.int64)
        self._position = np.full(problem.X.shape[1], -1, dtype=np.int64)
        self._buffer: FloatArray = np.empty((0, 0))
        self._columns_t = sp.csr_matrix((0, problem.X.shape[0]))

    @property
    def matrix(self) -> FloatArray:
        """View (k, k) of the Gram matrix of ``columns``."""
        k = self.columns.size
        return self._buffer[:k, :k]

    def positions(self, columns: IntArray) -> IntArray:
        """Return where ``columns`` stand in ``self.columns``; -1 for absent ones."""
        return self._position[columns]

    def add(self, columns: IntArray) -> None:
        """Make sure that ``columns`` are present."""
        new = columns[self._position[columns] < 0]
        if new.size == 0:
            return
        problem, old = self._problem, self.columns.size
        block = problem.X[:, new]
        weighted = block.data * problem.row_weights[block.indices]
        block = sp.csc_matrix((weighted, block.indices, block.indptr), block.shape)
        self.columns = np.concatenate((self.columns, new))
        self._position[new] = np.arange(old, self.columns.size)
        self._columns_t = sp.vstack((self._columns_t, problem.X[:, new].T), format="csr")
        loadings = problem.loadings
        product = (self._columns_t @ block).toarray()
        product -= loadings[:, self.columns].T @ loadings[:, new]
        self._grow(self.columns.size)
        self._buffer[: self.columns.size, old : self.columns.size] = product
        self._buffer[old : self.columns.size, :old] = product[:old].T

    def keep(self, columns: IntArray) -> None:
        """Forget every column but ``columns``."""
        kept = np.sort(self._position[columns])
        matrix = self.matrix[np.ix_(kept, kept)]
        self._position[self.columns] = -1
        self.columns = self.columns[kept]
        self._position[self.columns] = np.arange(kept.size)
        self._columns_t = self._columns_t[kept]
        self._buffer = matrix

    def _grow(self, size: int) -> None:
        if size <= self._buffer.shape[0]:
            return
        capacity = max(size, int(1.5 * self._buffer.shape[0]), 256)
        buffer = np.empty((capacity, capacity))
        old = self._buffer.shape[0]
        buffer[:old, :old] = self._buffer
        self._buffer = buffer
