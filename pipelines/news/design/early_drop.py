"""N-grams left out before the matrix is assembled, by their products with the targets.

The matrix lies in blocks of rows on disk. Each block's products of its n-grams with the targets are
summed there; what the sums say can hardly enter the Lasso is never brought together. The proof that
it cannot is made along the path (`fitting.drop_proof`), from one more sum of this kind.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from actors.lasso.unit import TRAIN
from cluster.fingerprint import fingerprint
from cluster.nodes import Cluster
from cluster.shards import map_shards
from cluster.storage import Store
from pipelines.news.design import matrix
from pipelines.news.design.matrix import Design, Weighting, assemble, block_counts, column_scale
from pipelines.news.fitting.path import PathConfig

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint64]

# An n-gram is left out when its products with the targets, all taken as positive, stay below this
# share of what would let it enter. Residuals are mostly smaller than targets, so that hardly any
# below could; what the proof cannot exclude comes back, and the folds where it may enter are solved
# again.
SHARE = 0.5


@dataclass(frozen=True)
class Block:
    """One file of counted rows; ``start`` is the first row."""

    name: str
    start: int


@dataclass(frozen=True, eq=False)
class CountedRows:
    """The counted rows on disk, and all that makes a design matrix of them.

    Attributes
    ----------
    store : Store
    blocks : sequence of Block, in order
    n_rows, n_columns : int
        Of the count matrix.
    weighting : Weighting
    scaling : str
    key : str
        Fingerprint of the counts.
    """

    store: Store
    blocks: Sequence[Block]
    n_rows: int
    n_columns: int
    weighting: Weighting
    scaling: str
    key: str

    @property
    def gib(self) -> float:
        """What the design matrix of all n-grams would take."""
        return matrix_bytes(self.weighting.df) / 2**30

    def read(self) -> Iterator:
        """Read the blocks' counts one after the other."""
        for block in self.blocks:
            yield block_counts(self.store.read_arrays(block.name), self.n_columns)

    def design(self, kept: BoolArray | None = None) -> Design:
        """Assemble the design matrix of the n-grams ``kept``; default all."""
        return assemble(self.read(), self.weighting, kept, self.scaling)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over all rows for each n-gram, before scaling.

    Attributes
    ----------
    products : ndarray (n_ngrams, k)
        With each column summed against.
    squares, largest : ndarray (n_ngrams,)
    patterns : ndarray (n_ngrams, m), uint64
        Sums of row codes: equal for n-grams in the same rows.
    """

    products: FloatArray
    squares: FloatArray
    largest: FloatArray
    patterns: Codes


@dataclass(frozen=True, eq=False)
class Aside:
    """Which n-grams stay in the matrix, and what a proof about the others needs.

    Attributes
    ----------
    rows : CountedRows
    kept : ndarray (n_ngrams,), bool
    scale : ndarray (n_ngrams,)
        What each column is, or would be, divided by.
    norms : ndarray (n_ngrams,)
        Of the scaled columns.
    patterns : ndarray (n_ngrams, m), uint64
    """

    rows: CountedRows
    kept: BoolArray
    scale: FloatArray
    norms: FloatArray
    patterns: Codes

    @cached_property
    def saved_bytes(self) -> int:
        """What the columns left out would take in the matrix."""
        return matrix_bytes(self.rows.weighting.df[~self.kept])


def matrix_bytes(df: IntArray) -> int:
    """Return what columns with so many non-zeros take in a sparse matrix."""
    return int(12 * df.sum() + 4 * df.size)


def drop_early(
    rows: CountedRows,
    Y: FloatArray,
    roles: npt.NDArray[np.int8],
    path: PathConfig,
    cluster: Cluster,
    store: Store,
) -> Aside:
    """Leave out the n-grams that, by their products with the targets, cannot well enter.

    For target t let ``s_j`` be the largest over the folds of ``sum_i |x_ij| |y_i - mean| / n``. It
    bounds every ``|x_j' y_c| / n``, so with ``s_j`` below the smallest alpha neither alpha_max nor
    the grid depends on column j: what is left out changes no alpha.

    Parameters
    ----------
    Y : ndarray (n_samples, n_targets), NaN where undefined
    roles : ndarray (n_folds + 1, n_samples); the last row is all rows
    """
    n_targets = Y.shape[1]
    centred, heights, spread = _targets(Y, roles)
    against = np.column_stack((centred, heights, np.ones(Y.shape[0])))
    sums = sum_blocks(rows, against, _row_codes(Y), cluster, store)
    mean = sums.products[:, -1] / rows.n_rows
    scale = column_scale(rows.scaling, mean, sums.squares / rows.n_rows, sums.largest)
    norms = np.sqrt(sums.squares) / scale
    enters = np.zeros(scale.size, dtype=bool)
    for target in range(n_targets):
        highest = float(np.abs(sums.products[:, target] / scale).max())
        lowest = min(path.alpha_grid, default=highest / path.alpha_ratio)
        # The proof's radius comes on top, at most so large.
        radius = np.sqrt(2.0 * path.tol) * spread[target]
        heights_of = sums.products[:, n_targets + target] / scale
        enters |= heights_of + radius * norms >= SHARE * lowest
    return Aside(rows, with_twins(enters, sums.patterns), scale, norms, sums.patterns)


def with_twins(kept: BoolArray, patterns: Codes) -> BoolArray:
    """Keep too what lies in the same rows as a kept n-gram, on all rows or on a target's.

    Multiples do, so that an n-gram's aliases are all in the matrix, or none.
    """
    stays = kept.copy()
    for pattern in patterns.T:
        stays |= np.isin(pattern, pattern[kept]) & (pattern != 0)
    return stays


def sum_blocks(
    rows: CountedRows, against: FloatArray, codes: Codes, cluster: Cluster, store: Store
) -> Sums:
    """Sum each n-gram's products with ``against`` (n_samples, k) on the cluster, block by block."""
    weighting = rows.weighting
    key = fingerprint(
        rows.key, against, codes, weighting.columns, weighting.tfidf, sum_block, matrix
    )
    call = partial(sum_block, rows=rows, against=against, codes=codes)
    found = store / f"sums-{key}"
    done = map_shards(
        cluster, call, rows.blocks, found, fingerprint=key, verify=True, label="sum products"
    )
    p = weighting.columns.size
    total = Sums(
        np.zeros((p, against.shape[1])),
        np.zeros(p),
        np.zeros(p),
        np.zeros((p, codes.shape[1]), dtype=np.uint64),
    )
    for name in done.files:
        part = found.read_arrays(name)
        at = part["ngrams"]
        total.products[at] += part["products"]
        total.squares[at] += part["squares"]
        total.largest[at] = np.maximum(total.largest[at], part["largest"])
        total.patterns[at] += part["patterns"]
    return total


