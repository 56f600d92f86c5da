"""Shards of counts to one sparse design matrix: stack, weigh, scale; nothing is ever densified."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.errors import InputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

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


@dataclass(frozen=True, eq=False)
class Weighting:
    """Which columns of the counts are n-grams of the matrix, and how they are weighed.

    Attributes
    ----------
    columns : ndarray (n_ngrams,), int64
        Vocabulary row (or hashed column) of each.
    idf : ndarray (n_ngrams,)
    df : ndarray (n_ngrams,), int64
    tfidf : bool
        Otherwise plain counts.
    """

    columns: IntArray
    idf: FloatArray
    df: IntArray
    tfidf: bool

    def weigh(self, counts: sp.csr_matrix) -> sp.csr_matrix:
        """Return the weighted rows (n_rows, n_ngrams) of counts, which are left as they are."""
        everything = self.columns.size == counts.shape[1]
        X = counts.copy() if everything else counts[:, self.columns]
        if self.tfidf:
            weigh_rows(X, self.idf)
        return X


def make_weighting(
    df: IntArray,
    n: int,
    *,
    weighting: str,
    min_df: int,
    max_df: float,
    protected: IntArray | None = None,
) -> Weighting:
    """Choose the columns of the counts by their document frequencies ``df`` in ``n`` rows.

    ``tfidf``: (1 + ln count) (1 + ln((1 + n) / (1 + df))), rows scaled to length 1, as in
    scikit-learn's ``TfidfVectorizer(sublinear_tf=True)``. Columns outside min_df … max_df, left by
    hashing or never seen, are dropped before rows get their length; columns ``protected`` stay.

    Raises
    ------
    InputError
        When no column is left.
    """
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
    idf = np.ones(columns.size)
    if weighting == "tfidf":
        idf = np.log((1 + n) / (1 + df[columns])) + 1.0
    return Weighting(columns, idf, df[columns], weighting == "tfidf")


def weigh(
    counts: sp.csr_matrix,
    *,
    weighting: str,
    min_df: int,
    max_df: float,
    scaling: str,
    protected: IntArray | None = None,
) -> Design:
    """Turn counts into the design matrix, weighted as by `make_weighting`."""
    df = np.bincount(counts.indices, minlength=counts.shape[1]).astype(np.int64)
    how = make_weighting(
        df, counts.shape[0], weighting=weighting, min_df=min_df, max_df=max_df, protected=protected
    )
    return assemble([counts], how, None, scaling)


def assemble(
    blocks: Iterable[sp.csr_matrix], weighting: Weighting, kept: BoolArray | None, scaling: str
) -> Design:
    """Weigh blocks of counted rows one by one and stack them; of the n-grams only those ``kept``.

    ``kept`` (n_ngrams,) leaves the numbers of the columns that stay as they are: rows get their
    length before anything is left out.
    """
    chosen = slice(None) if kept is None else np.flatnonzero(kept)
    df = weighting.df[chosen]
    nonzeros = int(df.sum())
    data = np.empty(nonzeros)
    # celer takes 32-bit indices only, and half the memory is welcome
    indices = np.empty(nonzeros, dtype=np.int32 if nonzeros < 2**31 else np.int64)
    pointers, filled = [np.zeros(1, dtype=indices.dtype)], 0
    for counts in blocks:
        rows = weighting.weigh(counts)
        if kept is not None:
            rows = rows[:, chosen]
        pointers.append((filled + rows.indptr[1:].astype(np.int64)).astype(indices.dtype))
        data[filled : filled + rows.nnz] = rows.data
        indices[filled : filled + rows.nnz] = rows.indices
        filled += rows.nnz
    indptr = np.concatenate(pointers)
    X = sp.csr_matrix((data, indices, indptr), shape=(indptr.size - 1, df.size)).tocsc()
    X.sort_indices()
    scale = _scale_of(X, scaling)
    X.data /= np.repeat(scale, np.diff(X.indptr))
    return Design(
        X=X, columns=weighting.columns[chosen], idf=weighting.idf[chosen], scale=scale, df=df
    )


def block_counts(arrays: Mapping[str, np.ndarray], n_columns: int) -> sp.csr_matrix:
    """Return one block's rows of the count matrix, as `assemble_shard` wrote them."""
    counts = arrays["counts"].astype(np.float64)
    shape = (arrays["indptr"].size - 1, n_columns)
    return sp.csr_matrix((counts, arrays["indices"], arrays["indptr"]), shape=shape)


def weigh_rows(X: sp.csr_matrix, idf: FloatArray) -> None:
    """Apply sublinear tf-idf to counts in place and scale each row to length 1."""
    X.data = (1.0 + np.log(X.data)) * idf[X.indices]
    lengths = np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).ravel())
    lengths[lengths == 0] = 1.0
    X.data /= np.repeat(lengths, np.diff(X.indptr))


def column_scale(
    scaling: str, mean: FloatArray, square: FloatArray, largest: FloatArray
) -> FloatArray:
    """Return what each column is divided by; the mean is left to the intercept.

    ``mean`` and ``square`` are the means over all rows of its values and of their squares.
    """
    if scaling == "none":
        return np.ones(mean.size)
    if scaling == "max":
        return largest
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    # A column that is the same everywhere carries nothing; it stays as it is.
    return np.where(deviation > 1e-12, deviation, 1.0)


def _scale_of(X: sp.csc_matrix, scaling: str) -> FloatArray:
    if scaling == "none":
        return np.ones(X.shape[1])
    n = X.shape[0]
    mean = np.asarray(X.sum(axis=0)).ravel() / n
    square = np.asarray(X.multiply(X).sum(axis=0)).ravel() / n
    return column_scale(scaling, mean, square, np.asarray(abs(X).max(axis=0).todense()).ravel())
