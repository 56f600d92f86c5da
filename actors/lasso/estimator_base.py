"""What the estimators share."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from actors.lasso.problem import FloatArray


class SparseLinear(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A linear model on dense or sparse input: prediction and scikit-learn's tags."""

    coef_: FloatArray
    intercept_: Any

    def predict(self, X: Any) -> FloatArray:
        """Return ``X coef_ + intercept_`` (n_samples,), or (n_samples, n_targets)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, accept_sparse=["csr", "csc", "coo"])
        return safe_sparse_dot(X, self.coef_.T, dense_output=True) + self.intercept_

    @property
    def sparse_coef_(self) -> sp.csr_matrix:
        """``coef_`` as a sparse matrix, a row a target."""
        return sp.csr_matrix(self.coef_)

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: sparse input is welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def checked_weights(sample_weight: Any, X: Any) -> FloatArray | None:
    """Return sample weights (n_samples,) as float64, or None.

    Raises
    ------
    ValueError
        When one is negative or not finite, all are zero, or the shape differs.
    """
    if sample_weight is None:
        return None
    weights: FloatArray = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    return weights
