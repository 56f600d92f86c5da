"""Columns that are exact multiples of one another: one stays, the others become its aliases.

Among such columns any split of weight can be optimal, so a dictionary is well defined only once
they are merged. Found by an exact hash of each column's row pattern and a random projection of its
values, then verified entry by entry.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class Twins:
    """Which column stands for which.

    Attributes
    ----------
    kept : ndarray (n_kept,), int64
        Columns that stay, rising.
    representative : ndarray (n_features,), int64
        The kept column that stands for each column (itself when kept).
    ratio : ndarray (n_features,)
        ``x_j = ratio_j * x_representative``; negative for opposite columns.
    """

    kept: IntArray
    representative: IntArray
    ratio: FloatArray

    @cached_property
    def aliases_by_column(self) -> dict[int, IntArray]:
        """The merged columns of each representative that has any."""
        merged = np.flatnonzero(self.representative != np.arange(self.representative.size))
        order = merged[np.argsort(self.representative[merged], kind="stable")]
        owners, starts = np.unique(self.representative[order], return_index=True)
        spans = itertools.pairwise([*starts.tolist(), order.size])
        parts = (order[start:stop] for start, stop in spans)
        return dict(zip(owners.tolist(), parts, strict=True))


def merge_weights(
    twins: Twins, support: IntArray, values: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Move the weight of merged columns to their representatives; the fit does not change.

    Returns the support, rising, and its values.
    """
    owners, at = np.unique(twins.representative[support], return_inverse=True)
    merged = np.bincount(at, weights=values * twins.ratio[support], minlength=owners.size)
    return owners[merged != 0], merged[merged != 0]


def find_twins(X: sp.csc_matrix, preference: IntArray | None = None, seed: int = 0) -> Twins:
    """Find proportional columns.

    Parameters
    ----------
    X : csc_matrix (n_samples, n_features), sorted indices, no explicit zeros
    preference : ndarray (n_features,), optional
        Among columns of the same norm the one with the smallest preference is kept.
    seed : int
        Of the projections; the result does not depend on it.
    """
    n_samples, p = X.shape
    if preference is None:
        preference = np.arange(p)
    counts = np.diff(X.indptr).astype(np.int64)
    filled = np.flatnonzero(counts)
    random = np.random.default_rng(seed)
    row_code = random.integers(0, 2**63, n_samples, dtype=np.uint64)
    row_weight = random.standard_normal(n_samples)
    starts = X.indptr[:-1][filled]

    norm = np.zeros(p)
    norm[filled] = np.sqrt(np.add.reduceat(X.data * X.data, starts))
    sign = np.ones(p)
    sign[filled] = np.sign(X.data[starts])
    unit = np.where(norm > 0, norm, 1.0) * sign
    pattern = np.zeros(p, dtype=np.uint64)
    pattern[filled] = np.add.reduceat(row_code[X.indices], starts)
    projection = np.zeros(p)
    projection[filled] = np.add.reduceat(X.data * row_weight[X.indices], starts) / unit[filled]

    order = np.lexsort((projection, pattern, counts))
    new_group = np.ones(p, dtype=bool)
    new_group[1:] = (
        (counts[order][1:] != counts[order][:-1])
        | (pattern[order][1:] != pattern[order][:-1])
        | (np.diff(projection[order]) > 1e-8)
    )
    group = np.empty(p, dtype=np.int64)
    group[order] = np.cumsum(new_group) - 1
    result = np.arange(p)
    pending = filled
    while pending.size:  # a second round only where columns of one hash are no twins after all
        owner = pending[_choose(group[pending], norm[pending], preference[pending])]
        others = owner != pending
        pending, owner = pending[others], owner[others]
        same = _proportional(X, pending, owner, unit)
        result[pending[same]] = owner[same]
        pending = pending[~same]
    verified = np.flatnonzero(result != np.arange(p))
    ratio = np.ones(p)
    ratio[verified] = unit[verified] / unit[result[verified]]
    return Twins(kept=np.flatnonzero(result == np.arange(p)), representative=result, ratio=ratio)


def name_preference(names: pa.Array) -> IntArray:
    """Rank n-grams, given in alphabetical order: fewest words, fewest letters, then as given."""
    words = pc.count_substring(names, " ").to_numpy(zero_copy_only=False)
    letters = pc.utf8_length(names).to_numpy(zero_copy_only=False)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.lexsort((np.arange(len(names)), letters, words))] = np.arange(len(names))
    return rank


def _choose(group: IntArray, norm: FloatArray, preference: IntArray) -> IntArray:
    """Return for each column where the one of its group with the largest norm stands.

    Among equal norms it is the one with the smallest preference.
    """
    # Norms of twins that differ by rounding alone count as equal.
    rounded = np.round(np.log(np.maximum(norm, 1e-300)), 9)
    order = np.lexsort((preference, -rounded, group))
    first = np.ones(order.size, dtype=bool)
    first[1:] = group[order][1:] != group[order][:-1]
    best = np.empty(order.size, dtype=np.int64)
    best[order] = order[first][np.cumsum(first) - 1]
    return best


def _proportional(
    X: sp.csc_matrix, columns: IntArray, others: IntArray, unit: FloatArray
) -> npt.NDArray[np.bool_]:
    """Tell for each pair of columns whether one is a multiple of the other, entry by entry."""
    lengths = np.diff(X.indptr)[columns]
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    left = np.repeat(X.indptr[columns], lengths) + offsets
    right = np.repeat(X.indptr[others], lengths) + offsets
    same = X.indices[left] == X.indices[right]
    difference = X.data[left] / np.repeat(unit[columns], lengths) - X.data[right] / np.repeat(
        unit[others], lengths
    )
    same &= np.abs(difference) <= TOLERANCE
    if lengths.size == 0:
        return np.zeros(0, dtype=bool)
    return np.logical_and.reduceat(same, np.cumsum(lengths) - lengths)
