"""Dense Gram matrix of the columns that a path has met so far."""

import numpy as np
import scipy.sparse as sp

from actors.lasso.problem import FloatArray, IntArray, LassoProblem

# Columns arrive in chunks, which are merged once they are so many.
MAX_CHUNKS = 4


class GramCache:
    """Gram matrix of a growing list of columns after the projection of `LassoProblem`.

    ``X' S X - B' B`` with ``B`` the loadings; with an intercept alone, the centred Gram matrix.
    Entries do not depend on the order in which columns arrive: each is one sum over the common rows
    in row order, so a path resumed elsewhere meets the same numbers.
    """

    def __init__(self, problem: LassoProblem) -> None:
        self._problem = problem
        self._chunks: list[sp.csr_matrix] = []
        self.columns: IntArray = np.zeros(0, dtype=np.int64)
        self._position = np.full(problem.X.shape[1], -1, dtype=np.int64)
        self._buffer: FloatArray = np.empty((0, 0))

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
        loadings, old = self._problem.loadings, self.columns.size
        block = self._products(new)
        self.columns = np.concatenate((self.columns, new))
        self._position[new] = np.arange(old, self.columns.size)
        block -= loadings[:, self.columns].T @ loadings[:, new]
        self._grow(self.columns.size)
        self._buffer[: self.columns.size, old : self.columns.size] = block
        self._buffer[old : self.columns.size, :old] = block[:old].T

    def _products(self, new: IntArray) -> FloatArray:
        """Return ``X' S X_new`` of the present columns and the new ones (k + m, m)."""
        X, weights = self._problem.X, self._problem.row_weights
        right = X[:, new]
        self._chunks.append(right.tocsr())
        if len(self._chunks) > MAX_CHUNKS:
            self._chunks = [sp.hstack(self._chunks, format="csr")]
        weighted = right.data * weights[right.indices]
        # The transpose of a CSC matrix, read as CSR: work goes with the new non-zeros.
        rows = sp.csr_matrix((weighted, right.indices, right.indptr), right.shape[::-1])
        return np.hstack([(rows @ chunk).toarray() for chunk in self._chunks]).T

    def keep(self, columns: IntArray) -> None:
        """Forget every column but ``columns``."""
        kept = np.sort(self._position[columns])
        matrix = self.matrix[np.ix_(kept, kept)]
        self._position[self.columns] = -1
        self.columns = self.columns[kept]
        self._chunks = [sp.hstack(self._chunks, format="csr")[:, kept]]
        self._position[self.columns] = np.arange(kept.size)
        self._buffer = matrix

    def _grow(self, size: int) -> None:
        if size <= self._buffer.shape[0]:
            return
        capacity = max(size, int(1.5 * self._buffer.shape[0]), 256)
        buffer = np.empty((capacity, capacity))
        old = self._buffer.shape[0]
        buffer[:old, :old] = self._buffer
        self._buffer = buffer
