"""A synthetic design like that of news n-grams, of any size, in bounded memory.

Half of the columns are drawn freely; the others, like a trigram within a bigram, hold a stretch of
the rows of a free column that is one to three times as frequent, so that near-duplicates abound.
Document frequencies follow a power law: at least 2, median 3, a heavy head.
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TAIL = 1.1  # P(df >= k) = (2 / k)^TAIL
LARGEST_SHARE = 0.3  # of the rows, in which the most frequent column stands
NESTED_UP_TO = 3.0  # times as frequent is the column that a nested one lies in, at most
PLANTED = 300  # columns with a true weight
PLANTED_SHARE = 1e-3  # of the rows, in which a planted column stands at least
RARITY = 0.25  # a planted column's typical weight falls with this power of its frequency
R2 = 0.2
_BLOCK = 2_000_000  # non-zeros drawn at once


def text_problem(
    n_samples: int, n_features: int, seed: int = 0
) -> tuple[sp.csc_matrix, FloatArray]:
    """Return a design and a standardised response, `R2` of which planted columns explain.

    Parameters
    ----------
    n_samples, n_features : int, 50 or more
    seed : int

    Returns
    -------
    X : csc_matrix (n_samples, n_features), float64, positive values, int32 indices
        Rows that are not empty have norm 1.
    y : ndarray (n_samples,)
    """
    X = text_matrix(n_samples, n_features, seed)
    rng = np.random.default_rng([seed, 1])
    counts = np.diff(X.indptr)
    frequent = np.flatnonzero(counts >= min(PLANTED_SHARE * n_samples, np.quantile(counts, 0.99)))
    planted = rng.choice(frequent, size=min(PLANTED, frequent.size), replace=False)
    # Rare words weigh more, yet the frequent ones explain most, as in real texts.
    weights = rng.laplace(size=planted.size) / counts[planted] ** RARITY
    signal = X[:, planted] @ weights
    signal = (signal - signal.mean()) / signal.std()
    y = np.sqrt(R2) * signal + np.sqrt(1 - R2) * rng.standard_normal(n_samples)
    return X, (y - y.mean()) / y.std()


def text_matrix(n_samples: int, n_features: int, seed: int = 0) -> sp.csc_matrix:
    """Return the design alone; the same for the same arguments, on any machine."""
    rng = np.random.default_rng([seed, 0])
    quantiles = (np.arange(n_features) + 0.5) / n_features
    frequency = np.minimum(2.0 * quantiles ** (-1 / TAIL), LARGEST_SHARE * n_samples)
    frequency = np.floor(frequency).astype(np.int64)  # falling
    nested = rng.random(n_features) < 0.5
    nested[: max(1, n_features // 1000)] = False
    free = np.flatnonzero(~nested)
    rows, indptr = _free_rows(n_samples, frequency[free], rng)
    parts = _nested_rows(rows, indptr, frequency[nested], rng)
    indices = np.concatenate((rows, *parts[0]))
    counts = np.zeros(n_features, dtype=np.int64)
    counts[free], counts[nested] = np.diff(indptr), parts[1]
    # Columns stand in no order of frequency, as n-grams in the order of the alphabet do not.
    order = np.concatenate((free, np.flatnonzero(nested)))
    place = rng.permutation(n_features)
    return _weigh(n_samples, indices, counts[order], place[order], rng)


def _free_rows(
    n_samples: int, frequency: IntArray, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int32], IntArray]:
    """Draw distinct rows for each column, rising; a draw that comes twice counts once."""
    parts: list[npt.NDArray[np.int32]] = []
    counts = np.zeros(frequency.size, dtype=np.int64)
    ends = np.cumsum(frequency)
    first = 0
    while first < frequency.size:
        base = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, base + _BLOCK)))
        owner = np.repeat(np.arange(last - first), frequency[first:last])
        keys = np.unique(owner * n_samples + rng.integers(0, n_samples, owner.size))
        counts[first:last] = np.bincount(keys // n_samples, minlength=last - first)
        parts.append((keys % n_samples).astype(np.int32))
        first = last
    return np.concatenate(parts), np.concatenate(([0], np.cumsum(counts)))


def _nested_rows(
    rows: npt.NDArray[np.int32],
    indptr: IntArray,
    frequency: IntArray,
    rng: np.random.Generator,
) -> tuple[list[npt.NDArray[np.int32]], IntArray]:
    """Give each column a stretch of the rows of a free column that is as frequent, or more."""
    # Duplicate draws let the frequencies of the free columns fall out of order a little.
    parents = np.argsort(-np.diff(indptr), kind="stable")
    size = -np.diff(indptr)[parents]
    low = np.searchsorted(size, -NESTED_UP_TO * frequency)
    high = np.searchsorted(size, -frequency, side="right")
    low = np.minimum(low, np.maximum(high - 1, 0))
    chosen = parents[low + (rng.random(frequency.size) * (high - low)).astype(np.int64)]
    lengths = np.minimum(frequency, np.diff(indptr)[chosen])
    slack = np.diff(indptr)[chosen] - lengths
    starts = indptr[chosen] + (rng.random(frequency.size) * (slack + 1)).astype(np.int64)
    ends = np.cumsum(lengths)
    parts: list[npt.NDArray[np.int32]] = []
    first = 0
    while first < lengths.size:
        base = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, base + _BLOCK)))
        offset = np.arange(base, ends[last - 1])
        shift = starts[first:last] - (ends[first:last] - lengths[first:last])
        parts.append(rows[offset + np.repeat(shift, lengths[first:last])])
        first = last
    return parts, lengths


def _weigh(
    n_samples: int,
    indices: npt.NDArray[np.int32],
    counts: IntArray,
    place: IntArray,
    rng: np.random.Generator,
) -> sp.csc_matrix:
    """Give every entry a tf-idf-like weight, put the columns in place, scale rows to norm 1."""
    idf = np.log((1 + n_samples) / (1 + counts)) + 1
    data = rng.uniform(0.5, 1.0, indices.size)
    data *= np.repeat(idf, counts)
    norm = np.sqrt(np.bincount(indices, weights=data * data, minlength=n_samples))
    data /= np.where(norm > 0, norm, 1.0)[indices]
    start = np.concatenate(([0], np.cumsum(counts)))
    by_place = np.argsort(place)
    X = sp.csc_matrix((n_samples, counts.size))
    X.indptr = np.concatenate(([0], np.cumsum(counts[by_place]))).astype(np.int32)
    source = np.repeat(start[:-1][by_place] - X.indptr[:-1], counts[by_place])
    source += np.arange(indices.size)
    X.data, X.indices = data[source], indices[source]
    X.has_sorted_indices = True
    return X
