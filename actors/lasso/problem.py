"""The weighted Lasso problem, its exact unpenalised part and its duality gap.

Objective (the same as scikit-learn's and celer's), over the training rows only:

    P(w, b) = sum_i s_i (y_i - x_i w - b)^2 / (2 n) + alpha sum_j u_j |w_j|,   n = sum_i s_i

with sample weights ``s`` (1 by default) and penalty weights ``u`` (1 by default). The intercept
``b`` and the columns with ``u_j = 0`` are unpenalised: they are eliminated by projecting onto the
complement of their span, a basis ``Q`` of which is orthonormal in the weighted inner product. The
residual is then exactly orthogonal to them, and ``X`` stays sparse.

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
BoolArray = npt.NDArray[np.bool_]

# A direction that is left with less than this share of its squared length lies in the span.
_SPANNED = 1e-13


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
    sample_weight : ndarray (n_samples,), optional
        Non-negative weight of each row; rows of weight zero take no part.
    penalty_weights : ndarray (n_features,), optional
        ``u``: 0 leaves a column unpenalised, inf excludes it. Unpenalised columns are kept dense
        and should be few.
    positive : bool
        Constrain the penalised coefficients to be non-negative.
    fit_intercept : bool

    Raises
    ------
    ValueError
        When shapes disagree, no row is left, a weight is negative or NaN, or a training value is
        not finite.
    """

    X: sp.csc_matrix
    y: FloatArray
    train: BoolArray | None = None
    sample_weight: FloatArray | None = None
    penalty_weights: FloatArray | None = None
    positive: bool = False
    fit_intercept: bool = True

    def __post_init__(self) -> None:
        n_samples, n_features = self.X.shape
        if self.y.shape != (n_samples,):
            raise ValueError(f"y: expected shape ({n_samples},), got {self.y.shape}")
        if self.train is not None and self.train.shape != self.y.shape:
            raise ValueError(f"train: expected shape {self.y.shape}, got {self.train.shape}")
        s, u = self.sample_weight, self.penalty_weights
        if s is not None:
            if s.shape != self.y.shape:
                raise ValueError(f"sample_weight: expected shape {self.y.shape}, got {s.shape}")
            if not (np.isfinite(s) & (s >= 0)).all():
                raise ValueError("sample_weight: expected finite values of 0 or more")
        if u is not None:
            if u.shape != (n_features,):
                raise ValueError(f"penalty_weights: expected shape ({n_features},), got {u.shape}")
            if not (u >= 0).all():
                raise ValueError("penalty_weights: expected values of 0 or more, inf to exclude")
        if self.n_train < 1:
            raise ValueError("train: expected at least 1 row of positive weight, got none")
        if not np.isfinite(self.y[self.rows]).all():
            raise ValueError("y: expected finite values on the training rows")

    @cached_property
    def rows(self) -> BoolArray:
        """Training rows as a mask (n_samples,)."""
        rows = np.ones(self.y.size, dtype=bool) if self.train is None else self.train
        return rows if self.sample_weight is None else rows & (self.sample_weight > 0)

    @cached_property
    def row_weights(self) -> FloatArray:
        """Weight of each row, zero outside the training rows (n_samples,)."""
        weights = self.rows.astype(np.float64)
        return weights if self.sample_weight is None else weights * self.sample_weight

    @cached_property
    def n_train(self) -> int:
        """Number of training rows."""
        return int(np.count_nonzero(self.rows))

    @cached_property
    def n(self) -> float:
        """Total weight of the training rows, the ``n`` of the objective."""
        return float(self.row_weights.sum())

    @cached_property
    def free(self) -> IntArray:
        """Columns with ``u_j = 0``, rising."""
        u = self.penalty_weights
        return np.zeros(0, dtype=np.int64) if u is None else np.flatnonzero(u == 0)

    @cached_property
    def penalised(self) -> BoolArray | None:
        """Mask of the columns with a finite positive ``u_j``; None where that is all of them."""
        u = self.penalty_weights
        return None if u is None else np.isfinite(u) & (u > 0)

    @cached_property
    def _elimination(self) -> tuple[FloatArray, FloatArray]:
        """Return ``Q`` (n_samples, k) and ``B`` with ``[1 X_free] (B z) = Q z``."""
        weights = self.row_weights
        if not self.free.size:
            if not self.fit_intercept:
                return np.zeros((self.y.size, 0)), np.zeros((0, 0))
            return self.rows[:, None] / np.sqrt(self.n), np.full((1, 1), 1.0 / np.sqrt(self.n))
        columns = self.X[:, self.free].toarray() * self.rows[:, None]
        if self.fit_intercept:
            columns = np.column_stack((self.rows, columns))
        root = np.sqrt(weights)[:, None]
        lengths = np.linalg.norm(root * columns, axis=0)
        lengths[lengths == 0] = 1.0
        U, sigma, Vt = np.linalg.svd(root * (columns / lengths), full_matrices=False)
        kept = sigma > 1e-12 * sigma.max(initial=1.0)
        back = (Vt[kept] / sigma[kept, None]).T / lengths[:, None]
        safe = np.where(root > 0, root, 1.0)
        return U[:, kept] / safe * self.rows[:, None], back

    @cached_property
    def basis(self) -> FloatArray:
        """``Q`` (n_samples, k): weighted orthonormal basis of what is unpenalised."""
        return self._elimination[0]

    @cached_property
    def loadings(self) -> FloatArray:
        """``Q' S X`` (k, n_features): what the projection removes from each column."""
        return np.ascontiguousarray((self.X.T @ (self.basis * self.row_weights[:, None])).T)

    @cached_property
    def y_centred(self) -> FloatArray:
        """Target less its unpenalised fit, zero on held-out rows (n_samples,)."""
        y = np.where(self.rows, self.y, 0.0)
        # In two steps: the mean of a target far from zero would leave its rounding behind.
        centred = y.copy()
        for _ in range(2):
            centred -= self.basis @ (self.basis.T @ (self.row_weights * centred))
        rounding = np.finfo(np.float64).eps * float(np.abs(y).max(initial=0.0))
        return np.zeros_like(y) if np.abs(centred).max(initial=0.0) <= 4 * rounding else centred

    @cached_property
    def y_norm2(self) -> float:
        """Squared weighted norm of the centred target."""
        return float(self.y_centred @ (self.row_weights * self.y_centred))

    @cached_property
    def squared_norms(self) -> FloatArray:
        """Squared weighted norm of each column after the projection (n_features,).

        Zero for a column in the span of what is unpenalised, such as a constant one.
        """
        X = self.X
        weighted = np.square(X.data) * self.row_weights[X.indices]
        raw = np.zeros(X.shape[1])
        occupied = np.flatnonzero(np.diff(X.indptr))
        if occupied.size:
            raw[occupied] = np.add.reduceat(weighted, X.indptr[occupied])
        left = raw - np.square(self.loadings).sum(axis=0)
        return np.where(left > _SPANNED * raw, left, 0.0)

    def alpha_max(self) -> float:
        """Return the smallest alpha whose penalised coefficients are all zero."""
        strength = self.strength(self.correlations(self.y_centred))
        return float(strength.max(initial=0.0)) / self.n

    def correlations(self, residual: FloatArray) -> FloatArray:
        """Return ``X' S r`` (n_features,) of a residual that is zero on held-out rows."""
        return self.X.T @ self.weighted(residual)

    def weighted(self, residual: FloatArray) -> FloatArray:
        """Return ``S r`` of a residual that is zero on held-out rows (n_samples,)."""
        return residual if self.sample_weight is None else self.row_weights * residual

    def strength(self, correlations: FloatArray, columns: IntArray | None = None) -> FloatArray:
        """Return what the dual constraint bounds by ``alpha n`` for each column.

        That is ``|c_j| / u_j``, of the positive part where coefficients must not be negative, and
        zero for columns that are unpenalised or excluded. ``columns`` tells which columns the
        correlations are of; default all.
        """
        strength = np.maximum(correlations, 0.0) if self.positive else np.abs(correlations)
        if self.penalty_weights is None or self.penalised is None:
            return strength
        chosen = slice(None) if columns is None else columns
        u, penalised = self.penalty_weights[chosen], self.penalised[chosen]
        return np.where(penalised, strength / np.where(penalised, u, 1.0), 0.0)

    def l1_norm(self, support: IntArray, values: FloatArray) -> float:
        """Return ``sum_j u_j |w_j|``."""
        size = np.abs(values)
        return float(size.sum() if self.penalty_weights is None
                     else size @ self.penalty_weights[support])  # fmt: skip

    def residual(self, support: IntArray, values: FloatArray) -> FloatArray:
        """Return ``y - X w - b`` with the unpenalised part exact, zero on held-out rows.

        ``values`` are the coefficients of the penalised columns ``support``.
        """
        return self.residual_of(self.X[:, support] @ values, support, values)

    def residual_of(self, fitted: FloatArray, support: IntArray, values: FloatArray) -> FloatArray:
        """Return `residual`, given ``X w`` (n_samples,)."""
        fitted = fitted - self.basis @ (self.loadings[:, support] @ values)
        residual = np.where(self.rows, self.y_centred - fitted, 0.0)
        # Once more: columns far from zero leave their rounding behind.
        return residual - self.basis @ (self.basis.T @ self.weighted(residual))

    def penalised_part(self, start: sp.csc_matrix) -> tuple[IntArray, FloatArray]:
        """Return support, rising, and values of the penalised columns of ``start``.

        ``start`` (n_features, 1) is a warm start; what the problem forbids is left out, and columns
        that do not vary on the training rows, which no step would move.
        """
        support, values = start.indices.astype(np.int64), start.data.astype(np.float64)
        allowed = (values > 0) if self.positive else (values != 0)
        allowed &= self.squared_norms[support] > 0
        if self.penalised is not None:
            allowed &= self.penalised[support]
        support, values = support[allowed], values[allowed]
        order = np.argsort(support)
        return support[order], values[order]

    def complete(self, support: IntArray, values: FloatArray) -> tuple[IntArray, FloatArray, float]:
        """Return support, rising, and values with the unpenalised columns, and the intercept."""
        free, intercept = self.unpenalised(support, values)
        if not free.size:
            return support, values, intercept
        support, values = np.concatenate((support, self.free)), np.concatenate((values, free))
        order = np.argsort(support)
        return support[order], values[order], intercept

    def unpenalised(self, support: IntArray, values: FloatArray) -> tuple[FloatArray, float]:
        """Return the exact coefficients of the columns ``free``, and the intercept."""
        return self._unpenalised_of(self.loadings[:, support] @ values)

    def intercept(self, support: IntArray, values: FloatArray) -> float:
        """Return the exact intercept for the penalised coefficients ``values`` at ``support``."""
        return self.unpenalised(support, values)[1]

    def _unpenalised_of(self, loading: FloatArray) -> tuple[FloatArray, float]:
        target = self.row_weights * np.where(self.rows, self.y, 0.0)
        coefs = self._elimination[1] @ (self.basis.T @ target - loading)
        return (coefs[1:], float(coefs[0])) if self.fit_intercept else (coefs, 0.0)

    def relative_gap(
        self, residual: FloatArray, correlations: FloatArray, l1_norm: float, alpha: float
    ) -> float:
        """Return (P - D) / (||y_c||^2 / n) from a residual of `residual` and its ``X' S r``."""
        largest = float(self.strength(correlations).max(initial=0.0))
        return self.gap_from(residual, largest, l1_norm, alpha)

    def gap_from(self, residual: FloatArray, largest: float, l1_norm: float, alpha: float) -> float:
        """Return the relative gap when the largest `strength` is known.

        Both terms of the gap are sums of squares and products of one sign, so nothing cancels:
        P - D = ||r||^2 (1 - t)^2 / 2 + (alpha n ||w||_1 - t <r, y_c - r>), all over n, with the
        residual scaled by ``t`` to be dual feasible.
        """
        bound = alpha * self.n
        scale = 1.0 if largest <= bound else bound / largest
        weighted = self.weighted(residual)
        squared = float(weighted @ residual)
        fitted = float(weighted @ self.y_centred) - squared
        gap = 0.5 * squared * (1.0 - scale) ** 2 + bound * l1_norm - scale * fitted
        return max(gap, 0.0) / self.y_norm2 if self.y_norm2 > 0 else 0.0
