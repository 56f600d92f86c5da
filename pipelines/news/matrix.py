"""Shards of counts to one sparse design matrix: stack, weigh, scale; nothing is ever densified."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.errors import InputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SCALES = ("none", "std", "max")


@dataclass(frozen=True, eq=False)
class Design:
    """The design matrix with what is needed to weigh new texts the same way.

    Attributes
    ----------
    X : scipy.sparse.csc_matrix (n_samples, n_features), float64, sorted indices
    columns : ndarray (n_features,), int64
        Vocabulary row (or hashed column) of each column of ``X``.
    idf : ndarray (n_features,)
        Inverse document frequency; ones for plain counts.
    scale : ndarray (n_features,)
        What each column was divided by.
    df : ndarray (n_features,), int64
        Observations in which the column is not zero.
    """

    X: sp.csc_matrix
    columns: IntArray
    idf: FloatArray
    scale: FloatArray
    df: IntArray


def stack_counts(shards: Iterable[dict[str, np.ndarray]], n_columns: int) -> sp.csr_matrix:
    """Stack the shards' rows into one count matrix (n_samples, n_columns)."""
    parts = list(shards)
    if not parts:
        return sp.csr_matrix((0, n_columns))
    indptr, offset = [np.zeros(1, dtype=np.int64)], 0
    for part in parts:
        indptr.append(part["indptr"][1:] + offset)
        offset += int(part["indptr"][-1])
    indices = np.concatenate([part["indices"] for part in parts])
    data = np.concatenate([part["counts"] for part in parts]).astype(np.float64)
    pointers = np.concatenate(indptr)
    if offset < 2**31:  # celer takes 32-bit indices only, and half the memory is welcome
        pointers = pointers.astype(np.int32)
    return sp.csr_matrix((data, indices, pointers), shape=(pointers.size - 1, n_columns))


def weigh(
    counts: sp.csr_matrix,
    *,
    weighting: str,
    min_df: int,
    max_df: float,
    scaling: str,
    protected: IntArray | None = None,
) -> Design:
    """Turn counts into the design matrix.

    ``tfidf``: (1 + ln count) (1 + ln((1 + n) / (1 + df))), rows scaled to length 1, as in
    scikit-learn's ``TfidfVectorizer(sublinear_tf=True)``. Columns outside min_df … max_df, left by
    hashing or never seen, are dropped before rows get their length; columns ``protected`` stay.

    Raises
    ------
    InputError
        When no column is left.
    """
    n = counts.shape[0]
    df = np.bincount(counts.indices, minlength=counts.shape[1]).astype(np.int64)
    passes = (df >= min_df) & (df <= max_df * n)
    passes[[] if protected is None else protected] = True
    columns = np.flatnonzero(passes & (df > 0))
    if columns.size == 0:
        raise InputError(
            "--min-df, --max-df",
            "no n-gram is left",
            expected=f"n-grams in {min_df} to {max_df:.0%} of {n} observations",
            fix="Lower --min-df or raise --max-df.",
        )
    X = counts if columns.size == counts.shape[1] else counts[:, columns]
    X = X.copy() if X is counts else X
    idf = np.ones(columns.size)
    if weighting == "tfidf":
        idf = np.log((1 + n) / (1 + df[columns])) + 1.0
        weigh_rows(X, idf)
    X = X.tocsc()
    X.sort_indices()
    scale = _column_scale(X, scaling)
    X.data /= np.repeat(scale, np.diff(X.indptr))
    return Design(X=X, columns=columns, idf=idf, scale=scale, df=df[columns])


def weigh_rows(X: sp.csr_matrix, idf: FloatArray) -> None:
    """Apply sublinear tf-idf to counts in place and scale each row to length 1."""
    X.data = (1.0 + np.log(X.data)) * idf[X.indices]
    lengths = np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).ravel())
    lengths[lengths == 0] = 1.0
    X.data /= np.repeat(lengths, np.diff(X.indptr))


def _column_scale(X: sp.csc_matrix, scaling: str) -> FloatArray:
    """Return what each column is divided by; the mean is left to the intercept."""
    if scaling == "none":
        return np.ones(X.shape[1])
    if scaling == "max":
        return np.asarray(abs(X).max(axis=0).todense()).ravel()
    n = X.shape[0]
    mean = np.asarray(X.sum(axis=0)).ravel() / n
    square = np.asarray(X.multiply(X).sum(axis=0)).ravel() / n
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    # A column that is the same everywhere carries nothing; it stays as it is.
    return np.where(deviation > 1e-12, deviation, 1.0)
