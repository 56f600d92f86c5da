"""Turn what users pass into what the solver takes, or say what is wrong with it.

Nothing here writes to an array of the caller's, and a float64 CSC matrix with sorted 32-bit
indices is used as it is, read-only or not.
"""

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp

from actors.lasso.problem import FloatArray, IntArray

# Squares and their sums over the rows must not overflow.
LARGEST = 1e140


def design_matrix(X: Any) -> sp.csc_matrix:
    """Return ``X``, dense or sparse float64, as CSC with sorted indices and no duplicates."""
    _check_size("X", X.data if sp.issparse(X) else X)
    if not sp.issparse(X):
        return sp.csc_matrix(X)
    X = X.tocsc()
    design = sp.csc_matrix((X.data, X.indices, X.indptr), shape=X.shape, copy=False)
    if not design.has_canonical_format:
        design = design.copy()
        design.sum_duplicates()
    return design


def target_array(y: Any, name: str = "y") -> FloatArray:
    """Return ``y`` as contiguous float64; the caller's own array where it is that already."""
    y = np.ascontiguousarray(y, dtype=np.float64)
    _check_size(name, y)
    return y


def penalty_array(weights: Any, n_features: int) -> FloatArray | None:
    """Return penalty weights (n_features,) as float64, or None for all ones.

    Raises
    ------
    ValueError
        When the shape differs, or a weight is negative or NaN.
    """
    if weights is None:
        return None
    u = np.ascontiguousarray(weights, dtype=np.float64)
    if u.shape != (n_features,):
        raise ValueError(f"penalty_weights: expected shape ({n_features},), got {u.shape}")
    if not (u >= 0).all():
        raise ValueError("penalty_weights: expected values of 0 or more, inf to exclude")
    return u


def positive_number(name: str, value: Any, below: float = np.inf) -> float:
    """Return ``value`` as a float above 0 and under ``below``; ValueError otherwise."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and 0 < float(value) < below):
        limit = "" if below == np.inf else f" and below {below:g}"
        raise ValueError(f"{name}: expected a finite number above 0{limit}, got {value!r}")
    return float(value)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return ``value`` where it is one of ``allowed``; ValueError otherwise."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
    return str(value)


def alpha_grid(alphas: Any, eps: Any, alpha_max: float) -> FloatArray:
    """Return decreasing alphas, as scikit-learn chooses them.

    Parameters
    ----------
    alphas : int or array
        How many between ``alpha_max`` and ``eps * alpha_max``, evenly in log; or the alphas.

    Raises
    ------
    ValueError
        For a number below 1, an empty array, or an alpha that is not finite and positive.
    """
    if isinstance(alphas, Integral) and not isinstance(alphas, bool):
        if alphas < 1:
            raise ValueError(f"alphas: expected 1 or more, got {alphas}")
        ratio = positive_number("eps", eps, below=1.0)
        lowest = np.finfo(np.float64).resolution
        if alpha_max <= lowest:
            return np.full(int(alphas), lowest)
        return np.geomspace(alpha_max, alpha_max * ratio, int(alphas))
    try:
        grid = np.array(alphas, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"alphas: expected an int or an array, got {alphas!r}") from None
    if grid.ndim != 1 or not grid.size:
        raise ValueError(f"alphas: expected 1 or more in one dimension, got shape {grid.shape}")
    if not (np.isfinite(grid) & (grid > 0)).all():
        raise ValueError("alphas: expected finite numbers above 0")
    return np.sort(grid)[::-1].copy()


def cv_folds(splits: Iterable[tuple[Any, Any]], n_samples: int) -> list[tuple[IntArray, IntArray]]:
    """Return (train, validation) row numbers of each fold, given as numbers or masks.

    Raises
    ------
    ValueError
        When there is no fold, or one lacks training or validation rows.
    """
    rows = np.arange(n_samples)
    folds = []
    for number, fold in enumerate(splits):
        try:
            train, held_out = (rows[np.asarray(part)] if len(part) else rows[:0] for part in fold)
        except (IndexError, TypeError, ValueError):
            raise ValueError(
                f"cv: fold {number}: expected a pair of row numbers below {n_samples}, "
                f"or of masks of {n_samples} rows"
            ) from None
        if not (train.size and held_out.size):
            raise ValueError(
                f"cv: fold {number}: expected training and validation rows, "
                f"got {train.size} and {held_out.size}"
            )
        folds.append((train, held_out))
    if not folds:
        raise ValueError("cv: expected 1 or more folds, got none")
    return folds


def _check_size(name: str, values: Any) -> None:
    largest = max(np.max(values, initial=0.0), -np.min(values, initial=0.0))
    if largest > LARGEST:
        raise ValueError(f"{name}: expected values up to {LARGEST:g}, got {largest:.3g}")
