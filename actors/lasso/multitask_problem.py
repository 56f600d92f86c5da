"""The multi-task Lasso problem: several targets share one set of columns.

Objective (scikit-learn's ``MultiTaskLasso``), over the training rows only:

    P(W, b) = sum_i s_i ||y_i - x_i W - b||^2 / (2 n) + alpha sum_j u_j ||W_j.||_2,  n = sum_i s_i

Rows, weights and the elimination of the unpenalised part are those of
:class:`actors.lasso.problem.LassoProblem`, of which there is one for each target.

References
----------
Obozinski, Taskar, Jordan, "Joint covariate selection and joint subspace selection for multiple
classification problems", Statistics and Computing 20(2), 2010.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from actors.lasso.problem import BoolArray, FloatArray, IntArray, LassoProblem


@dataclass(frozen=True, eq=False)
class MultiTaskProblem:
    """Several targets on one fold.

    Parameters
    ----------
    X : scipy.sparse.csc_matrix (n_samples, n_features), float64
    Y : ndarray (n_samples, n_targets), float64
        Targets; rows outside ``train`` are ignored and may be NaN.
    train, sample_weight, penalty_weights, fit_intercept
        As in `LassoProblem`; one row of coefficients is excluded, penalised or free as a whole.

    Raises
    ------
    ValueError
        When Y has no column, and whenever `LassoProblem` raises.
    """

    X: sp.csc_matrix
    Y: FloatArray
    train: BoolArray | None = None
    sample_weight: FloatArray | None = None
    penalty_weights: FloatArray | None = None
    fit_intercept: bool = True

    def __post_init__(self) -> None:
        n_samples = self.X.shape[0]
        if self.Y.ndim != 2 or self.Y.shape[0] != n_samples or self.Y.shape[1] < 1:
            raise ValueError(
                f"Y: expected shape ({n_samples}, 1 or more targets), got {self.Y.shape}"
            )
        # Made here, so that bad values are refused where the problem is stated.
        _ = self.targets

    @cached_property
    def targets(self) -> tuple[LassoProblem, ...]:
        """The problem of each target by itself."""
        return tuple(
            LassoProblem(
                self.X,
                np.ascontiguousarray(y, dtype=np.float64),
                self.train,
                self.sample_weight,
                self.penalty_weights,
                fit_intercept=self.fit_intercept,
            )
            for y in self.Y.T
        )

    @property
    def shared(self) -> LassoProblem:
        """A problem on the same rows and columns: what does not depend on the target."""
        return self.targets[0]

    @property
    def n_targets(self) -> int:
        """Number of targets T."""
        return int(self.Y.shape[1])

    @property
    def n(self) -> float:
        """Total weight of the training rows."""
        return self.shared.n

    @cached_property
    def Y_centred(self) -> FloatArray:
        """Targets less their unpenalised fit, zero on held-out rows (n_samples, n_targets)."""
        return np.column_stack([target.y_centred for target in self.targets])

    @cached_property
    def y_norm2(self) -> float:
        """Squared weighted Frobenius norm of the centred targets."""
        return float(sum(target.y_norm2 for target in self.targets))

    def alpha_max(self) -> float:
        """Return the smallest alpha whose penalised coefficients are all zero."""
        strength = self.strength(self.correlations(self.Y_centred))
        return float(strength.max(initial=0.0)) / self.n

    def correlations(self, residual: FloatArray) -> FloatArray:
        """Return ``X' S R`` (n_features, n_targets) of a residual that is zero on held-out rows."""
        return np.asarray(self.X.T @ self._weighted(residual))

    def strength(self, correlations: FloatArray) -> FloatArray:
        """Return ``||c_j||_2 / u_j`` (n_features,), zero for free and excluded columns."""
        return self.shared.strength(row_norms(correlations))

    def penalty(self, support: IntArray, values: FloatArray) -> float:
        """Return ``sum_j u_j ||W_j.||_2``."""
        return self.shared.l1_norm(support, row_norms(values))

    def residual(self, support: IntArray, values: FloatArray) -> FloatArray:
        """Return ``Y - X W - 1 b'`` with the unpenalised part exact, zero on held-out rows.

        ``values`` (k, n_targets) are the coefficients of the penalised columns ``support``.
        """
        shared = self.shared
        fitted = self.X[:, support] @ values
        fitted -= shared.basis @ (shared.loadings[:, support] @ values)
        residual = np.where(shared.rows[:, None], self.Y_centred - fitted, 0.0)
        # Once more: columns far from zero leave their rounding behind.
        return residual - shared.basis @ (shared.basis.T @ self._weighted(residual))

    def penalised_part(self, start: sp.csr_matrix) -> tuple[IntArray, FloatArray]:
        """Return support, rising, and values of the penalised non-zero rows of ``start``.

        Columns that do not vary on the training rows are left out: no step would move them.

        Raises
        ------
        ValueError
            When ``start`` is not of shape (n_features, n_targets).
        """
        expected = (self.X.shape[1], self.n_targets)
        if start.shape != expected:
            raise ValueError(f"start: expected shape {expected}, got {start.shape}")
        start = start.tocsr()
        rows = np.flatnonzero(np.diff(start.indptr)).astype(np.int64)
        values = start[rows].toarray()
        kept = values.any(axis=1) & (self.shared.squared_norms[rows] > 0)
        if self.shared.penalised is not None:
            kept &= self.shared.penalised[rows]
        return rows[kept], values[kept]

    def complete(
        self, support: IntArray, values: FloatArray
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return support, rising, and values with the unpenalised columns, and the intercepts."""
        parts = [target.complete(support, values[:, t]) for t, target in enumerate(self.targets)]
        completed = parts[0][0]
        return (
            completed,
            np.column_stack([part[1] for part in parts]),
            np.array([part[2] for part in parts]),
        )

    def gap_from(self, residual: FloatArray, largest: float, penalty: float, alpha: float) -> float:
        """Return the relative duality gap (P - D) / (||Y_c||_F^2 / n).

        As `LassoProblem.gap_from`, with ``largest`` of `strength` and ``penalty`` of `penalty`.
        """
        weighted = self._weighted(residual)
        squared = float(np.vdot(weighted, residual))
        fitted = float(np.vdot(weighted, self.Y_centred)) - squared
        gap = dual_gap(squared, fitted, largest, penalty, alpha * self.n)
        return max(gap, 0.0) / self.y_norm2 if self.y_norm2 > 0 else 0.0

    def _weighted(self, block: FloatArray) -> FloatArray:
        return block if self.sample_weight is None else self.shared.row_weights[:, None] * block


def dual_gap(squared: float, fitted: float, largest: float, penalty: float, bound: float) -> float:
    """Return ``n (P - D)``, as a sum in which nothing cancels.

    ``||R||^2 (1 - t)^2 / 2 + bound sum_j u_j ||W_j|| - t <R, X W>`` with the residual scaled by
    ``t = min(1, bound / largest)`` to be dual feasible; ``squared`` is ``||R||^2``, ``fitted``
    ``<R, X W>``, ``bound`` is ``alpha n``.
    """
    scale = 1.0 if largest <= bound else bound / largest
    return 0.5 * squared * (1.0 - scale) ** 2 + bound * penalty - scale * fitted


def row_norms(rows: FloatArray) -> FloatArray:
    """Return the Euclidean norm of each row."""
    return np.sqrt(np.einsum("jt,jt->j", rows, rows))
