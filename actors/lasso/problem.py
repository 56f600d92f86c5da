"""The Lasso problem, its exact intercept and its duality gap.

Objective (the same as scikit-learn's and celer's), over the training rows only:

    P(w, b) = ||y - X w - b||^2 / (2 n) + alpha ||w||_1

The intercept ``b`` is never penalised. With ``b`` exact the residual has mean zero over the
training rows, so ``X' r`` needs no centring term and ``X`` stays sparse.

References
----------
Fercoq, Gramfort, Salmon, "Mind the duality gap: safer rules for the Lasso", ICML 2015.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LassoProblem:
    """One target on one fold.

    Parameters
    ----------
    X : scipy.sparse.csc_matrix (n_samples, n_features), float64
        Design matrix over all rows, shared by every fold; never written to.
    y : ndarray (n_samples,), float64
        Target; values on rows outside ``train`` are ignored and may be NaN.
    train : ndarray (n_samples,), bool, optional
        Rows that take part. A fold is a mask, not a copy: its residual is zero elsewhere.

    Raises
    ------
    ValueError
        When shapes disagree, no row is left, or a training value is not finite.
    """

    X: sp.csc_matrix
    y: FloatArray
    train: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.y.shape != (self.X.shape[0],):
            raise ValueError(f"y: expected shape ({self.X.shape[0]},), got {self.y.shape}")
        if self.train is not None and self.train.shape != self.y.shape:
            raise ValueError(f"train: expected shape {self.y.shape}, got {self.train.shape}")
        if self.n_train < 2:
            raise ValueError(f"train: expected at least 2 rows, got {self.n_train}")
        if not np.isfinite(self.y[self.rows]).all():
            raise ValueError("y: expected finite values on the training rows")

    @cached_property
    def rows(self) -> npt.NDArray[np.bool_]:
        """Training rows as a mask (n_samples,)."""
        return np.ones(self.y.size, dtype=bool) if self.train is None else self.train

    @cached_property
    def n_train(self) -> int:
        """Number of training rows, the ``n`` of the objective."""
        return int(np.count_nonzero(self.rows))

    @cached_property
    def y_mean(self) -> float:
        """Mean of the target over the training rows."""
        return float(self.y[self.rows].mean())

    @cached_property
    def y_centred(self) -> FloatArray:
        """Centred target, zero on held-out rows (n_samples,)."""
        centred = np.zeros(self.y.size)
        centred[self.rows] = self.y[self.rows] - self.y_mean
        return centred

    @cached_property
    def y_norm2(self) -> float:
        """Squared norm of the centred target."""
        return float(self.y_centred @ self.y_centred)

    @cached_property
    def column_means(self) -> FloatArray:
        """Mean of each column over the training rows (n_features,)."""
        return self.X.T @ self.rows.astype(np.float64) / self.n_train

    def alpha_max(self) -> float:
        """Return the smallest alpha whose solution is all zero."""
        return float(np.abs(self.X.T @ self.y_centred).max(initial=0.0)) / self.n_train

    def intercept(self, support: IntArray, values: FloatArray) -> float:
        """Return the exact intercept for the coefficients ``values`` at columns ``support``."""
        return self.y_mean - float(self.column_means[support] @ values)

    def residual(self, support: IntArray, values: FloatArray) -> FloatArray:
        """Return ``y - X w - b`` with ``b`` exact, zero on held-out rows (n_samples,)."""
        residual = self.y - self.X[:, support] @ values - self.intercept(support, values)
        return np.where(self.rows, residual, 0.0)

    def relative_gap(
        self, residual: FloatArray, correlations: FloatArray, l1_norm: float, alpha: float
    ) -> float:
        """Return (P - D) / (||y_c||^2 / n) from a residual of mean zero and its ``X' r``.

        Both terms of the gap are sums of squares and products of one sign, so nothing cancels:
        P - D = ||r||^2 (1 - s)^2 / 2 + (alpha n ||w||_1 - s <r, y_c - r>), all over n.
        """
        bound = alpha * self.n_train
        largest = float(np.abs(correlations).max(initial=0.0))
        scale = 1.0 if largest <= bound else bound / largest
        squared = float(residual @ residual)
        fitted = float(residual @ self.y_centred) - squared
        gap = 0.5 * squared * (1.0 - scale) ** 2 + bound * l1_norm - scale * fitted
        return max(gap, 0.0) / self.y_norm2 if self.y_norm2 > 0 else 0.0