def sum_block(
    block: Block, store: Store, *, rows: CountedRows, against: FloatArray, codes: Codes
) -> dict[str, object]:
    """Write one block's sums of the n-grams that it has."""
    counts = block_counts(rows.store.read_arrays(block.name), rows.n_columns)
    weighted = rows.weighting.weigh(counts)
    ngrams = np.unique(weighted.indices)
    X = weighted[:, ngrams].tocsc()
    own = slice(block.start, block.start + counts.shape[0])
    starts = X.indptr[:-1]
    name = f"{block.start:012d}.npz"
    patterns: Codes = np.zeros((ngrams.size, codes.shape[1]), dtype=np.uint64)
    squares, largest = np.zeros(ngrams.size), np.zeros(ngrams.size)
    if ngrams.size:
        squares = np.add.reduceat(X.data * X.data, starts)
        largest = np.maximum.reduceat(X.data, starts)
        patterns = np.add.reduceat(codes[own].take(X.indices, axis=0), starts, axis=0)
    store.write_arrays(
        name,
        ngrams=ngrams.astype(np.int64),
        products=X.T @ against[own],
        squares=squares,
        largest=largest,
        patterns=patterns,
    )
    return {"rows": counts.shape[0], "files": [name]}


def centred_on(y: FloatArray, roles: npt.NDArray[np.int8]) -> tuple[FloatArray, int]:
    """Return the target less its mean on the training rows, 0 elsewhere, and how many they are."""
    rows = (roles == TRAIN) & np.isfinite(y)
    n = max(int(np.count_nonzero(rows)), 1)
    return np.where(rows, y - y[rows].sum() / n, 0.0), n


def _targets(
    Y: FloatArray, roles: npt.NDArray[np.int8]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return what columns are summed against, per target: all rows' y_c / n, and max |y_c| / n.

    The third part (n_targets,) is the largest ``||y_c|| / n`` of any fold.
    """
    centred, heights = np.zeros(Y.shape), np.zeros(Y.shape)
    spread = np.zeros(Y.shape[1])
    for target, y in enumerate(Y.T):
        for fold in roles:
            part, n = centred_on(y, fold)
            np.maximum(heights[:, target], np.abs(part) / n, out=heights[:, target])
            spread[target] = max(spread[target], float(np.linalg.norm(part)) / n)
        centred[:, target] = part / n
    return centred, heights, spread


def _row_codes(Y: FloatArray) -> Codes:
    """Return random row codes for each set of rows on which some target is defined."""
    random = np.random.default_rng(0)
    code: Codes = np.asarray(random.integers(1, 2**63, Y.shape[0], dtype=np.uint64))
    masks = {mask.tobytes(): mask for mask in np.isfinite(Y).T}
    defined = np.column_stack(list(masks.values()))
    return np.where(defined, code[:, None], np.uint64(0))
